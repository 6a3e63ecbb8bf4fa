"""The traces on one device: captured together, and again where what they may overwrite or read has changed.

A trace writes to the addresses of its capture, and nothing keeps memory that was allocated later off those. So inputs,
constants, states and weights of all programs are there before the first capture, all captures are made in a row, and
what is allocated from then on to stay makes all of them stale: the next call of a traced program captures them anew.
"""

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from tt_dynamo.ir.ttnn_internals import ttnn_reason

log = logging.getLogger(__name__)

WARN_AFTER = 16  # captures of all traces, one after another
PAYS_AFTER = 100  # replays, which make a capture of all traces worth its time


class Capture:
    """A trace of one program for these states and weights, which it knows weakly.

    bound: what holds each of them, with its tensor as `tensor`. gone: called with this once one of them is, while
    there is a trace. trace: None while there is none.
    """

    def __init__(
        self,
        bound: list[Any],
        make: Callable[[list[Any]], Any],
        refuse: Callable[[str], None],
        gone: Callable[["Capture"], None],
    ) -> None:
        me = weakref.ref(self)

        def lost(_: Any) -> None:
            if (capture := me()) is not None and capture.trace is not None:
                gone(capture)

        self._bound = [weakref.ref(each, lost) for each in bound]
        self._make, self._refuse = make, refuse
        self.trace: Any = None

    def is_of(self, bound: list[Any]) -> bool:
        return all(reference() is each for reference, each in zip(self._bound, bound, strict=True))

    def capture(self) -> None:
        """Make the trace, unless what it is bound to is gone."""
        bound = [reference() for reference in self._bound]
        tensors = [None if each is None else each.tensor for each in bound]
        if all(tensor is not None for tensor in tensors):
            try:
                self.trace = self._make(tensors)
            except Exception as error:
                self._refuse(ttnn_reason(error))

    def release(self) -> None:
        trace, self.trace = self.trace, None
        if trace is not None:
            with contextlib.suppress(RuntimeError):  # a device that failed, or that its user closed, has none
                trace.release()


class Traces:
    """A resource of a device. `lock` is held while a trace is captured, and from its inputs to its results."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stale = False
        self.cleared = 0  # how many times TTNN's cache of programs was
        self._of_programs: list[list[Capture]] = []
        self._dead: list[Capture] = []
        self._lent: weakref.WeakSet[Any] = weakref.WeakSet()
        self._capturing = False
        self._rounds = self._replays = 0

    @property
    def captured(self) -> bool:
        """Whether there is a trace, whose tensors are to stay where they are."""
        return any(capture.trace is not None for captures in self._of_programs for capture in captures)

    def turn(self) -> contextlib.AbstractContextManager[Any]:
        """What whoever calls TTNN holds meanwhile, since a capture records the calls of all threads."""
        return self.lock if self._of_programs else contextlib.nullcontext()

    def add(self, program: Any) -> list[Capture]:
        """The captures of a program, which go with it."""
        captures: list[Capture] = []
        self._of_programs.append(captures)
        weakref.finalize(program, self._drop_program, captures).atexit = False
        return captures

    def allocated(self) -> None:
        """Note that something was allocated that stays."""
        self.stale = True

    def lend(self, copy: Any) -> None:
        """Note a copy that was allocated since the captures, or is a trace's own, for `before_replay`."""
        self._lent.add(copy)

    def keep(self, copy: Any) -> None:
        """Note that a copy stays on the device, where it is written to or read by many calls."""
        if copy in self._lent:
            self._lent.discard(copy)
            self.stale = True

    def has_lent(self, bound: list[Any]) -> bool:
        """Whether a program reads what others left for their next readers alone, where no trace can read it.

        What comes a second time is kept: a cache, and not the result of another model.
        """
        lent = [each for each in bound if each in self._lent] if self._lent else []
        for copy in lent:
            if copy.was_read and not copy.borrowed:
                self.keep(copy)
            copy.was_read = True
        return any(copy in self._lent for copy in lent)

    def before_replay(self) -> None:
        """Have what a replay may write over come down before it."""
        self._replays += 1
        while self._lent:
            copy = next(iter(self._lent))
            copy.leave()
            self._lent.discard(copy)

    def capture_all(self) -> None:
        """Release all traces, and capture all anew; the caller holds the lock."""
        self.release()
        self._capturing, self.stale = True, False
        try:
            for captures in list(self._of_programs):
                for capture in list(captures):
                    capture.capture()
                captures[:] = [capture for capture in captures if capture.trace is not None]
        finally:
            self._capturing = False
        self._rounds = 1 if self._replays >= PAYS_AFTER else self._rounds + 1
        self._replays = 0
        if self._rounds == WARN_AFTER:
            log.warning(
                "all traces of the device were captured %d times, each time for fewer than %d replays: each new "
                "program, weight or cache has all of them captured anew; compile first, or use trace=False",
                self._rounds,
                PAYS_AFTER,
            )

    def release(self) -> None:
        """Release all traces, also because the device is being closed."""
        with self.lock:
            self._release_dead()
            for capture in [each for captures in self._of_programs for each in captures]:
                capture.release()

    def clear_program_cache(self, handle: Any) -> None:
        """Empty TTNN's cache of programs, without which nothing can be captured: all are to run once more before."""
        with self.lock:
            self.release()
            for captures in self._of_programs:
                captures.clear()
            self.cleared += 1
            handle.clear_program_cache()
            log.debug("the device's cache of programs was emptied, %d times so far", self.cleared)

    def drop(self, *captures: Capture) -> None:
        """Release traces whose program, or what they read, is gone: from any thread, at any time."""
        self._dead += captures
        if self.lock.acquire(blocking=False):
            try:
                if not self._capturing:
                    self._release_dead()
            finally:
                self.lock.release()

    def _drop_program(self, captures: list[Capture]) -> None:
        self._of_programs = [others for others in self._of_programs if others is not captures]
        self.drop(*captures)

    def _release_dead(self) -> None:
        while self._dead:
            self._dead.pop().release()
