"""Reference semantics of TTNN operations whose own golden function is missing, wrong for how we call it, or slow.

A reference takes the arguments of the TTNN call with every tensor replaced by its value (float32, or int64 for integer
dtypes; never written to) and returns the value of each result, which the caller rounds to the dtype that TTNN reported.
One that names a parameter `result` is also given what the real call returned. Each says what is amiss with TTNN's
golden; `tests/devices` checks each against torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tt_dynamo.devices.ttnn_internals import golden_of_activation


@dataclass(frozen=True)
class Reference:
    compute: Callable[..., Any]
    moves: bool  # only moves elements, so that results of the inputs' dtype need no rounding
    takes_result: bool


@dataclass(frozen=True)
class Opaque:
    """The value behind a tensor whose contents TTNN lays out in a way of its own, as prepared convolution weights."""

    value: Tensor


REFERENCES: dict[str, Reference] = {}


def reference(*names: str, moves: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the reference of the operations with these fully qualified TTNN names."""

    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            if name in REFERENCES:
                raise ValueError(f"{name} has a reference already")
            REFERENCES[name] = Reference(compute, moves, "result" in signature(compute).parameters)
        return compute

    return register


def activate(value: Tensor, activation: Any) -> Tensor:
    """Apply a fused activation: a name, a ttnn.UnaryOpType, a ttnn.UnaryWithParam or None."""
    if activation is None:
        return value
    return golden_of_activation(activation)(value)  # type: ignore[no-any-return]


# TTNN's golden takes a bias of 2 elements for a matrix of 2 rows, adds it in place, and broadcasts a bias of higher
# rank to a result of higher rank.
@reference("ttnn.linear", "ttnn.matmul")
def linear(
    input_tensor_a: Tensor,
    input_tensor_b: Tensor,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: Tensor | None = None,
    activation: Any = None,
    program_config: Any = None,
    result: Any = None,
    **_: Any,
) -> Tensor:
    """activation(a b + bias); a [..., m, k], b [..., k, n], bias [..., 1, n] or of the shape of the product."""
    a = input_tensor_a.mT if transpose_a else input_tensor_a
    b = input_tensor_b.mT if transpose_b else input_tensor_b
    if b.ndim > 2 and b.shape[:-2].numel() == 1:
        b = b.flatten(0, -2)  # one matrix for the whole batch: a single large product
    row = bias.reshape(-1) if bias is not None and bias.numel() == b.shape[-1] else None
    if b.ndim == 2:
        output = functional.linear(a, b.mT, row)
        output = output if bias is None or row is not None else output + bias
    else:
        output = torch.matmul(a, b)
        output = output if bias is None else output + (bias if row is None else row)
    # TTNN applies the activation of the program config; the other only where that has none.
    output = activate(output, getattr(program_config, "fused_activation", None) or activation)
    return _with_rank(output, len(result.shape))


def _with_rank(value: Tensor, rank: int) -> Tensor:
    """`value` with leading dimensions of size 1 dropped or added to have `rank`."""
    while value.ndim > rank and value.shape[0] == 1:
        value = value[0]
    return value.reshape((1,) * (rank - value.ndim) + value.shape) if value.ndim < rank else value


# TTNN's golden adds the residual to its input in place.
@reference("ttnn.layer_norm")
def layer_norm(
    input_tensor: Tensor,
    *,
    epsilon: float = 1e-12,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual_input_tensor: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450, over the last dimension."""
    if residual_input_tensor is not None:
        input_tensor = input_tensor + residual_input_tensor
    width = input_tensor.shape[-1]
    weight, bias = (None if affine is None else affine.reshape(-1)[:width] for affine in (weight, bias))
    return functional.layer_norm(input_tensor, (width,), weight, bias, epsilon)


# TTNN's golden gives None in fast mode, where the device is only close to gelu.
@reference("ttnn.gelu")
def gelu(input_tensor: Tensor, *, variant: Any = None, **_: Any) -> Tensor:
    """Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415; variant=Tanh is the tanh approximation."""
    tanh = getattr(variant, "name", None) == "Tanh"
    return functional.gelu(input_tensor, approximate="tanh" if tanh else "none")


# TTNN's goldens copy, or round in the old dtype; nothing happens to the logical elements here but a change of dtype.
@reference("ttnn.to_layout", "ttnn.to_memory_config", "ttnn.to_device", "ttnn.clone", moves=True)
@reference("ttnn.fill_implicit_tile_padding", moves=True)
def identity(*args: Any, **kwargs: Any) -> Tensor:
    return args[0] if args else next(iter(kwargs.values()))


# TTNN's golden copies twice, and its own rules resolve the shape (-1, Shape, padded shape) anyway.
@reference("ttnn.reshape", moves=True)
def reshape(input_tensor: Tensor, *_: Any, result: Any = None, **__: Any) -> Tensor:
    return input_tensor.reshape(tuple(result.shape))
