"""The final graph as an SVG: what runs where, what crosses, and how each value lies on the device.

Time flows downwards (`diagram` says how). Fill colour says what a node is; the border, and the line that leaves it, how
its value lies: TILE, ROW_MAJOR, or on the host. Weights are small boxes left of their user, and so are values from far
above, as a link in place of a line across pages. Not drawn as boxes: the picking of one of several results, which is
an index on its line, deallocations, and inputs that nothing reads.

What must hold: drawing changes nothing in the graph, needs no binary, and the same graph gives the same bytes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.helpers import HELPERS
from tt_dynamo.report.diagram import (
    BOX_HEIGHT,
    BOX_WIDTH,
    CHIP_GAP,
    CHIP_HEIGHT,
    CHIP_WIDTH,
    COLUMN_GAP,
    Box,
    Edge,
    Line,
    arrange,
)
from tt_dynamo.report.report import size_text

# kind → fill, border, words of the legend. Told apart without colour vision by lightness and by the words in the box.
KINDS = {
    "device": ("#d3e6f8", "#2a6aa8", "TTNN call on the device"),
    "host": ("#fbd0bd", "#b93c12", "eager torch on the host"),
    "transfer": ("#fdeeb5", "#a37b00", "transfer, host side included"),
    "input": ("#d8efdb", "#34804a", "input or output"),
    "weight": ("#eeeef2", "#8a8a99", "weight or constant"),
    "link": ("#ffffff", "#8a8a99", "value from far above"),
}
BORDERS = {
    "TILE": ('stroke-width="2.2"', "TILE layout"),
    "ROW_MAJOR": ('stroke-width="1.8" stroke-dasharray="7 4"', "ROW_MAJOR layout"),
    "host": ('stroke-width="1.2" stroke-dasharray="1.5 3"', "on the host"),
}
TRANSFERS = ("from_torch", "to_torch", "to_device", "from_device", "copy_host_to_device_tensor")


def draw(graph: Graph) -> str:
    """The SVG of a graph whose device values carry their spec in `meta["ttnn"]` (shape, dtype, layout, memory).

    The time it takes grows with nodes plus edges: a 500-node graph takes well under a second.
    """
    edges, weights = _edges(graph)
    boxes = {node: Box(node, kind) for node in graph.nodes if (kind := _kind(node)) not in ("weight", "hidden")}
    for weight, user in weights:
        boxes[user].chips.append((weight, "weight"))
    return _svg(boxes, arrange(boxes, edges))


# What a node is


def _kind(node: Node) -> str:
    """A key of KINDS, or "hidden" for what isn't drawn."""
    if node.op == "output":
        return "input"
    if node.op == "placeholder" and not node.users:
        return "hidden"
    if node.op == "get_attr" or (node.op == "placeholder" and (node.meta.get("weight") or node.meta.get("parameter"))):
        return "weight"
    if node.op == "placeholder":
        return "input"
    if node.target is operator.getitem or _name(node).rpartition(".")[2] == "deallocate":
        return "hidden"
    if node.target in HELPERS or _crosses(node):
        return "transfer"
    return "device" if _name(node).startswith("ttnn.") else "host"


def _crosses(node: Node) -> bool:
    return _name(node).startswith("ttnn.") and _name(node).rpartition(".")[2] in TRANSFERS


def _name(node: Node) -> str:
    """The operation in full: "ttnn.transformer.concatenate_heads", "aten.topk.default"."""
    target = node.target
    if "path" in node.meta or isinstance(target, (str, torch._ops.OpOverload)):
        return str(node.meta.get("path", target))
    named = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', target)}"
    return str(getattr(target, "python_fully_qualified_name", named))


def _title(node: Node, kind: str) -> str:
    if kind == "input":
        return node.name
    name = _name(node)
    return name.removesuffix(".default") if isinstance(node.target, torch._ops.OpOverload) else name.rpartition(".")[2]


def _facts(node: Node) -> str:
    """Shape, dtype and where the value lies, of the first result where there are several; the size of a transfer."""
    values = _values(node)
    words = []
    if values and hasattr(values[0], "shape"):
        shape = "×".join(str(dim) for dim in values[0].shape) or "scalar"
        words = [shape, str(values[0].dtype).rpartition(".")[2].lower()]
        if _layout(node) != "host":
            words.append(_layout(node))
        if getattr(values[0], "memory", "DRAM") != "DRAM":
            words.append(str(values[0].memory))
        if len(values) > 1:
            words.append(f"(of {len(values)})")
    if isinstance(node.meta.get("bytes"), int):
        words.append(size_text(node.meta["bytes"]))
    return "  ".join(words)


