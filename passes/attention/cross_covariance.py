"""Attention among channels takes its heads as the kernel that splits them gives them.

Before   q, k, v = split(permute(linear(x, w)))                                   each [batch, heads, head_dim, tokens]
         y = permute(matmul(softmax(norm(q) @ norm(k).T), v), [0, 3, 1, 2])
After    q, k, v = heads(linear(x, w))                                            each [batch, heads, tokens, head_dim]
         y = permute(matmul(v, softmax(norm(q.T) @ norm(k.T).T).T), [0, 2, 1, 3])

Queries and keys are transposed for their norm, values are not: the weights transpose where the product reads them.

Before   y = softmax(rms_norm(q) @ rms_norm(k).T * scale) @ v                                where channels are few
After    z = rms_norm(linear(x, [wq, wk]).T)                                    [batch, 2 heads head_dim, tokens]
         y = (linear(x, [0, wv]) @ softmax(z @ z.T * scale + mask).T)[..., : heads * head_dim]

All heads at once are one matrix, whose mask leaves each channel the keys of its own head. Queries and keys are rows of
one, so that nothing splits them, and what the rows of keys give meets zeros in the next linear. Heads that fill no
tiles take moves of single elements else; of those that do, a few hundred channels cost less than kernels that split,
transpose and merge them. x is to be finite: an infinity in one channel becomes NaN in all.

XCiT, EdgeNeXt; Source: El-Nouby et al. 2021, https://arxiv.org/abs/2106.09681
"""

import math
import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.attention.attention import PRODUCTS, SOFTMAXES
from tt_dynamo.passes.fuse.linears import has_own_weights, take, take_columns
from tt_dynamo.passes.movement import cut_of, head_columns, is_move, is_permute, moves_behind, source_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import FLOATS, MUL, as_dtype, emit, is_constant, is_number
from tt_dynamo.passes.rows import literal

TRANSPOSED, TURNED = [0, 1, 3, 2], [0, 2, 1]
# Channels up to which all heads are one matrix: of heads that fill tiles, and of others.
WIDEST, WIDEST_NARROW = 256, 1024


def fuse_cross_covariance(graph: Graph, context: Context) -> int:
    """Have every attention among channels read heads of tokens; returns how many."""
    fused = sum(_fuse(node, context) for node in list(graph.nodes) if is_call(node, *PRODUCTS) and node.users)
    dead_code(graph)
    if fused:
        canonicalize(graph, context)  # permutes that meet
        for linear in graph.find_nodes(op="call_function", target=operators.linear):
            _read_all(linear)
        dead_code(graph)
    return fused


def _fuse(node: Node, context: Context) -> bool:
    weights, value = node.args
    source = source_of(value)
    is_weighted = is_call(weights, *SOFTMAXES) and only_user(weights) is node and weights.args[1] in (-1, 3)
    if not is_weighted or source is value or not has_own_weights(source):
        return False
    if not len(shape_of(weights)) == len(shape_of(value)) == 4:
        return False
    ends = [x for x in moves_behind(source) if any(not is_move(user) for user in x.users)]
    with node.graph.inserting_before(node):
        found = [_columns(x, context) for x in ends]
    columns = [each for each in found if each is not None]
    if value not in ends or len({shape_of(x) for x in ends}) > 1 or not len(ends) == len(columns) == 3:
        return False
    if _join_heads(node, dict(zip(ends, columns, strict=True))):
        return True
    for x, heads in zip(ends, _split(source, torch.cat(columns), ends[0]), strict=True):
        with x.graph.inserting_before(x):
            replace(x, emit(x, aten.permute.default, heads, TRANSPOSED))
    with node.graph.inserting_before(node):
        turned = [emit(node, aten.permute.default, x, TRANSPOSED) for x in (node.args[1], weights)]
        replace(node, emit(node, aten.permute.default, emit(node, aten.matmul.default, *turned), TRANSPOSED))
    return True


def _columns(x: Node, context: Context) -> torch.Tensor | None:
    """Columns [heads, head_dim] of which x is the transposed heads, or None."""
    return head_columns(emit(x, aten.permute.default, x, TRANSPOSED), context) if len(shape_of(x)) == 4 else None


def _split(linear: Node, columns: torch.Tensor, like: Node) -> list[Node]:
    """Heads of the columns of a linear, by one kernel for all three.

    columns: [3 heads, head_dim]
    """
    batch, heads, _, tokens = shape_of(like)
    with linear.graph.inserting_before(linear):
        qkv = emit(linear, operators.linear, linear.args[0], *take_columns(linear, columns.reshape(-1)))
        qkv = emit(like, aten.reshape.default, qkv, [batch, 1, tokens, columns.numel()])
        split = emit(like, operators.split_heads, qkv, heads, heads)
        return [emit(like, operator.getitem, split, index) for index in range(3)]


