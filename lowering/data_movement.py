"""Moves of data: ATen node → TTNN calls."""

from __future__ import annotations

from tt_dynamo import operators
from tt_dynamo.graph import aten
from tt_dynamo.lowering.registry import Need, lower
from tt_dynamo.lowering.workarounds import TILE


def in_layout(ttnn, x, layout):
    return x if x.layout == layout else ttnn.to_layout(x, layout)


@lower(operators.to_layout, x=Need("any"))
def to_layout(ttnn, x, layout):
    """x in the layout "TILE" or "ROW_MAJOR"."""
    return ttnn.to_layout(x, ttnn.TILE_LAYOUT if layout == "TILE" else ttnn.ROW_MAJOR_LAYOUT)


@lower(aten.reshape.default, gives="same", self=Need("any"))
def reshape(ttnn, x, shape):
    """x with the same elements in another shape."""
    return ttnn.reshape(x, tuple(shape))


@lower(aten.permute.default, gives="same", self=Need("any"))
def permute(ttnn, x, dims):
    """x with its dimensions in another order."""
    return ttnn.permute(x, tuple(dims))


@lower(aten.expand.default)
def expand(ttnn, x, size, implicit=False):
    """x repeated along dimensions of size 1; -1 keeps a size."""
    missing = len(size) - len(x.shape)
    if missing:
        x = ttnn.reshape(x, (*[1] * missing, *x.shape))
    return ttnn.expand(x, tuple(old if new == -1 else new for new, old in zip(size, x.shape, strict=True)))


@lower(aten.clone.default, gives="same", self=Need("any"))
def clone(ttnn, x, memory_format=None):
    """A copy."""
    return ttnn.clone(x)


@lower(aten.cat.default, tensors=Need("any"))
def cat(ttnn, tensors, dim=0):
    """Tensors joined along `dim`; through row-major where rows or columns fill no whole tiles."""
    rank = len(tensors[0].shape)
    aligned = all(x.shape[d] % TILE == 0 for x in tensors for d in range(max(rank - 2, 0), rank))
    layout = ttnn.TILE_LAYOUT if aligned else ttnn.ROW_MAJOR_LAYOUT
    joined = ttnn.concat([in_layout(ttnn, x, layout) for x in tensors], dim=dim)
    return in_layout(ttnn, joined, ttnn.TILE_LAYOUT)


def _sliced(ttnn, x, dim, start, stop, step=1):
    begins, ends, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    begins[dim], ends[dim], steps[dim] = start, stop, step
    return ttnn.slice(x, tuple(begins), tuple(ends), tuple(steps))


@lower(aten.slice.Tensor)
def slice_(ttnn, x, dim=0, start=None, end=None, step=1):
    """Elements start, start + step, … below end along `dim`; negative positions count from the end."""
    size = x.shape[dim]
    start, end = (0 if start is None else start), (size if end is None else end)
    start, end = (min(max(p + size if p < 0 else p, 0), size) for p in (start, end))
    return _sliced(ttnn, x, dim % len(x.shape), start, end, step)


@lower(aten.select.int)
def select(ttnn, x, dim, index):
    """The slice at `index` of `dim`, without that dimension."""
    dim %= len(x.shape)
    index %= x.shape[dim]
    shape = [size for d, size in enumerate(x.shape) if d != dim]
    return ttnn.reshape(_sliced(ttnn, x, dim, index, index + 1), tuple(shape))


@lower(aten.unbind.int)
def unbind(ttnn, x, dim=0):
    """Every slice along `dim`, without that dimension."""
    return tuple(select(ttnn, x, dim, index) for index in range(x.shape[dim]))


@lower(aten.split_with_sizes.default)
def split_with_sizes(ttnn, x, sizes, dim=0):
    """Consecutive pieces of the given sizes along `dim`."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(_sliced(ttnn, x, dim % len(x.shape), start, start + size))
        start += size
    return tuple(pieces)


@lower(aten.split.Tensor)
def split(ttnn, x, size, dim=0):
    """Consecutive pieces of `size` along `dim`, the last one shorter where it does not divide."""
    whole = x.shape[dim]
    return split_with_sizes(ttnn, x, [min(size, whole - start) for start in range(0, whole, size)], dim)


@lower(aten.repeat.default)
def repeat(ttnn, x, repeats):
    """x repeated `repeats` times along each dimension."""
    missing = len(repeats) - len(x.shape)
    if missing:
        x = ttnn.reshape(x, (*[1] * missing, *x.shape))
    return ttnn.repeat(x, tuple(repeats))


@lower(aten.constant_pad_nd.default)
def pad(ttnn, x, pad, value=0):
    """x with `value` around it; `pad` holds (before, after) pairs from the last dimension on."""
    pairs = [(0, 0)] * (len(x.shape) - len(pad) // 2)
    pairs += [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    return ttnn.pad(x, pairs, float(value))
