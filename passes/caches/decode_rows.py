"""Give one token of each user to TTNN as its decode calls take it: users as rows, not as batches.

Before   q, k, v = split_heads(qkv [b, 1, 1, n]);   k = update_cache(cache, rotary(k, cos, sin), position);   …
         out = attention(rotary(q, cos, sin), k, v, mask)
After    q, k, v = split_heads_decode(qkv [1, 1, b, n]);   k = update_cache_decode(cache, rotary_decode(k, …), position)
         out = attention_decode(rotary_decode(q, …), k, v, positions)

Where the query has one token and both keys and values are caches. A mask that lets it read up to a position becomes
that position, of the last so many of them a window; any other mask stays one. What several attentions need is made for
each, and once for all by `canonicalize`.

Where several attentions write a row of keys and of values each, both are written at once:

         k, v = update_caches_decode(cached k, rotary_decode(k, …), position, cached v, v)

That takes keys on other cores than values, and tables there for what turns them: moves that one layer would not save.
"""

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.attention.masks import Masks, seen_positions
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import emit
from tt_dynamo.passes.rows import ROWS, carry, literal

UPDATES = (operators.update_cache, operators.slide_cache)
CACHES = (*UPDATES, operators.update_cache_decode, operators.slide_cache_decode, operators.update_caches_decode)
SDPA = aten.scaled_dot_product_attention.default
ATTENTIONS = (operators.attention, operators.capped_attention, SDPA)
USERS = TILE = 32  # TTNN's decode calls take a tile of users
BY_USER = (2, 0, 1, 3)  # [batch, heads, 1, head_dim] → [1, batch, heads, head_dim]
BY_BATCH = (1, 2, 0, 3)  # and back


def decode_rows(graph: Graph, context: Context) -> int:
    """Rewrite every such attention; returns how many."""
    if not any(is_call(node, *ATTENTIONS) and shape_of(node.args[0])[2] == 1 for node in graph.nodes):
        return 0
    canonicalize(graph, context)  # reshapes that do nothing would hide the caches
    changed, masks = 0, Masks(graph)
    at_once = sum(is_call(node, *ATTENTIONS) and _is_decode(node) and _writes_both(node) for node in graph.nodes) > 1
    for node in list(graph.nodes):
        if is_call(node, *ATTENTIONS) and node.users and _is_decode(node):
            with graph.inserting_before(node):
                _attend(node, masks, at_once)
            changed += 1
    if changed:
        for node in list(graph.nodes):
            batch, *ones = shape_of(node)[:-1] if is_call(node, *ROWS) and len(shape_of(node)) > 2 else (1,)
            if batch > 1 and set(ones) == {1}:
                carry(node, (1, 1, batch))
        dead_code(graph)
        canonicalize(graph, context)
    return changed


def _is_decode(node: Node) -> bool:
    query, key, value, *rest = node.args
    if len(shape_of(query)) != 4:  # windows of NesT are a dimension of their own
        return False
    batch, _, seq, _ = shape_of(query)
    if node.target is operators.capped_attention:
        plain = rest[0] is None or shape_of(_source(rest[0]))[1:3] == (1, 1)
    else:
        plain = not any(rest[1 : 3 if node.target is SDPA else 2])  # dropout, which SDPA alone has, and is_causal
    if seq != 1 or batch > USERS or not plain:
        return False
    written = (cache.args[0] if is_call(cache, operator.getitem) else cache for cache in (key, value))
    return all(is_call(cache, *CACHES) for cache in written) and shape_of(key)[0] == batch


def _writes_both(node: Node) -> bool:
    """Whether an attention comes before all that reads its two caches, into which the step writes at one position."""
    key, value = node.args[1:3]
    if key is value or not all(is_call(cache, operators.update_cache) for cache in (key, value)):
        return False
    is_first = all(user is node or node < user for cache in (key, value) for user in cache.users)
    turned = key.args[1]
    while is_call(turned, operators.rms_norm, aten.layer_norm.default):
        turned = turned.args[0]
    is_alike = key.args[2] is value.args[2] and shape_of(key)[2] == shape_of(value)[2]
    return is_first and is_alike and not is_call(turned, operators.rotary_by_matrix)


def _attend(node: Node, masks: Masks, at_once: bool) -> None:
    query, key, value, mask = (*node.args[:4], None)[:4]
    batch, heads, _, head_dim = shape_of(query)
    if is_call(node, operators.capped_attention):
        target, (scale, cap) = operators.capped_attention_decode, node.args[4:]
        mask = mask and emit(mask, operators.attention_mask, _source(mask))  # the same for all heads
        rest: tuple[Any, ...] = (mask, scale, cap)
    else:
        target, (positions, mask, window) = operators.attention_decode, _seen(mask, key, heads, masks)
        scale = node.kwargs.get("scale") if node.target is SDPA else node.args[5]
        rest = (positions, mask, scale, window)
    apart = at_once and _writes_both(node)
    if apart:
        _update_both(node)
    for cache in dict.fromkeys(node.args[1:3]):  # keys may be the values too, and another attention's
        if is_call(cache, *UPDATES):
            _update(cache)
    out = emit(node, target, _by_user(query, apart), *node.args[1:3], *rest)
    end = only_user(node) if is_call(only_user(node), operators.merge_heads) else node
    if is_call(end, operators.attention, operators.merge_heads):
        replace(end, emit(end, aten.reshape.default, out, list(shape_of(end))))
    else:
        out = emit(node, aten.reshape.default, out, [1, batch, heads, head_dim])
        replace(end, emit(end, aten.permute.default, out, list(BY_BATCH)))


