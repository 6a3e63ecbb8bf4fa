"""A clear error where a program needs more DRAM than there is.

The judge is TTNN's allocator: every weight is allocated while a graph is lowered, without contents, and the program is
measured (`measure.py`) beside them. What is counted of a graph only explains its answer.
"""

import contextlib
import dataclasses
import gc
import math
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch.fx import Graph

from tt_dynamo.compiler.decisions import is_weight_of
from tt_dynamo.compiler.traced_weights import is_weight
from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS
from tt_dynamo.devices.clusters import one_chip_choice
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.spec import BITS, BLOCK_FLOATS, Spec, spec_bytes
from tt_dynamo.ir.ttnn_internals import lacks_dram, ttnn_reason
from tt_dynamo.report.table import size_text

TILE = 32


class DoesNotFit(MemoryError):
    """A graph needs more DRAM than there is. `needed` and `free` are bytes; what runs meanwhile comes on top."""

    def __init__(self, message: str, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one kind of memory on an open device, all banks together."""

    total: int
    free: int


def dram(ttnn: Any, handle: Any) -> Memory:
    """The DRAM of a device, as TTNN's allocator has it."""
    return _memory(ttnn, handle, ttnn.BufferType.DRAM)


def l1(ttnn: Any, handle: Any) -> Memory:
    """The L1 of all worker cores of a device."""
    return _memory(ttnn, handle, ttnn.BufferType.L1)


def l1_of_a_core(ttnn: Any, handle: Any) -> int:
    """Bytes of L1 for buffers that each worker core has."""
    return int(ttnn.get_memory_view(handle, ttnn.BufferType.L1).total_bytes_per_bank)


def collect_l1(ttnn: Any, handle: Any) -> None:
    """Collect garbage where something lies in L1, so that what is free does not depend on when that was done last."""
    if ttnn.get_memory_view(handle, ttnn.BufferType.L1).total_bytes_allocated_per_bank:
        gc.collect()


def _memory(ttnn: Any, handle: Any, kind: Any) -> Memory:
    view = ttnn.get_memory_view(handle, kind)
    return Memory(view.total_bytes_per_bank * view.num_banks, view.total_bytes_free_per_bank * view.num_banks)


@contextlib.contextmanager
def dram_or_error() -> Iterator[None]:
    """Raise MemoryError, with TTNN's words, where TTNN raises because the DRAM is full."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_dram(error):
            raise
        raise MemoryError(ttnn_reason(error)) from None


def _needed(graph: Graph, widest: str = "float32") -> Counter[str]:
    """Bytes that a placed graph holds on the device, by kind; weights of products are at most as wide as `widest`."""
    sizes: Counter[str] = Counter()
    for crossing in graph.find_nodes(op="call_function", target=operators.to_device):
        spec = meta.spec(crossing)
        if any(is_weight_of(user, crossing) for user in crossing.users):
            spec = dataclasses.replace(spec, dtype=min(spec.dtype, widest, key=lambda dtype: BITS.get(dtype, 16)))
        sizes[spec.dtype] += _padded_bytes(spec) if is_weight(crossing) else 0
    for read in graph.find_nodes(op="call_function", target=operators.state_read):
        sizes["of caches"] += _padded_bytes(meta.spec(read))
    return +sizes


def _padded_bytes(spec: Spec) -> int:
    if spec.memory == "HOST":
        return 0
    *outer, rows, columns = 1, 1, *spec.shape
    unit = TILE if spec.layout == "TILE" else 1
    across = unit * max(1, spec.banks)
    padded = (math.ceil(rows / unit) * unit, math.ceil(columns / across) * across)
    return spec_bytes(dataclasses.replace(spec, shape=(*outer, *padded)))


@contextlib.contextmanager
def explained(graph: Graph, device: Any, ttnn: Any) -> Iterator[None]:
    """Turn a MemoryError, with TTNN's words, into a DoesNotFit that says what would fit. graph: placed."""
    before = dram(ttnn, device.handle)
    try:
        yield
        return
    except MemoryError as error:
        reason = str(error)
        cause: BaseException | None = error
        while cause is not None:  # their frames would hold what they allocated for as long as the error is held
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
    raise _explained(graph, before, device.board, reason)


def _explained(graph: Graph, has: Memory, board_name: str, words: str) -> DoesNotFit:
    needed = _needed(graph)
    total = needed.total()
    sizes = ", ".join(f"{size_text(size)} {kind}" for kind, size in needed.items())
    narrowed = {dtype: _needed(graph, dtype).total() for dtype in BLOCK_FLOATS}
    fitting = [dtype for dtype, size in narrowed.items() if size < min(total, has.free)]
    ways = [f'weight_dtype="{dtype}" ({size_text(narrowed[dtype])})' for dtype in fitting[:1]]
    ways.append("a smaller batch or a shorter cache")
    if total > has.total:
        larger = [board for board in BOARD_DESCRIPTIONS.values() if board.dram_bytes > total]
        ways += [f'device="{one_chip_choice(board.name)}" ({size_text(board.dram_bytes)})' for board in larger]
    if has.total - has.free > has.total // 16:
        ways.append("dropping what is on the device already")
    message = (
        f"does not fit: {size_text(total)} of weights and caches ({sizes or 'none'}), and beside them what runs; "
        f"{board_name} has {size_text(has.total)} of DRAM, {size_text(has.free)} free. "
        f"What would help: {', '.join(ways)}. TTNN: {words}"
    )
    return DoesNotFit(message, total, has.free)
