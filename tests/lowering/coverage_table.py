"""Where each core ATen operation runs: `python tests/lowering/coverage_table.py > lowering/coverage.md`.

The summary of the tables, which `test_core_operations.py` holds against what the compiler makes of each call.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "opinfo")]

from lowering_tables import CORE  # noqa: E402
from lowering_tables.core import DTYPES, Core, Host, Outcome  # noqa: E402

from tt_dynamo.lowering.on_host import IMPOSSIBLE  # noqa: E402

HEAD = """# Core ATen operations

Made by `tests/lowering/coverage_table.py` from the tables of `tests/lowering/lowering_tables/`, whose tests compile
each operation with one call for each dtype on the emulated n150.
`device`: it runs on the device with no fallback, by the TTNN calls named; `host`: in eager torch, for the reason given;
`partly`: some of what it is made of; `-`: eager torch has it not for that dtype. Floats are bfloat16 on the device.

Of {count} core operations, TTNN has a way for {expressible}; {lowered} of them ({share:.1%}) run on the device.

| operation | float32 | bfloat16 | int32 | int64 | bool | |
|---|---|---|---|---|---|---|
"""


def coverage() -> str:
    """The summary in Markdown, and above it the shares."""
    expressible = [operation for operation in CORE if operation.target not in IMPOSSIBLE]
    lowered = sum(operation.is_lowered for operation in expressible)
    head = HEAD.format(count=len(CORE), expressible=len(expressible), lowered=lowered, share=lowered / len(expressible))
    return head + "".join(_line(operation) for operation in sorted(CORE, key=lambda operation: operation.name))


def _line(operation: Core) -> str:
    outcomes = [operation.outcome(dtype) for dtype in DTYPES]
    calls = next((outcome for outcome in outcomes if isinstance(outcome, str)), "")
    reasons = [reason for outcome in outcomes if isinstance(outcome, Host) for reason in outcome.reasons]
    notes = ["`" + "`, `".join(dict.fromkeys(calls.split())) + "`"] if calls else []
    if operation.target in IMPOSSIBLE:
        notes.append(IMPOSSIBLE[operation.target])
    elif reasons:
        notes.append("host: " + "; ".join(dict.fromkeys(reasons)))
    where = " | ".join(_where(outcome) for outcome in outcomes)
    return f"| {operation.name} | {where} | {'. '.join(notes).replace('|', '/')} |\n"


def _where(outcome: Outcome) -> str:
    if isinstance(outcome, Host):
        return "partly" if outcome.calls else "host"
    return "-" if outcome is None else "device"


if __name__ == "__main__":
    print(coverage(), end="")
