"""Let attention take and give heads as its kernel does: those that queries share once, and its own merged.

Before   k, v = [reshape(expand(reshape(x, [b, h, 1, s, d]), [b, h, n, s, d]), [b, h * n, s, d]) for x in (k, v)]
         out = reshape(permute(scaled_dot_product_attention(q, k, v), [0, 2, 1, 3]), [batch, seq, heads * head_dim])
After    out = attention(q, k, v)

Whatever moves of data repeat the heads, also before the rotary embedding turns them: TTNN's attention takes fewer heads
of keys and values, each for as many consecutive ones of queries. Keys and values must be repeated alike. A
cache that keeps them repeated (Falcon) has them repeated last, behind the kernel that splits heads.

Whatever moves of data spell the merge, in whichever shape they end: TTNN's attention kernel writes merged heads itself;
behind capped_attention, linear_attention, products and sums, such as of MViT's attention and its queries, the merge is
a kernel, merge_heads. A mask whose contents are
known to let each query read its own key and some before it becomes the kernel's window.
"""

import itertools

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.attention.masks import Masks
from tt_dynamo.passes.movement import (
    LIMIT,
    chain_of,
    grain_of,
    is_move,
    merges_heads,
    numbered,
    run_by_grains,
    source_of,
)
from tt_dynamo.passes.rewrite import argument, emit

SDPA = aten.scaled_dot_product_attention.default
KEEPING = (*operators.CACHE_WRITES, aten.constant_pad_nd.default, aten.index_copy.default)
UNMERGED = (operators.capped_attention, operators.linear_attention)  # which give heads, that merge_heads merges
REPEATS = (aten.expand.default, aten.repeat.default)


def fuse_grouped_query(graph: Graph, context: Context) -> int:
    """Strip the repeats of every attention's keys and values; returns of how many attentions."""
    fused = 0
    for attention in list(graph.nodes):
        if not is_call(attention, SDPA, operators.capped_attention):
            continue
        query, key, value, *rest = attention.args
        with graph.inserting_before(attention):
            stripped = [_stripped(x) for x in (key, value)]
        if None not in stripped and len({shape_of(x)[1] for x in stripped}) == 1:
            attention.args = (query, *stripped, *rest)
            if attention.target is SDPA:
                attention.kwargs = {**attention.kwargs, "enable_gqa": True}
            fused += 1
    dead_code(graph)
    fused += sum(_repeat_last(node) for node in list(graph.nodes) if node.users and is_move(node))
    dead_code(graph)
    return fused


def _repeat_last(x: Node) -> bool:
    """Have heads that are kept as often as they are repeated, as Falcon's cache does, repeated when they are ready."""
    if not is_call(source_of(x), aten.expand.default):
        return False
    user = only_user(x)
    x = user if user is not None and is_call(user, operators.rotary) and user.args[0] is x else x
    if len(shape_of(x)) != 4 or not all(is_call(user, *KEEPING) for user in x.users):
        return False
    with x.graph.inserting_before(x):
        heads = _stripped(x)
        if heads is None:
            return False
        batch, count, *rest = shape_of(heads)
        apart = emit(x, aten.reshape.default, heads, [batch * count, 1, *rest])
        repeated = emit(x, aten.repeat.default, apart, [1, shape_of(x)[1] // count, 1, 1])
        replace(x, emit(x, aten.reshape.default, repeated, list(shape_of(x))))
    return True


def _stripped(x: Node) -> Node | None:
    """The heads that x [batch, heads, seq, head_dim] repeats, each as often in a row: [batch, fewer, seq, head_dim]."""
    if is_call(x, operators.rotary) and all(shape_of(table)[1] == 1 for table in x.args[1:]):
        heads = _stripped(x.args[0])
        return heads and emit(x, operators.rotary, heads, *x.args[1:])
    repeat = source_of(x)
    chain = [*chain_of(x), repeat]
    if not is_call(repeat, *REPEATS):
        return None
    grain = grain_of(chain)
    if max(x.meta["val"].numel(), repeat.meta["val"].numel()) // grain > LIMIT:
        return None
    source = repeat.args[0]
    sizes = (*shape_of(source)[:-1], shape_of(source)[-1] // grain)
    numbers, read = numbered(sizes), run_by_grains(chain, grain)
    times = read.numel() // max(numbers.numel(), 1)
    wanted = read[:, :: max(times, 1)]
    if times < 2 or not torch.equal(read, wanted.repeat_interleave(times, 1)) or wanted.numel() != numbers.numel():
        return None
    for order in itertools.permutations(range(len(sizes))):
        moved = numbers.permute(order).squeeze()
        if moved.shape == wanted.squeeze().shape and torch.equal(moved, wanted.squeeze()):
            y = emit(x, aten.permute.default, source, list(order)) if list(order) != sorted(order) else source
            return _reshaped(y, (*wanted.shape[:-1], wanted.shape[-1] * grain), x)
    return None


def _reshaped(y: Node, shape: tuple[int, ...], x: Node) -> Node:
    """y in that shape: as it is there already for a cache, or for the attention of later tokens, where it is."""
    if is_call(y, aten.reshape.default) and shape_of(y) != shape:
        y = y.args[0]
    if shape_of(y) == shape:
        return y
    reshapes = (user for user in y.users if is_call(user, aten.reshape.default) and shape_of(user) == shape)
    return next((user for user in reshapes if user < x), None) or emit(x, aten.reshape.default, y, list(shape))


def fuse_merge_heads(graph: Graph, context: Context) -> int:
    """Fuse the chain behind every attention that merges its heads; returns how many."""
    fused, masks = 0, Masks(graph)
    for node in list(graph.nodes):
        dropout = is_call(node, SDPA) and argument(node, 4)
        end = merged_at(node, context) if _gives_heads(node) and not dropout else None
        if end is None or is_call(node, SDPA) and shape_of(node.args[1]) != shape_of(node.args[2]):
            continue
        with graph.inserting_before(end):
            merged = _attention(node, masks) if is_call(node, SDPA) else emit(node, operators.merge_heads, node)
            if shape_of(merged) != shape_of(end):
                merged = emit(end, aten.reshape.default, merged, list(shape_of(end)))
            replace(end, merged)
        fused += 1
    dead_code(graph)
    return fused


def _gives_heads(node: Node) -> bool:
    """Whether a call is attention, or a product or a sum with either that gives heads of whole tiles."""
    if is_call(node, aten.add.Tensor):
        return _gives_tiles(node) and any(map(_gives_heads, node.all_input_nodes))
    return is_call(node, SDPA) or (is_call(node, aten.matmul.default, *UNMERGED) and _gives_tiles(node))


def _gives_tiles(node: Node) -> bool:
    return len(shape_of(node)) == 4 and shape_of(node)[-1] % TILE == 0 and dtype_of(node).is_floating_point


def merged_at(attention: Node, context: Context) -> Node | None:
    """The last node of the chain behind `attention` at which its heads are merged."""
    found, node = None, only_user(attention)
    while node is not None and is_move(node):
        if merges_heads(node, context):
            found = node
        node = only_user(node)
    return found


def _attention(node: Node, masks: Masks) -> Node:
    query, key, value = node.args[:3]
    mask, is_causal, scale = argument(node, 3), argument(node, 5, False), node.kwargs.get("scale")
    queries, keys = shape_of(query)[2], shape_of(key)[2]
    reach = None if mask is None or queries != keys else masks.reach(mask, (queries, keys))
    window = None if reach is None else reach.window()
    rest = (mask, is_causal, scale) if window is None else (None, True, scale, window)
    return emit(node, operators.attention, query, key, value, *rest)
