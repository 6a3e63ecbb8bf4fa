"""The search behind every choice between TTNN calls: the first candidate that TTNN accepts."""

from collections.abc import Callable, Sequence
from typing import TypeVar

C = TypeVar("C")
R = TypeVar("R")


def first_accepted(
    candidates: Sequence[C],
    call: Callable[[C], R],
    refusals: tuple[type[Exception], ...],
    undo: Callable[[], None] = lambda: None,
) -> tuple[C, R, int]:
    """The first candidate whose call raises none of `refusals`, what it gives, and how many were refused before.

    undo: called after every refusal. Raises the first refusal where there is no such candidate.
    """
    first: tuple[type[Exception], str] | None = None  # an exception itself would hold buffers in L1
    for refused, candidate in enumerate(candidates):
        try:
            return candidate, call(candidate), refused
        except refusals as error:
            first = first or (type(error), str(error))
        undo()
    assert first is not None
    kind, text = first
    raise kind(text)
