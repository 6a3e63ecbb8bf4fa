"""Fold a batch norm by given statistics into the convolution that it alone reads.

Before   y = batch_norm(convolution(x, w, b), gain, shift, mean, variance)
After    y = convolution(x, w * s, (b - mean) * s + shift)               s = gain * rsqrt(variance + eps), by channel

Only where weights and statistics are constants: both are computed once, in float32. A batch norm over anything else
stays one multiplication and one addition (`passes/images/affine.py`).
"""

from __future__ import annotations

import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import (
    Context,
    aten,
    constant_nodes,
    dead_code,
    dtype_of,
    insert,
    is_call,
    only_user,
    replace,
    shape_of,
)


def fold_batch_norm(graph: Graph, context: Context) -> int:
    """Fold every batch norm behind a convolution; returns how many."""
    constants = constant_nodes(graph)
    folded = 0
    for norm in graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit_no_training.default):
        convolution, pick = norm.args[0], only_user(norm)
        if pick is None or pick.target is not operator.getitem or pick.args[1] != 0:
            continue
        if not isinstance(convolution, Node) or not is_call(convolution, aten.convolution.default):
            continue
        read = [*convolution.args[1:3], *norm.args[1:5]]
        if len(convolution.users) != 1:
            continue
        if any(node is not None and node not in constants for node in read):
            continue
        with graph.inserting_before(norm):
            replace(pick, _folded(graph, convolution, norm))
        folded += 1
    if folded:
        dead_code(graph)
    return folded


def _folded(graph: Graph, convolution: Node, norm: Node) -> Node:
    def emit(target, *args, **kwargs) -> Node:
        return insert(graph, target, args, kwargs, like=convolution)

    def exact(node: Node) -> Node:
        return node if dtype_of(node) == torch.float32 else emit(aten._to_copy.default, node, dtype=torch.float32)

    def rounded(node: Node) -> Node:
        same = dtype_of(weight) == torch.float32
        return node if same else emit(aten._to_copy.default, node, dtype=dtype_of(weight))

    x, weight, bias, *geometry = convolution.args
    gain, shift, mean, variance, _, eps = norm.args[1:7]
    scale = emit(aten.rsqrt.default, emit(aten.add.Tensor, exact(variance), eps))
    if gain is not None:
        scale = emit(aten.mul.Tensor, scale, exact(gain))
    mean = exact(mean)
    moved = emit(aten.neg.default, mean) if bias is None else emit(aten.sub.Tensor, exact(bias), mean)
    moved = emit(aten.mul.Tensor, moved, scale)
    if shift is not None:
        moved = emit(aten.add.Tensor, moved, exact(shift))
    transposed, groups = geometry[3], geometry[5]
    scaled = _scaled(emit, exact(weight), scale, groups if transposed else 0)
    return emit(aten.convolution.default, x, rounded(scaled), rounded(moved), *geometry)


def _scaled(emit, weight: Node, scale: Node, groups: int) -> Node:
    """weight [out, in / groups, ...], or with `groups` transposed [in, out / groups, ...], times a scale [out]."""
    shape = shape_of(weight)
    ones = [1] * (len(shape) - 2)
    if not groups:
        return emit(aten.mul.Tensor, weight, emit(aten.reshape.default, scale, [shape[0], 1, *ones]))
    grouped = emit(aten.reshape.default, weight, [groups, shape[0] // groups, *shape[1:]])
    by_channel = emit(aten.reshape.default, scale, [groups, 1, shape[1], *ones])
    return emit(aten.reshape.default, emit(aten.mul.Tensor, grouped, by_channel), list(shape))
