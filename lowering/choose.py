"""The searches behind every choice between TTNN calls: the first that TTNN accepts, or the one that takes least."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

# Estimates of two candidates that differ by less say nothing: tests/estimate has how often variants are ordered right.
CLOSE = 1.05

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


def search_cheapest(
    candidates: Sequence[C],
    call: Callable[[C], R],
    seconds: Callable[[], float],
    refusal: type[Exception],
    undo: Callable[[], None],
    compared: Callable[[C], Hashable] | None = None,
) -> tuple[list[C], Callable[[C], R]]:
    """The candidates with the best one first, and what calls one: none that was refused is called again.

    They are tried from the last to the first, which is what TTNN would choose, and most often the best: the one that
    was tried last need not be called again either. compared: the name of a candidate's group, of which the first
    accepted counts; None where a candidate is not tried. Without it all are.

    seconds: what the last call is estimated to take. undo: called before another one.
    """
    groups: dict[Hashable, list[int]] = {}
    for at, candidate in enumerate(candidates):
        name = compared(candidate) if compared else at
        if name is not None:
            groups.setdefault(name, []).append(at)
    costs: dict[int, float] = {}
    refused: dict[int, str] = {}  # by the identity of a candidate
    made: list[R] = []
    last = None
    for group in reversed(groups.values()):
        for last in group:
            made.clear()  # with its tensors, which would take L1 of the next
            undo()
            try:
                made.append(call(candidates[last]))
            except refusal as error:
                refused[id(candidates[last])] = str(error)
                continue
            costs[last] = seconds()
            break

    def attempt(candidate: C) -> R:
        if id(candidate) in refused:
            raise refusal(refused[id(candidate)])
        return made.pop() if made else call(candidate)

    accepted = sorted(costs)
    best = [accepted[cheapest([costs[at] for at in accepted])]] if costs else []
    if best != [last]:
        made.clear()
        undo()
    return [candidates[at] for at in (*best, *(at for at in range(len(candidates)) if at not in best))], attempt


def cheapest(costs: Sequence[float]) -> int:
    """Which is the first that costs about the least."""
    return next(at for at, seconds in enumerate(costs) if seconds <= min(costs) * CLOSE)