def _values(node: Node) -> Sequence[Any]:
    """The specs of a node's results on the device, else its fake tensors; of several, those that are picked."""
    picked = [user.meta["ttnn"] for user in node.users if user.target is operator.getitem and "ttnn" in user.meta]
    value = node.meta.get("ttnn", picked or node.meta.get("val"))
    if value is None and _crosses(node):  # down to the host: shaped like what it reads
        shapes = [source.shape for source in _values(node.all_input_nodes[0]) if hasattr(source, "shape")]
        value = [SimpleNamespace(shape=shape, dtype=node.kwargs.get("dtype", "")) for shape in shapes]
    return value if isinstance(value, (tuple, list)) else [value]


def _layout(node: Node) -> str:
    """A key of BORDERS."""
    layout = str(getattr(next(iter(_values(node)), None), "layout", "")).rpartition(".")[2]
    return layout if layout in BORDERS else "host"


def _edges(graph: Graph) -> tuple[list[Edge], list[tuple[Node, Node]]]:
    """Who reads whom, through the nodes that aren't drawn; and (weight, user) pairs."""
    edges: dict[Edge, None] = {}
    weights: dict[tuple[Node, Node], None] = {}
    for node in graph.nodes:
        if _kind(node) in ("weight", "hidden"):
            continue
        for source in node.all_input_nodes:
            index = ""
            while source.target is operator.getitem:
                source, index = source.all_input_nodes[0], f"[{source.args[1]}]" + index
            if _kind(source) == "weight":
                weights[source, node] = None
            elif _kind(source) != "hidden":
                edges[Edge(source, node, index)] = None
    return list(edges), list(weights)


# SVG

MARGIN = 24
STYLE = """
text{font-family:'DejaVu Sans','Segoe UI',Helvetica,Arial,sans-serif;fill:#1d2430}
.title{font-weight:600;text-anchor:middle}
.facts{text-anchor:middle;fill:#3a4250}
.module{text-anchor:middle;fill:#6b7585}
.chip{fill:#4a5363}
.index{font-size:10px;fill:#4a5363}
.heading{font-size:15px;font-weight:600}
.legend{font-size:12px}
.line{fill:none;opacity:.75;marker-end:url(#arrow)}
"""


def _svg(boxes: dict[Node, Box], lines: list[Line]) -> str:
    kinds = [box.kind for box in boxes.values() if box.kind != "transfer" or _crosses(box.node)]
    heading = _heading(kinds)
    body_width = max([box.right for box in boxes.values()] + [line.reach for line in lines], default=0.0)
    width = max(body_width + 2 * MARGIN, 700.0)
    legend, top = _legend(width)
    bottom = max((box.y + box.height for box in boxes.values()), default=0.0)
    height = top + bottom + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(heading)}</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
            'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="#4a5363"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text class="heading" x="{MARGIN}" y="{MARGIN + 10}">{escape(heading)}</text>',
            legend,
            f'<g transform="translate({(width - body_width) / 2:.0f} {top:.0f})">',
            *(_draw_line(line, boxes[line.edge.source]) for line in lines),
            *(_draw_box(box) for box in boxes.values()),
            "</g>",
            "</svg>\n",
        ]
    )


def _draw_line(line: Line, source: Box) -> str:
    style = f'stroke="{KINDS[source.kind][1]}" {BORDERS[_layout(source.node)][0]}'
    path = f'<path class="line" d="{line.path}" {style}/>'
    if not line.edge.index:
        return path
    return path + f'<text class="index" x="{line.x + 5:.0f}" y="{line.y + 12:.0f}">{escape(line.edge.index)}</text>'


