"""Every value on the device gets its dtype and layout, and every change of layout is a node."""

import operator

import torch
import torch.nn.functional as F
from captured import Module, capture, parameter, random, same

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Spec
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.place.layouts import assign_layouts
from tt_dynamo.passes.place.place import place

to_device, to_host, to_layout = operators.to_device, operators.to_host, operators.to_layout

SAME = (aten.permute.default, aten.split.Tensor, aten.reshape.default)
# A device for these tests alone: cos gives and needs rows, reshapes and splits take what comes, the rest is tiles.
GIVES = {aten.cos.default: "ROW_MAJOR", **dict.fromkeys(SAME, "same")}
NEEDS = {
    aten.cos.default: ("ROW_MAJOR", None),
    **dict.fromkeys(SAME, ("any", None)),
    aten.embedding.default: ("ROW_MAJOR", None),
    aten.sigmoid.default: ("any", "float32"),
}


def needs(user, operand):
    if user.target is aten.embedding.default and operand is user.args[1]:
        return "ROW_MAJOR", "uint32"
    return NEEDS.get(user.target, ("TILE", None))


def assigned(model, *inputs):
    graph = capture(model, *inputs)
    graph.apply(canonicalize)
    before = graph.run()
    sides = place(graph.graph, lambda node: True)
    count = assign_layouts(graph.graph, sides, lambda node: GIVES.get(node.target, "TILE"), needs)
    graph.graph.lint()
    same(graph.run(), before, exact=True)
    for node in graph.calls(*graph.targets()):
        if sides.get(node) == "device" and isinstance(node.meta["val"], torch.Tensor):
            assert node.meta["ttnn"].shape == tuple(node.meta["val"].shape)
            assert node.meta["ttnn"].layout == node.meta["layout"]
        for operand in node.all_input_nodes:
            wanted = needs(node, operand)[0]
            if sides.get(node) == "device" and node.target not in (to_device, to_layout, operator.getitem):
                assert wanted in ("any", operand.meta["layout"])
    return graph, count


def arrivals(graph):
    return [node.args[1:] for node in graph.calls(to_device)]


def test_floats_arrive_as_bfloat16_tiles():
    graph, count = assigned(torch.relu, random(4, 4))
    assert arrivals(graph) == [("bfloat16", "TILE")] and count == 0
    assert graph.only(aten.relu.default).meta["ttnn"] == Spec((4, 4), "bfloat16", "TILE")


def test_ids_arrive_as_rows_of_unsigned_integers_and_the_table_as_rows():
    model = Module(parameter(10, 8), forward=lambda s, ids: F.embedding(ids, s.p0))
    graph, _ = assigned(model, torch.tensor([1, 2]))
    assert sorted(arrivals(graph)) == [("bfloat16", "ROW_MAJOR"), ("uint32", "ROW_MAJOR")]


def test_an_operation_gives_its_own_layout_whatever_its_operands_have():
    model = Module(parameter(10, 8), forward=lambda s, ids: torch.relu(F.embedding(ids, s.p0)))
    graph, count = assigned(model, torch.tensor([1, 2]))
    assert graph.only(aten.embedding.default).meta["layout"] == "TILE" and count == 0


def test_a_reader_of_any_layout_does_not_take_another_readers_dtype():
    def forward(self, ids):
        return F.embedding(ids, self.p0), torch.relu(ids.permute(1, 0)) * 2.5

    graph, _ = assigned(Module(parameter(10, 8), forward=forward), torch.ones(2, 3, dtype=torch.int64))
    assert graph.only(aten.permute.default).args[0].args[1] == "int32"


def test_a_value_read_in_two_layouts_arrives_in_both_once():
    graph, count = assigned(lambda x: (torch.relu(x) + torch.tanh(x)) * (torch.cos(x) + torch.cos(x * 2)), random(4, 4))
    assert sorted(arrivals(graph)) == [("bfloat16", "ROW_MAJOR"), ("bfloat16", "TILE")]


def test_ids_that_are_looked_up_and_compared_arrive_in_both_dtypes_once():
    def forward(self, ids):
        return F.embedding(ids, self.p0) * torch.relu(ids * 1.5)[..., None]

    graph, _ = assigned(Module(parameter(10, 8), forward=forward), torch.tensor([1, 2]))
    assert {("uint32", "ROW_MAJOR"), ("int32", "TILE")} <= set(arrivals(graph))


