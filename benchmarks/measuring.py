"""What every case of `run.py` is measured with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch

import tt_dynamo
from tt_dynamo.devices import Device

WARM_UP = 2  # calls before the ones that count


def pcc(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson correlation of two tensors of one shape, NaN where either is not finite."""
    if a.shape != b.shape:
        raise ValueError(f"the compiled model gives the shape {tuple(a.shape)}, eager torch {tuple(b.shape)}")
    return torch.corrcoef(torch.stack((a.flatten().double(), b.flatten().double())))[0, 1].item()


def take_turns(calls: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Seconds of `runs` calls of each, one of each after the other."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-WARM_UP, runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def summary(seconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = numpy.percentile(seconds, (50, 95))
    return {"p50": float(p50), "p95": float(p95), "runs": len(seconds)}


def per_layer(reports: Sequence[tt_dynamo.GraphReport]) -> int | None:
    """Most kernel launches of any layer; None where no layer repeats."""
    counts = [report.launches_per_layer() for report in reports]
    return max((count for count in counts if count is not None), default=None)


def figures(reports: Sequence[tt_dynamo.GraphReport]) -> dict[str, Any]:
    """What TTNN counted for a model's graphs, as written to the JSON file; bytes and seconds."""
    transfers = [transfer for report in reports for transfer in report.transfers]
    return {
        "fallbacks": [f"{item.node} [{item.kind}]: {item.reason}" for r in reports for item in r.fallbacks],
        "transfers": len(transfers),
        "bytes_to_device": sum(t.bytes for t in transfers if t.direction == "to_device"),
        "bytes_to_host": sum(t.bytes for t in transfers if t.direction == "to_host"),
        "ttnn_calls": sum(report.calls for report in reports),
        "kernel_launches": sum(report.device_programs for report in reports),
        "kernel_launches_per_layer": per_layer(reports),
        "peak_dram_bytes": max((report.peak_dram_bytes for report in reports), default=0),
        "weight_bytes": max((report.weight_bytes for report in reports), default=0),
        "estimated_seconds": sum(report.estimated_seconds for report in reports),
        "estimated_kernel_seconds": sum(report.kernel_seconds for report in reports),
        "compile_seconds": stages(reports),
    }


def stages(reports: Sequence[tt_dynamo.GraphReport]) -> dict[str, float]:
    """Seconds of each stage of compilation, over all graphs."""
    total: dict[str, float] = {}
    for report in reports:
        for stage, seconds in report.seconds.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def describe_times(device: Device) -> str:
    if device.emulated:
        return f"times of the emulation of {device.board} on this computer, never of a device"
    return f"times on {device.board}, as the host sees them"


def say(case: str, message: str) -> None:
    print(f"[{case}] {message}", file=sys.stderr, flush=True)
