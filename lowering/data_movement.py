"""Moves of data: ATen node → TTNN calls.

What begins or joins inside a tile moves in ROW_MAJOR: TTNN would untilize and tilize around every call, while between
two moves the value may stay as it is. What moves along whole tiles keeps its layout.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.memory import across, beside, cores, is_sharded, left_its_shards, lies_beside
from tt_dynamo.lowering.registry import Need, lower
from tt_dynamo.lowering.workarounds import TILE


def in_layout(ttnn, x, layout):
    """x in a layout of TTNN, where it lies: what is sharded must fill its tiles."""
    if x.layout == layout:
        return x
    if is_sharded(x):
        workarounds.check_tiles_of_shards(x)
    return ttnn.to_layout(x, layout)


@lower(operators.to_layout, sharded=True, x=Need("any"))
def to_layout(ttnn, x, layout):
    """x in the layout "TILE" or "ROW_MAJOR"; of what is sharded only rows become tiles where they lie."""
    if is_sharded(x) and layout == "ROW_MAJOR":
        raise Refused("ttnn.to_layout: what reads rows takes them interleaved")
    return in_layout(ttnn, x, getattr(ttnn, f"{layout}_LAYOUT"))


@lower(aten.reshape.default, aten.view.default, aten._unsafe_view.default, gives="same", self=Need("any"))
def reshape(ttnn, x, shape):
    """x with the same elements in another shape."""
    return ttnn.reshape(x, tuple(shape))


@lower(aten.unsqueeze.default, gives="same", self=Need("any"))
def unsqueeze(ttnn, x, dim):
    """x with a dimension of one more."""
    shape = list(x.shape)
    shape.insert(dim % (len(shape) + 1), 1)
    return ttnn.reshape(x, tuple(shape))


@lower(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, gives="same", self=Need("any"))
def squeeze(ttnn, x, dim=None):
    """x without its dimensions of one, or without those among `dim`."""
    rank = len(x.shape)
    dims = range(rank) if dim is None else {d % max(rank, 1) for d in ([dim] if isinstance(dim, int) else dim)}
    return ttnn.reshape(x, tuple(size for d, size in enumerate(x.shape) if size != 1 or d not in dims))


@lower(aten.transpose.int, gives="same", self=Need("any"))
def transpose(ttnn, x, first, second):
    """x with two dimensions exchanged."""
    order = list(range(len(x.shape)))
    if order:
        order[first], order[second] = order[second], order[first]
    return permute(ttnn, x, order)


@lower(aten.permute.default, gives="same", self=Need("any"))
def permute(ttnn, x, dims):
    """x with its dimensions in another order."""
    workarounds.refuse_integers(ttnn, x)
    return ttnn.permute(x, tuple(dims))


@lower(aten.expand.default)
def expand(ttnn, x, size, implicit=False):
    """x repeated along dimensions of size 1; -1 keeps a size."""
    if not size:
        return ttnn.clone(x)
    missing = len(size) - len(x.shape)
    if missing:
        x = ttnn.reshape(x, (*[1] * missing, *x.shape))
    return ttnn.expand(x, tuple(old if new == -1 else new for new, old in zip(size, x.shape, strict=True)))


@lower(aten.clone.default, gives="same", self=Need("any"))
def clone(ttnn, x, memory_format=None):
    """A copy."""
    return ttnn.clone(x)


def _operand_shapes(node: Node) -> list[tuple[int, ...]]:
    first = node.args[0]
    return [shape_of(x) for x in first] if isinstance(first, (list, tuple)) else [shape_of(first)]


def _joins(node: Node) -> str:
    """TILE joins columns of any width, leading dimensions, and rows that fill their tiles."""
    shapes = _operand_shapes(node)
    rank = len(shapes[0])
    dim = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % rank
    if rank == 1 or (dim == rank - 2 and any(shape[dim] % TILE for shape in shapes)):
        return "ROW_MAJOR"
    return "TILE"


@lower(aten.cat.default, gives=_joins, sharded=True, tensors=Need(_joins))
def cat(ttnn, tensors, dim=0):
    """Tensors joined along `dim`."""
    if any(map(is_sharded, tensors)):
        return _joined_in_shards(ttnn, tensors, dim)
    if dim % len(tensors[0].shape) == len(tensors[0].shape) - 1 and any(x.shape[-1] % TILE for x in tensors):
        workarounds.refuse_integers(ttnn, tensors[0])  # columns that fill no tiles are joined as rows
    return ttnn.concat([*tensors], dim=dim)  # TTNN takes no other sequence, such as a graph's


def _joined_in_shards(ttnn, tensors, dim):
    """Columns joined on the cores where the rows of most of them lie, and of such places where cores are the most.

    The cores must share the columns evenly: nothing is written where shards end in padding, and what a convolution
    multiplies there with its zeros may be no number.
    """
    workarounds.check_joined_shards(tensors, dim)
    if any(map(left_its_shards, tensors)):
        raise Refused("ttnn.concat: what had to leave L1 is joined where it went")
    columns = sum(x.shape[-1] for x in tensors)

    def moving(there):
        return [x for x in tensors if not lies_beside(x, there)]

    def is_even(there):
        return all(count % (across(there) * TILE) == 0 for count in (columns, *(x.shape[-1] for x in moving(there))))

    sharded = [x for x in tensors if is_sharded(x)]
    places = [x for x in sharded if len(moving(x)) <= len(sharded) and is_even(x)]
    if not places:
        raise Refused("ttnn.concat: no cores share the columns evenly, or more moves bring them there than to DRAM")
    there = min(places, key=lambda x: (len(moving(x)), -cores(x)))
    parts = [
        x if lies_beside(x, there) else ttnn.to_memory_config(x, beside(ttnn, there, x.shape[-1])) for x in tensors
    ]
    return ttnn.concat(parts, dim=dim, memory_config=beside(ttnn, there, columns))


def bounds(size, start=None, end=None, step=1):
    """The start and end of a slice as positions in [0, size]."""
    start, end, _ = slice(start, end, step).indices(size)
    return start, max(start, end)


def _cuts(node: Node) -> str:
    """Whether a slice begins on whole tiles, which keep their layout, or inside one."""
    (shape,) = _operand_shapes(node)
    given = [*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :]]
    dim, start, end, step = given[0] % len(shape), *given[1:]
    inside = len(shape) == 1 or (dim >= len(shape) - 2 and bounds(shape[dim], start, end, step)[0] % TILE)
    return "ROW_MAJOR" if inside or step != 1 else "any"


def _selects(node: Node) -> str:
    (shape,) = _operand_shapes(node)
    dim, index = node.args[1] % len(shape), node.args[2]
    inside = len(shape) == 1 or (dim >= len(shape) - 2 and index % shape[dim] % TILE)
    return "ROW_MAJOR" if inside else "any"


def _splits(node: Node) -> str:
    """Of several pieces, all in the layout of the one that is hardest to cut."""
    (shape,) = _operand_shapes(node)
    dim = (node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)) % len(shape)
    sizes = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    inside = len(shape) == 1 or (dim >= len(shape) - 2 and any(size % TILE for size in sizes[: len(sizes) - 1 or 1]))
    return "ROW_MAJOR" if inside else "any"


def _unbinds(node: Node) -> str:
    (shape,) = _operand_shapes(node)
    dim = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % len(shape)
    return "ROW_MAJOR" if dim >= len(shape) - 2 and shape[dim] > 1 else "any"


def _same(layout):
    """What a lowering gives that keeps the layout of an operand which may have any."""
    return lambda node: "same" if layout(node) == "any" else layout(node)


def _sliced(ttnn, x, dim, start, stop, step=1):
    begins, ends, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    begins[dim], ends[dim], steps[dim] = start, stop, step
    return ttnn.slice(x, tuple(begins), tuple(ends), tuple(steps))


@lower(aten.slice.Tensor, gives=_same(_cuts), self=Need(_cuts))
def slice_(ttnn, x, dim=0, start=None, end=None, step=1):
    """Elements start, start + step, … below end along `dim`; negative positions count from the end."""
    start, end = bounds(x.shape[dim], start, end, step)
    return _sliced(ttnn, x, dim % len(x.shape), start, end, step)


@lower(aten.select.int, gives=_same(_selects), self=Need(_selects))
def select(ttnn, x, dim, index):
    """The slice at `index` of `dim`, without that dimension."""
    dim %= len(x.shape)
    index %= x.shape[dim]
    shape = [size for d, size in enumerate(x.shape) if d != dim]
    return ttnn.reshape(_sliced(ttnn, x, dim, index, index + 1), tuple(shape))


@lower(aten.unbind.int, gives=_same(_unbinds), self=Need(_unbinds))
def unbind(ttnn, x, dim=0):
    """Every slice along `dim`, without that dimension."""
    return tuple(select(ttnn, x, dim, index) for index in range(x.shape[dim]))


@lower(aten.split_with_sizes.default, gives=_same(_splits), self=Need(_splits))
def split_with_sizes(ttnn, x, sizes, dim=0):
    """Consecutive pieces of the given sizes along `dim`."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(_sliced(ttnn, x, dim % len(x.shape), start, start + size))
        start += size
    return tuple(pieces)


