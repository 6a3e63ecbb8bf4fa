"""The drawing of a graph: what it tells apart, what it leaves out, and that nothing covers anything."""

import itertools
import operator
import re
import time
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch.fx import Graph

from tt_dynamo.ir.helpers import checked
from tt_dynamo.ir.spec import Spec
from tt_dynamo.report.drawing import BORDERS, BOX_HEIGHT, BOX_WIDTH, KINDS, draw

SVG = "{http://www.w3.org/2000/svg}"


class Operation:
    """Looks like an operation of TTNN from outside."""

    def __init__(self, name):
        self.python_fully_qualified_name = f"ttnn.{name}"
        self.__name__ = name.rpartition(".")[2]

    def __call__(self, *args, **kwargs):
        raise AssertionError("drawing must not run anything")


class Program:
    """Builds a graph as the compiler would."""

    def __init__(self):
        self.graph = Graph()

    def input(self, name):
        node = self.graph.placeholder(name)
        node.meta["val"] = torch.empty(2, 32, dtype=torch.int64)
        return node

    def weight(self, name):
        node = self.graph.placeholder(name)
        node.meta.update(weight=True, ttnn=Spec((64, 32), "bfloat8_b", "TILE"))
        return node

    def ttnn(self, name, *args, spec=None):
        node = self.graph.call_function(Operation(name), args)
        node.meta["ttnn"] = spec or Spec((2, 32), "bfloat16", "TILE")
        return node

    def host(self, target, *args):
        node = self.graph.call_function(target, args)
        node.meta["val"] = torch.empty(2, 5)
        return node


