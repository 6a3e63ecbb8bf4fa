"""Fuse attention that a model spells out into one scaled dot product attention.

Before   scores = matmul(q, permute(k)) * scale + mask;   out = matmul(softmax(scores), v)
After    out = scaled_dot_product_attention(q, k, v, mask, scale=scale)

Only where the softmax runs over the keys, nothing else reads the scores, and scale is a number. The scale may stand
before the product as well, on either side: matmul(q * scale, ...). Every mask becomes one additive attention_mask of
full query and key length, shared by all layers that read it.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo import operators
from tt_dynamo.graph import Context, aten, dead_code, dtype_of, insert, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import head_columns, source_of

PRODUCTS = (aten.matmul.default, aten.bmm.default)
# Torch takes its own attention apart where no kernel of its fits, with a softmax that gives 0 where all is masked.
SOFTMAXES = (aten.softmax.int, aten._safe_softmax.default)


def fuse_attention(graph: Graph, context: Context) -> int:
    """Fuse every attention that matches; returns how many."""
    fused = 0
    for node in list(graph.nodes):
        if is_call(node, *PRODUCTS) and node.users:
            with graph.inserting_before(node):
                attention = _attention(graph, node, context)
            if attention is not None:
                replace(node, attention)
                fused += 1
    masks = _share_masks(graph)
    if fused or masks:
        dead_code(graph)
    return fused + masks


def _share_masks(graph: Graph) -> int:
    """One attention_mask for every mask and shape, where the first attention reads it."""
    shared: dict[tuple, Node] = {}
    for attention in graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        query, key, _, *rest = attention.args
        mask = rest[0] if rest else None
        if mask is None or is_call(mask, operators.attention_mask):
            continue
        rank = len(shape_of(mask))
        leading = [1] * (4 - rank) + list(shape_of(mask))[: max(rank - 2, 0)]
        shape = (*leading[:2], shape_of(query)[2], shape_of(key)[2])
        source = mask.args[0] if is_call(mask, aten.expand.default) else mask
        if (source, shape) not in shared:
            with graph.inserting_before(attention):
                shared[source, shape] = _additive_mask(graph, source, shape)
        attention.update_arg(3, shared[source, shape])
    return len(shared)


def _additive_mask(graph: Graph, mask: Node, shape: tuple[int, ...]) -> Node:
    """attention_mask of a boolean or additive mask that broadcasts to `shape`."""
    like = mask
    if dtype_of(mask) == torch.bool:
        mask = insert(graph, aten.where.Scalar, (mask, 0.0, float("-inf")), like=like)
    if len(shape_of(mask)) < 4:
        mask = insert(
            graph, aten.reshape.default, (mask, [1] * (4 - len(shape_of(mask))) + list(shape_of(mask))), like=like
        )
    if shape_of(mask) == shape:
        return insert(graph, operators.attention_mask, (mask,), like=like)
    missing = [size if have != size else 1 for have, size in zip(shape_of(mask), shape, strict=True)]
    zeros = insert(graph, aten.zeros.default, (missing,), {"dtype": dtype_of(mask)}, like=like)
    return insert(graph, operators.attention_mask, (mask, zeros), like=like)


def _attention(graph: Graph, node: Node, context: Context) -> Node | None:
    weights, value = node.args
    if not is_call(weights, *SOFTMAXES) or only_user(weights) is not node:
        return None
    if weights.args[1] % len(shape_of(weights)) != len(shape_of(weights)) - 1:
        return None
    scores, mask = _split_mask(weights.args[0])
    product, scale = _split_scale(scores)
    if not is_call(product, *PRODUCTS) or any(len(n.users) != 1 for n in (weights.args[0], scores, product)):
        return None
    query, keys = product.args
    query, query_scale = _split_scale(query)
    keys, key_scale = _split_scale(keys)
    key = _transposed(graph, keys)
    rank = len(shape_of(query))
    if key is None or rank not in (3, 4) or shape_of(key)[:-2] != shape_of(query)[:-2]:
        return None
    if shape_of(value)[-1] != shape_of(query)[-1] or (mask is not None and len(shape_of(mask)) != rank):
        return None
    operands = [query, key, value]
    if rank == 3:
        operands = _with_batch(graph, operands, context)
        if mask is not None:
            leading = shape_of(operands[0])[:2] if shape_of(mask)[0] != 1 else (1, 1)
            mask = _reshaped(graph, mask, [*leading, *shape_of(mask)[1:]])
    attention = aten.scaled_dot_product_attention.default
    out = insert(graph, attention, (*operands, mask, 0.0, False), {"scale": scale * query_scale * key_scale}, like=node)
    return out if rank == 4 else _reshaped(graph, out, list(shape_of(node)))


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
    return insert(graph, aten.reshape.default, (node, shape), like=node)


def _split_mask(scores: Node) -> tuple[Node, Node | None]:
    """scores, mask of scores + mask, whichever side the product stands on."""
    if is_call(scores, aten.add.Tensor) and not scores.kwargs and len(scores.users) == 1:
        for scored, mask in (scores.args, scores.args[::-1]):
            if isinstance(mask, Node) and isinstance(scored, Node) and is_call(_split_scale(scored)[0], *PRODUCTS):
                return scored, mask
    return scores, None


def _split_scale(node: Node) -> tuple[Node, float]:
    """x, s of x * s or x / (1 / s) with a number s; node, 1.0 otherwise."""
    if is_call(node, aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar) and not node.kwargs:
        x, number = node.args
        if isinstance(number, (int, float)) and isinstance(x, Node):
            divides = node.target in (aten.div.Tensor, aten.div.Scalar)
            return x, 1.0 / number if divides else float(number)
    return node, 1.0


def _transposed(graph: Graph, node: Node) -> Node | None:
    """k of permute(k) with its last two dimensions exchanged, whatever else the permute does."""
    if not is_call(node, aten.permute.default):
        return None
    order = list(node.args[1])
    order[-2:] = order[:-3:-1]
    if order == sorted(order):
        return node.args[0]
    return insert(graph, aten.permute.default, (node.args[0], order), like=node)
