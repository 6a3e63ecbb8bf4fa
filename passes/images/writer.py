"""Which values of a graph are known channels last and flattened, and how the nodes of such images are written.

An image is [batch, channels, height, width]; a signal [batch, channels, length] is one of height 1, and one without a
batch is a batch of one. Flattened it is [1, 1, batch * height * width, channels].
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import aten, insert, is_call, shape_of

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
TO_NCHW = [0, 3, 1, 2]
TO_NHWC = [0, 2, 3, 1]


@dataclasses.dataclass(frozen=True)
class Flat:
    """A value of the graph, flattened. dim: where its channels stand in the value itself."""

    node: Node
    batch: int
    height: int
    width: int
    dim: int

    @property
    def image(self) -> list[int]:
        return [self.batch, self.height, self.width]


class ImageWriter:
    """Writes the nodes that take the place of one; `known` is shared by all writers of a pass."""

    def __init__(self, graph: Graph, like: Node, known: dict[Node, Flat] | None = None) -> None:
        self.graph, self.like = graph, like
        self.known = {} if known is None else known

    def emit(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return insert(self.graph, target, args, kwargs, like=self.like)

    def reshape(self, x: Node, *shape: int) -> Node:
        return x if shape_of(x) == shape else self.emit(aten.reshape.default, x, list(shape))

    def find(self, x: Any) -> Flat | None:
        """x as it is known flattened: it was made so, or is a move of what lies channels last."""
        if x in self.known or not isinstance(x, Node):
            return self.known.get(x)
        if is_call(x, aten.permute.default):
            self._find_moved(x, *x.args)
        elif is_call(x, aten.reshape.default) and len(shape_of(x)) == 4:
            self._find_patches(x, x.args[0])
        return self.known.get(x)

    def _find_moved(self, x: Node, source: Node, order: list[int]) -> None:
        known = self.find(source)
        if list(order) == TO_NCHW:
            batch, channels, height, width = shape_of(x)
            last = known if known is not None and known.dim == 3 else None
            flat = last.node if last else self.reshape(source, 1, 1, batch * height * width, channels)
            self.known[x] = Flat(flat, batch, height, width, 1)
        elif list(order) == TO_NHWC and known is not None and known.dim == 1:
            self.known[x] = dataclasses.replace(known, dim=3)

    def _find_patches(self, x: Node, moved: Node) -> None:
        """Those of `passes/images/patch_embedding.py`: [batch, patches, channels] as an image."""
        batch, channels, height, width = shape_of(x)
        if not is_call(moved, aten.permute.default) or shape_of(moved) != (batch, channels, height * width):
            return
        if list(moved.args[1]) == [0, 2, 1]:
            flat = self.reshape(moved.args[0], 1, 1, batch * height * width, channels)
            self.known[x] = Flat(flat, batch, height, width, 1)

    def flat(self, x: Node, batched: bool = True) -> tuple[Node, list[int]]:
        """An image or signal flattened to [1, 1, pixels, channels], and its batch, height and width."""
        shape = shape_of(x)
        if len(shape) == 3:
            shape = (*shape[:2], 1, shape[2]) if batched else (1, *shape)
        found, dim = self.find(x), 1 if batched else 0
        if found is None or found.dim != dim:
            batch, channels, height, width = shape
            moved = self.emit(aten.permute.default, self.reshape(x, *shape), TO_NHWC)
            moved = self.reshape(moved, 1, 1, batch * height * width, channels)
            self.known[x] = found = Flat(moved, batch, height, width, dim)
        return found.node, found.image

    def image(self, flat: Node, batch: int, channels: int, height: int, width: int) -> Node:
        """A flattened image as [batch, channels, height, width]."""
        moved = self.reshape(flat, batch, height, width, channels)
        return self.emit(aten.permute.default, moved, TO_NCHW)

    def value(self, flat: Node, image: list[int], like: tuple[int, ...], last: bool = False) -> Node:
        """A flattened image in a shape of rank 3 or 4 with the same elements, and known to be it from now on.

        last: its channels stand last there as well.
        """
        batch, height, width = image
        channels = shape_of(flat)[-1]
        if last:
            made, dim = self.reshape(flat, *like), 3
        else:
            made = self.reshape(self.image(flat, batch, channels, height, width), *like)
            dim = 0 if len(like) == 3 and like != (batch, channels, height * width) else 1
        self.known[made] = Flat(flat, batch, height, width, dim)
        return made
