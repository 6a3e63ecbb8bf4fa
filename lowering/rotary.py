"""Rotary position embedding: fused node → TTNN calls."""

from __future__ import annotations

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.lowering.registry import lower
from tt_dynamo.lowering.workarounds import TILE, compute_kernel_config


@lower(operators.rotary)
def rotary(ttnn, x, cos, sin):
    """x [batch, heads, seq, head_dim] turned by cos, sin [batch or 1, 1, seq, head_dim], half with half.

    TTNN pairs columns of the padded head, so one that does not fill its tiles would silently be paired wrongly.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864
    """
    if x.shape[-1] % TILE:
        raise Unsupported(f"a head of {x.shape[-1]} elements does not fill its tiles")

    def turned(x, cos, sin):
        return ttnn.experimental.rotary_embedding_hf(
            x, cos, sin, is_decode_mode=False, compute_kernel_config=ttnn.settings.compute_kernel_config
        )

    return _as_one_sequence(ttnn, turned, x, cos, sin)


@lower(operators.rotary_by_matrix)
def rotary_by_matrix(ttnn, x, cos, sin, matrix):
    """x cos + (x @ matrix) sin, where the matrix [1, 1, n, n] is that of a whole head, or of each of its tiles."""
    if matrix.shape[-1] == x.shape[-1] != TILE:
        turned = ttnn.matmul(
            x,
            matrix,
            core_grid=ttnn.settings.core_grid,
            compute_kernel_config=ttnn.settings.compute_kernel_config,
        )
        return ttnn.add(ttnn.multiply(x, cos), ttnn.multiply(turned, sin))

    def turned_by_tiles(x, cos, sin):
        def turn(accumulation):
            config = ttnn.settings.compute_kernel_config
            if accumulation == "bfloat16":
                config = compute_kernel_config(ttnn, config.math_fidelity, float32=False)
            return ttnn.experimental.rotary_embedding_llama(
                x, cos, sin, matrix, is_decode_mode=False, compute_kernel_config=config
            )

        # Long heads fit its registers in bfloat16 only.
        return ttnn.choose(("rotary_embedding_llama", x, cos, sin, matrix), ("float32", "bfloat16"), turn)

    return _as_one_sequence(ttnn, turned_by_tiles, x, cos, sin)


def _as_one_sequence(ttnn, turned, x, cos, sin):
    """Where each of the batch has positions of its own: all their sequences one after another, as TTNN takes them."""
    batch, heads, seq, head_dim = x.shape
    if cos.shape[0] == 1:
        return turned(x, cos, sin)
    order = (1, 0, 2, 3)
    rows = ttnn.reshape(ttnn.permute(x, order), (1, heads, batch * seq, head_dim))
    cos, sin = (ttnn.reshape(table, (1, 1, batch * seq, head_dim)) for table in (cos, sin))
    return ttnn.permute(ttnn.reshape(turned(rows, cos, sin), (heads, batch, seq, head_dim)), order)
