"""All that is known of a board: its figures, its faults, and what of its chips is harvested.

Figures: https://docs.tenstorrent.com/aibs, wormhole and blackhole. HiFi3 takes 3 passes where HiFi2 takes 2: tt-metal,
tech_reports/GEMM_FLOPS. They rank, estimate and explain; what is valid and what fits is TTNN's to say.

Clusters of such chips, and the description that makes TTNN's driver mock one: `clusters.py`.

`harvest_mask` counts rows of Tensix cores on Wormhole and columns on Blackhole; the masks give the worker grids that
the retail boards have: 8x8 on N150 and on each chip of N300, 11x10 on P150 (120 Tensix cores since firmware 19.5.0,
https://github.com/tenstorrent/tt-umd/pull/1942).

A chip of N300 has two rows harvested, and its 8x8 workers are all that is left because dispatch runs on Ethernet cores.
TTNN 0.81.1 contradicts itself there: it reports 8x8 workers, but checks programs against the 8x7 that dispatch on
worker cores would leave. Until `test_ttnn_still_checks_n300_programs_against_the_wrong_grid` fails, our N300 has one
row harvested and dispatch on the row that this leaves over: the same 8x8 workers, and no contradiction.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What the chips of an architecture have in common; also of boards that can't be emulated."""

    name: str  # the driver's
    # HiFi4 with float32 accumulation gives wrong elements: https://github.com/tenstorrent/tt-metal/issues/38306
    hifi4_is_wrong_in_float32: bool = False


_ARCHITECTURES = (Architecture("wormhole_b0", hifi4_is_wrong_in_float32=True), Architecture("blackhole"))
ARCHITECTURES = {architecture.name: architecture for architecture in _ARCHITECTURES}


@dataclass(frozen=True)
class Board:
    """One chip of a retail board; an N300 has two.

    grid: columns and rows of worker cores. dram_bytes, dram_bandwidth (bytes/s). flops: peak FLOP/s of matrix products
    by math fidelity.
    """

    name: str
    arch: str  # the driver's name of its architecture
    grid: tuple[int, int]
    dram_bytes: int
    dram_bandwidth: float
    flops: Mapping[str, float]
    product: int  # code of the board type, which the driver reads from the upper bits of the board's serial number
    harvest_mask: int  # bit set: that row (Wormhole) or column (Blackhole) of Tensix cores is off
    eth_harvesting_mask: int = 0
    pcie_harvesting_mask: int = 0
    dispatch: str | None = None  # type of the cores that dispatch, where not TTNN's own choice


def _flops(lofi: float, hifi2: float, hifi4: float) -> dict[str, float]:
    return {"LoFi": lofi, "HiFi2": hifi2, "HiFi3": hifi2 * 2 / 3, "HiFi4": hifi4}


_BOARDS = (
    Board("n150", "wormhole_b0", (8, 8), 12 << 30, 288e9, _flops(262e12, 148e12, 74e12), 0x18, 0x40),
    Board("n300", "wormhole_b0", (8, 8), 12 << 30, 288e9, _flops(233e12, 131e12, 65.5e12), 0x14, 0x40, 0, 0, "WORKER"),
    Board("p150", "blackhole", (11, 10), 32 << 30, 512e9, _flops(664e12, 332e12, 166e12), 0x40, 0xC0, 0x120, 2),
)
BOARD_DESCRIPTIONS = {board.name: board for board in _BOARDS}
BOARDS: tuple[str, ...] = tuple(BOARD_DESCRIPTIONS)
DEFAULT_BOARD = "n150"
