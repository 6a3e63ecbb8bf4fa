"""tt-dynamo: `torch.compile(model, backend="ttnn")` for Tenstorrent accelerators.

The backend is found by its name; nothing here needs to be imported to use it. `record` collects what was compiled,
`check` says whether a model fits on a device, `sensitivity` which weights may be narrower, `refresh` uploads weights
again that were written to unseen, `stream` calls a compiled model on many batches, `cache_info` says what compiled
programs are kept for later processes.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tt_dynamo.report.report import Fallback, GraphReport, Operation, Transfer, record

if TYPE_CHECKING:
    from tt_dynamo.artifacts.files import CacheInfo, cache_info
    from tt_dynamo.checking import Check, check
    from tt_dynamo.runtime.stream import stream
    from tt_dynamo.runtime.weights import refresh
    from tt_dynamo.weight_sensitivity import Sensitivity, sensitivity

__all__ = [
    "CacheInfo", "Check", "Fallback", "GraphReport", "Operation", "Sensitivity", "Transfer", "cache_info", "check",
    "record", "refresh", "sensitivity", "stream",
]  # fmt: skip

# What takes torch and the compiler, which reports do without: imported when it is first asked for.
_LATER = {
    "CacheInfo": "artifacts.files", "cache_info": "artifacts.files",
    "Check": "checking", "check": "checking", "refresh": "runtime.weights",
    "stream": "runtime.stream",
    "Sensitivity": "weight_sensitivity", "sensitivity": "weight_sensitivity",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tt_dynamo.{_LATER[name]}"), name)
