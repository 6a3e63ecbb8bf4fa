"""The tables that `run.py` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


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
