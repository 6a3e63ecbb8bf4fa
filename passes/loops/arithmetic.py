"""Arithmetic between two places of a graph, and whether it computes what a shorter way does.

Models spell one recurrence in many ways, of a hundred nodes and more. Both ways are run on the same made-up numbers: of
sums, products, exponentials and moves of numbers alone, whose branches depend on no value, equal results mean equal
functions. With maxima among them, numbers far apart must give equal results as well. Layers that read alike are run
once.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.ir.graph import Context, aten, is_call, is_literal, needed_for, shape_of, subgraph
from tt_dynamo.ir.torch_internals import Run, nodes_after
from tt_dynamo.passes.rewrite import ADD, DIV, MUL, VIEWS

CLOSE = 1e-4  # of the largest result: float32 on both sides, in another order
SCALE = 0.3  # of the made-up numbers: exponentials of sums of hundreds of their products stay finite
FAR = 10.0  # of numbers so far apart that a maximum is nearly all of a sum of exponentials
MOVES = {
    *VIEWS, aten.permute.default, aten.transpose.int, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.expand.default, aten.clone.default, aten.alias.default, aten._to_copy.default,
}  # fmt: skip
ARITHMETIC = {
    *MOVES, *ADD, *MUL, *DIV, aten.sub.Tensor, aten.neg.default, aten.exp.default, aten.sum.dim_IntList,
    aten.cumsum.default, aten.bmm.default, aten.matmul.default, aten.mm.default, aten.cat.default, aten.stack.default,
    aten.slice.Tensor, aten.select.int, aten.constant_pad_nd.default, aten.zeros_like.default,
    aten.select_scatter.default, aten.slice_scatter.default, aten.copy.default, aten.linalg_solve_triangular.default,
    aten.rsqrt.default, aten.where.self, aten.maximum.default, aten.unbind.int,
}  # fmt: skip


def is_arithmetic(node: Node) -> bool:
    if is_call(node, aten.where.self):
        return is_literal(node.args[0])
    if is_call(node, operator.getitem):
        return is_call(node.args[0], aten.unbind.int)
    if is_call(node, aten._to_copy.default) and not node.meta["val"].is_floating_point():
        return False
    return is_call(node, *ARITHMETIC) or is_literal(node)


def inputs_of(output: Node, cuts: Sequence[Node] = ()) -> list[Node]:
    """What the arithmetic that ends in `output` starts from: `cuts`, and whatever is no arithmetic."""
    starts = {*cuts}
    needed = needed_for(output, lambda node: node in starts or not is_arithmetic(node))
    read = dict.fromkeys(operand for node in needed for operand in node.all_input_nodes)
    return [node for node in read if node in starts or not is_arithmetic(node)]


def results_of(start: Node) -> list[Node]:
    """The arithmetic that reads `start`, and that itself, in the order of the graph."""
    found = {start: None}
    for node in nodes_after(start):
        if is_call(node, *ARITHMETIC) and not found.keys().isdisjoint(node.all_input_nodes):
            found[node] = None
    return list(found)


def source_of_moves(node: Node, shape: tuple[int, ...]) -> Node | None:
    """The last value of that shape of which `node` is a move or a padded one, itself among them."""
    while shape_of(node) != shape:
        if not is_call(node, *MOVES, aten.constant_pad_nd.default):
            return None
        node = node.args[0]
    return node


def computes(
    output: Node, inputs: Sequence[Node], way: Callable[..., torch.Tensor], context: Context,
    scales: Sequence[float] = (),
) -> bool:  # fmt: skip
    """Whether `way` computes `output` of `inputs`: all floats, of which the arithmetic between is made.

    scales: of the made-up numbers of each input, where not all are of `SCALE`.
    """
    attributes, graph = subgraph(output, list(inputs))
    scales = scales or [SCALE] * len(inputs)
    key = ("arithmetic", way, str(graph), tuple(map(shape_of, inputs)), tuple(scales))
    if attributes or not all(node.meta["val"].is_floating_point() for node in inputs):
        return False
    if key not in context.memory:
        has_maxima = any(is_call(node, aten.maximum.default) for node in graph.nodes)
        ways = (scales, [FAR] * len(inputs)) if has_maxima else (scales,)
        context.memory[key] = all(_is_equal(graph, inputs, way, each) for each in ways)
    return bool(context.memory[key])


def _is_equal(graph: Graph, inputs: Sequence[Node], way: Callable[..., torch.Tensor], scales: Sequence[float]) -> bool:
    generator = torch.Generator().manual_seed(0)
    for node in graph.nodes:
        if is_call(node, *VIEWS):
            node.target = aten.reshape.default  # made-up numbers lie in order, whatever lay otherwise
        if node.kwargs.get("dtype") in (torch.bfloat16, torch.float16):
            node.kwargs = {**node.kwargs, "dtype": torch.float32}  # rounding is left out
    values: list[Any] = [
        scale * torch.randn(shape_of(node), generator=generator) for node, scale in zip(inputs, scales, strict=True)
    ]
    with torch.no_grad():
        found = Run(GraphModule({}, graph), graph=graph).run(*values)
        expected = way(*values)
    if found.shape != expected.shape or not expected.isfinite().all():
        return False
    return bool((found - expected).abs().max() <= CLOSE * expected.abs().max())
