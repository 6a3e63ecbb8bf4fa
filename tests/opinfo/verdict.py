"""What the outcomes of many samples amount to: which are not as they should be, and how many went how."""

from __future__ import annotations

import collections
from typing import Any

from expected_failures import EXPECTED, reason

STATUSES = ("device", "mixed", "host", "eager", "wrong", "error", "crash", "hang")
FAILED = frozenset(STATUSES[4:])


def line(outcome: dict[str, Any]) -> str:
    """A sample and how it went, in words."""
    text = f"{outcome['status']:7} {outcome['operator']}[{outcome['dtype']}] #{outcome['number']} {outcome['sample']}"
    notes = [outcome.get("message", ""), *outcome.get("reasons", ())]
    return "\n        ".join([text, *filter(None, notes)])


def verdict(outcomes: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be: failures that nothing excuses, and excuses that nothing needs."""
    failed = [outcome for outcome in outcomes if outcome["status"] in FAILED]
    excused = [o for o in failed if o["status"] == "error" and reason(o["operator"], o["dtype"])]
    cases = {(o["operator"], o["dtype"]) for o in outcomes}
    lines = [line(outcome) for outcome in failed if outcome not in excused]
    used = {(o["operator"], o["dtype"]) for o in excused}
    for operator, dtype in EXPECTED:
        covered = {case for case in cases if case[0] == operator and dtype in ("*", case[1])}
        if covered and not covered & used:
            lines.append(f"{operator}[{dtype}] is expected to fail and passes: {EXPECTED[operator, dtype]}")
    return lines


def summary(outcomes: list[dict[str, Any]], cap: int) -> str:
    """How many samples went how, by dtype, and the shares that the project promises."""
    lines = [f"{'':10}" + "".join(f"{status:>8}" for status in STATUSES)]
    for dtype in dict.fromkeys(outcome["dtype"] for outcome in outcomes):
        counts = collections.Counter(outcome["status"] for outcome in outcomes if outcome["dtype"] == dtype)
        lines.append(f"{dtype:10}" + "".join(f"{counts[status]:8}" for status in STATUSES))
    core = [o for o in outcomes if o["dtype"] == "float32" and o.get("core") and o["status"] != "eager"]
    for title, chosen in (("all", core), ("those that TTNN can express", [o for o in core if o["expressible"]])):
        whole = sum(o["status"] == "device" for o in chosen)
        share = f"{whole} of {len(chosen)}, {whole / max(len(chosen), 1):.1%}"
        lines.append(f"float32 samples of core operations with no fallback, of {title}: {share}")
    vague = sum(bool(outcome.get("meaningless")) for outcome in outcomes)
    lines.append(f"{len(outcomes)} samples, at most {cap} of an operator and dtype; bfloat16 alone destroys {vague}")
    return "\n".join(lines)
