"""What the compiler reads of TTNN that TTNN promises nobody: sentences of its errors, and its graph capture.

TTNN raises a RuntimeError whatever goes wrong, so its sentence alone says what. `tests/devices/test_ttnn_internals.py`
provokes each of them and names what an upgrade broke. What the emulated device reads: `devices/ttnn_internals.py`.
"""

import re
from typing import Any

# "... circular buffers require ...", "... beyond max L1 size ...", "... clash with L1 buffers ...", and the allocator's
# "Out of Memory: Not enough space to allocate 64 B L1 buffer across 64 banks, ..., but bank size is 32 B (...)".
_LACKS_ROOM = re.compile(r"circular buffer|out of memory|not enough space|beyond max L1|L1 buffer", re.IGNORECASE)
_LACKS_DRAM = re.compile(r"Out of Memory.*B DRAM buffer", re.DOTALL)
_LACKS_L1_SMALL = re.compile(r"Out of Memory.*B L1_SMALL buffer", re.DOTALL)
_LACKS_L1 = re.compile(r"allocate (\d+) B L1 buffer.* bank size is (\d+) B", re.DOTALL)


def ttnn_reason(error: BaseException) -> str:
    """The sentence in which TTNN refuses: what follows `info:` of a TT_FATAL, else the first line."""
    text = str(error).split("backtrace:")[0].strip()
    found = re.search(r"info:\s*(.+)", text, re.DOTALL)
    lines = (found.group(1) if found else text).strip().splitlines()
    return " ".join(line.strip() for line in lines[:3]) if lines else type(error).__name__


def lacks_room(error: BaseException) -> bool:
    """Whether buffers, or the circular buffers of a kernel, find no room."""
    return _LACKS_ROOM.search(str(error)) is not None


def lacks_dram(error: BaseException) -> bool:
    """Whether a buffer finds no room in DRAM."""
    return _LACKS_DRAM.search(str(error)) is not None


def lacks_l1_small(error: BaseException) -> bool:
    """Whether the tables of a convolution or pool find no room in L1_SMALL."""
    return _LACKS_L1_SMALL.search(str(error)) is not None


def lacks_l1_of_all_cores(error: BaseException, cores: int) -> bool:
    """Whether TTNN wants more bytes at once than the L1 of all cores has, however they are sharded."""
    found = _LACKS_L1.search(str(error))
    return found is not None and int(found[1]) > int(found[2]) * cores


def lacks_argument(error: BaseException) -> bool:
    """Whether an operation has no argument of a name that it was given."""
    return "incompatible function arguments" in str(error) or "unexpected keyword argument" in str(error)


def graph_capture(ttnn: Any) -> Any:
    """The functions that begin and end a graph capture, and the calls in one (track_function_start, _end).

    Those of `ttnn.graph` close the calls that are open around them, and note arguments and Python's stack.
    """
    return ttnn._ttnn.graph
