"""Products, and norms of the last dimension."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from tt_dynamo.ir.operators.definition import FUSED, define

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@define("Tensor x, Tensor weight, Tensor? bias=None, str activation=''", FUSED)
def linear(x, weight, bias=None, activation=""):
    """x [..., in] times weight [in, out] (TTNN's order, the transpose of torch's) plus bias [out], then activation."""
    out = torch.matmul(x, weight)
    if bias is not None:
        out = out + bias
    return ACTIVATIONS[activation](out) if activation else out


@define("Tensor a, Tensor b, bool transpose_a, bool transpose_b, Tensor? bias=None, str activation=''", FUSED)
def transposed_matmul(a, b, transpose_a, transpose_b, bias=None, activation=""):
    """a [..., m, k] times b [..., k, n], of which those to be transposed lie as [k, m] and [n, k]; bias [n]."""
    return linear(a.mT if transpose_a else a, b.mT if transpose_b else b, bias, activation)


@define("Tensor x, Tensor weight, Tensor? bias=None", FUSED)
def gated_linear(x, weight, bias=None):
    """silu(x @ gate + a) * (x @ up + b) of x [..., in] -> [..., out], "SwiGLU".

    weight [in, 2 out]: the columns of gate and up by turns, 32 of each; bias [2 out] likewise a and b.
    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202
    """
    gate, up = (part.flatten(-2) for part in weight.unflatten(-1, (-1, 2, 32)).unbind(-2))
    a, b = 0, 0
    if bias is not None:
        a, b = (part.flatten(-2) for part in bias.unflatten(-1, (-1, 2, 32)).unbind(-2))
    return F.silu(x @ gate + a) * (x @ up + b)


@define("Tensor x, Tensor residual, Tensor? weight, Tensor? bias, float eps", FUSED)
def add_layer_norm(x, residual, weight, bias, eps):
    """Layer norm of x + residual over the last dimension."""
    return F.layer_norm(x + residual, [x.shape[-1]], weight, bias, eps)


@define("Tensor x, Tensor? weight, float eps", FUSED)
def rms_norm(x, weight, eps):
    """x [..., width] over its root mean square along the last dimension, times weight [width]; computed in float32."""
    exact = x.float()
    y = (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    return y if weight is None else y * weight
