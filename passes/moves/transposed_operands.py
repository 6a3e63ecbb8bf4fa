"""Products read their operands transposed, so that nothing moves before them or behind.

Before   y = matmul(permute(a), b)             y = linear(permute(x), w, b, "gelu")       permute exchanges the last two
After    y = transposed_matmul(a, b, True, False)     y = transposed_matmul(x, w, True, False, b, "gelu")

Before   y = permute(linear(x, w, b))          of one sequence: MLP-Mixer and gMLP mix tokens so
After    y = transposed_matmul(w^T, x, False, True) + b[:, None]

TTNN's kernel transposes the tiles that it reads. The bias of what was transposed is a constant of the whole result: one
that broadcasts along rows takes TTNN as long as all of the product. Only where nothing else reads what was permuted.
"""

import math
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.fuse.linears import has_own_weights
from tt_dynamo.passes.movement import is_permute, transposing
from tt_dynamo.passes.rewrite import argument, emit, is_constant


def transpose_operands(graph: Graph, context: Context) -> int:
    """Rewrite every product with a transposed operand or result; returns how many."""
    count = sum(map(_transpose_result, graph.find_nodes(op="call_function", target=aten.permute.default)))
    dead_code(graph)  # linears that read what is permuted too
    for node in list(graph.nodes):
        if is_call(node, operators.linear, operators.transposed_matmul, aten.matmul.default):
            count += _read_transposed(node)
    dead_code(graph)
    return count


def _is_transpose(node: Any) -> bool:
    """Whether a node that is no constant exchanges the last two dimensions; that of a constant is made once."""
    is_matrix = is_call(node, aten.permute.default) and len(shape_of(node)) > 1
    return is_matrix and is_permute(node, transposing(len(shape_of(node)))) and not is_constant(node)


def _transpose_result(permute: Node) -> bool:
    linear = permute.args[0]
    if not _is_transpose(permute) or not has_own_weights(linear) or only_user(linear) is None:
        return False
    if math.prod(shape_of(linear)[:-2]) != 1:
        return False
    x, weight, bias = linear.args[0], linear.args[1], argument(linear, 2)
    ones = [1] * (len(shape_of(x)) - 2)
    with permute.graph.inserting_before(permute):
        weight = emit(permute, aten.permute.default, weight, [1, 0])
        weight = emit(permute, aten.reshape.default, weight, [*ones, *shape_of(weight)])
        y = emit(permute, operators.transposed_matmul, weight, x, False, True)
        if bias is not None:
            column = emit(permute, aten.reshape.default, bias, [*ones, *shape_of(bias), 1])
            whole = emit(permute, aten.expand.default, column, list(shape_of(y)))
            y = emit(permute, aten.add.Tensor, y, emit(permute, aten.clone.default, whole))
        replace(permute, y)
    return True


def _read_transposed(product: Node) -> bool:
    a, b, *rest = product.args
    if not is_call(product, operators.transposed_matmul):
        rest = [False, False, *rest]
    turned = [_is_transpose(x) and only_user(x) is not None for x in (a, b)]
    if not any(turned) or min(len(shape_of(x)) for x in (a, b)) < 2:
        return False
    a, b = (x.args[0] if is_turned else x for x, is_turned in zip((a, b), turned, strict=True))
    flags = [was != is_turned for was, is_turned in zip(rest[:2], turned, strict=True)]
    with product.graph.inserting_before(product):
        if any(flags) or rest[2:]:
            new = emit(product, operators.transposed_matmul, a, b, *flags, *rest[2:])
        else:
            new = emit(product, aten.matmul.default, a, b)
        replace(product, new)
    return True
