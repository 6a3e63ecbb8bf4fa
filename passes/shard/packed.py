"""Take linear layers apart that give several things at once, so that each is cut by itself.

Before   y = linear(x, w);   q = y[..., :64];   k = y[..., 64:96]
After    q = linear(x, w[:64]);   k = linear(x, w[64:96])

Cut whole, a chip would get columns of q alone, or of k alone. What is made of the weights is computed as they go up,
and the layers become one again where a later pass joins those that read the same.
"""

import operator
from collections.abc import Collection

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import aten, insert, is_call, replace, shape_of

Part = tuple[Node, int, int]  # a reader, and the columns from and to which it reads


def take_apart(graph: Graph, weights: Collection[Node]) -> dict[Node, list[Node]]:
    """Rewrite the layers of these weights; gives for each of those weights and biases what is read of it."""
    found: dict[Node, list[Node]] = {}
    for node in list(graph.find_nodes(op="call_function", target=aten.linear.default)):
        parts = _parts(node) if node.args[1] in weights else None
        if parts is None:
            continue
        x, *tables = node.args
        for reader, start, end in parts:
            with graph.inserting_before(node):
                cut = [t and insert(graph, aten.slice.Tensor, (t, 0, start, end), like=node) for t in tables]
                made = insert(graph, aten.linear.default, (x, *cut), like=node)
            for table, piece in zip(tables, cut, strict=True):
                if table is not None:
                    found.setdefault(table, []).append(piece)
            replace(reader, made)
        for user in list(node.users):
            graph.erase_node(user)
        graph.erase_node(node)
    return found


def _parts(node: Node) -> list[Part] | None:
    """The readers of a layer where each reads some of its columns; None where one reads anything else."""
    last, size = len(shape_of(node)) - 1, shape_of(node)[-1]
    found: list[Part] = []
    for user in node.users:
        if is_call(user, aten.slice.Tensor) and user.args[1] % (last + 1) == last and len(user.args) < 5:
            given = dict(enumerate(user.args))
            bounds = given.get(2) or 0, given.get(3, size) if given.get(3) is not None else size
            start, end = (min(max(at + size if at < 0 else at, 0), size) for at in bounds)
            found.append((user, start, end))
        elif is_call(user, aten.split.Tensor, aten.split_with_sizes.default) and _dim(user) % (last + 1) == last:
            at, ends = 0, []
            for value in user.meta["val"]:
                ends.append((at, at + value.shape[-1]))
                at += value.shape[-1]
            if not all(is_call(pick, operator.getitem) for pick in user.users):
                return None
            found += [(pick, *ends[pick.args[1]]) for pick in user.users]
        else:
            return None
    return found if len(found) > 1 else None


def _dim(split: Node) -> int:
    return split.args[2] if len(split.args) > 2 else split.kwargs.get("dim", 0)
