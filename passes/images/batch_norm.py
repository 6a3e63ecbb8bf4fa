"""Fold a batch norm by given statistics into the convolution that it alone reads.

Before   y = batch_norm(convolution(x, w, b), gain, shift, mean, variance)
After    y = convolution(x, w * s, (b - mean) * s + shift)               s = gain * rsqrt(variance + eps), by channel

Only where weights and statistics are constants: both are computed once, in float32. A batch norm over anything else
stays one multiplication and one addition (`passes/images/affine.py`).
"""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes import rewrite
from tt_dynamo.passes.rewrite import ANY, Rules, call, is_constant, is_number, once, variable

RULES = Rules()
WEIGHTS = [variable(name, is_constant) for name in ("weight", "bias", "gain", "shift", "mean", "variance")]
CONVOLUTION = call(aten.convolution.default, variable("x"), *WEIGHTS[:2], *[ANY] * 6)
NORM = call(
    aten._native_batch_norm_legit_no_training.default, once(CONVOLUTION), *WEIGHTS[2:], ANY, variable("eps", is_number)
)


def fold_batch_norm(graph: Graph, context: Context) -> int:
    """Fold every batch norm behind a convolution; returns how many."""
    return RULES.apply(graph)


def _folded(node: Node, x: Node, weight: Node, mean: Node, variance: Node, eps: float, **optional: Any) -> Node:
    bias, gain, shift = optional["bias"], optional["gain"], optional["shift"]
    convolution = node.args[0].args[0]
    geometry, emit = convolution.args[3:], partial(rewrite.emit, convolution)

    def exact(node: Node) -> Node:
        return node if dtype_of(node) == torch.float32 else emit(aten._to_copy.default, node, dtype=torch.float32)

    def rounded(node: Node) -> Node:
        same = dtype_of(weight) == torch.float32
        return node if same else emit(aten._to_copy.default, node, dtype=dtype_of(weight))

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


RULES.add("batch_norm", call(operator.getitem, once(NORM), 0), _folded)
