"""Give one token of each user to TTNN as its decode calls take it: users as rows, not as batches.

Before   q, k, v = split_heads(qkv [b, 1, 1, n]);   k = update_cache(cache, rotary(k, cos, sin), position);   …
         out = attention(rotary(q, cos, sin), k, v, mask)
After    q, k, v = split_heads_decode(qkv [1, 1, b, n]);   k = update_cache_decode(cache, rotary_decode(k, …), position)
         out = attention_decode(rotary_decode(q, …), k, v, positions)

Where the query has one token and both keys and values are caches. A mask that lets it read up to a position becomes
that position, of the last so many of them a window; any other mask stays one.
"""

from __future__ import annotations

import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, insert, is_call, only_user, replace, shape_of
from tt_dynamo.passes.caches.rank_3 import ROWS
from tt_dynamo.passes.fuse.masks import causal_positions, window_positions
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rows import literal

CACHES = (operators.update_cache, operators.slide_cache)
SDPA = aten.scaled_dot_product_attention.default
ATTENTIONS = (operators.attention, operators.capped_attention, SDPA)
USERS = 32  # TTNN's decode calls take a tile of them
BY_USER = (2, 0, 1, 3)  # [batch, heads, 1, head_dim] → [1, batch, heads, head_dim]
BY_BATCH = (1, 2, 0, 3)  # and back


def decode_rows(graph: Graph, context: Context) -> int:
    """Rewrite every such attention; returns how many."""
    attentions = [node for node in graph.nodes if is_call(node, *ATTENTIONS)]
    if not any(shape_of(node.args[0])[2] == 1 for node in attentions):
        return 0
    canonicalize(graph, context)  # reshapes that do nothing would hide the caches
    rows = _Rows(graph)
    changed = 0
    for node in list(graph.nodes):
        if is_call(node, *ATTENTIONS) and node.users and _is_decode(node):
            with graph.inserting_before(node):
                rows.attend_capped(node) if is_call(node, operators.capped_attention) else rows.attend(node)
            changed += 1
    if changed:
        for node in list(graph.nodes):
            if node.op == "call_function" and node.target in ROWS:
                _carry(graph, node)
        dead_code(graph)
        canonicalize(graph, context)
    return changed


def _carry(graph: Graph, node: Node) -> None:
    """Have what works row by row take one token of each user, [batch, 1, .., n], as rows [1, 1, batch, n]."""
    shape = shape_of(node)
    if len(shape) < 3:
        return
    batch, *ones, _ = shape
    operands = [node.args[p] for p in ROWS[node.target] if p < len(node.args) and isinstance(node.args[p], Node)]
    if batch == 1 or set(ones) != {1} or any(shape_of(x)[:-1] != shape[:-1] for x in operands):
        return
    args = list(node.args)
    with graph.inserting_before(node):
        for position, x in enumerate(args):
            if position in ROWS[node.target] and isinstance(x, Node):
                args[position] = insert(graph, aten.reshape.default, (x, [1, 1, batch, shape_of(x)[-1]]), like=node)
        rows = insert(graph, node.target, tuple(args), dict(node.kwargs), like=node)
        replace(node, insert(graph, aten.reshape.default, (rows, list(shape)), like=node))


def _is_decode(node: Node) -> bool:
    query, key, value, *rest = node.args
    batch, _, seq, _ = shape_of(query)
    if node.target is operators.capped_attention:
        plain = rest[0] is None or shape_of(_source(rest[0]))[1:3] == (1, 1)
    elif node.target is operators.attention:
        plain = not rest[1]
    else:
        plain = not any(rest[1:3])  # dropout, is_causal
    if seq != 1 or batch > USERS or not plain:
        return False
    return all(is_call(cache, *CACHES) for cache in (key, value)) and shape_of(key)[0] == batch


def _source(mask: Node) -> Node:
    """The mask that an attention_mask is made of, before it was broadcast."""
    return mask.args[0] if is_call(mask, operators.attention_mask) else mask


