"""Fuse linears of one row of tiles that read one value: TTNN writes the columns of a product into several results.

Before   shift = linear(c, w1, b1)   scale = linear(c, w2, b2)   gate = linear(c, w3, b3)
After    shift, scale, gate = linear_parts(c, cat(w1, w2, w3), cat(b1, b2, b3), 3)

The modulations of diffusion transformers: a condition of each image makes shift, scale and gate of every norm. Only of
equal widths of whole tiles, and only linears of constants without activation. Two stay apart: a kernel less is not
worth the cores that TTNN's product in parts leaves idle for one row of tiles.
Source: Peebles & Xie 2023, https://arxiv.org/abs/2212.09748
"""

import operator
from collections import defaultdict

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.fuse.linears import has_own_weights, hoist_operands
from tt_dynamo.passes.rewrite import emit

FEWEST, MOST = 3, 12  # parts of one product: up to those of a block of two streams


def fuse_linear_parts(graph: Graph, context: Context) -> int:
    """Fuse every group of such linears; returns how many groups."""
    groups: dict[tuple, list[Node]] = defaultdict(list)
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        width = shape_of(linear)[-1]
        if has_own_weights(linear) and not width % TILE:
            bias = (*linear.args, None)[2]
            groups[linear.args[0], width, dtype_of(linear.args[1]), bias is None].append(linear)
    fused = 0
    for linears in groups.values():
        for some in (linears[start : start + MOST] for start in range(0, len(linears), MOST)):
            if len(some) >= FEWEST:
                _fuse(some)
                fused += 1
    dead_code(graph)
    return fused


def _fuse(linears: list[Node]) -> None:
    first = linears[0]
    hoist_operands(linears, first)
    with first.graph.inserting_before(first):
        weight = emit(first, aten.cat.default, [linear.args[1] for linear in linears], -1)
        biases = [linear.args[2] for linear in linears if len(linear.args) > 2 and linear.args[2] is not None]
        bias = emit(first, aten.cat.default, biases) if biases else None
        parts = emit(first, operators.linear_parts, first.args[0], weight, bias, len(linears))
        picks = [emit(linear, operator.getitem, parts, index) for index, linear in enumerate(linears)]
    for linear, pick in zip(linears, picks, strict=True):
        replace(linear, pick)
