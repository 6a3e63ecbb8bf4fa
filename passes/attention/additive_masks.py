"""One additive attention_mask for every mask and shape that attention reads, or a flag in place of it.

Before   attention(q, k, v, mask=arange(n) <= arange(n)[:, None])   attention(q, k, v, mask=allowed)
After    attention(q, k, v, is_causal=True)   attention(q, k, v, attention_mask(where(allowed, 0, -inf), zeros))

What allows every key goes. A flag for fewer queries than keys, or more, becomes a mask. What allows as many keys as
queries up to the query's own place is a flag, for which TTNN's attention reads no mask. Any other literal is a weight;
what depends on inputs is prepared once, for its first reader.

Before   attention(q, fill_cache(keys, k), fill_cache(values, v), mask [.., seq, length])
After    attention(q, k, v, mask [.., seq, seq]), or as a causal one without a mask

A prompt that fills a cache attends to its own keys and values, where its mask is known to let nothing read behind it.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, literal_value, shape_of
from tt_dynamo.ir.spec import LARGEST
from tt_dynamo.passes.attention.masks import Masks
from tt_dynamo.passes.movement import is_move
from tt_dynamo.passes.rewrite import argument, emit
from tt_dynamo.passes.rows import literal

sdpa = aten.scaled_dot_product_attention.default


def share_masks(graph: Graph) -> int:
    """Give every attention its mask or flag; returns how many masks were made and how many flags were set."""
    masks = Masks(graph)
    shared: dict[tuple, Node] = {}
    flags = 0
    for attention in [n for n in graph.nodes if is_call(n, sdpa, operators.capped_attention)]:
        query, key, _, mask = (*attention.args, None)[:4]
        is_causal = is_call(attention, sdpa) and argument(attention, 5)
        if mask is None and is_causal and shape_of(query)[2] != shape_of(key)[2]:
            mask = _causal_mask(attention)
        if mask is None or is_call(mask, operators.attention_mask):
            continue
        lengths = shape_of(query)[2], shape_of(key)[2]
        reach = masks.reach(mask, lengths)
        if reach is not None and reach.position is None and bool(reach.allowed(lengths[1]).all()):
            attention.update_arg(3, None)
            flags += 1
        elif reach is not None and reach.window() == lengths[1] and attention.target is sdpa:
            attention.args = (*attention.args[:3], None, 0.0, True)
            flags += 1
        else:
            shape = (*(1, 1, 1, *shape_of(mask))[-4:-2], *lengths)
            source = mask.args[0] if is_call(mask, aten.expand.default) else mask
            where = (source, shape, lengths[0] == 1 and _is_cached(key))
            if where not in shared:
                with graph.inserting_before(attention):
                    shared[where] = _additive_mask(masks, *where)
            attention.update_arg(3, shared[where])
    return len(shared) + flags


def attention_to_prompt(graph: Graph, context: Context) -> int:
    """Rewrite every attention of a prompt that fills a cache; returns how many."""
    masks = Masks(graph)
    changed = 0
    for node in graph.find_nodes(op="call_function", target=sdpa):
        query, key, value, mask, *rest = (*node.args, None)[: max(len(node.args), 4)]
        if mask is None or any(rest) or not all(is_call(cache, operators.fill_cache) for cache in (key, value)):
            continue
        seq, length = shape_of(key.args[1])[2], shape_of(key)[2]
        reach = masks.reach(mask, (shape_of(query)[2], length))
        if reach is None or reach.position is not None or len(reach.last) != seq or int(reach.last.max()) >= seq:
            continue
        if _is_padded(key) and bool((reach.last > torch.arange(seq)).any()):
            continue  # some rows that it reads may be padding, which the cache has not
        is_causal = reach.window() == seq
        with graph.inserting_before(node):
            numbers = torch.where(reach.allowed(seq), 0.0, -torch.inf)[None, None]
            mask = None if is_causal else literal(node, numbers, f"{mask.name}_of_prompt_{seq}")
        node.args = (query, key.args[1], value.args[1], mask, 0.0, is_causal)
        changed += 1
    dead_code(graph)
    return changed


def _is_padded(fill: Node) -> bool:
    """Whether only some of the rows that fill a cache are written, known at run time."""
    written = argument(fill, 2)
    return written is not None and literal_value(written) is None


def _causal_mask(attention: Node) -> Node:
    """The mask of an attention with a flag in its place, which TTNN takes only for as many keys as queries."""
    queries, keys = (shape_of(x)[2] for x in attention.args[:2])
    allowed = torch.ones(1, 1, queries, keys, dtype=torch.bool).tril()
    with attention.graph.inserting_before(attention):
        mask = literal(attention, allowed, f"causal_{queries}_of_{keys}")
    attention.args = (*attention.args[:3], mask, argument(attention, 4, 0.0), False)
    return mask


def _is_cached(key: Node) -> bool:
    """Whether keys are a cache that this step writes into, with repeated heads at the most."""
    while is_move(key) or is_call(key, aten.expand.default, aten.repeat.default):
        key = key.args[0]
    return is_call(key, operators.update_cache)


def _additive_mask(masks: Masks, mask: Node, shape: tuple[int, ...], finite: bool) -> Node:
    """attention_mask of a boolean or additive mask that broadcasts to `shape`.

    finite: without -inf, as that of one token. TTNN's decode attention shares the keys between cores and subtracts the
    maxima of two of them: where -inf masks all keys of both, as the padding before a short prompt may, that is NaN in
    all that follows, whatever the others found. The token reads its own key, so that any number this low masks as well.
    """
    like, chosen = mask, masks.choice(mask)
    if chosen is not None and (finite or dtype_of(mask) == torch.bool):
        condition, *numbers = chosen
        numbers = [max(number, -LARGEST if finite else -torch.inf) for number in numbers]
        mask = emit(like, aten.where.Scalar, condition, *numbers)
    elif finite:
        mask = emit(like, aten.clamp.default, mask, -LARGEST)
    have = (1, 1, 1, *shape_of(mask))[-4:]
    if shape_of(mask) != have:
        mask = emit(like, aten.reshape.default, mask, list(have))
    may_hide_all = chosen is not None and not finite and have[-2] > 1 and literal_value(mask) is None
    zeros = None
    if have != shape:
        missing = [1 if size == wanted else wanted for size, wanted in zip(have, shape, strict=True)]
        zeros = emit(like, aten.zeros.default, missing, dtype=dtype_of(mask))
    return emit(like, operators.attention_mask, mask, zeros, may_hide_all)
