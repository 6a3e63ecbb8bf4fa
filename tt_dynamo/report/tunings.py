"""What the tuner found, as a table."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tt_dynamo.report.table import table


@dataclass(frozen=True)
class Tuned:
    """What the tuner found for a node of the graph.

    operation: "ttnn.linear". seconds: of each candidate that was timed. winner: the one that is taken. usual: the one
    that the estimate alone would take. gain: the share of its time that the winner saves. measured: whether the times
    were measured on a device; else they are estimates. pcc: of the winner with the first candidate, None of estimates.
    """

    operation: str
    seconds: dict[str, float]
    winner: str
    usual: str
    gain: float
    measured: bool
    pcc: float | None
    node: str
    module: str


def tuning_table(tuned: Iterable[Tuned]) -> str:
    """One line for each candidate of each choice; what is alike in many modules stands once, with the first of them."""
    alike: dict[Any, list[Tuned]] = {}
    for one in tuned:
        alike.setdefault((one.operation, one.winner, tuple(one.seconds.items()), one.measured), []).append(one)
    if not alike:
        return "nothing to tune: no call had several candidates that are costed"
    rows: list[tuple[str, ...]] = []
    for first, *more in alike.values():
        module = first.module + (f" and {len(more)} more" if more else "")
        for at, (candidate, seconds) in enumerate(first.seconds.items()):
            is_winner = candidate == first.winner
            place = (first.operation, module) if at == 0 else ("", "")
            gain = f"{first.gain:.1%}" if is_winner else ""
            rows.append((*place, candidate, f"{seconds * 1e6:.1f}", "winner" if is_winner else "", gain))
    measured = all(measured for *_, measured in alike)
    time = "measured µs" if measured else "µs (estimate, not measured)"
    return table(("operation", "module", "candidate", time, "", "gain"), rows)
