"""The estimate of a program that was written by hand: TTNN's namespace, whose calls are estimated as they are made."""

from __future__ import annotations

import types
from typing import Any

from tt_dynamo.estimate.calls import estimate_call
from tt_dynamo.estimate.chip import Chip


class EstimatedCalls:
    """TTNN's module, or a submodule of it. costs: the estimated seconds of the kernels of each call so far."""

    def __init__(self, module: Any, chip: Chip, path: str = "ttnn", costs: list[float] | None = None) -> None:
        self._module, self._chip, self._path = module, chip, path
        self.costs: list[float] = [] if costs is None else costs

    def __getattr__(self, name: str) -> Any:
        found, path = getattr(self._module, name), f"{self._path}.{name}"
        if isinstance(found, types.ModuleType):
            return EstimatedCalls(found, self._chip, path, self.costs)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            self.costs.append(estimate_call(path, args, kwargs, result, self._chip).seconds)
            return result

        return call