def _seen(mask: Node | None, cache: Node, heads: int, masks: Masks) -> tuple[Node | None, Node | None, int | None]:
    """What each user sees of a cache: the positions [batch] of the last rows or a mask by heads, and the window."""
    batch = shape_of(cache)[0]
    if mask is None:
        return _last_row(cache), None, None
    positions, window = seen_positions(masks, mask, shape_of(cache)[2])
    if positions is not None:
        return emit(positions, aten.expand.default, positions, [batch]), None, window
    source = _source(mask)
    rows, have, _, length = shape_of(source)
    by_head = emit(mask, aten.reshape.default, source, [rows, 1, have, length])
    zeros = emit(mask, aten.zeros.default, [1, 1, heads, shape_of(mask)[-1]], dtype=dtype_of(source))
    return None, emit(mask, operators.attention_mask, by_head, zeros), None


def _source(mask: Node) -> Node:
    """The mask that an attention_mask is made of, before it was broadcast."""
    return mask.args[0] if is_call(mask, operators.attention_mask) else mask


def _last_row(cache: Node) -> Node:
    """The position of the last row of a cache [batch], up to which all of them are seen."""
    batch, _, length, _ = shape_of(cache)
    return literal(cache, torch.full((batch,), length - 1), f"last_of_{length}_rows_of_{batch}")


def _update(node: Node) -> None:
    """Update a cache by users."""
    cache, x, *positions = node.args
    batch, heads, length, _ = shape_of(cache)
    with node.graph.inserting_before(node):
        if positions:
            positions = emit(node, aten.expand.default, positions[0], [batch])
            new = emit(node, operators.update_cache_decode, cache, _by_user(x), positions)
        else:
            rows = torch.arange(batch * heads * length).reshape(batch * heads, length)
            following = torch.cat([rows[:, 1:], rows[:, -1:]], 1)  # the last one stays
            following = literal(node, following, f"following_of_{length}_rows_of_{batch * heads}")
            new = emit(node, operators.slide_cache_decode, cache, _by_user(x), following, _last_row(cache))
    node.replace_all_uses_with(new, propagate_meta=False)
    node.graph.erase_node(node)


def _update_both(node: Node) -> None:
    """Update the caches of keys and values of an attention at once, by users."""
    caches = key, value = node.args[1:3]
    positions = emit(key, aten.expand.default, key.args[2], [shape_of(key)[0]])
    rows = _by_user(key.args[1], True, True), _by_user(value.args[1], True)
    written = key.args[0], rows[0], positions, value.args[0], rows[1]
    both = emit(node, operators.update_caches_decode, *written)
    for at, cache in enumerate(caches):
        cache.replace_all_uses_with(emit(node, operator.getitem, both, at), propagate_meta=False)
        node.graph.erase_node(cache)


def _by_user(node: Node, apart: bool = False, is_key: bool = False) -> Node:
    """[batch, heads, 1, head_dim] as [1, batch, heads, head_dim].

    apart: whether keys are split apart. is_key: whether these are such.
    """
    if is_call(node, operators.rotary):
        x, *tables = node.args
        placed = (_table(table, shape_of(x)[0], is_key) for table in tables)
        return emit(node, operators.rotary_decode, _by_user(x, apart, is_key), *placed)
    if is_call(node, operators.rotary_by_matrix) and _turns_by_tiles(node):
        x, cos, sin, matrix = node.args
        batch = shape_of(x)[0]
        tiles = matrix if batch == 1 else emit(matrix, aten.repeat.default, matrix, [1, 1, batch, 1])
        tiles = emit(matrix, operators.by_user, tiles, batch)
        tables = [_table(table, batch) for table in (cos, sin)]
        return emit(node, operators.rotary_by_matrix_decode, _by_user(x), *tables, tiles)
    if is_call(node, operators.rms_norm, aten.layer_norm.default):
        return emit(node, node.target, _by_user(node.args[0], apart, is_key), *node.args[1:])
    if is_call(node, operator.getitem) and is_call(node.args[0], operators.split_heads):
        split, index = node.args
        x, *counts = split.args
        rows = emit(split, aten.reshape.default, x, [1, 1, shape_of(x)[0], shape_of(x)[-1]])
        heads = emit(split, operators.split_heads_decode, rows, *counts, *[True] * apart)
        return emit(split, operator.getitem, heads, index)
    return emit(node, aten.permute.default, node, list(BY_USER))


def _turns_by_tiles(node: Node) -> bool:
    """Whether TTNN's decode call takes a rotary by matrix: of whole tiles, one of which says how all turn."""
    size = shape_of(node.args[3])[-1]
    return size == TILE and shape_of(node)[-1] % size == 0


def _table(table: Node, batch: int, apart: bool = False) -> Node:
    """cos or sin [batch or 1, 1, 1, head_dim] as [1, batch, 1, head_dim], each user's on its core."""
    spread = aten.reshape.default if shape_of(table)[0] == batch else aten.expand.default
    rows = emit(table, spread, table, [1, batch, 1, shape_of(table)[-1]])
    return emit(table, operators.by_user, rows, None, apart) if apart else emit(table, operators.by_user, rows)
