"""Programs that were compiled for some values of their inputs, and what runs for the others.

A prompt fills a cache from its first row, and all layers of a model stand at one position: graphs are compiled for that
(`passes/caches/hold.py`), the integers are compared at every call, and the first call for which they are otherwise
compiles the graph as it stands.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tt_dynamo.ir.graph import Assumption

log = logging.getLogger(__name__)

Boxed = Callable[[list[Any]], Any]


class Assuming:
    """A boxed callable: `program` where the assumptions hold, else what `compile_general` gives, made once."""

    def __init__(
        self, program: Boxed, names: list[str], assumptions: Iterable[Assumption], compile_general: Callable[[], Boxed]
    ) -> None:
        self._conditions = [([names.index(name) for name in a.placeholders], a.value) for a in assumptions]
        self._program, self._compile_general = program, compile_general
        self._general: Boxed | None = None
        self._lock = threading.Lock()

    def __call__(self, args: list[Any]) -> Any:
        for positions, value in self._conditions:
            wanted = int(args[positions[0]]) if value is None else value
            if any(args[position] != wanted for position in positions):
                return self._in_general()(args)
        return self._program(args)

    def _in_general(self) -> Boxed:
        with self._lock:
            if self._general is None:
                log.info("compiling a graph once more, for caches that are not written from their first row")
                self._general = self._compile_general()
            return self._general
