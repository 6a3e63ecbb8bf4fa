"""Divide a linear whose columns are only read in parts into one linear for each part.

Before   gate, up = linear(x, w).chunk(2, -1);   y = silu(gate) * up
After    gate = linear(x, w[:, :n], "silu");   up = linear(x, w[:, n:]);   y = gate * up

A slice is a kernel that reads and writes all of its part, and an activation of a part is another; as linears of their
own the parts come without slices and take their activations along. Heads have been split off before, in one call for
all of them.
"""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, insert, is_call, replace, shape_of


def split_linears(graph: Graph, context: Context) -> int:
    """Divide every linear that only slices of its columns read; returns how many."""
    constants = constant_nodes(graph)
    divided = 0
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        weights = [argument for argument in linear.args[1:3] if argument is not None]
        parts = _parts(linear)
        if not parts or len(linear.args) > 3 or any(weight not in constants for weight in weights):
            continue
        x, weight, bias = (*linear.args, None)[:3]
        for part, start, end in parts:
            with graph.inserting_before(part):
                own = [w and insert(graph, aten.slice.Tensor, (w, -1, start, end), like=linear) for w in (weight, bias)]
                replace(part, insert(graph, operators.linear, (x, *own), like=part))
        divided += 1
    if divided:
        dead_code(graph)
    return divided


def _parts(linear: Node) -> list[tuple[Node, int, int]]:
    """What reads the linear, and which columns: nothing where a column is read twice or something else reads them."""
    width, last = shape_of(linear)[-1], len(shape_of(linear)) - 1
    parts: list[tuple[Node, int, int]] = []
    for user in linear.users:
        if is_call(user, aten.split.Tensor, aten.split_with_sizes.default):
            if (user.args[2] if len(user.args) > 2 else 0) % (last + 1) != last:
                return []
            sizes = [value.shape[-1] for value in user.meta["val"]]
            parts += [(n, sum(sizes[: n.args[1]]), sum(sizes[: n.args[1] + 1])) for n in user.users if _picks(n)]
            if not all(_picks(n) for n in user.users):
                return []
        elif is_call(user, aten.slice.Tensor):
            given: tuple[Any, ...] = (*user.args[1:], *(0, None, None, 1)[len(user.args) - 1 :])
            dim, start, end, step = given
            if dim % (last + 1) != last or step != 1:
                return []
            first, after, _ = slice(start, end).indices(width)
            parts.append((user, first, after))
        else:
            return []
    read = sorted((start, end) for _, start, end in parts)
    apart = all(end <= start for (_, end), (start, _) in zip(read, read[1:], strict=False))
    return parts if len(parts) > 1 and apart else []


def _picks(node: Node) -> bool:
    return is_call(node, operator.getitem)
