"""Take linear layers apart that give several things at once, so that each is cut by itself.

Before   y = linear(x, w);   q = y[..., :64];   k = y[..., 64:96]
After    q = linear(x, w[:64]);   k = linear(x, w[64:96])

Cut whole, a chip would get columns of q alone, or of k alone. What is made of the weights is computed as they go up,
and the layers become one again where a later pass joins those that read the same.
"""

from collections.abc import Collection

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import aten, insert, is_call, replace, shape_of
from tt_dynamo.passes.movement import SPLITS_BY_SIZE, cut_of

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
    splits = [user for user in node.users if is_call(user, *SPLITS_BY_SIZE)]
    picks = [pick for split in splits for pick in split.users]
    readers = [*(user for user in node.users if user not in splits), *picks]
    found: list[Part] = []
    for reader in readers:
        cut = cut_of(reader, -1)
        if cut is None or cut[0] is not node:
            return None
        found.append((reader, cut[1], cut[1] + shape_of(reader)[-1]))
    return found if len(found) > 1 else None
