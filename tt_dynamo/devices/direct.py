"""TTNN's functions below the Python objects that wrap them: what a running program calls.

TTNN wraps each operation in a `FastOperation`, which asks at every call whether its slow runtime, a graph capture or a
record of allocations wants to know. That costs a fifth of a BERT's host time; a program that was validated call by call
needs none of it.
"""

from types import ModuleType
from typing import Any

from .over import Over
from .ttnn_internals import function_of, wants_every_call


def direct(namespace: Any) -> Any:
    """`namespace`, a TTNN namespace, with functions in place of wrappers; itself where TTNN's slow runtime is on.

    Comparison mode, logging and the slow runtime (`ttnn.CONFIG`) see the calls of programs that are loaded while they
    are on.
    """
    return namespace if wants_every_call() else _Direct(namespace)


class _Direct(Over):
    def in_place_of(self, found: Any) -> Any:
        return _Direct(found) if isinstance(found, ModuleType) else function_of(found)
