"""Attention to keys from several places: scores that are joined for one softmax, and keys that are gathered.

Before   w = softmax(cat([q @ a.mT * s + m, q @ b.mT * s + n], -1));   out = w[..., :k] @ c + w[..., k:] @ d
After    out = scaled_dot_product_attention(q, cat([a, b], -2), cat([c, d], -2), cat([m, n], -1), scale=s)

Before   key = cat([x[:, :, :64], gather(x, 2, i), x[:, :, -64:]], 2)        heads of one projection, i of literals
After    key = look_up(heads(x), rows)

BigBird's blocks of queries read the first and the last block of keys, those around and some random ones; each has a
product of its own, and keys of the first and the last are shared by all blocks, which are the product's rows then.

Source: Zaheer et al. 2020, https://arxiv.org/abs/2007.14062
"""

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.attention.attention import PRODUCTS, SOFTMAXES, sdpa, split_scale
from tt_dynamo.passes.movement import cut_of, joined_along, transposing
from tt_dynamo.passes.origins import Origin, Origins
from tt_dynamo.passes.rewrite import emit
from tt_dynamo.passes.rows import literal

GATHERED = (aten.cat.default, aten.gather.default)


class Part(NamedTuple):
    """Scores query @ keysᵀ * scale + mask, or weights @ values. right: [..., head_dim, keys] of scores."""

    left: Node
    right: Node
    scale: float = 1.0
    mask: Node | None = None


def join_keys(graph: Graph, context: Context) -> int:
    """Rewrite every attention whose scores are joined; returns how many."""
    made = dict[tuple[Any, ...], Node]()  # masks, which layers share
    count = sum(_join(node, made) for node in list(graph.nodes) if is_call(node, *SOFTMAXES))
    dead_code(graph)
    return count


def _join(softmax: Node, made: dict[tuple[Any, ...], Node]) -> bool:
    joined, rank = softmax.args[0], len(shape_of(softmax))
    if rank < 4 or softmax.args[1] % rank != rank - 1 or not is_call(joined, aten.cat.default):
        return False
    if only_user(joined) is None or joined_along(joined) != -1:
        return False
    scores = [_scores(part) for part in joined.args[0]]
    values = _values(softmax)
    if values is None or None in scores:
        return False
    out, weighted = values
    widths = [shape_of(part)[-1] for part in joined.args[0]]
    cuts = [(at, shape_of(part.left)[-1]) for at, part in weighted.items()]
    if cuts != [*zip([0, *itertools.accumulate(widths[:-1])], widths, strict=True)]:
        return False
    parts = [part for part in scores if part is not None]
    query, scale = _unfolded(parts[0].left), parts[0].scale
    if any(_unfolded(part.left) is not query or part.scale != scale for part in parts):
        return False
    if shape_of(query)[:-1] != shape_of(softmax)[:-1]:
        return False
    leading = [math.prod(shape_of(softmax)[:-3]), shape_of(softmax)[-3]]
    with softmax.graph.inserting_before(out):
        keys = [_spread(part.right, part.left, query, True) for part in parts]
        held = [_spread(part.right, part.left, softmax, False) for part in weighted.values()]
        if None in keys or None in held:
            return False
        named = *(part.mask for part in parts), *map(shape_of, joined.args[0])
    if named not in made and any(part.mask is not None for part in parts):
        with softmax.graph.inserting_before(softmax):  # where the next attention, whose result may come first, sees it
            masks = [_mask(part.mask, score) for part, score in zip(parts, joined.args[0], strict=True)]
            mask = emit(joined, aten.cat.default, masks, rank - 1)
            made[named] = emit(joined, aten.reshape.default, mask, [*leading, *shape_of(mask)[-2:]])
    with softmax.graph.inserting_before(out):
        operands = [query, emit(out, aten.cat.default, keys, rank - 2), emit(out, aten.cat.default, held, rank - 2)]
        operands = [emit(out, aten.reshape.default, x, [*leading, *shape_of(x)[-2:]]) for x in operands]
        attended = emit(out, sdpa, *operands, made.get(named), 0.0, False, scale=scale)
        replace(out, emit(out, aten.reshape.default, attended, list(shape_of(out))))
    return True


def _scores(node: Node) -> Part | None:
    """Scores that nothing else reads."""
    mask, steps = None, node
    if is_call(steps, aten.add.Tensor) and all(isinstance(x, Node) for x in steps.args) and only_user(steps):
        products = [x for x in steps.args if is_call(_unfolded(split_scale(x)[0]), *PRODUCTS)]
        if len(products) != 1:
            return None
        mask = next((x for x in steps.args if x is not products[0]), None)
        steps = products[0]
    product, scale = split_scale(steps)
    found = _unfolded(product)
    if not is_call(found, *PRODUCTS) or shape_of(found)[-1] != shape_of(node)[-1] or shape_of(steps) != shape_of(node):
        return None
    return Part(found.args[0], found.args[1], scale, mask)


