"""Measure models in eager float32 against `torch.compile(model, backend="ttnn")`, and against TTNN written by hand.

    python benchmarks/run.py [CASE ...] [--device n150] [--batch 8] [--runs 20] [--weight-dtype bfloat8_b]

Calls to compare are made in turns in one process, so that whatever else the machine does hits all of them alike. On an
emulated device TTNN validates and dispatches every call and values come from reference functions on the host: what is
timed then is the emulation, never a device, and every table, file and chart says so.

In a dry run no values are computed, which leaves what the host spends on a call: guards, conversions, dispatch. That is
compared with the same model written directly in TTNN (`handwritten/`), which has no guards to check: what torch.compile
itself takes is measured too, with a program that does nothing.

What a call would take on the board is estimated, labelled as such, and stands beside what others measured and published
of the same model, batch and length (`published.csv`).

Language models (`language.py`) have prefill and decode instead, with what a board needs for them at least, from
bytes and FLOPs. Those that take minutes are measured only where they are named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from cases import CASES, SEED, Case, Work, check_names
from estimating import EstimatedCalls
from language import LANGUAGE_CASES, PROMPT, WEIGHT_DTYPES, LanguageCase, measure_language
from loguru import logger
from measuring import describe_times, figures, pcc, say, summary, take_turns
from overhead import nothing
from published import published
from tables import print_estimates, print_language, print_results

import tt_dynamo
from tt_dynamo.devices import Device, open_device
from tt_dynamo.estimate.chip import chip_of
from tt_dynamo.options import presets

ALL_CASES: dict[str, Case | LanguageCase] = {**CASES, **LANGUAGE_CASES}
DEFAULT = [case.name for case in ALL_CASES.values() if not case.opt_in]
DRY_RUNS = 10  # calls without values per call with them: they are that much shorter


def measure(name: str, device: Device, *, batch: int, runs: int, layers: int | None, preset: str) -> dict[str, Any]:
    """All figures of one case, as written to the JSON file; seconds and bytes."""
    torch.manual_seed(SEED)
    say(name, "building the model")
    work = CASES[name].build(batch, layers)
    say(name, f"compiling for {device.description}")
    compiled, reports, first_call = compile_model(work, device, preset, dry_run=False)
    accuracy = correlation(work, compiled)
    say(name, f"compiled in {first_call:.1f} s, PCC {accuracy:.5f}; {runs} runs of each, in turns")
    times = take_turns({"eager": lambda: work.model(**work.inputs), "compiled": lambda: compiled(**work.inputs)}, runs)
    say(name, "dry run")
    host = host_times(work, device, preset, runs * DRY_RUNS)
    kept = compile_model(work, device, preset, dry_run=True, disable_passes=["insert_deallocations"])[1]
    return {
        "case": name,
        "about": CASES[name].about,
        "batch": batch,
        "layers": layers,
        "tokens": CASES[name].tokens,
        "device": device.description,
        "preset": preset,
        "emulated": device.emulated,
        "times_are": describe_times(device),
        "eager_seconds": summary(times["eager"]),
        "compiled_seconds": {**summary(times["compiled"]), "emulated": device.emulated},
        "pcc": accuracy,
        "graphs": len(reports),
        "device_share": share(reports),
        **figures(reports),
        "peak_dram_bytes_without_deallocations": max((report.peak_dram_bytes for report in kept), default=0),
        "peak_l1_bytes": max((report.peak_l1_bytes for report in reports), default=0),
        "first_call_seconds": first_call,
        "host_time": host,
        "published": published(name, "forward", device.board, batch, CASES[name].tokens, layers),
    }


def compile_model(
    work: Work, device: Device, preset: str, *, dry_run: bool, disable_passes: Sequence[str] = ()
) -> tuple[Callable[..., Any], list[Any], float]:
    """The compiled model after its first call, the reports of its graphs, and the seconds of that call."""
    options: dict[str, Any] = {"device": device.choice, "preset": preset, "dry_run": dry_run}
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


def host_times(work: Work, device: Device, preset: str, runs: int) -> dict[str, Any] | None:
    """Seconds of a call without values, compiled and handwritten; None for a case that has no handwritten twin.

    With one torch thread: waking a pool costs more than these calls do when other processes use the cores.
    """
    if work.handwritten is None:
        return None
    ttnn = device.namespace(dry_run=True)
    handwritten = work.handwritten(ttnn, device.handle)
    compiled, _, _ = compile_model(work, device, preset, dry_run=True)
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
    grid = device.handle.compute_with_storage_grid_size()
    estimated = EstimatedCalls(ttnn, chip_of(device.board, (grid.x, grid.y), mesh=device.shape, links=device.links))
    again = work.handwritten(estimated, device.handle)
    estimated.costs.clear()  # of what it does once
    again(*inputs)
    ours, theirs, torchs = (summary(times[name]) for name in ("compiled", "handwritten", "torch.compile"))
    return {
        "dry_run": device.emulated,
        "compiled_seconds": ours,
        "handwritten_seconds": theirs,
        "torch_compile_seconds": torchs,
        "ratio_of_medians": ours["p50"] / theirs["p50"],
        "ratio_without_torch_compile": (ours["p50"] - torchs["p50"]) / theirs["p50"],
        "handwritten_kernel_launches": launches,
        "handwritten_estimated_kernel_seconds": sum(estimated.costs),
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


def share(reports: Sequence[tt_dynamo.GraphReport]) -> float:
    nodes = sum(report.nodes for report in reports)
    return sum(report.device_nodes for report in reports) / nodes if nodes else 1.0


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    opt_in = ", ".join(name for name in ALL_CASES if name not in DEFAULT)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(ALL_CASES)} (default: all but {opt_in})"
    )
    parser.add_argument("--device", default="auto", help="auto, hardware, or a board to emulate (default: auto)")
    parser.add_argument("--batch", type=positive, default=1, help="batch size (default: 1)")
    parser.add_argument("--runs", type=positive, default=20, help="timed calls of each kind (default: 20)")
    parser.add_argument("--layers", type=positive, help="only so many layers of each model")
    parser.add_argument("--prompt", type=positive, default=PROMPT, help=f"tokens, language models (default: {PROMPT})")
    parser.add_argument("--weight-dtype", choices=WEIGHT_DTYPES, help="of language models (default: the case's own)")
    parser.add_argument("--preset", choices=presets(), default="accuracy", help="precision (default: accuracy)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    options = parser.parse_args(arguments)
    check_names(parser, options.cases, ALL_CASES)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.list:
        for case in ALL_CASES.values():
            print(f"{case.name:12} {case.about}{'' if case.name in DEFAULT else ' (only where it is named)'}")
        return
    options.output.mkdir(parents=True, exist_ok=True)
    device = open_device(options.device)
    results: list[dict[str, Any]] = []
    given = vars(options)
    common = {name: given[name] for name in ("batch", "runs", "layers", "preset")}
    with torch.no_grad():
        for name in options.cases or DEFAULT:
            if name in CASES:
                results.append(measure(name, device, **common))
            else:
                chosen = {"prompt": options.prompt, "weight_dtype": options.weight_dtype}
                results.append(measure_language(name, device, **common, **chosen))
            # After every case: what is measured stays, whatever the next one does.
            (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    show(results, options.output)


def show(results: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Print the tables, and draw the chart of what has one."""
    written = [folder / "results.json"]
    language = [result for result in results if "steps" in result]
    others = [result for result in results if "steps" not in result]
    if others:
        from chart import draw

        written.append(folder / "results.png")
        draw(others, written[-1])
        print_results(others)
    if language:
        print_language(language)
    print_estimates(results)
    print("", *written, sep="\n")


if __name__ == "__main__":
    main()
