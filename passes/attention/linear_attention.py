"""Fuse linear attention, whose weights are products of queries and keys over their sum, into one operator.

Before   kv = matmul(permute(k), pad(v, [0, 1], 1));   y = matmul(q, kv);   out = y[..., :-1] / (y[..., -1:] + eps)
After    out = linear_attention(q, k, v, eps)

A column of ones beside the values sums what each query weighs. In tiles it is as wide as a tile, and cutting it off is
a kernel more than the sum of the keys, which the operator takes. Models write it transposed as well, as Sana does:
matmul(matmul(pad(v, [0, 0, 0, 1], 1), k), q) of values and queries [..., head_dim, seq].
Source: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236; Cai et al. 2022, https://arxiv.org/abs/2205.14756
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.attention.attention import PRODUCTS
from tt_dynamo.passes.fuse.linears import ACTIVATIONS
from tt_dynamo.passes.movement import cut_of, is_permute, transposing
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import ADD, DIV, emit, is_number

PADS = {-1: [0, 1], -2: [0, 0, 0, 1]}  # of one column, of one row


def fuse_linear_attention(graph: Graph, context: Context) -> int:
    """Fuse every linear attention; returns how many."""
    fused = sum(_fuse(node) for node in list(graph.nodes) if is_call(node, *DIV))
    dead_code(graph)
    if fused:
        canonicalize(graph, context)  # which joins the moves of transposed operands
    return fused


def _fuse(quotient: Node) -> bool:
    """Replace a quotient of results and of their weights' sum; whether it is one."""
    results, weights = quotient.args
    if not is_call(weights, *ADD) or not is_number(weights.args[1]) or quotient.kwargs or weights.kwargs:
        return False
    product, dim = next(((cut[0], dim) for dim in PADS if (cut := cut_of(results, dim))), (None, 0))
    if product is None or not is_call(product, *PRODUCTS) or len(product.users) != 2:
        return False
    last = shape_of(product)[dim] - 1
    is_cut = cut_of(results, dim) == (product, 0) and cut_of(weights.args[0], dim) == (product, last)
    if not is_cut or shape_of(results)[dim] != last or shape_of(weights.args[0])[dim] != 1:
        return False
    query, states = product.args[:: 1 if dim == -1 else -1]
    if not is_call(states, *PRODUCTS) or only_user(states) is None:
        return False
    key, padded = states.args[:: 1 if dim == -1 else -1]
    if not is_call(padded, aten.constant_pad_nd.default) or [*padded.args[1:]] != [PADS[dim], 1]:
        return False
    with quotient.graph.inserting_before(quotient):
        operands = [query, _transposed(key), padded.args[0]]
        if dim == -2:
            operands = [_transposed(query), _transposed(_transposed(key)), _transposed(padded.args[0])]
        new = emit(quotient, operators.linear_attention, *operands, weights.args[1])
        replace(quotient, new if dim == -1 else _transposed(new))
    return True


def _transposed(x: Node) -> Node:
    """x with its last two dimensions swapped, before the activations that made it."""
    if is_call(x, *ACTIVATIONS):
        return emit(x, x.target, _transposed(x.args[0]), *x.args[1:], **x.kwargs)
    order = transposing(len(shape_of(x)))
    return x.args[0] if is_permute(x, order) else emit(x, aten.permute.default, x, order)