def _draw_box(box: Box) -> str:
    fill, stroke, _ = KINDS[box.kind]
    left, top = box.x - BOX_WIDTH / 2, box.box_top
    facts, module = _facts(box.node), str(box.node.meta.get("module") or "")
    words = [("title", _title(box.node, box.kind), 14), ("facts", facts, 11), ("module", module, 10)]
    words = [line for line in words if line[1]]
    baseline = top + BOX_HEIGHT / 2 + 13 - 7.5 * len(words)
    round_ends = BOX_HEIGHT / 2 if box.kind == "input" else 7
    parts = [
        f"<g id={quoteattr(box.node.name)}><title>{escape(_hover(box.node))}</title>",
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{round_ends:.0f}" '
        f'fill="{fill}" stroke="{stroke}" {BORDERS[_layout(box.node)][0]}/>',
    ]
    for number, (style, text, size) in enumerate(words):
        parts.append(_text(style, text, box.x, baseline + 15 * number, size, BOX_WIDTH - 24))
    chip_left = box.x - BOX_WIDTH / 2 - COLUMN_GAP / 2 - CHIP_WIDTH
    chip_top = box.y + (box.height - len(box.chips) * (CHIP_HEIGHT + CHIP_GAP) + CHIP_GAP) / 2
    for number, (node, kind) in enumerate(box.chips):
        parts.append(_draw_chip(node, kind, chip_left, chip_top + number * (CHIP_HEIGHT + CHIP_GAP), left, top))
    return "".join(parts) + "</g>"


def _draw_chip(node: Node, kind: str, left: float, top: float, box_left: float, box_top: float) -> str:
    """A weight, or a link to a value that stands too far above for a line."""
    fill, stroke, _ = KINDS[kind]
    middle = top + CHIP_HEIGHT / 2
    end = min(max(middle, box_top + 6), box_top + BOX_HEIGHT - 6)
    words = _facts(node).split("  ")[:2]
    text = f"↑ {node.name}" if kind == "link" else " ".join(words) if any(words) else node.name
    chip = (
        f'<g class="chip-of"><title>{escape(_hover(node))}</title>'
        f'<path d="M{left + CHIP_WIDTH:.0f} {middle:.1f}L{box_left:.0f} {end:.1f}" stroke="{stroke}" fill="none"/>'
        f'<rect x="{left:.0f}" y="{top:.1f}" width="{CHIP_WIDTH}" height="{CHIP_HEIGHT}" rx="3" fill="{fill}" '
        f'stroke="{stroke}"/>' + _text("chip", text, left + 7, top + 12.5, 10, CHIP_WIDTH - 14) + "</g>"
    )
    return f"<a href={quoteattr('#' + node.name)}>{chip}</a>" if kind == "link" else chip


def _hover(node: Node) -> str:
    """All that's known of a node, shown when the pointer rests on it."""
    module = node.meta.get("module")
    parts = [node.name, _name(node), _facts(node), f"in {module}" if module else ""]
    return "\n".join(part for part in parts if part)


def _text(style: str, words: str, x: float, y: float, size: float, room: float) -> str:
    """Text that keeps within `room`: smaller if need be, cut in its middle where it would be too small to read."""
    per_character = 0.63  # of the font size, for the widest of the fonts in STYLE
    fitting = room / (per_character * max(1, len(words)))
    if fitting < size * 0.7:
        keep = int(room / (per_character * size * 0.7)) - 1
        words = f"{words[: keep - keep // 2]}…{words[len(words) - keep // 2 :]}"
        fitting = size * 0.7
    return f'<text class="{style}" x="{x:.0f}" y="{y:.1f}" font-size="{min(size, fitting):.1f}">{escape(words)}</text>'


def _legend(width: float) -> tuple[str, float]:
    """The legend, and the y where the drawing begins."""
    samples = [(f'fill="{fill}" stroke="{stroke}"', words) for fill, stroke, words in KINDS.values()]
    samples += [(f'fill="#ffffff" stroke="#1d2430" {style}', words) for style, words in BORDERS.values()]
    x, y, parts = float(MARGIN), MARGIN + 26.0, []
    for style, words in samples:
        step = 38 + 7.6 * len(words)
        if x + step > width - MARGIN and x > MARGIN:
            x, y = float(MARGIN), y + 22
        parts.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="22" height="13" rx="3" {style}/>')
        parts.append(f'<text class="legend" x="{x + 29:.0f}" y="{y + 11:.0f}">{words}</text>')
        x += step
    return "".join(parts), y + 13 + MARGIN


def _heading(kinds: list[str]) -> str:
    words = {"device": "TTNN call", "host": "host operation", "transfer": "transfer"}
    counts = {kind: kinds.count(kind) for kind in words}
    return ", ".join(f"{count} {words[kind]}{'' if count == 1 else 's'}" for kind, count in counts.items())
