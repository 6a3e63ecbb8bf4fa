"""Time the candidates of a choice that are estimated to be about the fastest, and keep which one is.

The estimate is off by as much as `NEAR` says, so what it finds within that of the best is timed. Equal calls of a
program are one question and timed once. Where a board is emulated the estimate itself is the clock: the same way is
gone, nothing is measured, and `Tuning.measured` says so.

What must hold: a winner computes what the first candidate computes, compared on the device, before it is kept.
"""

import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

log = logging.getLogger(__name__)

NEAR = 1.3  # of the best estimate: as far as the estimate is off
MOST = 8  # candidates of one choice
LEAST_PCC = 0.99

Tensors = Mapping[Any, Any]  # of the operands, by the node that stands for each


class Candidate(NamedTuple):
    """One way to make a call. seconds: estimated. run: makes it with these operands and gives its result."""

    name: str
    seconds: float
    run: Callable[[Tensors], Any]


@dataclass(frozen=True)
class Tuning:
    """What was found for one question.

    seconds: of each candidate that was timed, the best estimate first. usual: the one that the estimate chooses.
    measured: whether on a device; else they are estimates. pcc: of the winner's result with that of the first
    candidate; None where nothing was computed.
    """

    operation: str
    winner: str
    usual: str
    seconds: Mapping[str, float]
    measured: bool
    pcc: float | None = None

    @property
    def gain(self) -> float:
        """The share of the usual candidate's time that the winner saves."""
        return 1 - self.seconds[self.winner] / self.seconds[self.usual] if self.seconds[self.usual] else 0.0


class Clock(Protocol):
    """What times candidates. measured: whether it measures."""

    measured: bool

    def operands(self, tensors: Tensors) -> Tensors:
        """Tensors with contents in the place of these, which have none. Raises RuntimeError where they do not fit."""

    def seconds(self, candidate: Candidate, operands: Tensors) -> float:
        """Of one call of a candidate. Raises RuntimeError as TTNN does."""

    def pcc(self, candidate: Candidate, first: Candidate, operands: Tensors) -> float | None:
        """The correlation of what two candidates give; None where there are no values."""


class EstimateClock:
    """The clock of an emulated board: what was estimated."""

    measured = False

    def operands(self, tensors: Tensors) -> Tensors:
        return tensors

    def seconds(self, candidate: Candidate, operands: Tensors) -> float:
        return candidate.seconds

    def pcc(self, candidate: Candidate, first: Candidate, operands: Tensors) -> float | None:
        return None


class Tuner:
    """The tunings of a device, by question, and the clock that finds others; without one none are found."""

    def __init__(self, kept: MutableMapping[Any, Tuning], clock: Clock | None = None) -> None:
        self.kept, self.clock = kept, clock

    def find(self, question: Any, candidates: Sequence[str]) -> Tuning | None:
        """What is kept for a question, if its winner is a candidate; no estimate where it can be measured."""
        found = self.kept.get(question)
        is_answer = found is not None and found.winner in candidates
        outdated = found is not None and self.clock is not None and self.clock.measured > found.measured
        return found if is_answer and not outdated else None

    def tune(
        self, question: Any, operation: str, usual: str, candidates: Sequence[Candidate], tensors: Tensors
    ) -> Tuning | None:
        """Time the candidates, of which the first is what others must agree with; keep the winner and give it.

        None where the operands with contents, or the first candidate with them, find no room.
        """
        clock = self.clock
        assert clock is not None
        best = min(candidate.seconds for candidate in candidates)
        near = sorted((c for c in candidates if c.seconds <= best * NEAR), key=lambda c: c.seconds)[:MOST]
        near += [candidate for candidate in candidates if candidate.name == usual and candidate not in near]
        times: dict[str, float] = {}
        try:
            operands = clock.operands(tensors)
            for at, candidate in enumerate(near, start=1):
                log.info("%s: timing candidate %d of %d, %s", operation, at, len(near), candidate.name)
                times[candidate.name] = clock.seconds(candidate, operands)
            fastest = sorted(near, key=lambda candidate: times[candidate.name])
            winner, pcc = self._first_that_agrees(fastest, candidates[0], operands)
            if winner.name not in times:
                times[winner.name] = clock.seconds(winner, operands)
        except RuntimeError as error:
            log.warning("%s is not tuned: %s", operation, error)
            return None
        found = self.kept[question] = Tuning(operation, winner.name, usual, times, clock.measured, pcc)
        how = "measured" if clock.measured else "estimate, not measured"
        log.info("%s: %s takes %.1f µs (%s)", operation, winner.name, times[winner.name] * 1e6, how)
        return found

    def _first_that_agrees(
        self, fastest: Sequence[Candidate], first: Candidate, operands: Tensors
    ) -> tuple[Candidate, float | None]:
        """The first of these whose result is that of the candidate `first`, and how close it is."""
        assert self.clock is not None
        for candidate in fastest:
            pcc = 1.0 if candidate is first and self.clock.measured else self.clock.pcc(candidate, first, operands)
            if pcc is None or pcc >= LEAST_PCC:
                return candidate, pcc
            log.warning("%s has a PCC of %.4f with %s and is left out", candidate.name, pcc, first.name)
        return first, 1.0
