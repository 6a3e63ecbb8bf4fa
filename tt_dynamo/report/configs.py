"""What the calls of a program were made with, in the format of the option `configs` and as a table."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tt_dynamo.report.table import table

if TYPE_CHECKING:
    from tt_dynamo.report.report import Operation


class ChosenConfigs(dict[str, dict[str, Any]]):
    """The configs of calls, by module path and operation, and by node too where those of one module differ.

    suffix: the phase and board of all keys, "@decode@n150". Printed, it is a table: each config, the estimated time of
    its calls, and what the estimate was without the option `configs` where that changed them.
    """

    def __init__(self, operations: Iterable["Operation"], suffix: str) -> None:
        super().__init__()
        calls: dict[str, list[Operation]] = {}
        for operation in filter(lambda each: each.config, operations):
            calls.setdefault(f"{operation.module}:{operation.target}", []).append(operation)
        self._calls: dict[str, list[Operation]] = {}
        for address, alike in calls.items():
            differ = any(each.config != alike[0].config for each in alike)
            for each in alike:
                key = f"{address}:{each.node}" if differ else address
                self._calls.setdefault(f"{key}{suffix}", []).append(each)
        for key, alike in self._calls.items():
            config = {f: v for f, v in alike[0].config.items() if all(each.config.get(f, v) == v for each in alike)}
            if config:
                self[key] = config

    def __str__(self) -> str:
        rows = []
        for key, config in self.items():
            seconds = sum(each.estimated_seconds for each in self._calls[key])
            changed = [each for each in self._calls[key] if each.plain_seconds is not None]
            plain = seconds + sum((each.plain_seconds or 0.0) - each.estimated_seconds for each in changed)
            without = f"{plain * 1e6:.1f}" if changed else "-"
            rows.append((f"{seconds * 1e6:.1f}", without, key, ", ".join(f"{f} {v}" for f, v in config.items())))
        return table(("estimate µs", "without configs", "call", "config"), rows)
