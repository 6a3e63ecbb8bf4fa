"""tt-dynamo: `torch.compile(model, backend="ttnn")` for Tenstorrent accelerators.

The backend is found by its name; nothing here needs to be imported to use it. `record` collects what was compiled.
"""

from tt_dynamo.report import Fallback, GraphReport, Operation, Transfer, record

__all__ = ["Fallback", "GraphReport", "Operation", "Transfer", "record"]
