"""Recurrences along time, which models write as a loop over tokens or as an associative scan."""

import torch

from tt_dynamo.ir.operators.definition import FUSED, define


@define("Tensor a, Tensor b, Tensor initial", FUSED)
def linear_recurrence(a, b, initial):
    """h[t] = a[t] h[t - 1] + b[t]: a and b [tokens, ...] of one shape, initial [...] is h[-1].

    Doubles the span of (a, b) log2(tokens) times: the pair of a span is the product of its a and what its b leave
    behind. Source: Hillis & Steele 1986, https://doi.org/10.1145/7902.7903
    """
    b = torch.cat([torch.addcmul(b[:1], a[:1], initial[None]), b[1:]])
    span = 1
    while span < len(b):
        b = torch.cat([b[:span], torch.addcmul(b[span:], a[span:], b[:-span])])
        a = torch.cat([a[:span], a[span:] * a[:-span]])
        span *= 2
    return b


@define("Tensor steps, Tensor rates, Tensor mask", FUSED)
def segment_decays(steps, rates, mask):
    """exp(sum over s < r <= t of rates steps[r] + mask[t, s]) -> [parts, heads, t, s].

    steps [parts, rows, heads], rates [heads], mask [rows, rows]. Source: Dao & Gu 2024, https://arxiv.org/abs/2405.21060
    """
    sums = (steps * rates).cumsum(1).permute(0, 2, 1)
    return torch.exp(sums[..., :, None] - sums[..., None, :] + mask)


@define("Tensor keys, Tensor values, Tensor gaps", FUSED)
def wkv(keys, values, gaps):
    """Of each channel a mean of the values of all tokens s, weighted by softmax over s of keys[s] + gaps[t, s].

    keys, values [batch, tokens, channels], gaps [channels, tokens, tokens] -> [batch, tokens, channels] in the dtype
    of the values. Source: Peng et al. 2023, https://arxiv.org/abs/2305.13048
    """
    weights = torch.softmax(keys.float().mT[:, :, None] + gaps, -1)
    return torch.matmul(weights, values.float().mT[..., None])[..., 0].mT.to(values.dtype)
