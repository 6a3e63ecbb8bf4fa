"""tt-dynamo: `torch.compile(model, backend="ttnn")` for Tenstorrent accelerators.

The backend is found by its name; nothing here needs to be imported to use it. `record` collects what was compiled,
`check` says whether a model fits on a device, `refresh` uploads weights again that were written to unseen.
"""

from typing import TYPE_CHECKING, Any

from tt_dynamo.report.report import Fallback, GraphReport, Operation, Transfer, record

if TYPE_CHECKING:
    from tt_dynamo.checking import Check, check
    from tt_dynamo.runtime.weights import refresh

__all__ = ["Check", "Fallback", "GraphReport", "Operation", "Transfer", "check", "record", "refresh"]


def __getattr__(name: str) -> Any:
    if name not in ("Check", "check", "refresh"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tt_dynamo import checking  # only now: they take torch and the compiler, which reports do without
    from tt_dynamo.runtime import weights

    return getattr(weights if name == "refresh" else checking, name)
