"""Values of TTNN's recurrences along tokens; see `references.py`."""

import torch

from .references import reference


# TTNN's golden knows neither flat heads nor their norm.
@reference("ttnn.transformer.chunk_gated_delta_rule")
def chunk_gated_delta_rule(
    q, k, v, g, beta, *, scale=None, initial_state=None, output_final_state=False, output_head_major=False,
    **_,
):  # fmt: skip
    """q, k [batch, tokens, key heads width], v [batch, tokens, heads width], g and beta [batch, tokens, heads].

    Token by token: S = exp(g) S; S += k beta (v - Sᵀ k)ᵀ; Sᵀ q scale, with q and k of length 1 in each head.
    Source: Yang, Kautz & Hatamizadeh 2025, https://arxiv.org/abs/2412.06464
    """
    if q.ndim != 3 or v.ndim != 3:
        raise NotImplementedError("chunk_gated_delta_rule has a reference for flat heads, [batch, tokens, heads width]")
    batch, tokens, heads = g.shape
    width = v.shape[-1] // heads
    q, k, v = (x.bfloat16().float().unflatten(-1, (-1, width)) for x in (q, k, v))
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    q, k = (x.repeat_interleave(heads // x.shape[2], 2) for x in (q * (width**-0.5 if scale is None else scale), k))
    state = torch.zeros(batch, heads, width, width) if initial_state is None else initial_state.float()
    outputs = []
    for token in range(tokens):
        key = k[:, token, ..., None]
        state = state * g[:, token].exp()[..., None, None]
        new = beta[:, token, :, None, None] * (v[:, token, :, None] - key.mT @ state)
        state = state + key * new
        outputs.append(q[:, token, :, None] @ state)
    output = torch.cat(outputs, 2)  # [batch, heads, tokens, width]
    output = output.flatten(0, 1) if output_head_major else output.transpose(1, 2)
    return output, state if output_final_state else None
