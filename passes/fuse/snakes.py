"""The snake, an activation with a frequency for each channel, as one kernel.

Before   y = x + 1 / (alpha + eps) * sin(alpha * x) ** 2          y = x + sin(x * exp(alpha)) ** 2 / exp(beta)
After    y = snake(x, alpha, alpha + eps)                         y = snake(x, exp(alpha), exp(beta))

Codecs and vocoders have it (DAC, SNAC, X-Codec, BigVGAN), on signals whose channels stand last by now. What it reads
besides x are parameters: of a factor that is no reciprocal itself, the reciprocal is computed once.
Source: Ziyin, Hartwig & Ueda 2020, https://arxiv.org/abs/2006.08195
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.rewrite import FLOATS, Rules, call, emit, is_constant, once, variable

RULES = Rules()


def fuse_snakes(graph: Graph, context: Context) -> int:
    """Fuse every snake of parameters; returns how many."""
    return RULES.apply(graph)


def _of_factor(node: Node, x: Node, frequency: Node, factor: Node) -> Node | None:
    return _snake(node, x, frequency, factor, is_factor=True)


def _snake(node: Node, x: Node, frequency: Node, denominator: Node, is_factor: bool = False) -> Node | None:
    shape, vectors = shape_of(node), (frequency, denominator)
    is_alike = len({dtype_of(value) for value in (node, x, *vectors)} & FLOATS) == 1
    if not is_alike or shape_of(x) != shape or not all(_is_row(value, shape) for value in vectors):
        return None
    row = [*[1] * (len(shape) - 1), shape[-1]]
    denominator = _reciprocal(denominator) if is_factor else denominator
    frequency, denominator = (emit(node, aten.reshape.default, value, row) for value in (frequency, denominator))
    return emit(node, operators.snake, x, frequency, denominator)


def _is_row(value: Node, shape: tuple[int, ...]) -> bool:
    """Whether it is constant with a number for each place along the last of at least two dimensions."""
    own = shape_of(value)
    is_row = len(own) <= len(shape) > 1 and own == (*[1] * (len(own) - 1), shape[-1])
    return is_row and is_constant(value)


def _reciprocal(value: Node) -> Node:
    if is_call(value, aten.reciprocal.default):
        return value.args[0]
    if is_call(value, aten.reshape.default):
        return emit(value, aten.reshape.default, _reciprocal(value.args[0]), value.args[1])
    return emit(value, aten.reciprocal.default, value)


x, frequency = variable("x"), variable("frequency")
sine = once(call(aten.sin.default, once(call(aten.mul.Tensor, x, frequency))))
SQUARE = once(call(aten.mul.Tensor, sine, sine))
RULES.add("snake", call(aten.add.Tensor, x, once(call(aten.mul.Tensor, SQUARE, variable("factor")))), _of_factor)
RULES.add("snake", call(aten.add.Tensor, x, once(call(aten.div.Tensor, SQUARE, variable("denominator")))), _snake)
