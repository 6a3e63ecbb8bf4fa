"""Fourier transforms of real values, read as their real and imaginary parts, as products with cosines and sines.

Before   y = select(view_as_real(_fft_c2c(x as complex64, [1, 2], …)), -1, 0)
After    y = rowsᵀ x columns - rows'ᵀ x columns'      of cosines, and of sines

TTNN has no complex numbers. A product of n by n takes longer than a fast transform from some thousands on, so longer
ones stay as they are, and so do those of complex inputs.
Source of the sum: Cooley & Tukey 1965, https://doi.org/10.1090/S0025-5718-1965-0178586-1
"""

import math
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.passes.rewrite import arguments, emit
from tt_dynamo.passes.rows import literal

LONGEST = 2048
FORWARD = -1  # the sign of the exponent
Parts = tuple[Node, Node | None]  # real and imaginary; None is zero


def fuse_fourier(graph: Graph, context: Context) -> int:
    """Rewrite every transform that is read by its parts; returns how many."""
    changed = 0
    for node in list(graph.nodes):
        if not is_call(node, aten.view_as_real.default):
            continue
        with graph.inserting_before(node):
            parts = _parts(node, node.args[0])
            if parts is None or parts[1] is None:
                continue
            for user in list(node.users):
                if is_call(user, aten.select.int) and user.args[1] % len(shape_of(node)) == len(shape_of(node)) - 1:
                    replace(user, parts[user.args[2]])
            if node.users:
                columns = [emit(node, aten.reshape.default, part, [*shape_of(part), 1]) for part in parts]
                replace(node, emit(node, aten.cat.default, columns, -1))
        changed += 1
    if changed:
        dead_code(graph)
    return changed


def _parts(like: Node, node: Node) -> Parts | None:
    """A complex value by its parts; None where it is not made of real ones by transforms alone."""
    if is_call(node, aten._to_copy.default) and dtype_of(node.args[0]) == torch.float32:
        return node.args[0], None
    if is_call(node, aten._fft_r2c.default):
        x, dims, norm, halved = arguments(node).values()
        return _transformed(like, (x, None), dims, norm, FORWARD, halved) if dtype_of(x) == torch.float32 else None
    if is_call(node, aten._fft_c2c.default):
        z, dims, norm, forward = arguments(node).values()
        parts = _parts(like, z)
        return parts and _transformed(like, parts, dims, norm, FORWARD if forward else 1, False)
    return None


def _transformed(like: Node, parts: Parts, dims: list[int], norm: int, sign: int, halved: bool) -> Parts | None:
    rank = len(shape_of(parts[0]))
    dims = [dim % rank for dim in dims]
    sizes = [shape_of(parts[0])[dim] for dim in dims]
    if max(sizes) > LONGEST:
        return None
    waves = {}
    for dim, size in zip(dims, sizes, strict=True):
        count = size // 2 + 1 if halved and dim == dims[-1] else size
        angles = (torch.arange(size)[:, None] * torch.arange(count) % size).double() * (2 * math.pi / size)
        scale = (1.0, size**-0.5, 1 / size)[norm]  # as torch numbers norms
        waves[dim] = [literal(like, (wave(angles) * scale).float()) for wave in (torch.cos, torch.sin)]
    if parts[1] is None and {rank - 2, rank - 1} <= waves.keys():  # both at once
        x, (rows, columns) = parts[0], (waves.pop(dim) for dim in (rank - 2, rank - 1))
        products = [[emit(like, operators.resample, x, row, column) for column in columns] for row in rows]
        parts = (
            emit(like, aten.sub.Tensor, products[0][0], products[1][1]),
            _signed(like, emit(like, aten.add.Tensor, products[0][1], products[1][0]), sign),
        )
    for dim, (cosines, sines) in waves.items():
        parts = _along(like, parts, dim, cosines, sines, sign)
    return parts


def _along(like: Node, parts: Parts, dim: int, cosines: Node, sines: Node, sign: int) -> Parts:
    real, imaginary = parts
    first, second = (_product(like, real, dim, wave) for wave in (cosines, sines))
    second = _signed(like, second, sign)
    if imaginary is None:
        return first, second
    third, fourth = (_product(like, imaginary, dim, wave) for wave in (cosines, sines))
    return (
        emit(like, aten.sub.Tensor, first, _signed(like, fourth, sign)),
        emit(like, aten.add.Tensor, second, third),
    )


def _signed(like: Node, x: Node, sign: int) -> Node:
    return emit(like, aten.neg.default, x) if sign < 0 else x


def _product(like: Node, x: Node, dim: int, wave: Node) -> Node:
    """Sums of x along `dim` with the weights `wave` [old, new]."""
    rank = len(shape_of(x))
    if dim >= rank - 2 and rank > 1:
        return emit(like, operators.resample, x, *((None, wave) if dim == rank - 1 else (wave, None)))
    order: list[Any] = [*(d for d in range(rank) if d != dim), dim]
    moved = emit(like, aten.permute.default, x, order)
    back = [order.index(d) for d in range(rank)]
    return emit(like, aten.permute.default, emit(like, aten.matmul.default, moved, wave), back)
