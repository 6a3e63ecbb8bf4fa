"""tt-dynamo: `torch.compile(model, backend="ttnn")` for Tenstorrent accelerators.

The backend is found by its name; nothing here needs to be imported to use it. `record` collects what was compiled,
`check` says whether a model fits on a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tt_dynamo.report.report import Fallback, GraphReport, Operation, Transfer, record

if TYPE_CHECKING:
    from tt_dynamo.checking import Check, check

__all__ = ["Check", "Fallback", "GraphReport", "Operation", "Transfer", "check", "record"]


def __getattr__(name: str) -> Any:
    if name not in ("Check", "check"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tt_dynamo import checking  # only now: it takes torch and the compiler, which reports do without

    return getattr(checking, name)
