"""Divide a linear whose columns are only read in parts into one linear for each part.

Before   gate, up = linear(x, w).chunk(2, -1);   y = silu(gate) * up
After    gate = linear(x, w[:, :n], "silu");   up = linear(x, w[:, n:]);   y = gate * up

A slice is a kernel that reads and writes all of its part, and an activation of a part is another; as linears of their
own the parts come without slices and take their activations along. Heads have been split off before, in one call for
all of them.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.passes.fuse.linears import has_own_weights, is_consecutive, take_columns
from tt_dynamo.passes.rewrite import emit

CUTS = (aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor)


def split_linears(graph: Graph, context: Context) -> int:
    """Divide every linear that only slices of its columns read; returns how many."""
    divided = 0
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        parts = _parts(linear) if has_own_weights(linear) and linear.meta["val"].numel() else []
        for part, columns in parts:
            with graph.inserting_before(part):
                own = take_columns(linear, columns)
                replace(part, emit(part, operators.linear, linear.args[0], *own))
        divided += bool(parts)
    if divided:
        dead_code(graph)
    return divided


def _parts(linear: Node) -> list[tuple[Node, torch.Tensor]]:
    """What reads the linear, and which columns: nothing where a column is read twice or something else reads them."""
    shape = shape_of(linear)
    numbers = torch.arange(shape[-1]).expand(shape)
    parts: list[tuple[Node, torch.Tensor]] = []
    for user in linear.users:
        if not is_call(user, *CUTS):
            return []
        cut = user.target(numbers, *user.args[1:], **user.kwargs)
        parts += [(user, cut)] if isinstance(cut, torch.Tensor) else [(n, cut[n.args[1]]) for n in user.users]
    if len(parts) < 2 or any(shape_of(part)[:-1] != shape[:-1] for part, _ in parts):
        return []
    parts = [(part, cut.reshape(-1, cut.shape[-1])[0]) for part, cut in parts]
    read = torch.cat([columns for _, columns in parts])
    apart = len(read.unique()) == len(read) and all(is_consecutive(columns) for _, columns in parts)
    return parts if apart else []
