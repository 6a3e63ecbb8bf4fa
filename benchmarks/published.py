"""Times that others measured on a board and published, each with its source: `published.csv`.

tokens: of each sequence, or of the prompt; none for images. weights: as --weight-dtype names them. measured: "kernels"
is the sum of their durations alone, "end to end" a call as the host sees it, most of them with a trace.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".csv")


def published(
    case: str, phase: str, board: str, batch: int, tokens: int | None, layers: int | None
) -> list[dict[str, Any]]:
    """What was published of this case with all of its layers, in the order of the file; of another depth nothing."""
    if layers is not None:
        return []
    wanted = [case, phase, board, str(batch), str(tokens or "")]
    with FILE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if list(row.values())[: len(wanted)] == wanted]
    facts = ("weights", "measured", "source")
    return [{"seconds": float(row["milliseconds"]) / 1e3, **{name: row[name] for name in facts}} for row in rows]
