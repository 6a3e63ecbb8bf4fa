"""The tables that `run.py` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tt_dynamo.report.table import size_text


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    print(f"\n{results[0]['device']}: {results[0]['times_are']}\n")
    emulated = ", emulated" if results[0]["emulated"] else ""
    headings = ["case", "batch", "eager ms", "P95", f"compiled ms{emulated}", "P95", "PCC", "on device", "fallbacks"]
    print_table(headings, map(speed_row, results))
    print()
    headings = ["case", "launches", "per layer", "transfers", "up", "down"]
    headings += ["peak DRAM", "no dealloc.", "peak L1", "weights"]
    print_table(headings, map(device_row, results))
    print()
    names = list(dict.fromkeys(stage for result in results for stage in result["compile_seconds"]))
    rows = [
        [r["case"], f"{r['first_call_seconds']:.2f}", *(f"{r['compile_seconds'].get(name, 0.0):.2f}" for name in names)]
        for r in results
    ]
    print_table(["case", "first call s", *names], rows)
    print()
    for result in results:
        for fallback in result["fallbacks"]:
            print(f"{result['case']}: falls back: {fallback}")
        print(f"{result['case']}: {host_line(result['host_time'])}")


def speed_row(result: Mapping[str, Any]) -> list[str]:
    return [
        result["case"],
        str(result["batch"]),
        *(
            milliseconds(value[key])
            for value in (result["eager_seconds"], result["compiled_seconds"])
            for key in ("p50", "p95")
        ),
        f"{result['pcc']:.5f}",
        f"{result['device_share']:.0%}",
        str(len(result["fallbacks"])),
    ]


def device_row(result: Mapping[str, Any]) -> list[str]:
    peaks = ("peak_dram_bytes", "peak_dram_bytes_without_deallocations", "peak_l1_bytes")
    sizes = ("bytes_to_device", "bytes_to_host", *peaks, "weight_bytes")
    counts = ("kernel_launches", "kernel_launches_per_layer", "transfers")
    return [
        result["case"],
        *("-" if result[key] is None else str(result[key]) for key in counts),
        *(mebibytes(result[key]) for key in sizes),
    ]


def host_line(host: Mapping[str, Any] | None) -> str:
    if host is None:
        return "no handwritten encoder to compare with"
    ours, theirs, torchs = (spread(host[f"{of}_seconds"]) for of in ("compiled", "handwritten", "torch_compile"))
    return (
        f"host time per call{', dry run' if host['dry_run'] else ''}: {host['ratio_of_medians']:.2f} x handwritten "
        f"({ours} against {theirs} with {host['handwritten_kernel_launches']} launches); "
        f"{host['ratio_without_torch_compile']:.2f} x without what torch.compile itself takes ({torchs})"
    )


def print_language(results: Sequence[Mapping[str, Any]]) -> None:
    print(f"\nlanguage models on {results[0]['device']}\n")
    steps = [(result, step, figures) for result in results for step, figures in result["steps"].items()]
    headings = ["case", "batch", "weights", "step", "launches", "per layer", "experts", "transfers", "up", "down"]
    print_table([*headings, "weights", "caches", "peak DRAM", "fallbacks"], [language_row(*each) for each in steps])
    bounded = [each for each in steps if each[2]["roofline"]]
    if bounded:
        print_roofline(bounded)
    print()
    for result in results:
        if result["accuracy"]:
            pcc, same = result["accuracy"]["pcc"], result["accuracy"]["top1_agreement"]
            calls = result["accuracy"]["calls"]
            print(f"{result['case']}: lowest PCC of {calls} calls {pcc:.5f}, same most likely token in {same:.1%}")
    for result, step, figures in steps:
        if figures["host_seconds"]:
            dry = ", dry run on this computer" if result["emulated"] else ""
            calls = figures["ttnn_calls"]
            print(f"{result['case']}: host time of {step}{dry}: {spread(figures['host_seconds'])}, {calls} TTNN calls")
        for fallback in figures["fallbacks"]:
            print(f"{result['case']}: {step} falls back: {fallback}")


def print_roofline(steps: Sequence[tuple[Mapping[str, Any], str, Mapping[str, Any]]]) -> None:
    board, label = (steps[0][2]["roofline"][key] for key in ("board", "label"))
    print(f"\na call on {board} at least: {label}: max(bytes / DRAM bandwidth, FLOPs / peak)\n")
    headings = ["case", "weights", "step", "read", "GFLOP", "peak of", "bound by", "estimated ms", "estimated tokens/s"]
    print_table(headings, [roofline_row(*each) for each in steps])


def print_estimates(results: Sequence[Mapping[str, Any]]) -> None:
    """The estimated time of each call, and what was published of the same call."""
    print(f"\nestimate of the time on {results[0]['device']}, not measured; what the host computes is not in it\n")
    headings = ["case", "step", "batch", "tokens", "estimate ms", "estimate, kernels", "estimate, handwritten kernels"]
    calls = [(result, *call) for result in results for call in result.get("steps", {"forward": result}).items()]
    print_table(headings, [estimate_row(*call) for call in calls])
    print()
    for result, step, figures in calls:
        for one in figures["published"]:
            key = "estimated_kernel_seconds" if one["measured"] == "kernels" else "estimated_seconds"
            ratio = figures[key] / one["seconds"]
            print(
                f"{result['case']}: {step} published {milliseconds(one['seconds'])} ms ({one['measured']}, weights "
                f"{one['weights']}; {one['source']}); the estimate of ours is {ratio:.2f} times that"
            )


def estimate_row(result: Mapping[str, Any], step: str, figures: Mapping[str, Any]) -> list[str]:
    host = result.get("host_time")
    return [
        result["case"],
        step,
        str(result["batch"]),
        str(result["tokens"] or "-"),
        milliseconds(figures["estimated_seconds"]),
        milliseconds(figures["estimated_kernel_seconds"]),
        milliseconds(host["handwritten_estimated_kernel_seconds"]) if host else "-",
    ]


def language_row(result: Mapping[str, Any], step: str, figures: Mapping[str, Any]) -> list[str]:
    counts = ("kernel_launches", "kernel_launches_per_layer", "experts_launches_per_layer", "transfers")
    sizes = ("bytes_to_device", "bytes_to_host", "weight_bytes", "cache_bytes", "peak_dram_bytes")
    return [
        result["case"],
        str(result["batch"]),
        result["weight_dtype"],
        step,
        *("-" if figures[key] is None else str(figures[key]) for key in counts),
        *(size_text(figures[key]) for key in sizes),
        str(len(figures["fallbacks"])),
    ]


def roofline_row(result: Mapping[str, Any], step: str, figures: Mapping[str, Any]) -> list[str]:
    estimate = figures["roofline"]
    return [
        result["case"],
        result["weight_dtype"],
        step,
        size_text(round(estimate["weight_bytes"] + estimate["cache_bytes"])),
        f"{estimate['flops'] / 1e9:.2f}",
        estimate["math_fidelity"],
        estimate["bound_by"],
        milliseconds(estimate["seconds"]),
        f"{1 / estimate['seconds']:.1f}" if step == "decode" else "-",
    ]


def spread(seconds: Mapping[str, float]) -> str:
    return f"{milliseconds(seconds['p50'])} ms, P95 {milliseconds(seconds['p95'])}"


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; all but the first are numbers, so they end together."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def mebibytes(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"