@lower(aten.split.Tensor, gives=_same(_splits), self=Need(_splits))
def split(ttnn, x, size, dim=0):
    """Consecutive pieces of `size` along `dim`, the last one shorter where it does not divide."""
    whole = x.shape[dim]
    return split_with_sizes(ttnn, x, [min(size, whole - start) for start in range(0, whole, size)], dim)


@lower(aten.repeat.default)
def repeat(ttnn, x, repeats):
    """x repeated `repeats` times along each dimension."""
    if not repeats:
        return ttnn.clone(x)
    missing = len(repeats) - len(x.shape)
    if missing:
        x = ttnn.reshape(x, (*[1] * missing, *x.shape))
    return ttnn.repeat(x, tuple(repeats))


def _require_exact(number):
    """TTNN takes a number for integers as a float32."""
    if int(torch.tensor(number, dtype=torch.float32)) != number:
        raise Unsupported(f"{number} as a float32 is another number")


def _pads(node: Node) -> str:
    """Tiles take no padding in front."""
    return "ROW_MAJOR" if any(node.args[1][::2]) else "TILE"


@lower(aten.constant_pad_nd.default, gives=_pads, self=Need(_pads))
def pad(ttnn, x, pad, value=0):
    """x with `value` around it; `pad` holds (before, after) pairs from the last dimension on."""
    if x.dtype == ttnn.int32:
        _require_exact(value)
    pairs = [(0, 0)] * (len(x.shape) - len(pad) // 2)
    pairs += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    return ttnn.pad(x, pairs, float(value))
