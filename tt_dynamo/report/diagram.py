"""Where the boxes of a drawing stand and how the lines between them run: a layered layout from top to bottom.

A row is a generation of the graph, as late as its users allow, so that a value stands near what reads it. A box stands
under the middle of what it reads in the nearest row; small chips stand left of their box. A line runs straight down
where nothing is in its way, else along a lane at the right; one that would span pages becomes a chip that links there.

What must hold: no box covers another, no line runs through a box, the width of a row is bounded, and the same graph
gives the same drawing. Nothing in here knows what a node is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import networkx
from torch.fx import Node

# All sizes in SVG user units, which a browser shows as pixels.
BOX_WIDTH, BOX_HEIGHT = 268, 54
CHIP_WIDTH, CHIP_HEIGHT, CHIP_GAP = 150, 17, 3
COLUMN_GAP, ROW_GAP = 26, 40
WIDEST_ROW = 1700  # a wider generation is broken into several rows
FURTHEST = 14  # rows that a line may span before a link stands in for it
LANE_GAP = 9


@dataclass
class Box:
    """A node of the drawing: centre `x`, top `y`; `chips` are what stands left of it, as (node, kind)."""

    node: Node
    kind: str
    row: int = 0
    x: float = 0.0
    y: float = 0.0
    chips: list[tuple[Node, str]] = field(default_factory=list)

    @property
    def height(self) -> float:
        """Of the box and of its chips, whichever is higher."""
        return max(BOX_HEIGHT, len(self.chips) * (CHIP_HEIGHT + CHIP_GAP) - CHIP_GAP)

    @property
    def left(self) -> float:
        return self.x - BOX_WIDTH / 2 - (CHIP_WIDTH + COLUMN_GAP / 2 if self.chips else 0)

    @property
    def right(self) -> float:
        return self.x + BOX_WIDTH / 2

    @property
    def box_top(self) -> float:
        return self.y + (self.height - BOX_HEIGHT) / 2


@dataclass(frozen=True)
class Edge:
    """The value of `source` is read by `target`. index: which of several results, "" where there is one."""

    source: Node
    target: Node
    index: str


@dataclass(frozen=True)
class Line:
    """How an edge runs: `path` in SVG's notation, from `x`, `y`, at most `reach` to the right."""

    edge: Edge
    path: str
    x: float
    y: float
    reach: float


def arrange(boxes: dict[Node, Box], edges: list[Edge]) -> list[Line]:
    """Give every box its place, add a chip for each edge that would be too long, and run lines for the others."""
    rows = _rows(boxes, edges)
    near = []
    for edge in edges:
        if boxes[edge.target].row - boxes[edge.source].row <= FURTHEST:
            near.append(edge)
        elif (edge.source, "link") not in boxes[edge.target].chips:
            boxes[edge.target].chips.append((edge.source, "link"))
    _place(rows, boxes, near)
    return _lines(rows, boxes, near)


def _rows(boxes: dict[Node, Box], edges: list[Edge]) -> list[list[Box]]:
    """Boxes by generation, each as late as its users allow; a wide generation is broken into several rows."""
    drawn: networkx.DiGraph = networkx.DiGraph()
    drawn.add_nodes_from(boxes)
    drawn.add_edges_from((edge.source, edge.target) for edge in edges)
    generations = [list(nodes) for nodes in networkx.topological_generations(drawn)]
    latest: dict[Node, int] = {}
    for earliest, nodes in reversed(list(enumerate(generations))):
        for node in nodes:
            latest[node] = min((latest[user] - 1 for user in drawn.successors(node)), default=earliest)
    by_generation: dict[int, list[Box]] = defaultdict(list)
    for node, box in boxes.items():
        by_generation[latest[node]].append(box)
    rows: list[list[Box]] = []
    for _, members in sorted(by_generation.items()):
        room = 0.0
        for box in members:
            width = box.right - box.left + COLUMN_GAP
            if room < width:
                rows.append([])
                room = WIDEST_ROW
            room -= width
            rows[-1].append(box)
            box.row = len(rows) - 1
    return rows


