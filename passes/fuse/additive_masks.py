"""One additive attention_mask for every mask and shape that attention reads, or a flag in place of it.

Before   attention(q, k, v, mask=arange(n) <= arange(n)[:, None])   attention(q, k, v, mask=allowed)
After    attention(q, k, v, is_causal=True)   attention(q, k, v, attention_mask(where(allowed, 0, -inf), zeros))

The contents of a literal mask are known: what allows every key goes, what allows the keys up to the query's own place
is the flag that TTNN's attention reads no mask for, where there are as many keys as queries. Any other literal is a
weight, and a mask that depends on inputs is prepared once, where the first attention reads it.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Literals, aten, dtype_of, insert, is_call, literal_nodes, literal_value, shape_of
from tt_dynamo.ir.spec import LARGEST
from tt_dynamo.passes.fuse.masks import allows_all, condition_of
from tt_dynamo.passes.movement import is_move

sdpa = aten.scaled_dot_product_attention.default


def share_masks(graph: Graph) -> int:
    """Give every attention its mask or flag; returns how many masks were made and how many flags were set."""
    attentions = [n for n in graph.nodes if is_call(n, sdpa, operators.capped_attention)]
    literals = literal_nodes(graph)
    shared: dict[tuple, Node] = {}
    flags = 0
    for attention in attentions:
        query, key, _, *rest = attention.args
        mask = rest[0] if rest else None
        if mask is None or is_call(mask, operators.attention_mask):
            continue
        lengths = (shape_of(query)[2], shape_of(key)[2])
        flag = _flag(mask, lengths, literals)
        if flag == "none" or (flag == "causal" and attention.target is sdpa):
            attention.update_arg(3, None)
            if flag == "causal":
                attention.args = (*attention.args[:3], None, 0.0, True)
            flags += 1
            continue
        rank = len(shape_of(mask))
        leading = [1] * (4 - rank) + list(shape_of(mask))[: max(rank - 2, 0)]
        source = mask.args[0] if is_call(mask, aten.expand.default) else mask
        where = (source, (*leading[:2], *lengths), lengths[0] == 1 and _is_cached(key))
        if where not in shared:
            with graph.inserting_before(attention):
                shared[where] = _additive_mask(graph, *where)
        attention.update_arg(3, shared[where])
    return len(shared) + flags


def allowed_keys(mask: Node, lengths: tuple[int, int], literals: Literals) -> torch.Tensor | None:
    """Which keys a literal mask allows, [query, key] bool, where it forbids the others and does nothing else.

    The same for all sequences and heads; None for every other mask.
    """
    value = literal_value(mask, literals)
    if value is None or not value.numel():
        return None
    if value.dtype != torch.bool:
        allowed = value == 0
        if not bool((allowed | (value <= torch.finfo(torch.float16).min)).all()):
            return None
        value = allowed
    value = value.reshape(-1, *value.shape[-2:]) if value.ndim > 2 else value[None]
    if not bool((value == value[:1]).all()):
        return None
    return value[0].expand(lengths)


def _flag(mask: Node, lengths: tuple[int, int], literals: Literals) -> str:
    """ "none" for a mask that allows every key, "causal" for one that allows keys up to the query's place, else ""."""
    allowed = allowed_keys(mask, lengths, literals)
    if allowed is None:
        return "none" if allows_all(mask) else ""
    if bool(allowed.all()):
        return "none"
    queries, keys = lengths
    return "causal" if queries == keys and torch.equal(allowed, torch.ones_like(allowed).tril()) else ""


def _is_cached(key: Node) -> bool:
    """Whether keys are a cache that this step writes into, with repeated heads at the most."""
    while is_move(key) or is_call(key, aten.expand.default, aten.repeat.default):
        key = key.args[0]
    return is_call(key, operators.update_cache)


def _finite(graph: Graph, mask: Node) -> Node:
    """A mask of one token without -inf.

    TTNN's decode attention shares the keys between cores and subtracts the maxima of two of them: where -inf masks all
    keys of both, as the padding before a short prompt may, that is NaN in all that follows, whatever the others found.
    The token reads its own key, so that any number this low masks as well as -inf.
    """
    if dtype_of(mask) == torch.bool:
        return insert(graph, aten.where.Scalar, (mask, 0.0, -LARGEST), like=mask)
    if is_call(mask, aten.where.Scalar):
        condition, *numbers = mask.args
        return insert(graph, aten.where.Scalar, (condition, *(max(x, -LARGEST) for x in numbers)), like=mask)
    condition, allows = condition_of(mask) or (None, False)
    if condition is None or len(shape_of(condition)) != len(shape_of(mask)):
        return insert(graph, aten.clamp.default, (mask, -LARGEST), like=mask)
    numbers = (0.0, -LARGEST) if allows else (-LARGEST, 0.0)
    return insert(graph, aten.where.Scalar, (condition, *numbers), like=mask)


def _additive_mask(graph: Graph, mask: Node, shape: tuple[int, ...], finite: bool) -> Node:
    """attention_mask of a boolean or additive mask that broadcasts to `shape`."""
    like = mask
    if finite:
        mask = _finite(graph, mask)
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
