"""Fuse attention that a model spells out into one scaled dot product attention.

Before   scores = matmul(q, permute(k)) * scale + mask;   out = matmul(softmax(scores), v)
After    out = scaled_dot_product_attention(q, k, v, mask, scale=scale)

Only where the softmax runs over the keys, nothing else reads the scores, and scale is a number. The scale may stand
before the product as well, on either side: matmul(q * scale, ...). What scores go through is described in
`attention_scores`; where they are capped, cap * tanh(scores / cap), the result is capped_attention. Every mask becomes
one additive attention_mask of full query and key length, shared by all layers that read it, or a flag.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, insert, is_call, replace, shape_of
from tt_dynamo.passes.fuse.additive_masks import share_masks
from tt_dynamo.passes.fuse.attention_scores import PRODUCTS, Scores, read_scores, split_scale, uncast
from tt_dynamo.passes.movement import head_columns, source_of

SOFTMAXES = (aten.softmax.int, aten._safe_softmax.default)
sdpa = aten.scaled_dot_product_attention.default


def fuse_attention(graph: Graph, context: Context) -> int:
    """Fuse every attention that matches; returns how many, and how many masks were made or became flags."""
    fused = 0
    for node in list(graph.nodes):
        if is_call(node, *PRODUCTS) and node.users:
            with graph.inserting_before(node):
                attention = _attention(graph, node, context)
            if attention is not None:
                replace(node, attention)
                _undo_reshape(attention)
                fused += 1
    fused += sum(_give_batch(graph, node, context) for node in graph.find_nodes(op="call_function", target=sdpa))
    masks = share_masks(graph)
    dead_code(graph)  # of what looked like attention first, too
    return fused + masks


def _attention(graph: Graph, node: Node, context: Context) -> Node | None:
    weights, value = node.args
    softmax = _softmax_of(weights)
    if softmax is None:
        return None
    scores = read_scores(graph, softmax.args[0])
    if scores is None:
        return None
    query, query_scale = split_scale(scores.query)
    keys, key_scale = split_scale(scores.keys)
    key = _transposed(graph, keys)
    if key is None or len(shape_of(query)) not in (3, 4):
        return None
    operands = [query, key, value]
    if scores.leading is not None:
        batch, heads = scores.leading
        if any(shape_of(x)[:-2] not in ((batch, heads), (batch * heads,), (batch, 1)) for x in operands):
            return None
        operands = [
            _reshaped(graph, x, [batch, heads, *shape_of(x)[-2:]]) if len(shape_of(x)) == 3 else x for x in operands
        ]
    if not _fit(*operands):
        return None
    if len(shape_of(query)) == 3 and scores.leading is None:
        operands = _with_batch(graph, operands, context)
    scale = scores.scale * query_scale * key_scale
    mask = _mask(graph, scores, shape_of(operands[0])[:2])
    out = _insert(graph, operands, mask, scale, scores.cap, node)
    return out if shape_of(out) == shape_of(node) else _reshaped(graph, out, list(shape_of(node)))


def _give_batch(graph: Graph, node: Node, context: Context) -> bool:
    """Attention [batch * heads, seq, head_dim] at rank 4, as TTNN takes it."""
    operands, rest = list(node.args[:3]), list(node.args[3:])
    if any(len(shape_of(x)) != 3 for x in operands) or len({shape_of(x)[0] for x in operands}) != 1:
        return False
    with graph.inserting_before(node):
        operands = _with_batch(graph, operands, context)
        if rest and rest[0] is not None and len(shape_of(rest[0])) == 3:
            leading = [1, 1] if shape_of(rest[0])[0] == 1 else list(shape_of(operands[0])[:2])
            rest[0] = _reshaped(graph, rest[0], [*leading, *shape_of(rest[0])[1:]])
        out = insert(graph, sdpa, (*operands, *rest), dict(node.kwargs), like=node)
        replace(node, _reshaped(graph, out, list(shape_of(node))))
    return True


def _undo_reshape(node: Node) -> None:
    """Give what reshapes a reshape of attention back to the attention's own shape the attention itself."""
    if is_call(node, aten.reshape.default):
        for user in list(node.users):
            if is_call(user, aten.reshape.default) and shape_of(user) == shape_of(node.args[0]):
                replace(user, node.args[0])


def _softmax_of(weights: Node) -> Node | None:
    """The softmax over the keys that gives these weights and that nothing else reads."""
    chain = [weights]
    while is_call(chain[-1], aten.reshape.default, aten._to_copy.default):
        source = chain[-1].args[0]
        if chain[-1].target is aten._to_copy.default and uncast(chain[-1]) is not source:
            return None
        if shape_of(source)[-2:] != shape_of(chain[-1])[-2:]:
            return None
        chain.append(source)
    softmax = chain[-1]
    if not is_call(softmax, *SOFTMAXES) or any(len(n.users) != 1 for n in chain):
        return None
    rank = len(shape_of(softmax))
    return softmax if softmax.args[1] % rank == rank - 1 else None


def _fit(query: Node, key: Node, value: Node) -> bool:
    """Whether shapes are those of attention: equal leading dimensions, or fewer heads of both keys and values."""
    q, k, v = (shape_of(x) for x in (query, key, value))
    if q[-1] != k[-1] or q[-1] != v[-1] or k[:-1] != v[:-1]:
        return False
    return k[:-2] == q[:-2] or (len(q) == 4 and k[0] == q[0] and k[1] == 1)


def _mask(graph: Graph, scores: Scores, leading: tuple[int, ...]) -> Node | None:
    mask = scores.mask
    if mask is None or len(shape_of(mask)) != 3 or shape_of(mask)[0] == 1:
        return mask
    batch, heads = leading
    return _reshaped(graph, mask, [batch, heads, *shape_of(mask)[1:]]) if shape_of(mask)[0] == batch * heads else mask


def _insert(graph: Graph, operands: list[Node], mask: Node | None, scale: float, cap: float | None, like: Node) -> Node:
    if cap is not None:
        return insert(graph, operators.capped_attention, (*operands, mask, scale, cap), like=like)
    grouped = {"enable_gqa": True} if shape_of(operands[0])[1] != shape_of(operands[1])[1] else {}
    arguments = (*operands, mask, 0.0, False)
    return insert(graph, sdpa, arguments, {"scale": scale, **grouped}, like=like)


def _with_batch(graph: Graph, operands: list[Node], context: Context) -> list[Node]:
    """Operands [batch * heads, seq, head_dim] at rank 4: the batch is what makes all three heads of their sources."""
    count = shape_of(operands[0])[0]
    for batch in dict.fromkeys([*shape_of(source_of(operands[2]))[:-1], 1]):
        if count % max(batch, 1):
            continue
        split = [_reshaped(graph, x, [batch, count // batch, *shape_of(x)[1:]]) for x in operands]
        if batch == 1 or all(head_columns(x, context) is not None for x in split):
            return split
    raise AssertionError("a batch of one always fits")


def _reshaped(graph: Graph, node: Node, shape: list[int]) -> Node:
    source = node.args[0] if is_call(node, aten.reshape.default) else node
    for x in (node, source):
        if list(shape_of(x)) == shape:
            return x
    return insert(graph, aten.reshape.default, (source, shape), like=node)


def _transposed(graph: Graph, node: Node) -> Node | None:
    """k of permute(k) with its last two dimensions exchanged, whatever else the permute does."""
    if not is_call(node, aten.permute.default):
        return None
    order = list(node.args[1])
    order[-2:] = order[:-3:-1]
    if order == sorted(order):
        return node.args[0]
    return insert(graph, aten.permute.default, (node.args[0], order), like=node)
