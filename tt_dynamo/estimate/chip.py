"""A chip in figures: what the board says, and the constants of its architecture that measurements gave.

Formulas count in nanoseconds: bytes divided by GB/s, and cycles divided by GHz, are nanoseconds both.
"""

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS, Board

# Cycles of the matrix engine for one product of two tiles in LoFi; each further phase takes as many again:
# tt-metal, tech_reports/matrix_engine
LOFI_CYCLES = 16
PHASES = {"LoFi": 1, "HiFi2": 2, "HiFi3": 3, "HiFi4": 4}
BOUNDS = ("compute", "DRAM", "L1", "NoC", "dispatch", "unknown")


@functools.cache
def constants(architecture: str) -> dict[str, float]:
    """The constants of an architecture, from `constants.json`; Wormhole's for one that has none there."""
    tables = json.loads((files(__package__) / "constants.json").read_text())
    table = tables.get(architecture) or tables["wormhole_b0"]
    return {name: row["value"] for name, row in table.items()}


@dataclass(frozen=True)
class Cost:
    """What a call is estimated to take on the device; an estimate, never a measurement.

    seconds: of its kernels. bound: the part that takes the longest, "compute", "DRAM", "L1", "NoC", "dispatch" (the
    start of the kernels), or "unknown". utilization: the share of those seconds, 0 to 1, that an ideal chip would
    need, at the peak of its matrix engine or of its DRAM bandwidth, whichever takes longer. family: of formulas.
    launches: those of its kernels that not every such call makes count as well.
    """

    seconds: float
    bound: str
    utilization: float
    family: str
    launches: int = 1

    def following(self, move: "Cost") -> "Cost":
        """The same after a move that the call makes by itself, in a launch of its own."""
        seconds = self.seconds + move.seconds
        bound = max(self, move, key=lambda part: part.seconds).bound
        utilization = self.utilization * self.seconds / seconds if seconds else 0.0
        return Cost(seconds, bound, utilization, self.family, self.launches + move.launches)


NOTHING = Cost(0.0, "dispatch", 0.0, "view")


@dataclass(frozen=True)
class Chip:
    """grid: columns and rows of worker cores. banks: of DRAM. clock: GHz. dram: peak GB/s. k: constants by name.

    mesh: rows and columns of the mesh that it is a chip of. links: between neighbours there.
    """

    architecture: str
    grid: tuple[int, int]
    banks: int
    clock: float
    dram: float
    k: Any
    mesh: tuple[int, int] = (1, 1)
    links: int = 1

    @property
    def chips(self) -> int:
        return self.mesh[0] * self.mesh[1]

    @property
    def cores(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def launch_gap_seconds(self) -> float:
        """Between the end of a kernel and the start of the next."""
        return float(self.k.launch_gap_ns) * 1e-9

    @property
    def attention_gbs(self) -> float:
        """At which attention reads keys and values."""
        return self.banks * float(self.k.attention_bank_gbs)

    @property
    def host_bytes_per_second(self) -> float:
        """That cross between host and device."""
        return float(self.k.host_gbs) * 1e9

    def cycles(self, count: float) -> float:
        """Nanoseconds."""
        return count / self.clock

    def tile_product(self, fidelity: str, bytes0: float, bytes1: float) -> float:
        """Nanoseconds of one product of two tiles of that many bytes on one core: multiplying, then unpacking."""
        multiplying = self.k.matrix_cycles * LOFI_CYCLES * PHASES.get(fidelity, 2)
        return (multiplying + (bytes0 + bytes1) / 2 / self.k.unpack_bytes_per_cycle) / self.clock

    def cost(
        self,
        family: str,
        *,
        compute: float = 0.0,
        dram: float = 0.0,
        l1: float = 0.0,
        noc: float = 0.0,
        dispatch: float = 0.0,
        after: float = 0.0,
        products: float = 0.0,
        fidelity: str = "HiFi2",
        dram_bytes: float = 0.0,
        overlap: float | None = None,
    ) -> Cost:
        """Parts in nanoseconds: those that run at once, the start (dispatch), and writes to DRAM at the end (after).

        overlap: exponent of the sum of the parts that run at once: 1 adds them up, a large one takes the longest.
        products: tile products of the whole chip; with dram_bytes, what an ideal chip has to do.
        """
        parts = {"compute": compute, "DRAM": dram, "L1": l1, "NoC": noc}
        longest = max(parts.values())
        power = overlap or self.k.overlap
        at_once = longest * sum((part / longest) ** power for part in parts.values()) ** (1 / power) if longest else 0.0
        total = at_once + dispatch + after
        parts["DRAM"], parts["dispatch"] = max(dram, after), dispatch
        ideal = max(self.cycles(products * LOFI_CYCLES * PHASES.get(fidelity, 2) / self.cores), dram_bytes / self.dram)
        bound = max(parts, key=lambda part: parts[part])
        return Cost(total * 1e-9, bound, min(1.0, ideal / total) if total else 0.0, family)


def chip_of(
    board: str | Board,
    grid: tuple[int, int] | None = None,
    clock: float | None = None,
    banks: int | None = None,
    mesh: tuple[int, int] = (1, 1),
    links: int = 1,
) -> Chip:
    """The chip of a board, by its name in `tt_dynamo.devices.boards`; an unknown one counts as an N150.

    grid, clock (GHz), banks of DRAM: where they are not the board's usual ones. mesh, links: where there are several.
    """
    if isinstance(board, str):
        board = BOARD_DESCRIPTIONS.get(board, BOARD_DESCRIPTIONS["n150"])
    known = constants(board.arch)
    usual = int(known["dram_banks"])
    banks = banks or usual
    dram = board.dram_bandwidth / 1e9 * banks / usual
    clock = clock or known["clock_ghz"]
    return Chip(board.arch, grid or board.grid, banks, clock, dram, SimpleNamespace(**known), mesh, links)
