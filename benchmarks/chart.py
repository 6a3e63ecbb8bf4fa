"""The chart of `run.py`: speed, kernel launches, host time and compile time of each case, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

EAGER, COMPILED, HANDWRITTEN = "#9a9a9a", "#4c6fb1", "#d18f3b"
Result = Mapping[str, Any]


def draw(results: Sequence[Result], path: Path) -> None:
    """Write the chart of `results`, as `run.py` measures them, to `path`; its suffix says in which format."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    first = results[0]
    figure.suptitle(f"tt-dynamo on {first['device']}, batch {first['batch']}\n{first['times_are']}")
    speed(axes[0, 0], results)
    launches(axes[0, 1], results)
    host_time(axes[1, 0], results)
    compile_time(axes[1, 1], results)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def speed(axes: Axes, results: Sequence[Result]) -> None:
    emulated = results[0]["emulated"]
    bars = {
        "eager float32": [result["eager_seconds"] for result in results],
        f"compiled{' (emulated)' if emulated else ''}": [result["compiled_seconds"] for result in results],
    }
    time_bars(axes, results, bars, (EAGER, COMPILED))
    axes.set_yscale("log")  # cases differ by a hundred times
    axes.set_title(f"one call{', emulated: no device times' if emulated else ''}")


def host_time(axes: Axes, results: Sequence[Result]) -> None:
    with_twin = [result for result in results if result["host_time"]]
    bars = {
        "handwritten TTNN": [result["host_time"]["handwritten_seconds"] for result in with_twin],
        "compiled": [result["host_time"]["compiled_seconds"] for result in with_twin],
        "torch.compile itself": [result["host_time"]["torch_compile_seconds"] for result in with_twin],
    }
    time_bars(axes, with_twin, bars, (HANDWRITTEN, COMPILED, EAGER))
    for place, result in enumerate(with_twin):
        high = max(seconds[place]["p95"] for seconds in bars.values())
        axes.annotate(f"{result['host_time']['ratio_of_medians']:.2f} x", (place, high * 1e3), ha="center", va="bottom")
    dry = ", dry run on the emulated device" if results[0]["emulated"] else ""
    axes.set_title(f"host time of a call{dry}")


def launches(axes: Axes, results: Sequence[Result]) -> None:
    places = range(len(results))
    values = [result["kernel_launches_per_layer"] or 0 for result in results]
    axes.bar_label(axes.bar(places, values, 0.5, color=COMPILED), padding=2)
    for place, result in zip(places, results, strict=True):
        total = f"{result['kernel_launches']}\nin all"
        axes.annotate(total, (place, 0), (0, 4), textcoords="offset points", ha="center", color="white")
    name_cases(axes, results)
    axes.margins(y=0.15)
    axes.set_title("kernel launches per layer")


def compile_time(axes: Axes, results: Sequence[Result]) -> None:
    stages = list(dict.fromkeys(stage for result in results for stage in result["compile_seconds"]))
    below = [0.0] * len(results)
    for stage in stages:
        values = [result["compile_seconds"].get(stage, 0.0) for result in results]
        axes.bar(range(len(results)), values, 0.5, bottom=below, label=stage)
        below = [low + value for low, value in zip(below, values, strict=True)]
    name_cases(axes, results)
    axes.set_ylabel("seconds")
    axes.margins(y=0.4)  # room for the legend
    axes.legend(fontsize="small", ncols=3, loc="upper center")
    axes.set_title(f"compile time by stage{', for the emulated device' if results[0]['emulated'] else ''}")


def time_bars(
    axes: Axes, results: Sequence[Result], bars: Mapping[str, Sequence[Mapping[str, float]]], colors: Sequence[str]
) -> None:
    """Bars up to the median and whiskers up to P95, in milliseconds."""
    width = 0.8 / len(bars)
    for index, ((label, seconds), color) in enumerate(zip(bars.items(), colors, strict=True)):
        places = [place + (index - (len(bars) - 1) / 2) * width for place in range(len(results))]
        medians = [value["p50"] * 1e3 for value in seconds]
        above = [max(0.0, value["p95"] - value["p50"]) * 1e3 for value in seconds]
        axes.bar(places, medians, width, label=label, color=color, yerr=[[0.0] * len(above), above], capsize=3)
    name_cases(axes, results)
    axes.set_ylabel("milliseconds: median, P95")
    axes.margins(y=0.3)  # room for the legend
    axes.legend(fontsize="small", ncols=3, loc="upper center")


def name_cases(axes: Axes, results: Sequence[Result]) -> None:
    axes.set_xticks(range(len(results)), [result["case"] for result in results])
    axes.set_xlim(-0.75, len(results) - 0.25)