def test_a_reader_of_another_dtype_and_any_layout_has_rows_of_that_dtype():
    graph, _ = assigned(lambda x: torch.sigmoid(x) + torch.relu(x), random(4, 8))
    assert sorted(arrivals(graph)) == [("bfloat16", "TILE"), ("float32", "ROW_MAJOR")]


def test_a_reader_of_any_layout_takes_the_one_that_another_needs():
    graph, count = assigned(lambda x: torch.relu(x) * torch.tanh(x.permute(1, 0)), random(4, 4))
    assert arrivals(graph) == [("bfloat16", "TILE")] and count == 0
    assert graph.only(aten.permute.default).meta["layout"] == "TILE"


def test_a_value_that_any_layout_suits_arrives_as_rows():
    graph, count = assigned(lambda x: torch.cos(x.permute(1, 0)), random(4, 4))
    assert arrivals(graph) == [("bfloat16", "ROW_MAJOR")] and count == 0


def test_a_value_made_in_the_other_layout_is_converted_once_for_all_its_readers():
    def model(x):
        rows = torch.cos(x)
        return torch.relu(rows) * torch.tanh(rows), torch.cos(rows)

    graph, count = assigned(model, random(4, 4))
    assert count == 1
    node = graph.only(to_layout)
    assert node.args == (graph.calls(aten.cos.default)[0], "TILE") and len(node.users) == 2
    assert graph.calls(aten.cos.default)[1].args[0] is graph.calls(aten.cos.default)[0]


def test_tiles_become_rows_where_a_reader_needs_them():
    graph, count = assigned(lambda x: torch.cos(torch.relu(x)), random(4, 4))
    assert count == 1 and graph.only(to_layout).args[1] == "ROW_MAJOR"
    assert graph.only(to_layout).meta["ttnn"] == Spec((4, 4), "bfloat16", "ROW_MAJOR")


def test_a_move_keeps_the_layout_of_what_it_moves():
    graph, count = assigned(lambda x: torch.relu(torch.cos(x).permute(1, 0)), random(4, 4))
    assert graph.only(aten.permute.default).meta["layout"] == "ROW_MAJOR"
    assert graph.only(to_layout).args[0] is graph.only(aten.permute.default) and count == 1


def test_parts_have_the_layout_of_the_whole():
    graph, count = assigned(lambda x: [torch.cos(part) for part in torch.cos(x).split(2)], random(4, 4))
    assert count == 0
    assert {node.meta["layout"] for node in graph.calls(operator.getitem)} == {"ROW_MAJOR"}


def test_what_goes_to_the_host_is_not_converted():
    graph, count = assigned(torch.cos, random(4, 4))
    assert count == 0 and graph.only(to_host).args[0].target is aten.cos.default


def test_booleans_are_bfloat16_and_integers_int32():
    graph, _ = assigned(lambda x: torch.relu(x) > 0, random(4, 4))
    assert graph.only(aten.gt.Scalar).meta["ttnn"].dtype == "bfloat16"
    graph, _ = assigned(lambda i: torch.relu(i) * 2.5, torch.tensor([1, 2]))
    assert arrivals(graph) == [("int32", "TILE")]


def test_rows_are_converted_before_a_reshape_that_puts_them_into_other_tiles():
    graph, count = assigned(lambda x: torch.cos(torch.relu(x).reshape(2, 7, 7, 8)), random(2, 49, 8))
    assert count == 1 and graph.only(aten.reshape.default).args[0] is graph.only(to_layout)


def test_tiles_that_stay_and_rows_that_tiles_are_made_of_are_converted_behind_a_reshape():
    graph, _ = assigned(lambda x: torch.cos(torch.relu(x).reshape(2, 32, 2, 4)), random(2, 32, 8))
    assert graph.only(to_layout).args[0] is graph.only(aten.reshape.default)
    graph, _ = assigned(lambda x: torch.cos(torch.relu(x).reshape(4, 32, 8)), random(2, 64, 8))
    assert graph.only(to_layout).args[0] is graph.only(aten.reshape.default)
    graph, _ = assigned(lambda x: torch.relu(torch.relu(x).reshape(2, 7, 7, 8)), random(2, 49, 8))
    assert not graph.calls(to_layout)
