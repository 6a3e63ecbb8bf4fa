"""F.interpolate as one operation of the graph: torch takes its resizing operations apart as it traces them.

Before   interpolate(x, scale_factor=2, mode="bilinear")                                     in Dynamo's graph
After    tt_dynamo.interpolate(x, [h, w], "bilinear", False, [2.0, 2.0])                     in the ATen graph

The operation has torch's own kernels and gradients. `passes/images/resize.py` finds a way onto the device, or gives it
back its name in ATen. Nothing of torch changes: only the graphs that are compiled here call this instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import GraphModule

from tt_dynamo.ir.operators import library

aten = torch.ops.aten

# (mode, rank) → the name of the operation in ATen.
OPERATIONS = {
    ("nearest", 3): "upsample_nearest1d",
    ("nearest", 4): "upsample_nearest2d",
    ("nearest", 5): "upsample_nearest3d",
    ("nearest-exact", 3): "_upsample_nearest_exact1d",
    ("nearest-exact", 4): "_upsample_nearest_exact2d",
    ("nearest-exact", 5): "_upsample_nearest_exact3d",
    ("linear", 3): "upsample_linear1d",
    ("bilinear", 4): "upsample_bilinear2d",
    ("bicubic", 4): "upsample_bicubic2d",
    ("trilinear", 5): "upsample_trilinear3d",
}


def in_aten(x: Any, size: Sequence[int], mode: str, align_corners: bool, scales: Sequence[float] | None, rank: int):
    """The operation in ATen for an x of that rank, and its arguments."""
    corners = () if mode.startswith("nearest") else (align_corners,)
    arguments = (x, list(size), *corners, *(scales if scales is not None else [None] * len(size)))
    return getattr(aten, OPERATIONS[mode, rank]).default, arguments


library.define("interpolate(Tensor x, int[] size, str mode, bool align_corners, float[]? scales) -> Tensor")


def _compute(x, size, mode, align_corners, scales):
    target, arguments = in_aten(x, size, mode, align_corners, scales, x.dim())
    return target(*arguments)


def _fake(x, size, mode, align_corners, scales):
    layout = torch._prims_common.suggest_memory_format(x)
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=layout)


def _remember(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    x, *ctx.arguments = inputs
    ctx.shape = tuple(x.shape)


def _gradient(ctx: Any, gradient: torch.Tensor):
    size, mode, align_corners, scales = ctx.arguments
    backward = getattr(aten, f"{OPERATIONS[mode, len(ctx.shape)]}_backward").default
    _, (_, new_size, *rest) = in_aten(gradient, size, mode, align_corners, scales, len(ctx.shape))
    return backward(gradient, new_size, list(ctx.shape), *rest), None, None, None, None


library.impl("interpolate", _compute, "CompositeExplicitAutograd")
torch.library.register_fake("tt_dynamo::interpolate", _fake, lib=library)
torch.library.register_autograd("tt_dynamo::interpolate", _gradient, setup_context=_remember, lib=library)
whole = torch.ops.tt_dynamo.interpolate.default


def interpolate(
    x: torch.Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> torch.Tensor:
    """F.interpolate for arguments that it accepts, as one operation where it is none by itself."""
    if antialias or (mode, x.dim()) not in OPERATIONS or not x.dtype.is_floating_point:
        return F.interpolate(x, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    scales = None
    if size is None:
        factors = _each(scale_factor, x.dim() - 2)
        size = [math.floor(float(old) * factor) for old, factor in zip(x.shape[2:], factors, strict=True)]
        scales = None if recompute_scale_factor else [float(factor) for factor in factors]
    return whole(x, _each(size, x.dim() - 2), mode, bool(align_corners), scales)


def _each(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, torch.Size)) else [value] * count


def keep_interpolation_whole(module: GraphModule) -> None:
    """Let a Dynamo graph, and those that it calls, call `interpolate` for F.interpolate."""
    for _, part in module.named_children():
        if isinstance(part, GraphModule):
            keep_interpolation_whole(part)
    nodes = module.graph.find_nodes(op="call_function", target=F.interpolate)
    for node in nodes:
        node.target = interpolate
        if "input" in node.kwargs:  # the one name that differs
            node.args, node.kwargs = (node.kwargs["input"],), {k: v for k, v in node.kwargs.items() if k != "input"}
    if nodes:
        module.recompile()
