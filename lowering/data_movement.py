"""Moves of data: ATen node → TTNN calls.

What begins or joins inside a tile moves in ROW_MAJOR: TTNN would untilize and tilize around every call, while between
two moves the value may stay as it is. What moves along whole tiles keeps its layout.
"""

import itertools
from collections.abc import Callable

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.ir.spec import Columns
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.language.decode import into_columns
from tt_dynamo.lowering.memory import across, assigned, beside, cores, is_sharded, left_its_shards, lies_beside
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower
from tt_dynamo.lowering.workarounds import TILE


def in_layout(ttnn: TTNN, x: Tensor, layout):
    """x in a layout of TTNN, where it lies: what is sharded must fill its tiles."""
    if x.layout == layout:
        return x
    if is_sharded(x):
        workarounds.check_tiles_of_shards(x)
    return ttnn.to_layout(x, layout)


@lower(operators.to_layout, sharded=True, x=Need("any"))
def to_layout(ttnn: TTNN, x: Tensor, layout):
    """x in the layout "TILE" or "ROW_MAJOR"; rows become tiles where they lie, and tiles of shards rows in DRAM."""
    if is_sharded(x) and layout == "ROW_MAJOR":  # what reads rows takes them interleaved
        workarounds.check_tiles_of_shards(x)
        return ttnn.to_layout(x, ttnn.ROW_MAJOR_LAYOUT, memory_config=ttnn.DRAM_MEMORY_CONFIG)
    return in_layout(ttnn, x, getattr(ttnn, f"{layout}_LAYOUT"))


@lower(aten.reshape.default, aten.view.default, aten._unsafe_view.default, gives="same", self=Need("any"))
def reshape(ttnn: TTNN, x: Tensor, shape):
    """x with the same elements in another shape; of shards only as a view of the same matrices."""
    if is_sharded(x) and tuple(shape[-2:]) != x.shape[-2:]:
        raise Refused("ttnn.reshape: shards are viewed as the same matrices alone")
    if isinstance(ttnn.memory, Columns) and not is_sharded(x):
        return into_columns(ttnn, x, shape)
    return ttnn.reshape(x, tuple(shape))


@lower(aten.unsqueeze.default, gives="same", self=Need("any"))
def unsqueeze(ttnn: TTNN, x: Tensor, dim):
    """x with a dimension of one more."""
    shape = list(x.shape)
    shape.insert(dim % (len(shape) + 1), 1)
    return ttnn.reshape(x, tuple(shape))


@lower(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, gives="same", self=Need("any"))
def squeeze(ttnn: TTNN, x: Tensor, dim=None):
    """x without its dimensions of one, or without those among `dim`."""
    rank = len(x.shape)
    dims = range(rank) if dim is None else {d % max(rank, 1) for d in ([dim] if isinstance(dim, int) else dim)}
    return ttnn.reshape(x, tuple(size for d, size in enumerate(x.shape) if size != 1 or d not in dims))


@lower(aten.transpose.int, gives="same", self=Need("any"))
def transpose(ttnn: TTNN, x: Tensor, first, second):
    """x with two dimensions exchanged."""
    order = list(range(len(x.shape)))
    if order:
        order[first], order[second] = order[second], order[first]
    return permute(ttnn, x, order)


@lower(aten.permute.default, gives="same", self=Need("any"))
def permute(ttnn: TTNN, x: Tensor, dims):
    """x with its dimensions in another order."""
    workarounds.refuse_integers(ttnn, x)
    return ttnn.permute(x, tuple(dims))


def _with_rank(ttnn: TTNN, x: Tensor, rank):
    """x with dimensions of one in front."""
    return ttnn.reshape(x, (*[1] * (rank - len(x.shape)), *x.shape)) if rank > len(x.shape) else x


@lower(aten.expand.default)
def expand(ttnn: TTNN, x: Tensor, size, implicit=False):
    """x repeated along dimensions of size 1; -1 keeps a size."""
    if not size:
        return ttnn.clone(x)
    x = _with_rank(ttnn, x, len(size))
    return ttnn.expand(x, tuple(old if new == -1 else new for new, old in zip(size, x.shape, strict=True)))


@lower(aten.clone.default, gives="same", self=Need("any"))
def clone(ttnn: TTNN, x: Tensor, memory_format=None):
    """A copy."""
    return ttnn.clone(x)


def _by_shapes(layout: Callable[..., str]) -> Callable[[Node], str]:
    """A layout that a node's arguments decide, with the shapes of tensors in their places."""
    return lambda node: layout(*map_arg(node.args, shape_of), **node.kwargs)


@_by_shapes
def _joins(shapes, dim=0):
    """TILE joins columns of any width, leading dimensions, and rows that fill their tiles."""
    rank = len(shapes[0])
    inside = rank == 1 or (dim % rank == rank - 2 and any(shape[dim] % TILE for shape in shapes))
    return "ROW_MAJOR" if inside else "TILE"


@lower(aten.cat.default, gives=_joins, sharded=True, tensors=Need(_joins))
def cat(ttnn: TTNN, tensors, dim=0):
    """Tensors joined along `dim`."""
    if any(map(is_sharded, tensors)):
        return _joined_in_shards(ttnn, tensors, dim)
    if dim % len(tensors[0].shape) == len(tensors[0].shape) - 1 and any(x.shape[-1] % TILE for x in tensors):
        workarounds.refuse_integers(ttnn, tensors[0])  # columns that fill no tiles are joined as rows
    if len({x.dtype for x in tensors}) > 1:  # a cache may hold block floats
        tensors = [ttnn.typecast(x, ttnn.bfloat16) if x.dtype == ttnn.bfloat8_b else x for x in tensors]
    return ttnn.concat([*tensors], dim=dim)  # TTNN takes no other sequence, such as a graph's


