"""The final graph as an SVG: one row a node, in the program's order; the host on the left, the device on the right.

Transfers stand between the two, with their bytes. A box names its operation and module, and the shape, dtype, layout
and memory of its value and of the weights that it reads; all of it shows when the pointer rests there. Not drawn: the
picking of one of several results, deallocations, and inputs that nothing reads.

What must hold: drawing changes nothing in the graph, needs no binary, and the same graph gives the same bytes.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.helpers import HELPERS
from tt_dynamo.report.report import size_text

MOST = 600  # rows; the picture of a larger graph ends there and says so
MARGIN, WIDTH, HEIGHT, ROW, TOP = 160, 410, 40, 56, 96  # pixels; MARGIN is the room of lines beside a column
# kind → column, fill, border. Told apart without colour vision by column and lightness.
KINDS = {
    "input": (0, "#d8efdb", "#34804a"),
    "host": (0, "#fbd0bd", "#b93c12"),
    "transfer": (1, "#fdeeb5", "#a37b00"),
    "device": (2, "#d3e6f8", "#2a6aa8"),
}
HEADINGS = ("host: inputs, outputs, eager torch", "transfers", "device: TTNN calls")
CROSSING = {"ttnn.from_torch": "host → device", "ttnn.to_torch": "device → host"}
STYLE = """text{font:11px 'DejaVu Sans','Segoe UI',sans-serif;fill:#1d2430} .title{font-size:13px;font-weight:600}
.module{fill:#5b6575;text-anchor:end} .heading{font-size:15px;font-weight:600} path{fill:none;stroke-width:1.4}"""


def draw(graph: Graph) -> str:
    """The SVG of a graph whose device values carry their spec in `meta["ttnn"]` (shape, dtype, layout, memory)."""
    kinds = {node: kind for node in graph.nodes if (kind := _kind(node)) in KINDS}
    drawn = list(kinds)[:MOST]
    width, height = str(3 * (WIDTH + MARGIN) + MARGIN), str(TOP + ROW * len(drawn))
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height})
    _add(svg, "style", STYLE)
    _add(svg, "rect", width="100%", height="100%", fill="white")
    counts = Counter(kind for node, kind in kinds.items() if node.target not in HELPERS)
    heading = ", ".join(
        f"{counts[kind]} {words}{'' if counts[kind] == 1 else 's'}"
        for kind, words in (("device", "TTNN call"), ("host", "host operation"), ("transfer", "transfer"))
    )
    if len(drawn) < len(kinds):
        heading += f"; the first {len(drawn)} of {len(kinds)} nodes are drawn, program.py holds all"
    _add(svg, "text", heading, class_="heading", x=MARGIN, y=36)
    for column, words in enumerate(HEADINGS):
        _add(svg, "text", words, class_="title", x=MARGIN + column * (WIDTH + MARGIN), y=72)
    places: dict[Node, tuple[int, int, int]] = {}  # column, place in the column, row
    lengths: Counter[int] = Counter()
    for row, node in enumerate(drawn):
        column = 2 if kinds[node] == "input" and _layout(node) else KINDS[kinds[node]][0]
        places[node] = (column, lengths[column], row)
        lengths[column] += 1
        sources = dict.fromkeys(map(_picked, node.all_input_nodes))
        for source in (source for source in sources if source in places):
            _draw_line(svg, places[source], places[node], KINDS[kinds[source]][2])
        _draw_box(svg, node, kinds[node], [source for source in sources if _kind(source) == "weight"], places[node])
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _kind(node: Node) -> str:
    """A key of KINDS, or "weight" or "hidden" for what has no box."""
    if node.op == "output":
        return "input"
    if node.op == "get_attr" or (node.op == "placeholder" and (node.meta.get("weight") or node.meta.get("parameter"))):
        return "weight"
    if node.op == "placeholder":
        return "input" if node.users else "hidden"
    if node.target is operator.getitem or _name(node).rpartition(".")[2] == "deallocate":
        return "hidden"
    if node.target in HELPERS or _name(node) in CROSSING:
        return "transfer"
    return "device" if _name(node).startswith("ttnn.") else "host"


def _name(node: Node) -> str:
    """The operation in full: "ttnn.transformer.concatenate_heads", "aten.topk.default"."""
    target = node.target
    if "path" in node.meta or isinstance(target, (str, torch._ops.OpOverload)):
        return str(node.meta.get("path", target))
    named = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', target)}"
    return str(getattr(target, "python_fully_qualified_name", named))


