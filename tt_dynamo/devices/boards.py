"""The boards that can be emulated, and the cluster descriptions that make TTNN's driver mock them.

A description is what TTNN's user-mode driver would otherwise read from the machine: architecture, harvested cores,
board type. `harvest_mask` counts rows of Tensix cores on Wormhole and columns on Blackhole; the masks give the worker
grids that the retail boards have: 8x8 on N150 and on each chip of N300, 11x10 on P150 (120 Tensix cores since
firmware 19.5.0, https://github.com/tenstorrent/tt-umd/pull/1942).

A chip of N300 has two rows harvested, and its 8x8 workers are all that is left because dispatch runs on Ethernet cores.
There TTNN 0.81.1 contradicts itself on the mock: it reports 8x8 workers, but checks programs against the 8x7 that
dispatch on worker cores would leave, and so refuses its own elementwise operations. Until
`test_ttnn_still_checks_n300_programs_against_the_wrong_grid` fails, our N300 has one row harvested and dispatch on the
row that this leaves over: the same 8x8 workers, and no contradiction.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """One chip of a retail board, as the driver sees it."""

    name: str
    arch: str  # the driver's name
    product: int  # code of the board type, which the driver reads from the upper bits of the board's serial number
    harvest_mask: int  # bit set: that row (Wormhole) or column (Blackhole) of Tensix cores is off
    eth_harvesting_mask: int
    pcie_harvesting_mask: int
    dispatch_on_workers: bool = False  # whatever TTNN would choose for the board

    @property
    def board_id(self) -> int:
        return self.product << 36

    @property
    def cluster_descriptor(self) -> str:
        """The driver's YAML description of a cluster that is this one chip."""
        # Wormhole chips have a place in the Ethernet mesh; Blackhole ones are found by their unique ids.
        location = "{0: [0, 0, 0, 0]}" if self.arch == "wormhole_b0" else "{}"
        return f"""arch: {{0: {self.arch}}}
chips: {location}
chip_unique_ids: {{0: {self.board_id}}}
ethernet_connections: []
chips_with_mmio: [{{0: 0}}]
harvesting: {{0: {{noc_translation: true, harvest_mask: {self.harvest_mask}, dram_harvesting_mask: 0,
  eth_harvesting_mask: {self.eth_harvesting_mask}, pcie_harvesting_mask: {self.pcie_harvesting_mask}}}}}
boards:
  - [{{board_id: {self.board_id}}}, {{board_type: {self.name}}}, {{chips: [0]}}]
"""


_KNOWN = (
    Board("n150", "wormhole_b0", 0x18, 0x40, 0, 0),
    Board("n300", "wormhole_b0", 0x14, 0x40, 0, 0, dispatch_on_workers=True),
    Board("p150", "blackhole", 0x40, 0xC0, 0x120, 2),
)

BOARD_DESCRIPTIONS = {board.name: board for board in _KNOWN}
BOARDS: tuple[str, ...] = tuple(BOARD_DESCRIPTIONS)
DEFAULT_BOARD = "n150"
