"""The heads of several token streams, each split before the streams are joined.

Before   q = permute(cat((norm(reshape(linear(text, wt))), norm(reshape(linear(image, wi)))), 1), [0, 2, 1, 3])
After    q = cat((norm(heads(linear(text, wt))), norm(heads(linear(image, wi)))), 2)

heads is reshape and permute. Behind the three projections of one stream they are one kernel: fuse_qkv reads them.
Only where every stream is projected for itself; whatever else is joined has no kernel for its heads.
Source of joint attention: Esser et al. 2024, https://arxiv.org/abs/2403.03206
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.rewrite import argument, emit

SWAPPED = [0, 2, 1, 3]


def split_joint_heads(graph: Graph, context: Context) -> int:
    """Split the heads of every stream before it is joined with others; returns how many joins."""
    changed = 0
    for joined in graph.find_nodes(op="call_function", target=aten.cat.default):
        swaps = list(joined.users)
        are_heads = all(is_call(user, aten.permute.default) and list(user.args[1]) == SWAPPED for user in swaps)
        if not swaps or not are_heads or argument(joined, 1, 0) % 4 != 1 or not all(map(_is_stream, joined.args[0])):
            continue
        with graph.inserting_before(joined):
            heads = emit(swaps[0], aten.cat.default, [_split(part) for part in joined.args[0]], 2)
        for swap in swaps:
            replace(swap, heads)
        changed += 1
    dead_code(graph)
    return changed


def _is_norm(x: Node) -> bool:
    """Whether it norms each head for itself."""
    is_layer_norm = is_call(x, aten.layer_norm.default) and list(x.args[1]) == [shape_of(x)[-1]]
    return (is_call(x, operators.rms_norm) or is_layer_norm) and shape_of(x) == shape_of(x.args[0])


def _is_stream(x: Node) -> bool:
    """Whether only the join reads it: one stream projected, its heads behind the sequence, each normed or not."""
    while _is_norm(x) and only_user(x):
        x = x.args[0]
    if not is_call(x, aten.reshape.default) or not only_user(x) or not is_call(x.args[0], operators.linear):
        return False
    return shape_of(x.args[0]) == (*shape_of(x)[:2], shape_of(x)[2] * shape_of(x)[3])


def _split(x: Node) -> Node:
    if _is_norm(x):
        return emit(x, x.target, _split(x.args[0]), *x.args[1:], **x.kwargs)
    return emit(x, aten.permute.default, x, SWAPPED)
