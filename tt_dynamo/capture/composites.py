"""Decompositions of our own, where torch has none, or one that the device can do less with.

Each takes the arguments of an ATen operation and gives its results in ATen operations that are lowered or that passes
know; AOTAutograd traces through them. NotImplemented leaves the operation as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tt_dynamo.ir.torch_internals import order_in_memory

aten = torch.ops.aten

COMPOSITES: dict[Any, Callable[..., Any]] = {}


def composite(*targets: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        COMPOSITES.update(dict.fromkeys(targets, function))
        return function

    return register


@composite(aten.native_dropout.default)
def native_dropout(x: Tensor, p: float, train: bool | None) -> Any:
    """x with elements dropped at the rate p and the rest scaled, and which were kept.

    The same elements as in eager torch, which draws in the order of x's memory. What is drawn into is not x, so the
    draw runs on the host while x stays on the device.
    """
    if train is False or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    order = order_in_memory(x)
    noise = aten.bernoulli.p(torch.empty([x.shape[d] for d in order], dtype=x.dtype, device=x.device), 1 - p)
    kept = noise.permute([order.index(d) for d in range(x.ndim)]).to(torch.bool)
    scale = 1 / (1 - p) if p < 1 else 0.0
    return x * torch.where(kept, scale, 0.0).to(x.dtype), kept


@composite(aten._trilinear.default)
def trilinear(
    a: Tensor, b: Tensor, c: Tensor, expand1: list[int], expand2: list[int], expand3: list[int], sumdim: list[int],
    unroll_dim: int = 1,
) -> Any:  # fmt: skip
    """The form that a bilinear layer has, as a product of matrices: a [n, in1], b [out, in1, in2], c [n, in2]."""
    if (list(expand1), list(expand2), list(expand3), list(sumdim)) != ([1, 3], [0], [1, 2], [2, 3]):
        return NotImplemented
    outputs, in1, in2 = b.shape
    left = a @ b.permute(1, 0, 2).reshape(in1, outputs * in2)
    return (left.reshape(-1, outputs, in2) @ c.unsqueeze(-1)).squeeze(-1)


@composite(aten.rrelu_with_noise_functional.default)
def rrelu(
    x: Tensor, noise: Tensor, lower: float = 0.125, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> Any:
    """Outside training the slope is the middle of its range."""
    if training:
        return NotImplemented
    return aten.leaky_relu(x, (lower + upper) / 2), noise


@composite(aten.select_backward.default)
def select_backward(grad: Tensor, sizes: list[int], dim: int, index: int) -> Tensor:
    """The gradient of x.select(dim, index): zeros around it."""
    dim %= len(sizes)
    return _surrounded(grad.unsqueeze(dim), sizes, dim, index % sizes[dim])


@composite(aten.slice_backward.default)
def slice_backward(grad: Tensor, sizes: list[int], dim: int, start: int, end: int, step: int) -> Any:
    """The gradient of a slice of neighbouring elements: zeros around it."""
    if step != 1:
        return NotImplemented
    dim %= len(sizes)
    start = min(max(start + sizes[dim] if start < 0 else start, 0), sizes[dim])
    return _surrounded(grad, sizes, dim, start)


def _surrounded(grad: Tensor, sizes: list[int], dim: int, start: int) -> Tensor:
    pairs = [0, 0] * (len(sizes) - 1 - dim) + [start, sizes[dim] - start - grad.shape[dim]]
    return aten.constant_pad_nd.default(grad, pairs, 0)


@composite(aten._pdist_forward.default)
def pdist(x: Tensor, p: float = 2.0) -> Any:
    """The distances between the rows of x [n, width], each pair once: [n (n - 1) / 2]."""
    if len(x) < 2:
        return NotImplemented
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return torch.linalg.vector_norm(x[first] - x[second], p, -1)
