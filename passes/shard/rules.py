"""How operations run on parts: for a call whose operands are cut, what its operands must be cut to, and its result is.

A rule takes the walk and the call on whole values, and emits calls on parts. Raises Unruled for what it leaves. Those
of torch's DTensor answer for operations that have none here (`dtensor.py`).
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.rewrite import arguments
from tt_dynamo.passes.shard.experts import grouped_cut, grouped_products
from tt_dynamo.passes.shard.placement import Placement, Unruled, is_cut, local_shape, moved, pieces, replicated

if TYPE_CHECKING:
    from tt_dynamo.passes.shard.walk import Walk

Rule = Callable[["Walk", Node], Node]

RULES: dict[Any, Rule] = {}


def rule_of(node: Node) -> Rule | None:
    """The rule of a call; None where torch knows none either."""
    found = RULES.get(node.target)
    if found is not None:
        return found
    if node.target in grouped_products():
        return grouped_product
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    if torch.Tag.pointwise in node.target.tags:
        return pointwise
    return _by_dtensor if _dtensor().knows(node.target) else None


def _dtensor() -> Any:
    """With torch.distributed, which one chip does without."""
    from tt_dynamo.passes.shard import dtensor

    return dtensor


def _by_dtensor(walk: "Walk", node: Node) -> Node:
    made: Node = _dtensor().rule(walk, node)
    return made


def _for(*targets: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


def _aligned(shape: Sequence[int], rank: int, cut: Placement, whole: Sequence[int]) -> Placement:
    """The cut of an operand of a broadcast operation whose result, of shape `whole`, is cut so."""
    offset = rank - len(shape)
    dims = (None if dim is None or dim < offset or shape[dim - offset] != whole[dim] else dim - offset for dim in cut)
    return tuple(dims)


@_for(
    aten.hardswish.default, aten.log_sigmoid.default, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar,
    aten.masked_fill.Tensor, aten.contiguous.default, aten.alias.default, aten.detach.default, aten._to_copy.default,
    aten.rsub.Tensor, aten.special_expit.default,
)  # fmt: skip
def pointwise(walk: "Walk", node: Node) -> Node:
    """Operands, broadcast as torch does, are cut as the first of them that is cut along an axis."""
    if not isinstance(node.meta["val"], torch.Tensor):
        raise Unruled("several results")
    whole = tuple(node.meta["val"].shape)
    rank, wanted = len(whole), list(replicated(walk.mesh))
    for operand in node.all_input_nodes:
        offset = rank - len(shape_of(operand))
        for axis, dim in enumerate(walk.cut[walk.known[operand]]):
            fits = dim is not None and shape_of(operand)[dim] == whole[dim + offset]
            if fits and wanted[axis] is None:
                wanted[axis] = dim + offset
    cut = tuple(wanted)

    def part(operand: Node) -> Node:
        return walk.to(walk.known[operand], _aligned(shape_of(operand), rank, cut, whole))

    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), part)
    return walk.emit(node.target, args, kwargs, cut)


@_for(aten.linear.default)
def linear(walk: "Walk", node: Node) -> Node:
    x, weight, bias = (arguments(node)[name] for name in ("input", "weight", "bias"))
    rank = len(shape_of(x))
    given, rows = walk.cut[walk.known[x]], walk.cut[walk.known[weight]]
    x_cut, result, bias_cut, summed = list(given), list(given), list(replicated(walk.mesh)), []
    for axis, dim in enumerate(rows):
        if dim == 0:
            x_cut[axis], result[axis], bias_cut[axis] = None, rank - 1, 0
        elif dim == 1:
            x_cut[axis], result[axis] = rank - 1, None
            summed.append(axis)
        elif given[axis] == rank - 1:
            x_cut[axis] = result[axis] = None
    args = [walk.to(walk.known[x], tuple(x_cut)), walk.known[weight]]
    if bias is not None and not summed:
        args.append(walk.to(walk.known[bias], tuple(bias_cut)))
    made = walk.sum(walk.emit(node.target, tuple(args), {}, tuple(result)), summed)
    if bias is None or not summed:
        return made
    bias = walk.to(walk.known[bias], tuple(bias_cut))
    return walk.emit(aten.add.Tensor, (made, bias), {}, tuple(result))


@_for(aten.matmul.default, aten.bmm.default, aten.mm.default)
def product(walk: "Walk", node: Node) -> Node:
    """Of matrices: batches and heads together, rows of the first, columns of the second, or both sides of the sum."""
    x, y = node.args[:2]
    shapes, rank = (shape_of(x), shape_of(y)), len(shape_of(node))
    if min(map(len, shapes)) < 2:
        raise Unruled("a product with a vector")
    cuts = [list(replicated(walk.mesh)) for _ in range(2)]
    result, summed = list(replicated(walk.mesh)), []
    for axis in range(len(walk.mesh)):
        for which, operand in enumerate((x, y)):
            dim = walk.cut[walk.known[operand]][axis]
            if dim is None:
                continue
            other, from_end = 1 - which, dim - len(shapes[which])
            if from_end < -2:  # batches
                cuts[which][axis], result[axis] = dim, rank + from_end
                across = len(shapes[other]) + from_end
                if across >= 0 and shapes[other][across] == shapes[which][dim]:
                    cuts[other][axis] = across
            elif from_end == (-2, -1)[which]:
                cuts[which][axis], result[axis] = dim, rank + from_end
            elif shapes[which][dim] % pieces(walk.cut[walk.known[operand]], walk.mesh, dim):
                raise Unruled("a sum over what the batch is filled up with")
            else:
                cuts[which][axis], cuts[other][axis] = dim, len(shapes[other]) + (-2, -1)[which]
                summed.append(axis)
            break
    args = tuple(walk.to(walk.known[operand], tuple(cut)) for operand, cut in zip((x, y), cuts, strict=True))
    return walk.sum(walk.emit(node.target, args, {}, tuple(result)), summed)


@_for(aten.scaled_dot_product_attention.default)
def attention(walk: "Walk", node: Node) -> Node:
    """Batches and heads apart. Where there are fewer heads of keys than chips, each chip gets the one that it reads."""
    given = arguments(node)
    q, k, v, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    if len(shape_of(q)) != 4:
        raise Unruled("attention of another rank")
    cuts = [walk.cut[walk.known[operand]] for operand in (q, k, v)]
    cut = tuple(next((dim for dim in dims if dim in (0, 1)), None) for dims in zip(*cuts, strict=True))
    keys = []
    for operand in (k, v):
        part, heads = walk.known[operand], shape_of(operand)[1]
        chips = math.prod(n for n, dim in zip(walk.mesh, cut, strict=True) if dim == 1)
        if heads % chips:
            if chips % heads:
                raise Unruled(f"{heads} heads for {chips} chips")
            part = _repeated(walk, walk.to(part, moved(walk.cut[part], {0: 0})), chips // heads)
        keys.append(walk.to(part, cut))
    args = [walk.to(walk.known[q], cut), *keys]
    if mask is not None:
        mask = walk.to(walk.known[mask], _aligned(shape_of(mask), 4, cut, (*shape_of(q)[:3], shape_of(k)[2])))
    rest = given["dropout_p"], given["is_causal"]
    return walk.emit(node.target, (*args, mask, *rest), dict(node.kwargs), cut)


def _repeated(walk: "Walk", x: Node, times: int) -> Node:
    """Each head as often as that, one after another."""
    batch, heads, *size = shape_of(x)
    cut = walk.cut[x]
    after = moved(cut, {0: 0})
    x = walk.emit(aten.unsqueeze.default, (x, 2), {}, after)
    x = walk.emit(aten.expand.default, (x, [batch, heads, times, *size]), {}, after)
    return walk.emit(aten.reshape.default, (x, [batch, heads * times, *size]), {}, cut)


@_for(aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten.cumsum.default)
def along(walk: "Walk", node: Node) -> Node:
    """All of one dimension on every chip, whatever the others are cut to."""
    x, dim, *rest = node.args
    dim %= len(shape_of(x))
    part = _uncut(walk, x, [dim])
    return walk.emit(node.target, (part, dim, *rest), dict(node.kwargs), walk.cut[part])


def _uncut(walk: "Walk", operand: Node, dims: Sequence[int]) -> Node:
    """An operand of which these dimensions are not cut."""
    part = walk.known[operand]
    return walk.to(part, tuple(None if dim in dims else dim for dim in walk.cut[part]))


@_for(aten.layer_norm.default, aten.rms_norm.default)
def norm(walk: "Walk", node: Node) -> Node:
    x, sizes, *rest = node.args
    rank = len(shape_of(x))
    part = _uncut(walk, x, range(rank - len(sizes), rank))
    rest = [walk.to(walk.known[y], replicated(walk.mesh)) if isinstance(y, Node) else y for y in rest]
    return walk.emit(node.target, (part, sizes, *rest), dict(node.kwargs), walk.cut[part])


@_for(
    aten.convolution.default, aten.conv2d.default, aten._native_batch_norm_legit_no_training.default,
    aten.batch_norm.default, aten.max_pool2d.default, aten.max_pool2d_with_indices.default, aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten.group_norm.default,
    aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec, aten.pixel_shuffle.default,
)  # fmt: skip
def by_image(walk: "Walk", node: Node) -> Node:
    """What computes image by image, all else whole."""
    first, *rest = node.args
    if node.target is aten.batch_norm.default and node.args[5]:
        raise Unruled("a norm over the batch")
    part = _uncut(walk, first, range(1, len(shape_of(first))))

    def whole(operand: Node) -> Node:
        return walk.to(walk.known[operand], replicated(walk.mesh))

    rest, kwargs = torch.fx.node.map_arg((tuple(rest), node.kwargs), whole)
    return walk.emit(node.target, (part, *rest), kwargs, walk.cut[part])


@_for(aten.embedding.default)
def embedding(walk: "Walk", node: Node) -> Node:
    weight, ids = node.args[:2]
    table, rank = _uncut(walk, weight, [0]), len(shape_of(node))
    part, cut = walk.known[ids], list(walk.cut[walk.known[ids]])
    for axis, dim in enumerate(walk.cut[table]):
        if dim == 1:
            cut[axis] = rank - 1
    part = walk.to(part, tuple(None if dim == rank - 1 else dim for dim in cut))
    return walk.emit(node.target, (table, part, *node.args[2:]), dict(node.kwargs), tuple(cut))


@_for(aten.index_copy.default)
def index_copy(walk: "Walk", node: Node) -> Node:
    x, dim, index, source = node.args
    rank = len(shape_of(x))
    cut = walk.cut[walk.known[x]]
    if not is_cut(cut) and x.op != "placeholder":
        cut = walk.cut[walk.known[source]]
    part = walk.to(walk.known[x], tuple(None if d == dim % rank else d for d in cut))
    index = walk.to(walk.known[index], replicated(walk.mesh))
    return walk.emit(node.target, (part, dim, index, walk.to(walk.known[source], walk.cut[part])), {}, walk.cut[part])


@_for(aten.copy_.default)
def copy(walk: "Walk", node: Node) -> Node:
    target, source = (walk.known[operand] for operand in node.args[:2])
    return walk.emit(node.target, (target, walk.to(source, walk.cut[target])), {}, walk.cut[target])


@_for(aten.cat.default, aten.stack.default)
def join(walk: "Walk", node: Node) -> Node:
    """Parts of all operands, cut as the first that is cut elsewhere than along what is joined."""
    operands, dim = node.args[0], node.args[1] if len(node.args) > 1 else 0
    rank = len(shape_of(node))
    dim %= rank
    taken = [dim] if node.target is aten.cat.default else []
    cuts = [tuple(None if d in taken else d for d in walk.cut[walk.known[x]]) for x in operands]
    cut = tuple(next((d for d in dims if d is not None), None) for dims in zip(*cuts, strict=True))
    # An empty list of numbers joins anything, as a cache begins.
    parts = [walk.known[x] if shape_of(x) == (0,) else walk.to(walk.known[x], cut) for x in operands]
    after = cut if taken else moved(cut, {d: d + (d >= dim) for d in range(rank)})
    return walk.emit(node.target, (parts, dim), {}, after)


@_for(aten.constant_pad_nd.default)
def pad(walk: "Walk", node: Node) -> Node:
    x, widths, *rest = node.args
    rank = len(shape_of(x))
    padded = [rank - 1 - at // 2 for at, width in enumerate(widths) if width]
    part = _uncut(walk, x, padded)
    return walk.emit(node.target, (part, widths, *rest), dict(node.kwargs), walk.cut[part])


def grouped_product(walk: "Walk", node: Node) -> Node:
    """Groups of rows times a matrix each; a sum over chips is due after what follows it linearly."""
    x, weight, *rest = node.args
    part, table = walk.known[x], walk.known[weight]
    found = grouped_cut(walk.cut[part], walk.cut[table])
    if found is None or node.kwargs:
        raise Unruled("experts that are cut in another way")
    wanted, cut, due = found
    rest = [walk.to(walk.known[y], replicated(walk.mesh)) if isinstance(y, Node) else y for y in rest]
    made = walk.emit(node.target, (walk.to(part, wanted), table, *rest), {}, cut)
    if due:
        walk.due[made] = due
    if table in walk.packed:
        walk.packed.add(made)
    return made


@_for(aten.split.Tensor)
def split(walk: "Walk", node: Node) -> Node:
    part = walk.known[node.args[0]]
    if part not in walk.packed:
        return _by_dtensor(walk, node)
    half = shape_of(part)[-1] // 2
    return walk.emit(node.target, (part, half, node.args[2]), {}, walk.cut[part])


@_for(aten.permute.default, aten.transpose.int, aten.unsqueeze.default)
def reorder(walk: "Walk", node: Node) -> Node:
    x, *how = node.args
    rank, part = len(shape_of(x)), walk.known[x]
    order = list(range(rank))
    if node.target is aten.permute.default:
        order = [dim % rank for dim in how[0]]
    elif node.target is aten.transpose.int:
        a, b = (dim % rank for dim in how)
        order[a], order[b] = b, a
    else:
        order.insert(how[0] % (rank + 1), -1)
    to = {dim: position for position, dim in enumerate(order)}
    made = walk.emit(node.target, (part, *how), dict(node.kwargs), moved(walk.cut[part], to))
    if part in walk.packed:
        walk.packed.add(made)
    return made


@_for(aten.expand.default)
def expand(walk: "Walk", node: Node) -> Node:
    x, whole = walk.known[node.args[0]], shape_of(node)
    offset = len(whole) - len(shape_of(node.args[0]))
    cut = tuple(None if dim is None else dim + offset for dim in walk.cut[x])
    return walk.emit(node.target, (x, list(local_shape(whole, cut, walk.mesh))), {}, cut)


@_for(aten.view.default, aten.reshape.default, aten._unsafe_view.default)
def view(walk: "Walk", node: Node) -> Node:
    """A cut dimension goes on as the outermost of those that it becomes, or is gathered where it is not outermost."""
    x, (before, after) = walk.known[node.args[0]], (shape_of(node.args[0]), shape_of(node))
    outermost = leading(before, after)
    wanted = []
    for dim in walk.cut[x]:
        to = None if dim is None else outermost.get(dim)
        parts = pieces(walk.cut[x], walk.mesh, dim) if dim is not None else 1
        is_batch = to is not None and dim is not None and before[dim] == after[to] == walk.batch
        wanted.append(to if to is not None and (is_batch or after[to] % parts == 0) else None)
    kept = tuple(dim if to is not None else None for dim, to in zip(walk.cut[x], wanted, strict=True))
    sizes = list(local_shape(after, tuple(wanted), walk.mesh))
    return walk.emit(aten.reshape.default, (walk.to(x, kept), sizes), {}, tuple(wanted))


def leading(before: Sequence[int], after: Sequence[int]) -> dict[int, int]:
    """Which dimension of a reshaped value has the outermost elements of each that leads a group of equal size."""
    found, i, j = {}, 0, 0
    while i < len(before) and j < len(after):
        start, to, high, wide = i, j, before[i], after[j]
        while high != wide:
            if high < wide:
                i += 1
                high *= before[i]
            else:
                j += 1
                wide *= after[j]
        first = next((dim for dim in range(start, i + 1) if before[dim] != 1), start)
        found[first] = next((dim for dim in range(to, j + 1) if after[dim] != 1), to)
        i, j = i + 1, j + 1
    return found
