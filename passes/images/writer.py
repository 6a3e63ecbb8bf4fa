"""Which values of a graph are known channels last and flattened, and how the nodes of such images are written.

An image is [batch, channels, height, width]; a signal [batch, channels, length] is one of height 1, and one without a
batch is a batch of one. Flattened it is [1, 1, batch * height * width, channels].
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.graph import aten, is_call, shape_of, values_of
from tt_dynamo.passes import rewrite

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
TO_NCHW = [0, 3, 1, 2]
TO_NHWC = [0, 2, 3, 1]


@dataclasses.dataclass(frozen=True)
class Flat:
    """A value of the graph, flattened. image: batch, height, width; dim: where its channels stand in the value."""

    node: Node
    image: list[int]
    dim: int


@dataclasses.dataclass(frozen=True)
class ImageWriter:
    """Writes the nodes that take the place of `like`; `known` is shared by all writers of a pass."""

    like: Node
    known: dict[Node, Flat]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of what is written: the first result of `like`."""
        return tuple(values_of(self.like)[0].shape)

    def emit(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return rewrite.emit(self.like, target, *args, **kwargs)

    def reshape(self, x: Node, *shape: int) -> Node:
        return x if shape_of(x) == shape else self.emit(aten.reshape.default, x, list(shape))

    def find(self, x: Any, *dims: int) -> Flat | None:
        """x as it is known flattened: it was made so, or is a move of what lies channels last.

        dims: where its channels must stand in x, if that matters.
        """
        if x not in self.known and is_call(x, aten.permute.default):
            self._find_moved(x, *x.args)
        elif x not in self.known and is_call(x, aten.reshape.default) and len(shape_of(x)) == 4:
            self._find_patches(x, x.args[0])
        found = self.known.get(x)
        return None if found is None or dims and found.dim not in dims else found

    def _find_moved(self, x: Node, source: Node, order: list[int]) -> None:
        if list(order) == TO_NCHW:
            last = self.find(source, 3)
            self._know(x, last.node if last else source)
        elif list(order) == TO_NHWC and (first := self.find(source, 1)) is not None:
            self.known[x] = dataclasses.replace(first, dim=3)

    def _find_patches(self, x: Node, moved: Node) -> None:
        """Those of `passes/images/patch_embedding.py`: [batch, patches, channels] as an image."""
        batch, channels, height, width = shape_of(x)
        is_moved = is_call(moved, aten.permute.default) and list(moved.args[1]) == [0, 2, 1]
        if is_moved and shape_of(moved) == (batch, channels, height * width):
            self._know(x, moved.args[0])

    def _know(self, x: Node, last: Node) -> None:
        batch, channels, height, width = shape_of(x)
        flat = self.reshape(last, 1, 1, batch * height * width, channels)
        self.known[x] = Flat(flat, [batch, height, width], 1)

    def flat(self, x: Node, batched: bool = True) -> tuple[Node, list[int]]:
        """An image or signal flattened to [1, 1, pixels, channels], and its batch, height and width."""
        shape = shape_of(x)
        if len(shape) == 3:
            shape = (*shape[:2], 1, shape[2]) if batched else (1, *shape)
        dim = 1 if batched else 0
        found = self.find(x, dim)
        if found is None:
            batch, channels, height, width = shape
            moved = self.emit(aten.permute.default, self.reshape(x, *shape), TO_NHWC)
            flat = self.reshape(moved, 1, 1, batch * height * width, channels)
            self.known[x] = found = Flat(flat, [batch, height, width], dim)
        return found.node, found.image

    def value(self, flat: Node, image: list[int], last: bool = False) -> Node:
        """A flattened image in the shape of what is written, and known to be it from now on.

        last: its channels stand last there as well.
        """
        batch, height, width = image
        channels, shape = shape_of(flat)[-1], self.shape
        if last:
            made, dim = self.reshape(flat, *shape), 3
        else:
            moved = self.emit(aten.permute.default, self.reshape(flat, batch, height, width, channels), TO_NCHW)
            made = self.reshape(moved, *shape)
            dim = 0 if len(shape) == 3 and shape != (batch, channels, height * width) else 1
        self.known[made] = Flat(flat, image, dim)
        return made


def arguments_of(node: Node) -> list[Any]:
    """All of the schema's arguments, in order, with its defaults for those that are not given."""
    schema = getattr(node.target, "_schema", None)
    left_out = schema.arguments[len(node.args) :] if schema else ()
    return [*node.args, *(node.kwargs.get(argument.name, argument.default_value) for argument in left_out)]


def pair(values: int | list[int]) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * 2 if len(values) == 1 else values
