"""Gated products: fused node → one TTNN call."""

from tt_dynamo.ir import operators
from tt_dynamo.lowering.memory import assigned, assigned_dtype
from tt_dynamo.lowering.registry import TTNN, Tensor, lower


@lower(operators.gated_linear, sharded=True)
def gated_linear(ttnn: TTNN, x: Tensor, weight: Tensor, bias=None):
    """silu(x @ gate + a) (x @ up + b), of which weight and bias hold the columns in turn, a tile of each."""
    return ttnn.experimental.minimal_matmul(
        x,
        weight,
        **({} if bias is None else {"bias_tensor": bias}),
        fuse_swiglu=True,
        compute_kernel_config=ttnn.settings.weight_kernel_config,
        **(assigned(ttnn) or {"memory_config": ttnn.DRAM_MEMORY_CONFIG}),
        **assigned_dtype(ttnn, x),
    )
