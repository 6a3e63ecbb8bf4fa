"""The clusters that can be emulated: chips, links between them, and the description that makes TTNN's driver mock one.

A description is what TTNN's user-mode driver would otherwise read from the machine (tt-umd, cluster_descriptor.cpp).
TTNN finds the place of each chip by matching the links with its own descriptor of such a cluster (tt-metal,
tt_metal/fabric/mesh_graph_descriptors), so a cable that is not there is an error when the mesh is opened. Which
channels the links take is ours where nothing checks it.

What each chip is (figures, worker grid): `boards.py`. Chips of a P300 count as P150's, whose chip it is, and those of a
Galaxy as N150's: no figures of one chip of them are published.
"""

import collections
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .boards import BOARD_DESCRIPTIONS, Board
from .errors import DeviceError

Shape = tuple[int, int]
Link = tuple[int, int, int, int]  # a chip and its Ethernet channel, another chip and its channel


@dataclass(frozen=True)
class Cluster:
    """One or more chips of one kind that TTNN opens as a mesh.

    name: as `open_device` takes it. board: what each chip is, a name in `BOARD_DESCRIPTIONS`. kind: TTNN's name of the
    type of cluster. shape: rows and columns of the mesh unless asked otherwise. cards: the chips of each card.
    remote: chips that the host reaches through others, without PCIe. places: x, y, rack and shelf of a chip in the
    Ethernet mesh of Wormhole. locations: of a chip on its card, where TTNN asks for it. buses: of PCIe.
    """

    name: str
    board: str
    kind: str
    shape: Shape = (1, 1)
    cards: Sequence[Sequence[int]] = ((0,),)
    links: Sequence[Link] = ()
    card_type: str = ""  # the driver's name of the card, where not that of the board
    product: int = 0  # code of the card, where not that of the board
    harvest_mask: int | None = None  # where not that of the board
    pcie_harvesting: tuple[int, ...] = ()  # masks by the place of a chip on its card, where not that of the board
    remote: frozenset[int] = frozenset()
    places: Sequence[Sequence[int]] = ()
    locations: Mapping[int, int] = field(default_factory=dict)
    buses: Mapping[int, int] = field(default_factory=dict)

    @property
    def chips(self) -> int:
        return sum(map(len, self.cards))

    @property
    def links_between(self) -> int:
        """Links between neighbouring chips that collectives have, where there are the fewest.

        Of those by which a chip without PCIe is reached, one is the dispatcher's: tt-metal,
        tech_reports/EthernetMultichip/BasicEthernetGuide.md.
        """
        pairs = collections.Counter(frozenset((a, b)) for a, _, b, _ in self.links)
        return min((n - (len(pair & self.remote) == 1) for pair, n in pairs.items()), default=1)

    @property
    def dispatch(self) -> str | None:
        """Type of the cores that dispatch, where not TTNN's own choice."""
        return BOARD_DESCRIPTIONS[self.board].dispatch

    @property
    def descriptor(self) -> str:
        """The driver's YAML description."""
        board = BOARD_DESCRIPTIONS[self.board]
        product, card_type = self.product or board.product, self.card_type or board.name
        place = {chip: (card, at) for card, chips in enumerate(self.cards) for at, chip in enumerate(chips)}
        chips = sorted(place)

        def unique(chip: int) -> int:
            card, at = place[chip]
            wormhole = board.arch == "wormhole_b0"
            return (product << 36) + (card | at << 32) if wormhole else (product << 36) + (card << 1) + at

        harvested = board.harvest_mask if self.harvest_mask is None else self.harvest_mask

        def harvesting(chip: int) -> str:
            masks = self.pcie_harvesting or (board.pcie_harvesting_mask,)
            return (
                f"{{noc_translation: true, harvest_mask: {harvested}, "
                f"dram_harvesting_mask: 0, eth_harvesting_mask: {board.eth_harvesting_mask}, "
                f"pcie_harvesting_mask: {masks[place[chip][1] % len(masks)]}}}"
            )

        reached = [chip for chip in chips if chip not in self.remote]
        lines = [
            f"arch: {_each(chips, lambda chip: board.arch)}",
            f"chips: {_each(chips[: len(self.places)], lambda chip: list(self.places[chip]))}",
            f"chip_unique_ids: {_each(chips, unique)}",
            "ethernet_connections:" if self.links else "ethernet_connections: []",
            *(f"  - [{{chip: {a}, chan: {i}}}, {{chip: {b}, chan: {j}}}]" for a, i, b, j in self.links),
            "chips_with_mmio: [" + ", ".join(f"{{{chip}: {at}}}" for at, chip in enumerate(reached)) + "]",
            f"harvesting: {_each(chips, harvesting)}",
            f"chip_to_boardtype: {_each(chips, lambda chip: card_type)}",
            "boards:",
            *(
                f"  - [{{board_id: {(product << 36) + card}}}, {{board_type: {card_type}}}, {{chips: {list(of_card)}}}]"
                for card, of_card in enumerate(self.cards)
            ),
        ]
        if self.locations:
            lines.append(f"asic_locations: {_each(chips, lambda chip: self.locations[chip])}")
        if self.buses:
            lines.append(f"chip_to_bus_id: {_each(chips, lambda chip: f'0x{self.buses[chip]:04x}')}")
        return "\n".join(lines) + "\n"


def _each(chips: Sequence[int], value: Callable[[int], object]) -> str:
    return "{" + ", ".join(f"{chip}: {value(chip)}" for chip in chips) + "}"


def _cables(a: int, channel: int, b: int, other: int, count: int = 2) -> list[Link]:
    """Links between two chips, over channels that follow one another on both."""
    return [(a, channel + n, b, other + n) for n in range(count)]


