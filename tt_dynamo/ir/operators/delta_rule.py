"""Linear attention by the gated delta rule, which models compute in chunks by a hundred operations."""

import torch
import torch.nn.functional as F

from tt_dynamo.ir.operators.definition import FUSED, define
from tt_dynamo.ir.triangular import unit_inverse

CHUNK = 64  # tokens
EPSILON = 1e-6  # beside the squares of queries and keys: of TTNN's kernel, and of models

_OPERANDS = (
    "Tensor query, Tensor key, Tensor value, Tensor g, Tensor beta, Tensor? initial_state, "
    "Tensor eye, Tensor tril, Tensor ones, Tensor masks"
)


@define(_OPERANDS, FUSED)
def gated_delta_rule(query, key, value, g, beta, initial_state, eye, tril, ones, masks):
    """The outputs alone of `gated_delta_rule_and_state`."""
    return _gated_delta_rule(query, key, value, g, beta, initial_state)[0]


@define(_OPERANDS, FUSED, gives="(Tensor, Tensor)")
def gated_delta_rule_and_state(query, key, value, g, beta, initial_state, eye, tril, ones, masks):
    """Of each head S[t] = exp(g[t]) (1 - beta[t] k[t] k[t]ᵀ) S[t - 1] + beta[t] k[t] v[t]ᵀ, and S[t]ᵀ q[t].

    query, key [batch, tokens, key_heads head_dim]: in each head they get the length 1, and the query then the factor
    head_dim ** -0.5. value [batch, tokens, heads head_dim]; g and beta [batch, tokens, heads]; initial_state [batch,
    heads, head_dim, head_dim], else zeros. Heads that follow one another share a key head. eye, tril, ones [1, 1, 32,
    32] and masks [1, 1, 32, 96]: constants that TTNN wants, see `passes.loops.delta_rules`.
    Gives the outputs [batch, heads, tokens, head_dim] in the dtype of value, and the last state in float32.
    Source: Yang, Kautz & Hatamizadeh 2025, https://arxiv.org/abs/2412.06464
    """
    return _gated_delta_rule(query, key, value, g, beta, initial_state)


def _gated_delta_rule(query, key, value, g, beta, state):
    """By chunks: what a chunk writes is found at once, by a triangular system; states go from chunk to chunk."""
    batch, tokens, heads = g.shape
    head_dim = value.shape[-1] // heads
    rows, dtype = min(CHUNK, tokens), value.dtype

    def in_chunks(x, width):  # [batch, heads, chunks, rows, width]
        x = F.pad(x.float(), (0, 0, 0, -tokens % rows)).reshape(batch, -1, rows, x.shape[-1] // width, width)
        return x.permute(0, 3, 1, 2, 4).repeat_interleave(heads // x.shape[-2], 1)

    query, key, value = (in_chunks(x, head_dim) for x in (query, key, value))
    query, key = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + EPSILON) for x in (query, key))
    query, beta = query * head_dim**-0.5, in_chunks(beta, 1)
    sums = in_chunks(g, 1).cumsum(-2)
    ends = sums[..., -1:, :]
    later = torch.ones(rows, rows, dtype=torch.bool, device=g.device).triu(1)
    decays = torch.where(later, -torch.inf, sums - sums.mT).exp()
    written = key * beta
    inverse = unit_inverse(written @ key.mT * decays)
    values, seen = inverse @ (value * beta), inverse @ (written * sums.exp())
    within, queries = query @ key.mT * decays, query * sums.exp()
    keys, kept = (key * (ends - sums).exp()).mT, ends.exp()
    state = torch.zeros(batch, heads, head_dim, head_dim, device=g.device) if state is None else state.float()
    outputs = []
    for chunk in range(key.shape[2]):
        new = values[:, :, chunk] - seen[:, :, chunk] @ state
        outputs.append(queries[:, :, chunk] @ state + within[:, :, chunk] @ new)
        state = state * kept[:, :, chunk] + keys[:, :, chunk] @ new
    return torch.cat(outputs, 2)[:, :, :tokens].to(dtype), state
