"""Activations that operations of TTNN apply to their results, as the vector unit computes them.

TTNN's goldens know no table: GELU from one, which the parameter 1.0 asks for, is x / 2 + slope |x| + offset, whose six
straight lines the vector unit has in 16 bits.

Sources: TTNN's ckernel_sfpu_gelu.h (coefficients, the same for Wormhole and Blackhole), and
https://github.com/tenstorrent/tt-isa-documentation, WormholeB0/TensixTile/TensixCoprocessor/SFPLUTFP32.md (where each
line begins, and that it is computed in float32).
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tt_dynamo.devices.ttnn_internals import golden_of_activation

# Where each line but the first begins, and of each its slope and offset.
_BEGINS = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0])
_SLOPES = torch.tensor([0.1928, 0.4939, 0.6188, 0.6099, 0.5402, 0.5]).half().float()
_OFFSETS = torch.tensor([-0.00010443, -0.1604, -0.2796, -0.2635, -0.1194, 0.0]).half().float()

# Which have no golden.
_WITH_NUMBER: dict[str, Callable[..., Tensor]] = {"ADD_UNARY_SFPU": torch.add, "MUL_UNARY_SFPU": torch.mul}


def activate(value: Tensor, activation: Any) -> Tensor:
    """Apply a fused activation: a name, a ttnn.UnaryOpType, a ttnn.UnaryWithParam or None."""
    if activation is None:
        return value
    kind = getattr(getattr(activation, "op_type", None), "name", "")
    if kind in _WITH_NUMBER:
        return _WITH_NUMBER[kind](value, activation.params[0])
    return (
        gelu_from_table(value) if kind == "GELU" and any(activation.params) else golden_of_activation(activation)(value)
    )


def gelu_from_table(x: Tensor) -> Tensor:
    """TTNN's `GeluVariant.FastLut` of float32 elements."""
    size = x.abs()
    line = torch.bucketize(size, _BEGINS, right=True)
    return torch.addcmul(_OFFSETS[line], _SLOPES[line], size).add_(x, alpha=0.5)


def activate_operands(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a sum, product ... whose operands went through the activations that it is given for them.

    Those of which one has no golden by itself stay as they are: that of the operation may know it.
    """
    operands, rest = [*args], dict(kwargs)
    for place, name in enumerate(("input_tensor_a", "input_tensor_b")):
        held: Any = operands if place < len(operands) else rest
        at = place if held is operands else name
        with contextlib.suppress(RuntimeError, KeyError):
            held[at] = functools.reduce(activate, rest[f"{name}_activations"] or (), held[at])
            del rest[f"{name}_activations"]
    return operands, rest


def split_scales(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[Any]]:
    """The keywords for a golden, and the activations of the result that it knows none of."""
    fused = kwargs.get("activations") or ()
    if not any(getattr(getattr(each, "op_type", None), "name", "") in _WITH_NUMBER for each in fused):
        return dict(kwargs), ()
    return {key: value for key, value in kwargs.items() if key != "activations"}, fused
