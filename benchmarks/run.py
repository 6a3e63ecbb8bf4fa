"""Measure models in eager float32 against `torch.compile(model, backend="ttnn")`, and against TTNN written by hand.

    python benchmarks/run.py [CASE ...] [--device n150] [--batch 8] [--runs 20]

Calls to compare are made in turns in one process, so that whatever else the machine does hits all of them alike. On an
emulated device TTNN validates and dispatches every call and values come from reference functions on the host: what is
timed then is the emulation, never a device, and every table, file and chart says so.

In a dry run no values are computed, which leaves what the host spends on a call: guards, conversions, dispatch. That is
compared with the same model written directly in TTNN (`handwritten/`), which has no guards to check: what torch.compile
itself takes is measured too, with a program that does nothing.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from cases import CASES, SEED, Work
from loguru import logger
from overhead import nothing
from tables import print_results

import tt_dynamo
from tt_dynamo.devices import Device, open_device

WARM_UP = 2  # calls before the ones that count
DRY_RUNS = 10  # calls without values per call with them: they are that much shorter


def measure(name: str, device: Device, *, batch: int, runs: int, layers: int | None) -> dict[str, Any]:
    """All figures of one case, as written to the JSON file; seconds and bytes."""
    torch.manual_seed(SEED)
    say(name, "building the model")
    work = CASES[name].build(batch, layers)
    say(name, f"compiling for {device.description}")
    compiled, reports, first_call = compile_model(work, device, dry_run=False)
    accuracy = correlation(work, compiled)
    say(name, f"compiled in {first_call:.1f} s, PCC {accuracy:.5f}; {runs} runs of each, in turns")
    times = take_turns({"eager": lambda: work.model(**work.inputs), "compiled": lambda: compiled(**work.inputs)}, runs)
    say(name, "dry run")
    host = host_times(work, device, runs * DRY_RUNS)
    kept = compile_model(work, device, dry_run=True, disable_passes=["insert_deallocations"])[1]
    kernels = [operation.programs for report in reports for operation in report.operations]
    transfers = [transfer for report in reports for transfer in report.transfers]
    return {
        "case": name,
        "about": CASES[name].about,
        "batch": batch,
        "layers": layers,
        "device": device.description,
        "emulated": device.emulated,
        "times_are": describe_times(device),
        "eager_seconds": summary(times["eager"]),
        "compiled_seconds": {**summary(times["compiled"]), "emulated": device.emulated},
        "pcc": accuracy,
        "graphs": len(reports),
        "device_share": share(reports),
        "fallbacks": [f"{item.node} [{item.kind}]: {item.reason}" for r in reports for item in r.fallbacks],
        "transfers": len(transfers),
        "bytes_to_device": sum(t.bytes for t in transfers if t.direction == "to_device"),
        "bytes_to_host": sum(t.bytes for t in transfers if t.direction == "to_host"),
        "ttnn_calls": len(kernels),
        "kernel_launches": sum(report.device_programs for report in reports),
        "kernel_launches_per_layer": per_layer(reports),
        "peak_dram_bytes": max((report.peak_dram_bytes for report in reports), default=0),
        "peak_dram_bytes_without_deallocations": max((report.peak_dram_bytes for report in kept), default=0),
        "peak_l1_bytes": max((report.peak_l1_bytes for report in reports), default=0),
        "weight_bytes": max((report.weight_bytes for report in reports), default=0),
        "first_call_seconds": first_call,
        "compile_seconds": stages(reports),
        "host_time": host,
    }


def compile_model(
    work: Work, device: Device, *, dry_run: bool, disable_passes: Sequence[str] = ()
) -> tuple[Callable[..., Any], list[Any], float]:
    """The compiled model after its first call, the reports of its graphs, and the seconds of that call."""
    options: dict[str, Any] = {"device": device.board if device.emulated else "hardware", "dry_run": dry_run}
    options["disable_passes"] = list(disable_passes)
    if dry_run:
        options["fallback"] = "error"  # a call that recovers from a failure is not the one to time
    torch.compiler.reset()  # guards of what was compiled before would be tried first, in every call
    compiled = torch.compile(work.model, backend="ttnn", options=options)
    start = time.perf_counter()
    with tt_dynamo.record() as reports:
        compiled(**work.inputs)
    return compiled, reports, time.perf_counter() - start


def correlation(work: Work, compiled: Callable[..., Any]) -> float:
    """The lowest PCC with eager torch of the outputs that the case compares."""
    expected, ours = work.model(**work.inputs), compiled(**work.inputs)
    return min(pcc(getattr(ours, field), getattr(expected, field)) for field in work.outputs)


def pcc(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson correlation of two tensors of one shape, NaN where either is not finite."""
    if a.shape != b.shape:
        raise ValueError(f"the compiled model gives the shape {tuple(a.shape)}, eager torch {tuple(b.shape)}")
    return torch.corrcoef(torch.stack((a.flatten().double(), b.flatten().double())))[0, 1].item()


