"""Calls of diffusion transformers: fused node → one TTNN call.

TTNN's minimal product writes its columns into several results, and adds them to a residual behind a gate.
"""

from tt_dynamo.ir import operators
from tt_dynamo.lowering.matmul import product_config
from tt_dynamo.lowering.registry import TTNN, Tensor, lower


def _options(ttnn: TTNN, bias):
    place = {"memory_config": ttnn.DRAM_MEMORY_CONFIG, "compute_kernel_config": ttnn.settings.weight_kernel_config}
    return {**place, **({} if bias is None else {"bias_tensor": bias})}


@lower(operators.linear_parts)
def linear_parts(ttnn: TTNN, x: Tensor, weight: Tensor, bias, parts):
    """x [..., in] @ weight [in, out] + bias [out] → parts [..., out / parts]."""
    return ttnn.experimental.minimal_matmul_split(x, weight, chunks=parts, dim=-1, **_options(ttnn, bias))


@lower(operators.linear_addcmul)
def linear_addcmul(ttnn: TTNN, x: Tensor, weight: Tensor, bias, residual: Tensor, gate: Tensor):
    """residual + (x [..., rows, in] @ weight [in, out] + bias [out]) gate [..., 1, out].

    TTNN reads the first row of tiles of a gate for all images, so a gate is one row. It refuses weights in a dtype
    other than x's: those are multiplied by one call and added by another.
    """

    def add(is_one_call):
        if is_one_call:
            fused = ttnn.experimental.dit_minimal_matmul_addcmul_fused
            return fused(x, weight, 1.0, residual, gate, **_options(ttnn, bias))
        operands = {} if bias is None else {"bias": bias}
        config = {**product_config(ttnn), "compute_kernel_config": ttnn.settings.weight_kernel_config}
        return ttnn.addcmul(residual, ttnn.linear(x, weight, **operands, **config), gate, value=1.0)

    asked = ("experimental.dit_minimal_matmul_addcmul_fused", x, weight, bias, residual, gate)
    return ttnn.choose(asked, (True, False), add)


@lower(operators.norm_heads)
def norm_heads(ttnn: TTNN, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, matrix: Tensor, num_heads, eps):
    """x [1, 1, rows, heads head_dim] → [1, heads, rows, head_dim]: each head's RMS norm, turned.

    TTNN's kernel for several chips, of which each norms what it has: no axis, and so no semaphores.
    """
    options = {"memory_config": ttnn.DRAM_MEMORY_CONFIG, "compute_kernel_config": ttnn.settings.compute_kernel_config}
    return ttnn.experimental.dit_fused_distributed_rmsnorm(
        x,
        None,
        ttnn.settings.device,
        [],
        epsilon=eps,
        num_heads_per_device=num_heads,
        per_head_norm=True,
        weight=weight,
        transformation_mat=matrix,
        rope_cos=cos,
        rope_sin=sin,
        **options,
    )