def _grid(rows: int, columns: int, links: int) -> list[Link]:
    """Links of a grid of chips: to the east, west, south and north, in the order of the channels."""
    found: list[Link] = []
    for chip in range(rows * columns):
        if chip % columns + 1 < columns:
            found += _cables(chip, 0, chip + 1, links, links)
    for chip in range((rows - 1) * columns):
        found += _cables(chip, 2 * links, chip + columns, 3 * links, links)
    return found


def _one_chip(name: str, board: Board) -> Cluster:
    places = ((0, 0, 0, 0),) if board.arch == "wormhole_b0" else ()
    return Cluster(name, board.name, board.name.upper(), places=places)


def _p150s(rows: int, columns: int, links: int) -> Cluster:
    """P150s in one machine, cabled as a grid; the mesh is a line unless asked otherwise."""
    count = rows * columns
    return Cluster(
        f"p150x{count}", "p150", f"P150_X{count}", (1, count), tuple((chip,) for chip in range(count)),
        _grid(rows, columns, links), buses={chip: 16 * chip + 1 for chip in range(count)},
    )  # fmt: skip


def _galaxy() -> Cluster:
    """The 6U Galaxy: four trays of eight chips, two by two, each a quarter of an 8x4 grid.

    The upper digit of a bus number names the tray, the lower one the location on it; location 1 is a corner.
    """
    rows, columns, trays = 8, 4, (0xC0, 0x80, 0x00, 0x40)
    tray, location = {}, {}
    for chip in range(rows * columns):
        row, column = divmod(chip, columns)
        tray[chip] = 2 * (row >= rows // 2) + (column >= columns // 2)
        location[chip] = 4 * min(column, columns - 1 - column) + min(row, rows - 1 - row) + 1
    cards = [sorted((chip for chip in tray if tray[chip] == card), key=location.__getitem__) for card in range(4)]
    return Cluster(
        "galaxy", "n150", "GALAXY", (rows, columns), cards, _grid(rows, columns, 4), "ubb_wormhole", 0x35, 0,
        locations=location, buses={chip: trays[tray[chip]] + location[chip] for chip in tray},
    )  # fmt: skip


# Chips 0 to 3 of a T3000 are on PCIe, chip n + 4 is the other one on the card of chip n.
_T3000_LINKS = [
    *(link for chip in range(4) for link in _cables(chip, 8, chip + 4, 0)),
    *_cables(0, 6, 2, 6), *_cables(1, 0, 3, 0), *_cables(0, 14, 1, 14), *_cables(2, 14, 3, 14),
    *_cables(4, 6, 5, 6), *_cables(6, 6, 7, 6),
]  # fmt: skip
_T3000_PLACES = [(x, y, 0, 0) for x, y in ((1, 0), (1, 1), (2, 0), (2, 1), (0, 0), (0, 1), (3, 0), (3, 1))]

_CLUSTERS = (
    _one_chip("n150", BOARD_DESCRIPTIONS["n150"]),
    _one_chip("n300-1", BOARD_DESCRIPTIONS["n300"]),
    _one_chip("p150", BOARD_DESCRIPTIONS["p150"]),
    Cluster(
        "n300", "n300", "N300", (1, 2), ((0, 1),), _cables(0, 8, 1, 0), remote=frozenset({1}),
        places=((0, 0, 0, 0), (1, 0, 0, 0)),
    ),
    Cluster(
        "t3k", "n300", "T3K", (1, 8), ((0, 4), (1, 5), (2, 6), (3, 7)), _T3000_LINKS, remote=frozenset({4, 5, 6, 7}),
        places=_T3000_PLACES,
    ),
    Cluster(
        "p300", "p150", "P300", (1, 2), ((0, 1),), [(0, 2, 1, 9), (0, 3, 1, 8)], "p300", 0x44, pcie_harvesting=(2, 1),
        locations={0: 0, 1: 1},
    ),
    _p150s(1, 2, 4), _p150s(2, 2, 2), _p150s(2, 4, 2),
    _galaxy(),
)  # fmt: skip
CLUSTERS = {cluster.name: cluster for cluster in _CLUSTERS}
CHOICES = ("auto", "hardware", *CLUSTERS)


def cluster_of(kind: str, chips: int) -> Cluster | None:
    """The cluster of TTNN's name of a type and number of chips, None where there is none of ours."""
    return next((cluster for cluster in _CLUSTERS if (cluster.kind, cluster.chips) == (kind, chips)), None)


def board_of(kind: str) -> str:
    """What the chips of a cluster of that type are: a name in `BOARD_DESCRIPTIONS`, else TTNN's own in lower case."""
    like_p150 = kind.startswith(("P150_", "P300"))
    return next((c.board for c in _CLUSTERS if c.kind == kind), "p150" if like_p150 else kind.lower())


def one_chip_choice(board: str) -> str:
    """What `open_device` takes for one emulated chip of a board."""
    return next(c.name for c in _CLUSTERS if c.board == board and c.chips == 1)


def parse_choice(choice: str) -> tuple[str, Shape | None]:
    """ "t3k:2x4" → ("t3k", (2, 4)), "t3k" → ("t3k", None). Raises DeviceError for a shape that is none."""
    name, colon, given = choice.partition(":")
    if not colon:
        return name, None
    shape = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", given)
    if shape is None or name == "auto":
        raise DeviceError(
            f"the shape in {choice!r} is not rows and columns of chips: write it as in 't3k:2x4' or 'hardware:1x2'"
        )
    return name, (int(shape[1]), int(shape[2]))
