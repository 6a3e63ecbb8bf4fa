"""The parts of a modulation, each made by itself: a table of a block, plus what an embedding gives for all blocks.

Before   shift, scale, gate = (table + embedded).chunk(3, 1);   y = x * (1 + scale)
After    shift, scale, gate = table.chunk(3, 1) + embedded.chunk(3, 1);   y = x * ((table_1 + 1) + embedded_1)

Cutting a sum is a kernel for each part; the parts of a table are constants, and those of the embedding are cut once for
all blocks that read it.
Source: PixArt-alpha, Chen et al. 2023, https://arxiv.org/abs/2310.00426
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, is_call, shape_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import ADD, Rules, arguments, call, emit, is_constant, is_number, once, variable

CUTS = (aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
PARTS = (aten.slice.Tensor, aten.select.int)
RULES = Rules()


def split_modulations(graph: Graph, context: Context) -> int:
    """Make every part of a sum with a constant by itself; returns how many places changed."""
    changed = RULES.apply(graph)
    if changed:
        canonicalize(graph, context)  # which makes equal cuts one
    return changed


def _terms(cut: Node) -> list[Node]:
    """The operands of the sum that is cut, of a constant and another value, which cuts alone read; else none."""
    total, dim = cut.args[0], arguments(cut)["dim"]
    if not is_call(total, aten.add.Tensor) or total.kwargs or not all(is_call(u, *CUTS, *PARTS) for u in total.users):
        return []
    whole = len(shape_of(total)), shape_of(total)[dim]
    terms = [x for x in total.args if isinstance(x, Node) and (len(shape_of(x)), *shape_of(x)[dim:][:1]) == whole]
    return terms if len(terms) == 2 and sum(map(is_constant, terms)) == 1 else []


@RULES.on(*PARTS)
def _part(node: Node) -> Node | None:
    parts = [emit(node, node.target, term, *node.args[1:], **node.kwargs) for term in _terms(node)]
    return emit(node, aten.add.Tensor, *parts) if parts else None


@RULES.on(operator.getitem)
def _part_of_cut(node: Node) -> Node | None:
    cut, index = node.args
    if not is_call(cut, *CUTS):
        return None
    cuts = [emit(cut, cut.target, term, *cut.args[1:], **cut.kwargs) for term in _terms(cut)]
    parts = [emit(node, operator.getitem, each, index) for each in cuts]
    return emit(node, aten.add.Tensor, *parts) if parts else None


def _add_to_constant(node: Node, y: Node, constant: Node, number: float) -> Node:
    return emit(node, aten.add.Tensor, y, emit(node, aten.add.Tensor, constant, number))


constant = variable("constant", lambda value: isinstance(value, Node) and is_constant(value))
SUM = call(aten.add.Tensor, variable("y"), constant)
RULES.add("add_to_constant", call(ADD, once(SUM), variable("number", is_number)), _add_to_constant)