def _place(rows: list[list[Box]], boxes: dict[Node, Box], edges: list[Edge]) -> None:
    """Give every box its x, under the middle of what it reads, and its y; then move all to x >= 0."""
    sources: dict[Node, list[Box]] = defaultdict(list)
    for edge in edges:
        sources[edge.target].append(boxes[edge.source])
    y = 0.0
    for row in rows:
        wanted = {}
        for box in row:  # only the nearest sources pull: a residual from far above would bend the column
            nearest = max((source.row for source in sources[box.node]), default=0)
            middle = _mean([source.x for source in sources[box.node] if source.row == nearest])
            wanted[box.node] = min(max(middle, -WIDEST_ROW / 2), WIDEST_ROW / 2)
        row.sort(key=lambda box: wanted[box.node])
        end = -float("inf")
        for box in row:
            box.x = wanted[box.node]
            box.x += max(0.0, end + COLUMN_GAP - box.left)
            end = box.right
        shift = _mean([wanted[box.node] - box.x for box in row])  # centres a row that is wider than its sources
        for box in row:
            box.x += shift
        height = max(box.height for box in row)
        for box in row:
            box.y = y + (height - box.height) / 2
        y += height + ROW_GAP
    left = min((box.left for box in boxes.values()), default=0.0)
    for box in boxes.values():
        box.x -= left


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _lines(rows: list[list[Box]], boxes: dict[Node, Box], edges: list[Edge]) -> list[Line]:
    """A curve where nothing stands between, else along a lane."""
    incoming: dict[Node, list[Edge]] = defaultdict(list)
    indices: dict[Node, list[str]] = defaultdict(list)
    for edge in edges:
        incoming[edge.target].append(edge)
        if edge.index not in indices[edge.source]:
            indices[edge.source].append(edge.index)
    for arriving in incoming.values():  # from left to right; those of far rows come down a lane on the right
        arriving.sort(key=lambda edge: (boxes[edge.source].row < boxes[edge.target].row - 1, boxes[edge.source].x))
    lanes: list[tuple[float, float, float]] = []
    drawn = []
    for edge in edges:
        source, target = boxes[edge.source], boxes[edge.target]
        start_x = source.x + _spread(indices[edge.source].index(edge.index), len(indices[edge.source]), BOX_WIDTH / 2)
        end_x = target.x + _spread(incoming[edge.target].index(edge), len(incoming[edge.target]), BOX_WIDTH / 3)
        start_y, end_y = source.box_top + BOX_HEIGHT, target.box_top - 1
        between = [box for row in rows[source.row + 1 : target.row] for box in row]
        if any(box.left - 8 < max(start_x, end_x) and min(start_x, end_x) < box.right + 8 for box in between):
            reach = _free_lane(lanes, max(box.right for box in [source, target, *between]), start_y, end_y)
            step = len(lanes) % 3 * 4  # so that the horizontal parts of neighbours don't run into each other
            below = max(box.y + box.height for box in rows[source.row]) + 8 + step
            above = min(box.y for box in rows[target.row]) - 12 - step
            path = (
                f"M{start_x:.0f} {start_y:.0f}V{below - 6:.0f}q0 6 6 6H{reach - 6:.0f}q6 0 6 6"
                f"V{above - 6:.0f}q0 6 -6 6H{end_x + 6:.0f}q-6 0 -6 6V{end_y:.0f}"
            )
        else:
            reach = max(start_x, end_x)
            bend = min(ROW_GAP, (end_y - start_y) / 2)
            path = (
                f"M{start_x:.0f} {start_y:.0f}C{start_x:.0f} {start_y + bend:.0f} "
                f"{end_x:.0f} {end_y - bend:.0f} {end_x:.0f} {end_y:.0f}"
            )
        drawn.append(Line(edge, path, start_x, start_y, reach))
    return drawn


def _spread(position: int, count: int, width: float) -> float:
    """Offset from the centre of point `position` of `count`, evenly over `width` and at most 60 apart."""
    return (position - (count - 1) / 2) * min(60.0, width / max(1, count - 1))


def _free_lane(lanes: list[tuple[float, float, float]], right: float, top: float, bottom: float) -> float:
    """x of a vertical lane beyond `right` that no other line uses between `top` and `bottom`; it's taken then."""
    x = right + LANE_GAP
    taken = sorted(lane for lane, start, end in lanes if start < bottom and top < end)
    for lane in taken:
        if abs(lane - x) < LANE_GAP - 1:
            x = lane + LANE_GAP
    lanes.append((x, top, bottom))
    return x