def _joined_in_shards(ttnn: TTNN, tensors, dim):
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

    def moved(x):
        return x if lies_beside(x, there) else ttnn.to_memory_config(x, beside(ttnn, there, x.shape[-1]))

    return ttnn.concat([*map(moved, tensors)], dim=dim, memory_config=beside(ttnn, there, columns))


def bounds(size, start=None, end=None, step=1):
    """The start and end of a slice as positions in [0, size]."""
    start, end, _ = slice(start, end, step).indices(size)
    return start, max(start, end)


def _pieces(shape, dim, starts):
    """What begins on whole tiles keeps its layout; where a piece begins inside a tile, all are cut as rows."""
    inside = len(shape) == 1 or (dim % len(shape) >= len(shape) - 2 and any(start % TILE for start in starts))
    return "ROW_MAJOR" if inside else "any"


@_by_shapes
def _slices(shape, dim=0, start=None, end=None, step=1):
    return _pieces(shape, dim, [bounds(shape[dim], start, end)[0]]) if step == 1 else "ROW_MAJOR"


@_by_shapes
def _selects(shape, dim, index):
    return _pieces(shape, dim, [index % shape[dim]])


@_by_shapes
def _unbinds(shape, dim=0):
    return _pieces(shape, dim, range(shape[dim]))


@_by_shapes
def _splits(shape, sizes, dim=0):
    return _pieces(shape, dim, _starts(shape[dim], sizes))


def _starts(whole, sizes):
    """Where the parts of a split begin: of these sizes, or of one size and a rest."""
    return range(0, whole, sizes) if isinstance(sizes, int) else itertools.accumulate(sizes[:-1], initial=0)


def _sliced(ttnn: TTNN, x: Tensor, dim, start, stop, step=1):
    rank = len(x.shape)
    places = [(start, stop, step) if d == dim % rank else (0, x.shape[d], 1) for d in range(rank)]
    if not is_sharded(x):
        return ttnn.slice(x, *zip(*places, strict=True), **assigned(ttnn))
    piece = ttnn.slice(x, *zip(*places, strict=True), memory_config=ttnn.DRAM_MEMORY_CONFIG)
    return ttnn.typecast(piece, ttnn.bfloat16) if x.dtype == ttnn.bfloat8_b else piece


@lower(aten.slice.Tensor, gives=_slices, self=Need(_slices))
def slice_(ttnn: TTNN, x: Tensor, dim=0, start=None, end=None, step=1):
    """Elements start, start + step, … below end along `dim`; negative positions count from the end."""
    start, end = bounds(x.shape[dim], start, end, step)
    return _sliced(ttnn, x, dim, start, end, step)


@lower(aten.select.int, gives=_selects, self=Need(_selects))
def select(ttnn: TTNN, x: Tensor, dim, index: Tensor):
    """The slice at `index` of `dim`, without that dimension."""
    dim, index = dim % len(x.shape), index % x.shape[dim]
    return ttnn.reshape(_sliced(ttnn, x, dim, index, index + 1), (*x.shape[:dim], *x.shape[dim + 1 :]))


@lower(aten.unbind.int, gives=_unbinds, self=Need(_unbinds))
def unbind(ttnn: TTNN, x: Tensor, dim=0):
    """Every slice along `dim`, without that dimension."""
    return tuple(select(ttnn, x, dim, index) for index in range(x.shape[dim]))


@lower(aten.split.Tensor, aten.split_with_sizes.default, gives=_splits, self=Need(_splits))
def split(ttnn: TTNN, x: Tensor, sizes, dim=0):
    """Consecutive pieces of the given sizes along `dim`, or of one size but the last, where that does not divide."""
    places = itertools.pairwise([*_starts(x.shape[dim], sizes), x.shape[dim]])
    return tuple(_sliced(ttnn, x, dim, start, end) for start, end in places)


@lower(aten.repeat.default)
def repeat(ttnn: TTNN, x: Tensor, repeats):
    """x repeated `repeats` times along each dimension."""
    return ttnn.repeat(_with_rank(ttnn, x, len(repeats)), tuple(repeats)) if repeats else ttnn.clone(x)


@_by_shapes
def _pads(shape, pad, value=0):
    """Tiles take no padding in front."""
    return "ROW_MAJOR" if any(pad[::2]) else "TILE"


@lower(aten.constant_pad_nd.default, gives=_pads, self=Need(_pads))
def pad(ttnn: TTNN, x: Tensor, pad, value=0):
    """x with `value` around it; `pad` holds (before, after) pairs from the last dimension on."""
    if x.dtype == ttnn.int32 and int(torch.tensor(value, dtype=torch.float32)) != value:
        raise Unsupported(f"{value} as a float32, which TTNN takes for integers too, is another number")
    pairs = [*zip(pad[::2], pad[1::2], strict=True), *[(0, 0)] * (len(x.shape) - len(pad) // 2)]
    return ttnn.pad(x, pairs[::-1], float(value))