class _Rows:
    """Values of the graph with users as rows: each made once, from the value that is by batches."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.first = next(node for node in graph.nodes if node.op == "call_function")
        self.known: dict[Node, Node] = {}
        self.literals: dict[tuple[int, ...], Node] = {}
        self.masks: dict[Node, Node] = {}  # those that are the same for all heads

    def attend(self, node: Node) -> None:
        query, key, value, mask = (*node.args[:4], None)[:4]
        scale = node.kwargs.get("scale") if node.target is SDPA else node.args[5]
        batch, heads, _, head_dim = shape_of(query)
        caches = [self._cache(cache) for cache in (key, value)]
        positions, window = self._seen(mask)
        if mask is None:
            positions = self._last_row(key, node)
        elif positions is None:
            mask = self._by_head(mask, heads)
        else:
            positions, mask = self._of_users(positions, batch), None
        out = self._emit(operators.attention_decode, self.of(query), *caches, positions, mask, scale, window, like=node)
        if node.target is operators.attention:
            out = self._emit(aten.reshape.default, out, [1, 1, batch, heads * head_dim], like=node)
            out = self._emit(aten.reshape.default, out, list(shape_of(node)), like=node)
        else:
            out = self._emit(aten.permute.default, out, list(BY_BATCH), like=node)
        replace(node, out)

    def attend_capped(self, node: Node) -> None:
        query, key, value, mask, scale, cap = node.args
        batch, heads, _, head_dim = shape_of(query)
        caches = [self._cache(cache) for cache in (key, value)]
        if mask is not None:
            mask = self._of_all_heads(mask)
        target = operators.capped_attention_decode
        out = self._emit(target, self.of(query), *caches, mask, scale, cap, like=node)
        merged = only_user(node)
        if is_call(merged, operators.merge_heads):
            replace(merged, self._emit(aten.reshape.default, out, list(shape_of(merged)), like=merged))
        else:
            out = self._emit(aten.reshape.default, out, [1, batch, heads, head_dim], like=node)
            replace(node, self._emit(aten.permute.default, out, list(BY_BATCH), like=node))

    def _of_all_heads(self, mask: Node) -> Node:
        """An additive mask that is the same for all heads, as [batch or 1, 1, 1, length]."""
        source = _source(mask)
        if source not in self.masks:
            with self.graph.inserting_before(mask):
                self.masks[source] = self._emit(operators.attention_mask, source, like=mask)
        return self.masks[source]

    def _seen(self, mask: Node | None) -> tuple[Node | None, int | None]:
        """The position up to which a mask lets a query read, and its window; each None where there is none."""
        positions = None if mask is None else causal_positions(mask)
        if mask is None or positions is not None:
            return positions, None
        return window_positions(mask) or (None, None)

    def _last_row(self, cache: Node, like: Node) -> Node:
        """The position of the last row of a cache [batch], up to which all of them are seen."""
        batch, _, length, _ = shape_of(cache)
        return self._numbers(torch.full((batch,), length - 1), like)

    def _following(self, cache: Node, like: Node) -> Node:
        """For each row of a cache the number of the one behind it, [batch heads, length]; the last one stays."""
        batch, heads, length, _ = shape_of(cache)
        rows = torch.arange(batch * heads * length).reshape(batch * heads, length)
        return self._numbers(torch.cat([rows[:, 1:], rows[:, -1:]], 1), like)

    def _numbers(self, numbers: torch.Tensor, like: Node) -> Node:
        """A literal that all layers share."""
        key = (*numbers.shape, int(numbers.reshape(-1)[0]))
        if key not in self.literals:
            with self.graph.inserting_before(self.first):
                self.literals[key] = literal(like, numbers)
        return self.literals[key]

    def of(self, node: Node) -> Node:
        """[batch, heads, 1, head_dim] as [1, batch, heads, head_dim]."""
        chain = [node]
        while chain[-1] not in self.known and is_call(chain[-1], operators.rotary, operators.rms_norm):
            chain.append(chain[-1].args[0])
        for made in reversed(chain):
            if made not in self.known:
                with self.graph.inserting_after(made):
                    self.known[made] = self._made(made)
        return self.known[node]

    def _made(self, node: Node) -> Node:
        if is_call(node, operators.rotary):
            x, *tables = node.args
            turned = [self._table(table, shape_of(x)[0]) for table in tables]
            x = self.of(x)
            with self.graph.inserting_before(node):
                return self._emit(operators.rotary_decode, x, *turned, like=node)
        if is_call(node, operators.rms_norm):
            x = self.of(node.args[0])
            with self.graph.inserting_before(node):
                return self._emit(operators.rms_norm, x, *node.args[1:], like=node)
        if is_call(node, operator.getitem) and is_call(node.args[0], operators.split_heads):
            return self._split(node.args[0], node.args[1])
        return self._emit(aten.permute.default, node, list(BY_USER), like=node)

    def _split(self, split: Node, index: int) -> Node:
        x, *counts = split.args
        if split not in self.known:
            with self.graph.inserting_before(split):
                batch, _, _, width = shape_of(x)
                rows = x if batch == 1 else self._emit(aten.reshape.default, x, [1, 1, batch, width], like=split)
                self.known[split] = self._emit(operators.split_heads_decode, rows, *counts, like=split)
        with self.graph.inserting_before(split):
            return self._emit(operator.getitem, self.known[split], index, like=split)

    def _table(self, table: Node, batch: int) -> Node:
        """cos or sin [batch or 1, 1, 1, head_dim] as [1, batch, 1, head_dim], each user's on its core."""
        if table not in self.known:
            with self.graph.inserting_after(table):
                rows = table
                if shape_of(table)[0] != 1:
                    rows = self._emit(aten.reshape.default, table, [1, batch, 1, shape_of(table)[-1]], like=table)
                elif batch > 1:
                    rows = self._emit(aten.expand.default, table, [1, batch, 1, shape_of(table)[-1]], like=table)
            with self.graph.inserting_after(rows):
                self.known[table] = self._emit(operators.by_user, rows, like=table)
        return self.known[table]

    def _cache(self, node: Node) -> Node:
        """The update of a cache by users."""
        if is_call(node, *CACHES):
            cache, x, *positions = node.args
            x = self.of(x)
            with self.graph.inserting_before(node):
                if positions:
                    positions = self._of_users(positions[0], shape_of(cache)[0])
                    new = self._emit(operators.update_cache_decode, cache, x, positions, like=node)
                else:
                    rows, last = self._following(cache, node), self._last_row(cache, node)
                    new = self._emit(operators.slide_cache_decode, cache, x, rows, last, like=node)
            node.replace_all_uses_with(new, propagate_meta=False)
            self.graph.erase_node(node)
            return new
        return node

    def _of_users(self, positions: Node, batch: int) -> Node:
        """One position [1] as [batch]."""
        if batch == 1:
            return positions
        if positions not in self.known:
            with self.graph.inserting_after(positions):
                self.known[positions] = self._emit(aten.expand.default, positions, [batch], like=positions)
        return self.known[positions]

    def _by_head(self, mask: Node, heads: int) -> Node:
        """An additive mask [batch or 1, 1 or heads, 1, length] as [batch or 1, 1, heads, length]."""
        if mask not in self.known:
            source = _source(mask)
            batch, have, _, length = shape_of(source)
            zeros = {"dtype": dtype_of(source)}
            with self.graph.inserting_before(mask):
                rows = self._emit(aten.reshape.default, source, [batch, 1, have, length], like=mask)
                full = heads, shape_of(mask)[-1]
                missing = [1, 1, *(1 if size == had else size for size, had in zip(full, (have, length), strict=True))]
                whole = insert(self.graph, aten.zeros.default, (missing,), zeros, like=mask)
                self.known[mask] = self._emit(operators.attention_mask, rows, whole, like=mask)
        return self.known[mask]

    def _emit(self, target, *args, like: Node) -> Node:
        return insert(self.graph, target, args, like=like)
