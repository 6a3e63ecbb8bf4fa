"""Run a function through backend="ttnn" on the emulated device and hold it against eager torch.

The tolerance is bfloat16's own: what the device computes is rounded to 8 significant bits, so a result of n rounded
steps without cancellation differs from the exact one by a factor of at most (1 + 2^-8)^n. Inputs and parameters are
numbers that bfloat16 represents, so that nothing is lost on the way up.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from compiling import run_compiled

import tt_dynamo

# A process can hold one board; `make test` runs all on this one.
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
UNIT_ROUNDOFF = 2.0**-8
# Both sides accumulate in float32, in another order.
FLOAT32_NOISE = 2.0**-20


def compiled(model: Callable[..., Any], *inputs: Any, **options: Any) -> tuple[Any, tt_dynamo.GraphReport]:
    """What the compiled model gives, and the report of its one graph."""
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        outputs = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD, **options})(*inputs)
    (report,) = reports
    return outputs, report


def without_dynamo(model: Callable[..., Any], *inputs: Any, **options: Any) -> tuple[Any, tt_dynamo.GraphReport]:
    """The same by way of AOTAutograd alone, in half the time; Dynamo's part is not that of one operation's lowering."""
    module = model if isinstance(model, torch.nn.Module) else torch.nn.Module()
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def function(*tensors: Any) -> Any:
        given = tensors[len(state) :]
        if module is not model:
            return model(*given)
        return torch.func.functional_call(module, dict(zip(state, tensors, strict=False)), given)

    done = run_compiled(function, [*state.values(), *inputs], len(state), **options)
    return done.outputs, done.report


def check(model: Callable[..., Any], *inputs: Any, roundings: int = 1, cancels: bool = False) -> tt_dynamo.GraphReport:
    """Assert that nothing falls back and that the answer is eager's; returns the report.

    roundings: how many times a result was rounded to bfloat16; 0 for what only moves. cancels: rounded values are
    subtracted from each other, so the error is bounded by the largest result instead of by each.
    """
    outputs, report = compiled(model, *inputs)
    assert not report.fallbacks, report.fallbacks
    assert report.device_nodes, "nothing ran on the device"
    with torch.no_grad():
        close(outputs, model(*inputs), roundings, cancels)
    return report


def falls_back(model: Callable[..., Any], *inputs: Any) -> tt_dynamo.Fallback:
    """Assert that one node falls back and that the answer is eager's; returns the fallback."""
    outputs, report = compiled(model, *inputs)
    (fallback,) = report.fallbacks
    with torch.no_grad():
        close(outputs, model(*inputs), roundings=2)
    return fallback


def calls(report: tt_dynamo.GraphReport) -> list[str]:
    """The TTNN calls of a program but its transfers, less "ttnn."."""
    targets = [operation.target.removeprefix("ttnn.") for operation in report.operations]
    return [target for target in targets if target not in ("from_torch", "to_torch")]


def unsharded(report: tt_dynamo.GraphReport) -> list[str]:
    """The same, less what takes a result out of the shards in L1 in which a convolution or pool leaves it."""
    return [call for call in calls(report) if call != "to_memory_config"]


def close(outputs: Any, expected: Any, roundings: int, cancels: bool = False) -> None:
    """Assert shapes, dtypes, strides and values."""
    if isinstance(expected, (tuple, list)):
        assert len(outputs) == len(expected)
        for output, value in zip(outputs, expected, strict=True):
            close(output, value, roundings, cancels)
        return
    if not isinstance(expected, torch.Tensor):
        assert outputs == expected
        return
    if not expected.is_floating_point():
        roundings = 0  # integers and booleans are exact
    relative = (1 + UNIT_ROUNDOFF) ** roundings - 1
    finite = expected[torch.isfinite(expected)] if expected.is_floating_point() else expected.new_empty(0)
    largest = finite.abs().max().item() if finite.numel() else 0.0
    noise = (relative if cancels else FLOAT32_NOISE if roundings else 0.0) * largest
    torch.testing.assert_close(outputs, expected, rtol=relative, atol=noise, check_stride=True, equal_nan=True)


def random(*shape: int, mean: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers that bfloat16 represents, the same for the same shape."""
    generator = torch.Generator().manual_seed(sum(shape) + 31 * len(shape))
    return (torch.randn(shape, generator=generator) * scale + mean).bfloat16().float()


def positive(*shape: int) -> torch.Tensor:
    """Positive numbers that bfloat16 represents, none close to 0."""
    return (random(*shape).abs() + 0.5).bfloat16().float()


def rounded(module: torch.nn.Module) -> torch.nn.Module:
    """The module in evaluation mode with parameters that bfloat16 represents."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.copy_(parameter.data.bfloat16())
    return module.eval()
