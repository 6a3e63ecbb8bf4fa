"""Each row of the tables, compiled: its TTNN calls or its reasons, and eager's answer."""

import pytest
import torch
from compiled import BOARD, calls, close, compiled, without_dynamo
from lowering_tables import ROWS, Row


def made(calls: list[str]) -> list[str]:
    """The calls; on other boards than the tables' less what leaves shards in L1, where a call is sharded otherwise."""
    return calls if BOARD == "n150" else [call for call in calls if call != "to_memory_config"]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_operation_becomes_its_calls(row: Row) -> None:
    outputs, report = (compiled if row.dynamo else without_dynamo)(row.function, *row.arguments, **row.options)
    with torch.no_grad():
        close(outputs, row.function(*row.arguments), row.roundings, row.cancels)
    reasons = [fallback.reason for fallback in report.fallbacks]
    assert len(reasons) == len(row.reasons), reasons
    assert all(words in reason for words, reason in zip(row.reasons, reasons, strict=True)), reasons
    assert " ".join(made(calls(report))) == " ".join(made(row.calls.split()))
    assert row.programs in (None, report.device_programs)
    assert all(part in report.code for part in row.code)
