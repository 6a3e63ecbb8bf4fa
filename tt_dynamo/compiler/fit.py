"""Whether a model fits: what the device has, what a graph needs, and a clear error where that is more.

The judge is TTNN's allocator: every weight is allocated while a graph is lowered, without contents, and the program is
measured beside them. What is counted here only explains its answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import traceback
from collections.abc import Iterator
from typing import Any

from torch.fx import Graph

from tt_dynamo.compiler.weight_dtypes import is_weight_of
from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS
from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import is_parameter
from tt_dynamo.ir.spec import BITS, Spec
from tt_dynamo.report.report import size_text

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


def _memory(ttnn: Any, handle: Any, kind: Any) -> Memory:
    view = ttnn.get_memory_view(handle, kind)
    return Memory(view.total_bytes_per_bank * view.num_banks, view.total_bytes_free_per_bank * view.num_banks)


@dataclasses.dataclass
class Needed:
    """What the graph holds on the device while it waits: bytes of weights by dtype, those of them that are weights of
    products (which a block float would make smaller), and bytes of caches."""

    weights: dict[str, int] = dataclasses.field(default_factory=dict)
    products: dict[str, int] = dataclasses.field(default_factory=dict)
    caches: int = 0

    @property
    def total(self) -> int:
        return sum(self.weights.values()) + self.caches

    def narrowed(self, dtype: str) -> int:
        """`total` with every weight of a product in `dtype` that is wider now."""
        spared = (size * (1 - BITS[dtype] / BITS.get(now, 16)) for now, size in self.products.items())
        return self.total - int(sum(max(0.0, each) for each in spared))


def needed_by(graph: Graph) -> Needed:
    """What a graph needs that was placed and has layouts assigned."""
    needed = Needed()
    for crossing in graph.find_nodes(op="call_function", target=operators.to_device):
        spec, constant = crossing.meta["ttnn"], crossing.args[0]
        size = _padded_bytes(spec)
        if "state" in crossing.meta:
            needed.caches += size
        elif is_parameter(constant) or constant.op in ("call_module", "get_attr"):
            needed.weights[spec.dtype] = needed.weights.get(spec.dtype, 0) + size
            if any(is_weight_of(user, crossing) for user in crossing.users):
                needed.products[spec.dtype] = needed.products.get(spec.dtype, 0) + size
    return needed


def _padded_bytes(spec: Spec) -> int:
    if spec.memory == "HOST":
        return 0
    shape = list(spec.shape)
    if spec.layout == "TILE":
        shape[-2:] = [math.ceil(size / TILE) * TILE for size in ([1, 1, *shape])[-2:]]
    return math.ceil(math.prod(shape) * BITS.get(spec.dtype, 16) / 8)


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
    needed = needed_by(graph)
    raise DoesNotFit(_explanation(needed, before, device.board, reason), needed.total, before.free)


def _explanation(needed: Needed, has: Memory, board_name: str, words: str) -> str:
    dtypes = ", ".join(f"{size_text(size)} {dtype}" for dtype, size in needed.weights.items())
    text = f"{size_text(needed.total)} of weights and caches ({dtypes or 'no weights'}"
    text += f", {size_text(needed.caches)} caches" if needed.caches else ""
    text += f"), and beside them what runs; {board_name} has {size_text(has.total)} of DRAM, {size_text(has.free)} free"
    ways = []
    for dtype in ("bfloat8_b", "bfloat4_b"):
        if needed.narrowed(dtype) < min(needed.total, has.free):
            ways.append(f'weight_dtype="{dtype}" ({size_text(needed.narrowed(dtype))})')
            break
    ways += ["a smaller batch or a shorter cache"]
    if needed.total > has.total:
        larger = [board for board in BOARD_DESCRIPTIONS.values() if board.dram_bytes > needed.total]
        ways += [f'device="{board.name}" ({size_text(board.dram_bytes)})' for board in larger]
    if has.total - has.free > has.total // 16:
        ways += ["dropping what is on the device already"]
    return f"does not fit: {text}. What would help: {', '.join(ways)}. TTNN: {words}"
