"""Linear attention by the gated delta rule: fused node → one TTNN kernel."""

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

FLOAT32 = Need("TILE", "float32")
CONSTANTS = dict.fromkeys(("eye", "tril", "ones", "masks"), FLOAT32)


@lower(operators.gated_delta_rule, **CONSTANTS)
def gated_delta_rule(
    ttnn: TTNN, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, initial_state, *tiles: Tensor
):
    """The outputs alone of `gated_delta_rule_and_state`."""
    return _run(ttnn, query, key, value, g, beta, initial_state, tiles, False)[0]


@lower(operators.gated_delta_rule_and_state, **CONSTANTS)
def gated_delta_rule_and_state(
    ttnn: TTNN, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, initial_state, *tiles: Tensor
):
    """S[t] = exp(g[t]) (1 - beta[t] k[t] k[t]ᵀ) S[t - 1] + beta[t] k[t] v[t]ᵀ, and S[t]ᵀ q[t], of each head.

    query, key, value [batch, tokens, heads head_dim], g and beta [batch, tokens, heads] → [batch, heads, tokens,
    head_dim] and the last state. Of chunks that are not whole, tokens are zeros: they neither decay nor write.
    """
    return _run(ttnn, query, key, value, g, beta, initial_state, tiles, True)


def _run(ttnn: TTNN, query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, state, constants, with_state):
    batch, tokens, heads = g.shape
    head_dim = value.shape[-1] // heads
    if head_dim % ttnn.TILE_SIZE:
        raise Unsupported(f"heads of {head_dim} columns do not fill tiles")  # TTNN would read those of other heads
    whole = math.ceil(tokens / ttnn.TILE_SIZE) * ttnn.TILE_SIZE
    operands = [
        x if whole == tokens else ttnn.pad(x, [(0, 0), (0, whole - tokens), (0, 0)], 0.0)
        for x in (query, key, value, g, beta)
    ]
    output, last = ttnn.transformer.chunk_gated_delta_rule(
        *operands,
        scale=head_dim**-0.5,
        initial_state=state,
        output_final_state=with_state,
        chunk_size=ttnn.TILE_SIZE,
        output_head_major=True,
        **dict(zip(CONSTANTS, constants, strict=True)),
    )
    output = ttnn.reshape(ttnn.typecast(output, ttnn.bfloat16), (batch, heads, whole, head_dim))
    if whole > tokens:
        output = ttnn.slice(output, (0, 0, 0, 0), (batch, heads, tokens, head_dim))
    return output, last
