"""Samples that are known to fail, each with its reason; one that passes is a failure of this list.

Keys are (operator, dtype) of the database, the dtype "*" standing for all; only samples with the status that is named
are excused: "error" for what AOTAutograd itself cannot trace, never "wrong".
"""

from __future__ import annotations

EXPECTED: dict[tuple[str, str], str] = {}


def reason(operator: str, dtype: str) -> str:
    """Why a case is expected to raise an error; empty where it is not."""
    return EXPECTED.get((operator, dtype)) or EXPECTED.get((operator, "*")) or ""
