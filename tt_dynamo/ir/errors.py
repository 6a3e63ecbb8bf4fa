"""What goes wrong while a graph is compiled, and the words in which TTNN says it."""

from __future__ import annotations

import re

TTNN_ERRORS = (RuntimeError, TypeError, ValueError)  # in which TTNN says no


class Unsupported(Exception):
    """A node that has no way onto the device, and why, in words for the user."""


class FallbackError(RuntimeError):
    """A node would run in eager torch and the option fallback="error" forbids it."""


class Refused(Unsupported):
    """TTNN says no to a call; the message is its own first line."""


def ttnn_reason(error: BaseException) -> str:
    """The sentence in which TTNN refuses: what follows `info:` of a TT_FATAL, else the first line."""
    text = str(error).split("backtrace:")[0].strip()
    found = re.search(r"info:\s*(.+)", text, re.DOTALL)
    lines = (found.group(1) if found else text).strip().splitlines()
    return " ".join(line.strip() for line in lines[:3]) if lines else type(error).__name__
