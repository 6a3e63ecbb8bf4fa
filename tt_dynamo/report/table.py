"""Tables, sheets and sizes as text for people."""

import textwrap
from collections.abc import Iterable, Sequence

WIDTH, LABEL = 100, 18  # columns of a printed report, and of its labels


def table(head: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """Columns as wide as their widest cell; numbers are aligned to the right."""
    lines = [head, *rows]
    widths = [max(len(str(cell)) for cell in column) for column in zip(*lines, strict=True)]
    texts = ("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(text.rstrip() for text in texts)


def fact_sheet(title: str, facts: Iterable[tuple[str, str]]) -> str:
    """A title and one row for each (label, text); a long text wraps, an empty one has no row."""
    lines = [title, "-" * WIDTH]
    for label, text in facts:
        lines += textwrap.wrap(text, WIDTH, initial_indent=label.ljust(LABEL), subsequent_indent=" " * LABEL)
    return "\n".join(lines)


def size_text(count: int) -> str:
    """Bytes for people: 1536 → "1.5 KiB"."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} B"
