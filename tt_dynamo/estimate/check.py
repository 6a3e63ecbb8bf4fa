"""How far the estimate is off: by family, on what was fitted and on what was held out, and on whole models."""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.measured_rows import Measured, measured_operations
from tt_dynamo.estimate.published_models import published_models

CALIBRATED = 5  # rows held out, below which a family counts as uncalibrated
UNALIKE = 1.1  # times of variants of one shape differ by more than that where their order counts


@dataclass(frozen=True)
class Point:
    """A published time beside its estimate, both in seconds. split: "fitted", "held out" or "model"."""

    split: str
    family: str
    name: str
    measured: float
    estimated: float
    shape: object = None

    @property
    def error(self) -> float:
        """Estimated over measured, less 1."""
        return self.estimated / self.measured - 1


@dataclass(frozen=True)
class Error:
    """Of several points: mean, median and worst error, of which worst has a sign; bias is the geometric mean ratio.

    ordered: of pairs of one shape whose times differ by more than 10 %, the share that is ordered right; None of none.
    """

    rows: int
    mean: float
    median: float
    worst: float
    bias: float
    ordered: float | None


def points() -> list[Point]:
    """All measured operations and published models."""
    operations = [_point(row) for row in measured_operations()]
    models = [Point("model", "models", m.name, m.seconds, m.estimated_seconds) for m in published_models()]
    return operations + models


def _point(row: Measured) -> Point:
    family = estimate(row.call, row.chip).family
    shape = row.architecture, row.grid, row.call.name, row.call.inputs[0].shape, row.call.outputs[0].shape
    return Point(row.split, family, row.id, row.seconds, row.estimated_seconds(), shape)


def error_of(several: Sequence[Point]) -> Error:
    """The error of at least one point."""
    sizes = [abs(point.error) for point in several]
    worst = max((point.error for point in several), key=abs)
    bias = math.exp(statistics.mean(math.log(point.estimated / point.measured) for point in several))
    return Error(len(several), statistics.mean(sizes), statistics.median(sizes), worst, bias, _ordered(several))


def _ordered(several: Sequence[Point]) -> float | None:
    alike: dict[object, list[Point]] = defaultdict(list)
    for point in several:
        alike[point.shape].append(point)
    right: list[bool] = []
    for shape, variants in alike.items():
        for a, b in itertools.combinations(variants, 2) if shape else ():
            if max(a.measured, b.measured) > UNALIKE * min(a.measured, b.measured):
                right.append((a.measured < b.measured) == (a.estimated < b.estimated))
    return statistics.mean(right) if right else None


def by_family(all_points: Iterable[Point], split: str) -> dict[str, Error]:
    """The error of each family of a split, by name."""
    families: dict[str, list[Point]] = defaultdict(list)
    for point in all_points:
        if point.split == split:
            families[point.family].append(point)
    return {family: error_of(several) for family, several in sorted(families.items())}


def uncalibrated(all_points: Iterable[Point]) -> set[str]:
    """The families with formulas, of which too few measurements were held out to know their error."""
    held = by_family(all_points, "held out")
    every = {point.family for point in all_points} | set(held)
    return {family for family in every if family not in held or held[family].rows < CALIBRATED} - {"models"}


HEAD = f"{'':24} {'rows':>5} {'mean':>6} {'median':>6} {'worst':>6} {'bias':>5} {'ordered right':>13}"


def text() -> str:
    """The errors, for people."""
    found = points()
    lines = ["Estimate of device time against published measurements"]
    for split in ("held out", "fitted"):
        of_split = [point for point in found if point.split == split]
        lines += ["", f"Operations {split}", HEAD]
        for family, error in by_family(found, split).items():
            lines.append(_line(family, error, split == "held out" and error.rows < CALIBRATED))
        lines.append(_line("all", error_of(of_split), False))
    models = [point for point in found if point.split == "model"]
    lines += ["", "Published models (none fitted)", f"{'':80} {'published':>10} {'estimate':>10}"]
    for point in models:
        times = f"{point.measured * 1e3:8.2f}ms {point.estimated * 1e3:8.2f}ms"
        lines.append(f"{point.name[:80]:80} {times} {point.error:+6.0%}")
    return "\n".join([*lines, HEAD, _line("models", error_of(models), False)])


def _line(name: str, error: Error, few: bool) -> str:
    ordered = "" if error.ordered is None else f"{error.ordered:.0%}"
    numbers = f"{error.mean:6.0%} {error.median:6.0%} {error.worst:+6.0%} {error.bias:5.2f} {ordered:>13}"
    return f"{name:24} {error.rows:5} {numbers}{'  uncalibrated' if few else ''}"


def plot(file: str) -> None:
    """Write estimated against measured seconds by family, as an image. Raises ImportError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the plot needs matplotlib: pip install "tt-dynamo[demo]"') from error
    found = points()
    families = sorted({point.family for point in found})
    figure = Figure(figsize=(3.2 * 5, 3 * math.ceil(len(families) / 5)), layout="constrained")
    axes = figure.subplots(math.ceil(len(families) / 5), 5, squeeze=False).flat
    for family, ax in itertools.zip_longest(families, axes):
        ax.set_axis_off() if family is None else _panel(ax, family, [p for p in found if p.family == family])
    figure.suptitle("Estimate against published measurement, µs")
    figure.savefig(file, dpi=110)


def _panel(ax: object, family: str, several: Sequence[Point]) -> None:
    for split, marker in (("fitted", "."), ("held out", "x"), ("model", "x")):
        of_split = [point for point in several if point.split == split]
        x, y = ([getattr(p, side) * 1e6 for p in of_split] for side in ("measured", "estimated"))
        if x:
            ax.loglog(x, y, marker, label=split, markersize=5)  # type: ignore[attr-defined]
    times = [time * 1e6 for p in several for time in (p.measured, p.estimated)]
    ends = [min(times) / 2, max(times) * 2]
    ax.loglog(ends, ends, color="grey", linewidth=0.8)  # type: ignore[attr-defined]
    ax.set(xlim=ends, ylim=ends)  # type: ignore[attr-defined]
    ax.set_title(family, fontsize=9)  # type: ignore[attr-defined]
    ax.legend(fontsize=7)  # type: ignore[attr-defined]