def _values(softmax: Node) -> tuple[Node, dict[int, Part]] | None:
    """The sum of all products of weights with values, and those by the first column of their weights."""
    parts, products = dict[int, Part](), list[Node]()
    for cut in softmax.users:
        at = cut_of(cut, -1)
        weights = cut
        if is_call(only_user(cut), aten.reshape.default):
            weights = only_user(cut) or cut
        product = only_user(weights)
        if at is None or product is None or not is_call(product, *PRODUCTS) or product.args[0] is not weights:
            return None
        parts[at[1]] = Part(product.args[0], product.args[1])
        products.append(only_user(product) or product if is_call(only_user(product), aten.reshape.default) else product)
    waiting = set(products)
    while len(waiting) > 1:
        total = next((user for x in waiting if (user := only_user(x)) is not None and set(user.args) <= waiting), None)
        if total is None or not is_call(total, aten.add.Tensor) or total.kwargs:
            return None
        waiting = waiting - set(total.args) | {total}
    out = waiting.pop() if waiting else None
    if out is None or not len(products) == len(parts) > 1 or any(shape_of(x) != shape_of(out) for x in products):
        return None
    return (out, dict(sorted(parts.items()))) if shape_of(out)[:-1] == shape_of(softmax)[:-1] else None


def _unfolded(x: Node) -> Node:
    """What a reshape of all but the last dimension reads."""
    is_fold = is_call(x, aten.reshape.default) and shape_of(x)[-1] == shape_of(x.args[0])[-1]
    return x.args[0] if is_fold else x


def _spread(right: Node, left: Node, whole: Node, is_transposed: bool) -> Node | None:
    """Keys or values [..., keys, head_dim] for each of the leading dimensions of `whole`, [..., rows, columns].

    left, right: of the product, whose rows may be all rows of the last of those dimensions
    """
    rank, leading = len(shape_of(right)), shape_of(whole)[:-2]
    rows = emit(whole, aten.permute.default, right, transposing(rank)) if is_transposed else right
    own, spread = math.prod(shape_of(right)[:-2]), len(leading)
    while spread and math.prod(leading[:spread]) > own:
        spread -= 1
    is_alike = math.prod(leading[:spread]) == own and math.prod(shape_of(left)[:-2]) == own
    if not is_alike or shape_of(left)[-2] != math.prod(leading[spread:]) * shape_of(whole)[-2]:
        return None
    apart = [*leading[:spread], *[1] * (len(leading) - spread), *shape_of(rows)[-2:]]
    rows = emit(whole, aten.reshape.default, rows, apart)
    return emit(whole, aten.expand.default, rows, [*leading, *apart[-2:]])


def _mask(mask: Node | None, score: Node) -> Node:
    """A mask of some scores, or none, in their shape."""
    if mask is None:
        mask = emit(score, aten.full.default, [1], 0.0, dtype=dtype_of(score), device=score.meta["val"].device)
    return emit(score, aten.expand.default, mask, list(shape_of(score)))


def look_up_keys(graph: Graph, context: Context) -> int:
    """Look up the keys and values of every attention that are gathered from one projection; returns how many.

    What attends to all keys of such a projection reads the same heads.
    """
    origins, tables, count = Origins(), dict[Node, Node](), 0
    attentions = graph.find_nodes(op="call_function", target=sdpa)
    operands = [(node, at) for node in attentions for at in (1, 2) if len(shape_of(node.args[at])) == 4]
    gathered = [(node, at) for node, at in operands if origins.moved_by(node.args[at], GATHERED)]
    others = [pair for pair in operands if pair not in gathered] if gathered else []
    for node, at in gathered + others:
        origin, is_gathered = origins.of(node.args[at]), (node, at) in gathered
        if origin is not None and (is_gathered or origin.source in tables):
            with graph.inserting_before(node):
                found = _looked_up(node.args[at], origin, tables)
            if found is not None and (is_gathered or not is_call(found, operators.look_up)):
                node.update_arg(at, found)
                count += 1
    dead_code(graph)
    return count


def _looked_up(x: Node, origin: Origin, tables: dict[Node, Node]) -> Node | None:
    """x of the heads of its source, which are looked up unless it is all of them."""
    first, source = origin.first_of_rows(), origin.source
    if first is None or bool((first < 0).any()):
        return None
    length, width = shape_of(source)[-1], shape_of(x)[-1]
    heads, tokens = length // width, math.prod(shape_of(source)[:-1])
    if length % width or bool((first % width).any()):
        return None
    rows = first % length // width * tokens + first // length
    is_whole = torch.equal(rows, torch.arange(heads * tokens).reshape(1, heads, tokens))
    if source not in tables:
        with source.graph.inserting_before(source.next):
            apart = emit(x, aten.reshape.default, source, [1, tokens, heads, width])
            tables[source] = emit(x, aten.permute.default, apart, [0, 2, 1, 3])
    if shape_of(tables[source])[-1] != width:
        return None
    return tables[source] if is_whole else emit(x, operators.look_up, tables[source], literal(x, rows))
