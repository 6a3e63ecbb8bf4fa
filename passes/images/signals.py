"""Convolutions of signals as products: where rows are gathered before them, and where each reads a single row.

Before   y = conv2d(look_up(x, rows), w, b)                          x [1, 1, length, in], an image of one line
After    y = linear(merge_heads(picks @ x), w as [taps * in, out], b)      picks [1, taps, new length, length], 0 or 1
Before   y = conv2d(x, w, b)                                         one tap, and no convolution made x
After    y = linear(x, w as [in, out], b)

Speech networks reflect a signal at its ends before each convolution. To look the rows up costs a change of layout
there and back, and to convolve them two changes of memory and a halo; what each tap reads is a product with a constant
instead. A sum with weights of 0 is no pick: an infinity gives NaN in its column. Long signals stay as they are.
"""

import math

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.rewrite import FLOATS, emit, is_constant
from tt_dynamo.passes.rows import literal

# Elements of the picks: more take longer to read than the launches that they save.
MOST = 1 << 20


def signals_to_products(graph: Graph, context: Context) -> int:
    """Rewrite every such convolution; returns how many."""
    count = sum(map(_rewrite, graph.find_nodes(op="call_function", target=operators.conv2d)))
    dead_code(graph)
    return count


def _rewrite(node: Node) -> bool:
    x, weight, bias, (_, height, _), stride, around, dilation, groups = node.args[:8]
    taps = shape_of(weight)[3]
    if len(node.args) > 8 or groups != 1 or height != 1 or shape_of(weight)[2] != 1 or any(around[:2]):
        return False
    if dtype_of(x) not in FLOATS or not all(map(is_constant, (weight, bias))):
        return False
    found = _gathered(x)
    source, picks = found and (found[0], _picks(*found, node)) or (None, None)
    with node.graph.inserting_before(node):
        if source is not None and picks is not None:
            flat = emit(node, aten.reshape.default, source, [1, 1, picks.shape[-1], shape_of(x)[-1]])
            read = emit(node, aten.matmul.default, literal(node, picks.to(dtype_of(x))), flat)
            read = emit(node, operators.merge_heads, read)
            x = emit(node, aten.reshape.default, read, [1, *shape_of(read)[1:]])
        elif taps != 1 or stride[1] != 1 or any(around) or _is_convolved(x):
            return False
        taps_first = emit(node, aten.permute.default, weight, [3, 2, 1, 0])
        matrix = emit(node, aten.reshape.default, taps_first, [taps * shape_of(weight)[1], shape_of(weight)[0]])
        bias = bias and emit(node, aten.reshape.default, bias, [shape_of(bias)[-1]])
        replace(node, emit(node, operators.linear, x, matrix, bias))
    return True


def _gathered(x: Node) -> tuple[Node, torch.Tensor] | None:
    """What the rows of x are looked up in, and their numbers; None where x is no lookup by constant numbers."""
    found = x.args[0] if is_call(x, aten.reshape.default) and only_user(x) is not None else x
    if not is_call(found, operators.look_up) or only_user(found) is None or found.args[1].op != "get_attr":
        return None
    source, numbers = found.args
    if not shape_of(found)[-1] == shape_of(x)[-1] == shape_of(source)[-1] or shape_of(x)[-1] % TILE:
        return None
    return source, getattr(x.graph.owning_module, numbers.target)


def _picks(source: Node, rows: torch.Tensor, node: Node) -> torch.Tensor | None:
    """1 where a row of the result [1, taps, result, source] reads a row through a tap, else 0."""
    _, weight, _, (batch, _, width), (_, stride), (*_, before, after), (_, dilation) = node.args[:7]
    taps, length, made = shape_of(weight)[3], math.prod(shape_of(source)[:-1]), shape_of(node)[2]
    if taps * made * length > MOST:
        return None
    padded = F.pad(rows.reshape(batch, width), (before, after), value=-1)
    first = torch.arange(made // batch) * stride
    read = torch.stack([padded[:, first + tap * dilation].reshape(-1) for tap in range(taps)])
    return (read[None, :, :, None] == torch.arange(length)).float()


def _is_convolved(x: Node) -> bool:
    """Whether a convolution makes x but for what is done to each element, and so leaves it sharded."""
    seen, waiting = set[Node](), [x]
    while waiting:
        node = waiting.pop()
        if is_call(node, operators.conv2d, operators.conv_transpose2d):
            return True
        is_pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
        if node not in seen and is_pointwise:
            waiting.extend(node.all_input_nodes)
        seen.add(node)
    return False
