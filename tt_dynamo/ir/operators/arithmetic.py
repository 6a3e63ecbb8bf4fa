"""Sums and products with what TTNN computes of an operand or of the result in the same kernel."""

from tt_dynamo.ir.operators.definition import FUSED, define
from tt_dynamo.ir.operators.linear import ACTIVATIONS


@define("Tensor x, Tensor y, str activation", FUSED)
def activated_product(x, y, activation):
    """The activation of x, times y of the same shape."""
    return ACTIVATIONS[activation](x) * y


@define("Tensor x, Tensor y, float scale", FUSED)
def scaled_sum(x, y, scale):
    """(x + y) * scale, of one shape."""
    return (x + y) * scale
