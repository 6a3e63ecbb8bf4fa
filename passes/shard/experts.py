"""Experts of a mixture with their inner dimension cut: each chip has some columns of every expert, and all tokens.

Before   y = grouped_mm(x, gate_up^T, ends);   gate, up = split(y);   z = grouped_mm(silu(gate) * up, down^T, ends)
After    the same on columns of gate and of up, and rows of down; the tokens' sums over their experts are summed over
         the chips

The weights of gate and up lie one after the other in one parameter, so each chip gets columns of both: "packed". What
the last product gives is a sum over chips that is taken late, after the tokens' sums over their experts, which are
linear: there are as many rows as tokens then, and not as pairs of a token and an expert.
"""

import operator
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.graph import aten, is_call, only_user, shape_of
from tt_dynamo.passes.shard.placement import Placement

# What is linear in its first operand; a product is where only one operand is a sum that is due.
LINEAR = {
    aten.view.default, aten.reshape.default, aten.index.Tensor, aten.sum.dim_IntList, aten.mul.Tensor,
    aten.unsqueeze.default, aten.transpose.int,
}  # fmt: skip


def grouped_products() -> tuple[Any, ...]:
    """The operators that multiply groups of rows by a matrix each: torch's, and transformers' where it is loaded."""
    theirs = getattr(torch.ops.transformers, "grouped_mm_fallback", None)
    return tuple(packet.default for packet in (aten._grouped_mm, theirs) if packet is not None)


def packed_dim(parameter: Node) -> int | None:
    """The dimension along which a parameter has the columns of gate and up, if grouped products alone read it so."""
    for turned in parameter.users:
        product = only_user(turned) if is_call(turned, aten.transpose.int) else None
        if product is None or not is_call(product, *grouped_products()) or product.args[1] is not turned:
            return None
        halves = only_user(product)
        if halves is None or not _is_in_halves(halves, shape_of(product)[-1]):
            return None
    return 1 if len(shape_of(parameter)) == 3 and parameter.users else None


def _is_in_halves(node: Node, width: int) -> bool:
    """Whether a node splits the last dimension of what it reads in two."""
    if not is_call(node, aten.split.Tensor) or not all(is_call(user, operator.getitem) for user in node.users):
        return False
    return len(node.args) == 3 and node.args[1] * 2 == width and node.args[2] in (-1, len(shape_of(node.args[0])) - 1)


def is_linear(node: Node, due: Node) -> bool:
    """Whether a call on a sum over chips that is due may be made on the parts, its result being due then."""
    is_first = node.args[0] is due or node.target is aten.mul.Tensor
    return node.target in LINEAR and is_first and node.args.count(due) == 1 and not node.kwargs


def grouped_cut(x: Placement, weight: Placement) -> tuple[Placement, Placement, list[int]] | None:
    """How x [pairs, in] has to be cut for a weight [experts, in, out] that is, how the result, and the axes of sums.

    None where the weight is cut by experts.
    """
    wanted, result, summed = list[int | None](x), list[int | None](x), list[int]()
    for axis, dim in enumerate(weight):
        if dim == 0:
            return None
        if dim == 1:
            wanted[axis], result[axis] = 1, None
            summed.append(axis)
        elif dim == 2:
            wanted[axis], result[axis] = None, 1
        elif x[axis] is not None:
            return None
    return tuple(wanted), tuple(result), summed