def _join_heads(node: Node, columns: dict[Node, torch.Tensor]) -> bool:
    """Compute attention of all heads by one matrix, where it normalizes queries and keys alike; whether it does.

    columns: of a linear, [heads, head_dim], by queries, keys and values
    """
    weights, value = node.args
    batch, heads, head_dim, tokens = shape_of(value)
    count, linear = heads * head_dim, source_of(value)
    scores, scale = _scaled(weights.args[0])
    norms = _norms(scores)
    queries_and_keys = [norm.args[0] for norm in norms]
    if {*queries_and_keys, value} != {*columns} or len(norms) != 2 or len(shape_of(linear)) != 3:
        return False
    alike = dtype_of(node) in FLOATS and len({dtype_of(x) for x in (node, weights, *norms, *columns)}) == 1
    if not alike or count > (WIDEST if head_dim % TILE == 0 else WIDEST_NARROW) or shape_of(node) != shape_of(value):
        return False
    if isinstance(scale, Node) and torch.broadcast_shapes(shape_of(scale), (1, heads, 1, 1)) != (1, heads, 1, 1):
        return False
    own = torch.arange(heads).repeat_interleave(head_dim)
    allowed = (own[:, None] == own).repeat(2, 1)
    mask = torch.full((1, 2 * count, 2 * count), -math.inf, dtype=dtype_of(node))
    mask[0, :, count:][allowed] = 0
    with node.graph.inserting_before(node):
        numbers = torch.cat([columns[x] for x in queries_and_keys]).reshape(-1)
        pairs = emit(node, operators.linear, linear.args[0], *take_columns(linear, numbers))
        numbers = torch.cat([torch.full((count,), -1), columns[value].reshape(-1)])
        values = emit(node, operators.linear, linear.args[0], *take_columns(linear, numbers))
        rows = emit(norms[0], norms[0].target, emit(node, aten.permute.default, pairs, TURNED), *norms[0].args[1:])
        product = emit(scores, operators.transposed_matmul, rows, rows, False, True)
        scaled = emit(scores, aten.mul.Tensor, product, _by_row(scale, scores, count, heads))
        scaled = emit(scores, aten.add.Tensor, literal(node, mask), scaled)
        whole = emit(weights, aten.softmax.int, scaled, -1)
        made = emit(node, operators.transposed_matmul, values, whole, False, True)
        made = emit(node, aten.slice.Tensor, made, 2, 0, count)
        apart = emit(node, aten.reshape.default, made, [batch, tokens, heads, head_dim])
        replace(node, emit(node, aten.permute.default, apart, [0, 2, 3, 1]))
    return True


def _scaled(scores: Node) -> tuple[Node, Node | float]:
    """Scores, and the constant that they are multiplied by."""
    if is_call(scores, *MUL) and only_user(scores) is not None:
        for x, scale in (scores.args, scores.args[::-1]):
            if isinstance(x, Node) and not is_constant(x) and (is_number(scale) or is_constant(scale)):
                return x, scale
    return scores, 1.0


def _norms(scores: Node) -> list[Node]:
    """The two norms over tokens whose product scores are, of equal weights; none where they are anything else."""
    if not is_call(scores, *PRODUCTS) or only_user(scores) is None or not is_permute(scores.args[1], TRANSPOSED):
        return []
    norms = [scores.args[0], scores.args[1].args[0]]
    if not all(is_call(x, operators.rms_norm) and only_user(x) is not None for x in norms):
        return []
    (first, eps), (second, other) = (norm.args[1:] for norm in norms)
    equal = first is second or (
        is_call(first, aten.full.default) and is_call(second, aten.full.default) and first.args == second.args
    )
    return norms if eps == other and equal and is_constant(first) else []


def _by_row(scale: Node | float, like: Node, count: int, heads: int) -> Node:
    """The scale of each query's scores, [1, 2 count, 1]; zeros for those of keys, which nothing reads."""
    if isinstance(scale, Node):
        scale = as_dtype(scale, dtype_of(like), like)
        whole = emit(like, aten.expand.default, scale, [1, heads, count // heads, 1])
        column = emit(like, aten.reshape.default, whole, [1, count, 1])
    else:
        column = literal(like, torch.full((1, count, 1), scale, dtype=dtype_of(like)))
    return emit(like, aten.constant_pad_nd.default, column, [0, 0, 0, count])


def _read_all(linear: Node) -> None:
    """Have a linear read all that products of joined heads give: by zeros what is behind the results of queries."""
    cut, *weights = linear.args
    found = cut_of(cut, -1) if isinstance(cut, Node) else None
    product = found[0] if found and found[1] == 0 else None
    is_joined = is_call(product, operators.transposed_matmul) and only_user(product) is cut and only_user(cut) is linear
    if not is_joined or shape_of(product)[-1] != 2 * shape_of(cut)[-1] or not is_constant(weights[0]):
        return
    if shape_of(product)[:-1] != shape_of(cut)[:-1]:
        return
    with linear.graph.inserting_before(linear):
        count = shape_of(cut)[-1]
        numbers = torch.cat([torch.arange(count), torch.full((count,), -1)])
        weight = take(weights[0], numbers, linear, 0)
        linear.args = (product, weight, *weights[1:])
