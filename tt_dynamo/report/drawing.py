"""The final graph as an SVG: one row a node, in the program's order; the host on the left, the device on the right.

Transfers stand between the two, with their bytes. A box names its operation and module, and the shape, dtype, layout
and memory of its value and of the weights that it reads; all of it shows when the pointer rests there. Not drawn: the
picking of one of several results, deallocations, and inputs that nothing reads.

What must hold: drawing changes nothing in the graph, needs no binary, and the same graph gives the same bytes.
"""

import operator
from collections import Counter
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from tt_dynamo.ir import meta
from tt_dynamo.ir.helpers import HELPERS
from tt_dynamo.ir.spec import Spec
from tt_dynamo.report.table import size_text

MOST = 600  # rows; the picture of a larger graph ends there and says so
MARGIN, WIDTH, HEIGHT, ROW, TOP = 160, 480, 40, 56, 96  # pixels; MARGIN is the room of lines beside a column
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
    """The SVG of a program, whose nodes carry their operation in `meta["path"]` and their spec in `meta["ttnn"]`."""
    kinds = {node: kind for node in graph.nodes if (kind := _kind(node)) in KINDS}
    drawn = list(kinds)[:MOST]
    size = {"width": str(3 * (WIDTH + MARGIN) + MARGIN), "height": str(TOP + ROW * len(drawn))}
    svg = Element("svg", size, xmlns="http://www.w3.org/2000/svg")
    _add(svg, "style", STYLE)
    _add(svg, "rect", width="100%", height="100%", fill="white")
    counts = Counter(kind for node, kind in kinds.items() if node.target not in HELPERS)
    counted = (("device", "TTNN call"), ("host", "host operation"), ("transfer", "transfer"))
    heading = ", ".join(f"{counts[kind]} {words}{'' if counts[kind] == 1 else 's'}" for kind, words in counted)
    if len(drawn) < len(kinds):
        heading += f"; the first {len(drawn)} of {len(kinds)} nodes are drawn, program.py holds all"
    _add(svg, "text", heading, class_="heading", x=MARGIN, y=36)
    for column, words in enumerate(HEADINGS):
        _add(svg, "text", words, class_="title", x=MARGIN + column * (WIDTH + MARGIN), y=72)
    places: dict[Node, tuple[int, int]] = {}  # x and y of the box
    for row, node in enumerate(drawn):
        column = KINDS["device" if kinds[node] == "input" and "ttnn" in node.meta else kinds[node]][0]
        places[node] = MARGIN + column * (WIDTH + MARGIN), TOP + row * ROW
        sources = dict.fromkeys(map(_picked, node.all_input_nodes))
        for source in filter(places.get, sources):
            _draw_line(svg, places[source], places[node], KINDS[kinds[source]][2])
        _draw_box(svg, node, kinds[node], [source for source in sources if _kind(source) == "weight"], places[node])
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _kind(node: Node) -> str:
    """A key of KINDS, or "weight" or "hidden" for what has no box."""
    name = _name(node)
    if node.op == "get_attr" or "weight" in node.meta:
        return "weight"
    if node.op in ("placeholder", "output"):
        return "input" if node.users or node.op == "output" else "hidden"
    if node.target is operator.getitem or name in ("deallocate", "ttnn.deallocate"):
        return "hidden"
    if node.target in HELPERS or name in CROSSING:
        return "transfer"
    return "device" if name.startswith("ttnn.") else "host"


def _name(node: Node) -> str:
    """The operation as the program writes it: "ttnn.transformer.concatenate_heads", "aten.topk.default"."""
    is_text = isinstance(node.target, (str, torch._ops.OpOverload))
    return str(meta.path.get(node, "") or (node.target if is_text else getattr(node.target, "__name__", node.target)))


def _picked(node: Node) -> Node:
    """The node that computes what `node` picks of several results."""
    return _picked(node.all_input_nodes[0]) if node.target is operator.getitem else node


def _facts(node: Node) -> str:
    """The first result of a node on the device, else its fake tensor, and how many there are; what goes where."""
    picked = [meta.spec(user) for user in node.users if user.target is operator.getitem and user in meta.spec]
    values = tree_leaves(node.meta.get("ttnn", picked or node.meta.get("val")))
    if _name(node) == "ttnn.to_torch":
        shape = meta.spec(node.all_input_nodes[0]).shape
        values = [torch.empty(shape, dtype=node.kwargs["dtype"], device="meta")]
    words = [_value_text(value) for value in values if hasattr(value, "shape")]
    words[1:] = [f"(of {len(words)})"] if len(words) > 1 else []
    words += [CROSSING.get(_name(node), ""), size_text(meta.transferred(node)) if node in meta.transferred else ""]
    return " ".join(filter(None, words))


def _value_text(value: Any) -> str:
    """Shape and dtype of a tensor; of one on the device layout and memory too."""
    text = f"{'×'.join(map(str, value.shape)) or 'scalar'} {value.dtype}".replace("torch.", "")
    return f"{text} {value.layout} {value.memory}".removesuffix(" DRAM") if isinstance(value, Spec) else text


def _draw_box(svg: Element, node: Node, kind: str, weights: list[Node], place: tuple[int, int]) -> None:
    (x, y), (_, fill, stroke) = place, KINDS[kind]
    name, module, facts = _name(node), meta.module.get(node, ""), _facts(node)
    facts += f" · weights {', '.join(_facts(weight) or weight.name for weight in weights)}" if weights else ""
    title = name.rpartition(".")[2] if name.startswith("ttnn.") else name.removesuffix(".default")
    group = _add(svg, "g", id=node.name)
    _add(group, "title", "\n".join(filter(None, (node.name, name, facts, module))))
    _add(group, "rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=20 if kind == "input" else 5, fill=fill, stroke=stroke)
    _add(group, "text", title, class_="title", x=x + 12, y=y + 17)
    _add(group, "text", module[-max(1, 50 - len(title)) :], class_="module", x=x + WIDTH - 12, y=y + 17)
    _add(group, "text", facts if len(facts) <= 72 else f"{facts[:71]}…", x=x + 12, y=y + 33)


def _draw_line(svg: Element, source: tuple[int, int], target: tuple[int, int], colour: str) -> None:
    """A curve to the side of a box in another column, or around the boxes between two of the same column."""
    (x, y), (end_x, end_y) = source, target
    bend = min(24 + (end_y - y) // 8, MARGIN) if x == end_x else 0
    start, end = x + (WIDTH if x <= end_x else 0), end_x + (WIDTH if end_x <= x else 0)
    y, end_y = y + HEIGHT // 2, end_y + HEIGHT // 2
    _add(svg, "path", d=f"M{start} {y}C{end + bend} {y} {start + bend} {end_y} {end} {end_y}", stroke=colour)


def _add(parent: Element, tag: str, text: str | None = None, **attributes: Any) -> Element:
    element = ElementTree.SubElement(parent, tag, {name.rstrip("_"): str(value) for name, value in attributes.items()})
    element.text = text
    return element
