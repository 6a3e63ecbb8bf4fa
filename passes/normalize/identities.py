"""Drop what gives back its operand.

Before   y = x * 1   y = x / 1.0   y = where(ones, x, w)          z = cat((x[:, :32], x[:, 32:]), 1)
After    y = x                                                    z = x

Residual blocks of diffusers divide by a scale that is 1 unless told otherwise, and Flux takes its two streams apart
behind each block and joins them again before the next. What the caller gets stays a tensor of its own.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dtype_of, literal_value, shape_of
from tt_dynamo.passes.movement import cut_of, joined_along
from tt_dynamo.passes.rewrite import DIV, MUL, Rules, call, variable

RULES = Rules()


def drop_identities(graph: Graph, context: Context) -> int:
    """Replace every such operation by its operand; returns how many."""
    return RULES.apply(graph)


def _operand(node: Node, x: Node) -> Node | None:
    is_own = x.op == "call_function" and all(user.op != "output" for user in node.users)
    return x if is_own and dtype_of(x) == dtype_of(node) and shape_of(x) == shape_of(node) else None


RULES.add("times_one", call(MUL, variable("x"), 1), _operand)
RULES.add("over_one", call(DIV, variable("x"), 1), _operand)


@RULES.on(aten.cat.default)
def _joined_again(node: Node) -> Node | None:
    """All parts of one value, in order."""
    dim, start, sources = joined_along(node), 0, {}
    for part in node.args[0]:
        source, at = cut_of(part, dim) or (None, -1)
        if source is None or at != start or len(shape_of(part)) != len(shape_of(node)):
            return None
        sources[source] = start
        start += shape_of(part)[dim]
    return _operand(node, *sources) if len(sources) == 1 else None


@RULES.on(aten.where.self)
def _chosen_always(node: Node) -> Node | None:
    """What literals choose everywhere: Funnel compares the segments of tokens that are all of the first."""
    condition, *choices = node.args
    known = literal_value(condition)
    if known is None or not known.numel() or not (known == known.flatten()[0]).all():
        return None
    return _operand(node, choices[not known.flatten()[0]])
