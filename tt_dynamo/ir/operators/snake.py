"""The activation of codecs and vocoders."""

import torch

from tt_dynamo.ir.operators.definition import FUSED, define


@define("Tensor x, Tensor frequency, Tensor denominator", FUSED)
def snake(x, frequency, denominator):
    """x + sin²(frequency x) / denominator, x [..., rows, channels], the others [..., 1, channels] of x's rank.

    Source: Ziyin, Hartwig & Ueda 2020, https://arxiv.org/abs/2006.08195
    """
    return torch.addcdiv(x, torch.sin(x * frequency).square(), denominator)