def _picked(node: Node) -> Node:
    """The node that computes what `node` picks of several results."""
    return _picked(node.all_input_nodes[0]) if node.target is operator.getitem else node


def _values(node: Node) -> Sequence[Any]:
    """The specs of a node's results on the device, else its fake tensors; of several, those that are picked."""
    picked = [user.meta["ttnn"] for user in node.users if user.target is operator.getitem and "ttnn" in user.meta]
    value = node.meta.get("ttnn", picked or node.meta.get("val"))
    if value is None and _name(node) in CROSSING:  # down to the host: shaped like what it reads
        shapes = [source.shape for source in _values(node.all_input_nodes[0]) if hasattr(source, "shape")]
        value = [SimpleNamespace(shape=shape, dtype=node.kwargs.get("dtype", "")) for shape in shapes]
    return [one for one in (value if isinstance(value, (tuple, list)) else [value]) if hasattr(one, "shape")]


def _layout(node: Node) -> str:
    return str(getattr(next(iter(_values(node)), None), "layout", "")).rpartition(".")[2].replace("strided", "")


def _facts(node: Node) -> str:
    """Shape, dtype, layout and memory of the first result, and how many there are; what a transfer carries where."""
    words = []
    if values := _values(node):
        shape = "×".join(map(str, values[0].shape)) or "scalar"
        memory = str(getattr(values[0], "memory", "")).replace("DRAM", "")
        words = [shape, str(values[0].dtype).rpartition(".")[2].lower(), _layout(node), memory]
        words += [f"(of {len(values)})"] * (len(values) > 1)
    carried = size_text(node.meta["bytes"]) if isinstance(node.meta.get("bytes"), int) else ""
    return " ".join(word for word in (*words, CROSSING.get(_name(node)), carried) if word)


def _draw_box(svg: Element, node: Node, kind: str, weights: list[Node], place: tuple[int, int, int]) -> None:
    column, _, row = place
    x, y = MARGIN + column * (WIDTH + MARGIN), TOP + row * ROW
    name, module, facts = _name(node), str(node.meta.get("module") or ""), _facts(node)
    facts += f" · weights {', '.join(_facts(weight) or weight.name for weight in weights)}" if weights else ""
    title = name.removesuffix(".default") if name.startswith("aten.") else name.rpartition(".")[2]
    title = node.name if kind == "input" else title
    group = _add(svg, "g", id=node.name)
    _add(group, "title", "\n".join(part for part in (node.name, name, facts, module) if part))
    _, fill, stroke = KINDS[kind]
    _add(group, "rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=20 if kind == "input" else 5, fill=fill, stroke=stroke)
    _add(group, "text", title, class_="title", x=x + 12, y=y + 17)
    _add(group, "text", module[-max(1, 50 - len(title)) :], class_="module", x=x + WIDTH - 12, y=y + 17)
    facts = facts if len(facts) <= 80 else f"{facts[:79]}…"
    size = min(11.0, (WIDTH - 24) / (0.53 * max(1, len(facts))))  # smaller rather than beyond the box
    _add(group, "text", facts, style=f"font-size:{size:.1f}px", x=x + 12, y=y + 33)


def _draw_line(svg: Element, source: tuple[int, int, int], target: tuple[int, int, int], colour: str) -> None:
    """Straight down to the next box of a column, around the boxes between, or across to another column."""
    (column, place, row), (end_column, end_place, end_row) = source, target
    left = MARGIN + column * (WIDTH + MARGIN)
    y, end_y = (TOP + number * ROW + HEIGHT // 2 for number in (row, end_row))
    if column == end_column and end_place == place + 1:
        path = f"M{left + WIDTH // 2} {y + HEIGHT // 2}V{end_y - HEIGHT // 2}"
    elif column == end_column:
        side = left + WIDTH if column else left
        bend = side + min(24 + 8 * (end_row - row), MARGIN + 30) * (1 if column else -1)
        path = f"M{side} {y}C{bend} {y} {bend} {end_y} {side} {end_y}"
    else:
        side = left + WIDTH if end_column > column else left
        end = MARGIN + end_column * (WIDTH + MARGIN) + (WIDTH if end_column < column else 0)
        path = f"M{side} {y}C{end} {y} {side} {end_y} {end} {end_y}"
    _add(svg, "path", d=path, stroke=colour)


def _add(parent: Element, tag: str, text: str = "", **attributes: Any) -> Element:
    named = {name.rstrip("_"): str(value) for name, value in attributes.items()}
    element = ElementTree.SubElement(parent, tag, named)
    element.text = text or None
    return element