def boxes(svg):
    """id → (x, y, fill, border style) of each box, in drawing coordinates; the svg must be well-formed for that."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if "id" in group.attrib:
            rect = group.find(f"{SVG}rect")
            found[group.get("id")] = (float(rect.get("x")), float(rect.get("y")), rect.get("fill"), rect.attrib)
    return found


def lines(svg):
    return [path.get("d") for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if path.get("class") == "line"]


@pytest.fixture
def program():
    return Program()


def test_device_host_transfers_and_inputs_are_told_apart_by_colour(program):
    x = program.input("x")
    up = program.ttnn("from_torch", x)
    relu = program.ttnn("relu", up)
    down = program.ttnn("to_torch", relu)
    host = program.host(torch.ops.aten.topk.default, down, 5)
    program.graph.output((host,))
    svg = draw(program.graph)
    fills = {name: facts[2] for name, facts in boxes(svg).items()}
    expected = {x: "input", up: "transfer", relu: "device", down: "transfer", host: "host"}
    assert fills == {**{node.name: KINDS[kind][0] for node, kind in expected.items()}, "output": KINDS["input"][0]}
    assert len({fill for fill, *_ in KINDS.values()}) == len(KINDS)
    assert "1 TTNN call, 1 host operation, 2 transfers" in svg
    assert ">aten.topk<" in svg and all(words in svg for _, _, words in KINDS.values())


def test_the_host_side_of_a_transfer_is_no_host_operation(program):
    ids = program.graph.call_function(checked, (program.input("ids"), 0, 99))
    up = program.ttnn("from_torch", ids)
    up.meta.update(bytes=2048, module="embeddings")
    program.graph.output(up)
    svg = draw(program.graph)
    assert "0 TTNN calls, 0 host operations, 1 transfer<" in svg
    assert {name: facts[2] for name, facts in boxes(svg).items() if name != "output"} == {
        "ids": KINDS["input"][0],
        "checked": KINDS["transfer"][0],
        up.name: KINDS["transfer"][0],
    }
    down = program.graph.call_function(Operation("to_torch"), (up,), {"dtype": torch.float32})
    assert ">2×32  float32<" in draw(down.graph)
    assert "2.0 KiB<" in svg and ">embeddings<" in svg and ">checked<" in svg


def test_an_operation_is_named_as_the_program_writes_it(program):
    node = program.graph.call_function(lambda x: x, (program.input("x"),))
    node.meta["path"] = "ttnn.transformer.concatenate_heads"
    program.graph.output(node)
    svg = draw(program.graph)
    assert ">concatenate_heads<" in svg and "1 TTNN call," in svg


def test_layouts_are_told_apart_by_border(program):
    tile = program.ttnn("relu", program.input("x"))
    row_major = program.ttnn("to_layout", tile, spec=Spec((2, 32), "bfloat16", "ROW_MAJOR", "L1"))
    program.graph.output(program.host(torch.neg, row_major))
    svg = draw(program.graph)
    styles = {name: attributes.get("stroke-dasharray") for name, (*_, attributes) in boxes(svg).items()}
    assert len({styles[tile.name], styles[row_major.name], styles["neg"]}) == 3
    assert "2×32  bfloat16  ROW_MAJOR  L1" in svg and "2×5  float32<" in svg
    assert all(words in svg for _, words in BORDERS.values())


def test_time_flows_downwards_and_an_input_stands_above_its_first_user(program):
    x, late = program.input("x"), program.input("late")
    first = program.ttnn("relu", x)
    second = program.ttnn("gelu", first)
    third = program.ttnn("add", second, late)
    program.graph.output(third)
    placed = {name: y for name, (_, y, *_) in boxes(draw(program.graph)).items()}
    assert [placed[name] for name in ("x", "relu", "gelu", "add", "output")] == sorted(
        placed[name] for name in ("x", "relu", "gelu", "add", "output")
    )
    assert placed["late"] == placed["gelu"]


def test_a_weight_is_a_small_box_left_of_its_user(program):
    x = program.input("x")
    program.graph.output(program.ttnn("linear", x, program.weight("w")))
    svg = draw(program.graph)
    assert "w" not in boxes(svg)
    (chip,) = [group for group in ElementTree.fromstring(svg).iter(f"{SVG}g") if group.get("class") == "chip-of"]
    rect = chip.find(f"{SVG}rect")
    assert float(rect.get("x")) + float(rect.get("width")) < boxes(svg)["linear"][0]
    assert "64×32 bfloat8_b" in svg


def test_picking_a_result_is_an_index_on_a_line_and_deallocations_are_left_out(program):
    x = program.input("x")
    heads = program.ttnn("split", x)
    del heads.meta["ttnn"]
    first, second = (program.graph.call_function(operator.getitem, (heads, i)) for i in range(2))
    for pick in (first, second):
        pick.meta["ttnn"] = Spec((1, 8, 32, 64), "bfloat16", "ROW_MAJOR")
    program.graph.call_function(Operation("deallocate"), (x,))
    program.graph.output(program.ttnn("matmul", first, second))
    svg = draw(program.graph)
    assert set(boxes(svg)) == {"x", "split", "matmul", "output"}
    assert ">[0]<" in svg and ">[1]<" in svg and "1×8×32×64  bfloat16  ROW_MAJOR  (of 2)" in svg
    assert len(lines(svg)) == 4


def test_a_value_from_far_above_is_a_link_rather_than_a_line(program):
    x = program.input("mask")
    y = first = program.ttnn("relu", x)
    for _ in range(30):
        y = program.ttnn("gelu", y)
    program.graph.output(program.ttnn("add", y, first))
    svg = draw(program.graph)
    (link,) = list(ElementTree.fromstring(svg).iter(f"{SVG}a"))
    assert link.get("href") == "#relu" and "↑ relu" in svg
    assert len(lines(svg)) == 33


def transformer(program, layers):
    x = program.ttnn("from_torch", program.input("ids"))
    mask = program.ttnn("from_torch", program.input("mask"))
    for layer in range(layers):
        q, k, v = (program.ttnn("linear", x, program.weight(f"{name}{layer}")) for name in "qkv")
        y = program.ttnn("transformer.scaled_dot_product_attention", q, k, v, mask)
        y = program.ttnn("linear", y, program.weight(f"o{layer}"), program.weight(f"b{layer}"))
        y = program.ttnn("layer_norm", y, x, program.weight(f"g{layer}"))
        x = program.ttnn("layer_norm", program.ttnn("linear", y, program.weight(f"f{layer}")), y)
    many = [program.ttnn("to_torch", program.ttnn("slice", x)) for _ in range(20)]
    program.graph.output((program.ttnn("to_torch", x), *many))
    return program.graph


def test_no_box_covers_another_and_the_width_is_bounded(program):
    svg = draw(transformer(program, layers=3))
    for (one, (x, y, *_)), (other, (x2, y2, *_)) in itertools.combinations(boxes(svg).items(), 2):
        assert abs(x - x2) >= BOX_WIDTH or abs(y - y2) >= BOX_HEIGHT, f"{one} covers {other}"
    assert float(ElementTree.fromstring(svg).get("width")) < 2500


def test_no_vertical_lane_runs_through_a_box(program):
    svg = draw(transformer(program, layers=3))
    placed = boxes(svg)
    lanes = 0
    for path in lines(svg):
        corner = re.fullmatch(r"M\d+ \d+V(\d+)q0 6 6 6H(\d+)q6 0 6 6V(\d+).*", path)
        if corner:
            below, lane, above = map(float, corner.groups())
            lanes += 1
            for name, (x, y, *_) in placed.items():
                assert not (x < lane + 6 < x + BOX_WIDTH and y < above and y + BOX_HEIGHT > below), name
    assert lanes >= 6


def test_drawing_is_repeatable_and_leaves_the_graph_alone(program):
    graph = transformer(program, layers=2)
    before = str(graph), [dict(node.meta) for node in graph.nodes]
    assert draw(graph) == draw(graph)
    assert (str(graph), [dict(node.meta) for node in graph.nodes]) == before


def test_any_graph_can_be_drawn():
    empty = Graph()
    empty.output(())
    ElementTree.fromstring(draw(empty))
    ElementTree.fromstring(draw(Graph()))

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(2, 2)
            self.bias = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x, unused):
            return {"y": self.head(x.view(-1, 2)) + self.bias, "x": [x, None]}

    svg = draw(torch.fx.symbolic_trace(Odd()).graph)
    assert {"x", "view", "head", "add", "output"} == set(boxes(svg))


def test_names_are_escaped(program):
    name = Operation("a<b>&\"c'")
    program.graph.output(program.graph.call_function(name, (program.input("x"),)))
    ElementTree.fromstring(draw(program.graph))


def test_five_hundred_nodes_draw_within_two_seconds(program):
    graph = transformer(program, layers=45)
    assert len(graph.nodes) > 500
    started = time.perf_counter()
    draw(graph)
    assert time.perf_counter() - started < 2.0
