"""A convolution of one pixel whose channels are cut apart, as a convolution for each part.

Before   a, b = silu(convolution(x, w, bias)).chunk(2, 1)
After    a = silu(convolution(x, w[:n], bias[:n]));   b = silu(convolution(x, w[n:], bias[n:]))

Weights are cut once, activations in every call, and where a part ends inside a tile that untilizes and tilizes them. A
larger kernel gathers its pixels anew for each part, and stays whole. A part that is cut apart itself, as the gates of
FocalNet are, is divided again.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import SPLITS_BY_SIZE, cut_of
from tt_dynamo.passes.rewrite import emit, is_constant

NAMES = ("silu", "relu", "gelu", "sigmoid", "tanh", "hardtanh", "hardswish", "clone")
ACTIVATIONS = frozenset(getattr(aten, name).default for name in NAMES)
MOST = 6  # parts, each of which reads all of the image


def split_convolutions(graph: Graph, context: Context) -> int:
    """Rewrite every such convolution; returns how many."""
    count = sum(map(_split, graph.find_nodes(op="call_function", target=aten.convolution.default)))
    dead_code(graph)
    return count


def _split(node: Node) -> bool:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = node.args
    is_pixel = not transposed and groups == 1 and set(shape_of(weight)[2:]) == {1} and not any(padding)
    if not is_pixel or not is_constant(weight) or not is_constant(bias):
        return False
    chain = [node]
    while (user := only_user(chain[-1])) is not None and is_call(user, *ACTIVATIONS) and user.args[0] is chain[-1]:
        chain.append(user)
    parts = _parts(chain[-1])
    if parts is None:
        return False
    made: dict[tuple[int, int], Node] = {}
    convolutions = []
    for part, (start, stop) in parts.items():
        if (start, stop) not in made:
            with node.graph.inserting_before(chain[-1].next):
                own = [p and emit(node, aten.slice.Tensor, p, 0, start, stop) for p in (weight, bias)]
                rest = (stride, padding, dilation, transposed, output_padding, groups)
                new = emit(node, node.target, x, *own, *rest)
                convolutions.append(new)
                for step in chain[1:]:
                    new = emit(step, step.target, new, *step.args[1:], **step.kwargs)
            made[start, stop] = new
        replace(part, made[start, stop])
    for part in convolutions:
        _split(part)
    return True


def _parts(x: Node) -> dict[Node, tuple[int, int]] | None:
    """The values that are channels of x, and from where to where; None where anything else reads x."""
    parts: dict[Node, tuple[int, int]] = {}
    channels = shape_of(x)[1]
    for user in x.users:
        for part in list(user.users) if is_call(user, *SPLITS_BY_SIZE) else [user]:
            cut = cut_of(part, 1 - len(shape_of(x)))
            if cut is None:
                return None
            parts[part] = cut[1], cut[1] + shape_of(part)[1]
    distinct = {*parts.values()}
    is_cut = 1 <= len(distinct) <= MOST and sum(stop - start for start, stop in distinct) <= channels
    return parts if is_cut and (0, channels) not in distinct else None