def host_times(work: Work, device: Device, runs: int) -> dict[str, Any] | None:
    """Seconds of a call without values, compiled and handwritten; None for a case that has no handwritten twin.

    With one torch thread: waking a pool costs more than these calls do when other processes use the cores.
    """
    if work.handwritten is None:
        return None
    ttnn = device.namespace(dry_run=True)
    handwritten = work.handwritten(ttnn, device.handle)
    compiled, _, _ = compile_model(work, device, dry_run=True)
    empty = torch.compile(work.model, backend=nothing)
    inputs = list(work.inputs.values())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        calls = {
            "compiled": lambda: compiled(**work.inputs),
            "handwritten": lambda: handwritten(*inputs),
            "torch.compile": lambda: empty(**work.inputs),
        }
        times = take_turns(calls, runs)
        launches = count_launches(ttnn, calls["handwritten"])
    finally:
        torch.set_num_threads(threads)
    ours, theirs, torchs = (summary(times[name]) for name in ("compiled", "handwritten", "torch.compile"))
    return {
        "dry_run": device.emulated,
        "compiled_seconds": ours,
        "handwritten_seconds": theirs,
        "torch_compile_seconds": torchs,
        "ratio_of_medians": ours["p50"] / theirs["p50"],
        "ratio_without_torch_compile": (ours["p50"] - torchs["p50"]) / theirs["p50"],
        "handwritten_kernel_launches": launches,
    }


def count_launches(ttnn: Any, call: Callable[[], Any]) -> int:
    """Kernel launches of `call`, as TTNN's graph capture counts them."""
    logger.disable("ttnn")  # it warns that fast dispatch leaves out sub-graphs, which are not read here
    ttnn.graph.begin_graph_capture(ttnn.graph.RunMode.NORMAL)
    try:
        call()
    finally:
        nodes = ttnn.graph.end_graph_capture()
        logger.enable("ttnn")
    return sum(node["node_type"] == "program_execution" for node in nodes)


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


def share(reports: Sequence[tt_dynamo.GraphReport]) -> float:
    nodes = sum(report.nodes for report in reports)
    return sum(report.device_nodes for report in reports) / nodes if nodes else 1.0


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


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--device", default="auto", help="auto, hardware, or a board to emulate (default: auto)")
    parser.add_argument("--batch", type=positive, default=1, help="batch size (default: 1)")
    parser.add_argument("--runs", type=positive, default=20, help="timed calls of each kind (default: 20)")
    parser.add_argument("--layers", type=positive, help="only so many layers of each model")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    options = parser.parse_args(arguments)
    for name in options.cases:
        if name not in CASES:
            near = difflib.get_close_matches(name, CASES, n=1, cutoff=0.0)[0]
            parser.error(f"unknown case {name!r}; did you mean {near!r}? Known: {', '.join(CASES)}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.list:
        for case in CASES.values():
            print(f"{case.name:12} {case.about}")
        return
    from chart import draw

    options.output.mkdir(parents=True, exist_ok=True)
    device = open_device(options.device)
    results: list[dict[str, Any]] = []
    with torch.no_grad():
        for name in options.cases or CASES:
            results.append(measure(name, device, batch=options.batch, runs=options.runs, layers=options.layers))
            # After every case: what is measured stays, whatever the next one does.
            (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(results, options.output / "results.png")
    print_results(results)
    print(f"\n{options.output / 'results.json'}\n{options.output / 'results.png'}")


if __name__ == "__main__":
    main()
