"""Which values of a graph are known channels last and flattened, and how the nodes of such images are written.

An image is [batch, channels, height, width]; a signal [batch, channels, length] is one of height 1, a volume [batch,
channels, frames, height, width] one of frames * height rows. Flattened it is [1, 1, batch * height * width, channels].
"""

import dataclasses
import math
from typing import Any

from torch.fx import Node

from tt_dynamo.ir.graph import aten, is_call, shape_of, values_of
from tt_dynamo.passes import rewrite

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
        if x not in self.known and is_call(x, aten.permute.default, aten.reshape.default):
            self._look_through(x, *x.args)
        found = self.known.get(x)
        return None if found is None or dims and found.dim not in dims else found

    def _look_through(self, x: Node, source: Node, where: list[int]) -> None:
        rows = None  # what lies channels last, if x is an image of that
        order = list(where) if is_call(x, aten.permute.default) else None
        if order == TO_NCHW:
            last = self.find(source, 3)
            rows = last.node if last else source
        elif order == TO_NHWC and (first := self.find(source, 1)) is not None:
            self.known[x] = dataclasses.replace(first, dim=3)
        elif len(shape_of(x)) == 4 and is_call(source, aten.permute.default) and list(source.args[1]) == [0, 2, 1]:
            rows = source.args[0] if shape_of(x)[:2] == shape_of(source)[:2] else None  # patches, as they are embedded
        if rows is not None:
            batch, channels, *size = shape_of(x)
            self.known[x] = Flat(self.reshape(rows, 1, 1, batch * math.prod(size), channels), [batch, *size], 1)

    def flat(self, x: Node) -> tuple[Node, list[int]]:
        """An image or signal flattened to [1, 1, pixels, channels], and its batch, height and width."""
        if self.find(x, 1) is None:
            batch, channels, *lines, width = shape_of(x)
            image = [batch, math.prod(lines), width]
            moved = self.emit(aten.permute.default, self.reshape(x, batch, channels, *image[1:]), TO_NHWC)
            self.known[x] = Flat(self.reshape(moved, 1, 1, math.prod(image), channels), image, 1)
        return self.known[x].node, self.known[x].image

    def value(self, flat: Node, image: list[int], dim: int = 1) -> Node:
        """A flattened image in the shape of what is written, and known to be it from now on.

        dim: where its channels stand there, 1 or the last, 3.
        """
        batch, channels = image[0], shape_of(flat)[-1]
        if dim == 1:
            moved = self.emit(aten.permute.default, self.reshape(flat, *image, channels), TO_NCHW)
        made = self.reshape(moved if dim == 1 else flat, *self.shape)
        if self.shape[:2] == (batch, channels) or dim == 3:  # else an image without a batch
            self.known[made] = Flat(flat, image, dim)
        return made

    def pixelwise(self, target: Any, x: Flat, *args: Any) -> Node:
        """What an operation on the pixels of a flattened image gives, an image of the same size."""
        return self.value(self.emit(target, x.node, *args), x.image, x.dim)


def pair(values: list[int]) -> list[int]:
    return list(values) * 2 if len(values) == 1 else list(values)
