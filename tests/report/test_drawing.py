"""The drawing of a graph: what it tells apart, what it leaves out, and that nothing covers anything."""

import operator
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch.fx import Graph

from tt_dynamo.ir.helpers import checked
from tt_dynamo.ir.spec import Spec
from tt_dynamo.report.drawing import HEADINGS, KINDS, MOST, draw

SVG = "{http://www.w3.org/2000/svg}"


class Operation:
    """Looks like an operation of TTNN from outside."""

    def __init__(self, name):
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
        node.meta.update(path=f"ttnn.{name}", ttnn=spec or Spec((2, 32), "bfloat16", "TILE"))
        return node

    def down(self, *args):
        node = self.graph.call_function(Operation("to_torch"), args, {"dtype": torch.float32})
        node.meta.update(path="ttnn.to_torch", bytes=256, module="head")
        return node

    def host(self, target, *args):
        node = self.graph.call_function(target, args)
        node.meta["val"] = torch.empty(2, 5)
        return node


def boxes(svg):
    """name → (x, y, fill, texts) of each box; the svg must be well-formed for that."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        rect, texts = group.find(f"{SVG}rect"), [text.text or "" for text in group.iter(f"{SVG}text")]
        found[group.get("id")] = (int(rect.get("x")), int(rect.get("y")), rect.get("fill"), texts)
    return found


def lines(svg):
    return [path.get("d") for path in ElementTree.fromstring(svg).iter(f"{SVG}path")]


@pytest.fixture
def program():
    return Program()


def test_device_host_transfers_and_inputs_are_told_apart_by_column_colour_and_words(program):
    x = program.input("x")
    ready = program.graph.call_function(checked, (x, 0, 99))
    up = program.ttnn("from_torch", ready)
    up.meta.update(bytes=2048, module="embeddings")
    relu = program.ttnn("relu", up)
    down = program.down(relu)
    host = program.host(torch.ops.aten.topk.default, down, 5)
    program.graph.output((host,))
    svg = draw(program.graph)
    kinds = {x: "input", ready: "transfer", up: "transfer", relu: "device", down: "transfer", host: "host"}
    found = boxes(svg)
    assert {name: fill for name, (_, _, fill, _) in found.items()} == {
        **{node.name: KINDS[kind][1] for node, kind in kinds.items()},
        "output": KINDS["input"][1],
    }
    columns = [sorted({found[node.name][0] for node, kind in kinds.items() if KINDS[kind][0] == c}) for c in range(3)]
    assert all(len(column) == 1 for column in columns) and columns == sorted(columns)
    assert ">1 TTNN call, 1 host operation, 2 transfers<" in svg and all(words in svg for words in HEADINGS)
    assert found["relu"][3][0] == "relu" and found["topk_default"][3] == ["aten.topk", "", "2×5 float32"]
    assert found[up.name][3] == ["from_torch", "embeddings", "2×32 bfloat16 TILE host → device 2.0 KiB"]
    assert found[down.name][3] == ["to_torch", "head", "2×32 float32 device → host 256 B"]
    assert len(lines(svg)) == 6


def test_a_box_says_how_its_value_lies_and_names_its_weights(program):
    x = program.input("x")
    row_major = program.ttnn("to_layout", x, spec=Spec((2, 32), "bfloat16", "ROW_MAJOR", "L1"))
    program.graph.output(program.ttnn("linear", row_major, program.weight("w")))
    found = boxes(draw(program.graph))
    assert found["to_layout"][3][2] == "2×32 bfloat16 ROW_MAJOR L1"
    assert found["linear"][3][2] == "2×32 bfloat16 TILE · weights 64×32 bfloat8_b TILE"
    assert "w" not in found


def test_an_operation_is_named_as_the_program_writes_it(program):
    node = program.graph.call_function(lambda x: x, (program.input("x"),))
    node.meta["path"] = "ttnn.transformer.concatenate_heads"
    program.graph.output(node)
    svg = draw(program.graph)
    assert ">concatenate_heads<" in svg and "1 TTNN call," in svg


def test_picking_a_result_and_deallocations_are_left_out(program):
    x = program.input("x")
    heads = program.ttnn("split", x)
    del heads.meta["ttnn"]
    picked = [program.graph.call_function(operator.getitem, (heads, i)) for i in range(2)]
    for pick in picked:
        pick.meta["ttnn"] = Spec((1, 8, 32, 64), "bfloat16", "ROW_MAJOR")
    program.graph.call_method("deallocate", (x,))
    program.graph.output(program.ttnn("matmul", *picked))
    svg = draw(program.graph)
    assert set(boxes(svg)) == {"x", "split", "matmul", "output"}
    assert "1×8×32×64 bfloat16 ROW_MAJOR (of 2)" in svg


def long_program(program, layers):
    x = mask = program.ttnn("from_torch", program.input("ids"))
    for layer in range(layers):
        y = program.ttnn("linear", x, program.weight(f"w{layer}"))
        x = program.ttnn("layer_norm", program.ttnn("transformer.scaled_dot_product_attention", y, mask), x)
    program.graph.output(program.down(x))
    return program.graph


def test_no_box_covers_another_and_time_flows_downwards(program):
    placed = [y for _, y, *_ in boxes(draw(long_program(program, layers=12))).values()]
    assert all(below - above >= 40 for above, below in zip(placed, placed[1:], strict=False))


def test_drawing_is_repeatable_and_leaves_the_graph_alone(program):
    graph = long_program(program, layers=2)
    before = str(graph), [dict(node.meta) for node in graph.nodes]
    assert draw(graph) == draw(graph)
    assert (str(graph), [dict(node.meta) for node in graph.nodes]) == before


def test_a_picture_of_a_large_graph_ends_and_says_so(program):
    svg = draw(long_program(program, layers=400))
    assert len(boxes(svg)) == MOST
    assert f"1200 TTNN calls, 0 host operations, 2 transfers; the first {MOST} of 1204 nodes are drawn" in svg


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

    assert {"x", "view", "head", "add", "output"} == set(boxes(draw(torch.fx.symbolic_trace(Odd()).graph)))


def test_names_are_escaped(program):
    name = "a<b>&\"c'"
    node = program.ttnn(name, program.input("x"))
    program.graph.output(node)
    assert boxes(draw(program.graph))[node.name][3][0] == name
