"""Nodes run where the fewest bytes cross, and every crossing is a node."""

import operator

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, parameter, random, same
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, constant_nodes
from tt_dynamo.passes.images.patch_embedding import fold_patch_embedding
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.place.place import FIXED_COST, place

to_device, to_host = operators.to_device, operators.to_host
ON_HOST = {aten.sin.default, aten.sort.default, aten.atan2.default}  # what the device of these tests cannot take
LARGE = 64 * 1024


def placed(model, *inputs):
    """The placed graph and the sides by node; checks what must hold wherever nodes run."""
    graph = capture(model, *inputs)
    graph.apply(canonicalize, exact=False)
    before = graph.run()
    sides = place(graph.graph, lambda node: node.target not in ON_HOST)
    graph.graph.lint()
    same(graph.run(), before, exact=True)
    constants = constant_nodes(graph.graph)
    for node in graph.calls(*graph.targets()):
        if node in constants:
            continue
        assert node.target not in ON_HOST or sides[node] == "host"
        reads = "host" if node.target is to_device else "device" if node.target is to_host else sides[node]
        for operand in node.all_input_nodes:
            if operand not in constants:
                assert sides.get(operand, "host") == reads, f"{node} reads {operand} on the other side"
            elif reads == "device":
                assert operand.target is to_device
    assert all(sides.get(node, "host") == "host" for node in graph.graph.output_node().all_input_nodes)
    return graph, sides


def side_of(graph, sides, target):
    return sides[graph.only(target)]


def test_a_graph_that_the_device_takes_whole_crosses_at_its_ends():
    graph, _ = placed(lambda x, y: torch.relu(x) * y, random(4, 4), random(4, 4))
    targets = graph.targets()
    assert targets.count(to_device) == 2 and targets.count(to_host) == 1
    assert graph.graph.output_node().args[0][0].target is to_host


def test_what_the_device_cannot_take_runs_on_the_host_between_two_crossings():
    graph, _ = placed(lambda x: torch.tanh(torch.sin(torch.relu(x))), random(4, 4))
    expected = [to_device, aten.relu.default, to_host, aten.sin.default, to_device, aten.tanh.default, to_host]
    assert graph.targets() == expected


def test_moves_go_where_fewer_bytes_cross_unless_they_may_not_choose():
    graph = capture(lambda x: torch.cat([x[:1], x[2:3]]), random(64, 64))
    assert set(place(graph.graph, lambda node: True).values()) == {"host"}
    graph = capture(lambda x: torch.cat([x[:1], x[2:3]]), random(64, 64))
    assert set(place(graph.graph, lambda node: True, may_choose=False).values()) >= {"device"}


def test_a_graph_that_the_device_cannot_take_crosses_nowhere():
    graph, sides = placed(lambda x: torch.sin(torch.sin(x)), random(4, 4))
    assert graph.targets() == [aten.sin.default] * 2 and set(sides.values()) == {"host"}


def test_a_value_goes_up_once_whoever_reads_it():
    graph, _ = placed(lambda x: (torch.relu(x) + torch.tanh(x)) * x, random(4, 4))
    assert len(graph.calls(to_device)) == 1


def test_a_value_comes_down_once_whoever_reads_it():
    def model(x):
        y = torch.relu(x)
        return torch.sin(y), torch.sin(y + 1), y

    graph, _ = placed(model, random(4, 4))
    crossed = [node.args[0].target for node in graph.calls(to_host)]
    assert sorted(map(str, crossed)) == ["aten.add.Tensor", "aten.relu.default"]


def test_an_input_read_on_both_sides_goes_up_and_stays():
    graph, _ = placed(lambda x: (torch.sin(x), torch.relu(x)), random(4, 4))
    assert graph.only(aten.sin.default).args[0].op == "placeholder"
    assert graph.only(aten.relu.default).args[0].target is to_device


@pytest.mark.parametrize("move", [lambda x: x.reshape(-1), lambda x: x.permute(1, 0), lambda x: x.t()[:4].reshape(-1)])
def test_moves_stay_on_the_side_of_both_their_neighbours(move):
    graph, sides = placed(lambda x: torch.sin(move(torch.sin(x))), random(8, 4))
    assert not graph.calls(to_device)
    graph, sides = placed(lambda x: torch.tanh(move(torch.tanh(x))), random(8, 4))
    assert len(graph.calls(to_device, to_host)) == 2


def test_a_slice_is_cut_off_before_it_comes_down():
    graph, sides = placed(lambda x: torch.sin(torch.relu(x)[:, 0]), random(64, 1024))
    assert side_of(graph, sides, aten.select.int) == "device"


def test_a_slice_of_an_input_is_cut_off_before_it_goes_up():
    graph, sides = placed(lambda x: torch.relu(x[:, 0]), random(64, 1024))
    assert side_of(graph, sides, aten.select.int) == "host"


def test_a_value_goes_up_before_it_is_repeated():
    graph, sides = placed(lambda x, y: torch.relu(x.expand(64, 1024)) * y, random(1, 1024), random(64, 1024))
    assert side_of(graph, sides, aten.expand.default) == "device"


def test_a_value_comes_down_before_it_is_repeated():
    graph, sides = placed(lambda x: torch.sin(torch.relu(x).expand(64, 1024)), random(1, 1024))
    assert side_of(graph, sides, aten.expand.default) == "host"


def test_integers_become_floats_of_half_the_bytes_before_they_go_up():
    graph, sides = placed(lambda m, x: m.to(torch.float32) * x, torch.ones(64, 64, dtype=torch.int64), random(64, 64))
    assert side_of(graph, sides, aten._to_copy.default) == "host"


def test_integers_are_compared_before_their_twice_as_many_bytes_go_up():
    graph, sides = placed(lambda i, x: (i > 3) * x, torch.ones(64, 64, dtype=torch.int64), random(64, 64))
    assert side_of(graph, sides, aten.gt.Scalar) == "host"


def test_integer_arithmetic_runs_where_its_operands_are():
    graph, sides = placed(lambda i: torch.sin(i + 1), torch.ones(64, 64, dtype=torch.int64))
    assert side_of(graph, sides, aten.add.Tensor) == "host"


@pytest.mark.parametrize(
    ("move", "target", "side"),
    [
        (lambda x: x.reshape(4, 16), aten.reshape.default, "host"),
        (lambda x: x.to(torch.bfloat16), aten._to_copy.default, "host"),
        (lambda x: x.permute(1, 0), aten.permute.default, "host"),
        (lambda x: torch.cat([x.relu(), x.tanh()])[4:12], aten.cat.default, "device"),
    ],
)
def test_of_equal_cuts_reshapes_permutes_and_casts_stay_on_the_host_and_the_rest_runs_on_the_device(move, target, side):
    graph, sides = placed(lambda x: torch.relu(move(x)), random(8, 8))
    assert side_of(graph, sides, target) == side


def test_of_equal_cuts_choices_between_two_numbers_stay_on_the_host():
    graph, sides = placed(lambda m, x: torch.where(m, 0.0, -1.0) + x, random(8, 8) > 0, random(8, 8))
    assert side_of(graph, sides, aten.where.Scalar) == "host"


def test_a_single_byte_outweighs_every_preference():
    """Three permutes prefer the host; a slice of one element less in between is worth doing first."""

    def model(x):
        return torch.relu(x).permute(1, 0)[:, :-1].permute(1, 0)[:, :-1].permute(1, 0)

    graph, sides = placed(model, random(9, 9))
    assert all(sides[node] == "device" for node in graph.calls(aten.slice.Tensor))


def test_an_image_goes_up_channels_last_and_comes_down_so():
    graph, sides = placed(lambda x: torch.relu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), random(1, 3, 8, 8))
    assert [sides[node] for node in graph.calls(aten.permute.default)] == ["host", "host"]
    between = placed(lambda x: torch.tanh(torch.relu(x).permute(0, 2, 3, 1)), random(1, 3, 8, 8))
    assert side_of(*between, aten.permute.default) == "device"


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (lambda x: torch.relu(F.pad(x, (0, 0, 1, 0))), "host"),
        (lambda x: torch.relu(F.pad(x, (0, 0, 0, 999))), "device"),
        (lambda x: torch.relu(F.pad(torch.tanh(x), (0, 0, 1, 0))), "device"),
    ],
)
def test_an_input_is_padded_before_it_goes_up_where_that_is_little(model, side):
    assert side_of(*placed(model, random(1, 32, 64)), aten.constant_pad_nd.default) == side


def test_one_crossing_of_a_value_beats_two_of_its_halves():
    def model(x):
        first, second = x[:, :32], x[:, 32:]
        return torch.relu(first) * torch.tanh(second)

    graph, _ = placed(model, random(4, 64))
    assert FIXED_COST > 2 * 4 * 32 * 2
    assert len(graph.calls(to_device)) == 1
    graph, sides = placed(lambda x: [torch.relu(half) for half in x.split(32, 1)], random(4, 64))
    assert side_of(graph, sides, aten.split.Tensor) == "device"


def test_what_only_a_part_of_is_read_crosses_in_part_where_that_is_much_less():
    graph, _ = placed(lambda x: torch.relu(x[:, :1]) * torch.tanh(x[:, 1:2]), random(64, 4096))
    assert {node.meta["val"].shape for node in graph.calls(to_device)} == {(64, 1)}


def test_constants_cross_for_nothing():
    model = Module(parameter(LARGE), forward=lambda s, x: torch.relu(torch.cat([s.p0, torch.sin(x)])))
    graph, sides = placed(model, random(64))
    assert side_of(graph, sides, aten.cat.default) == "device"


def test_what_is_computed_from_constants_is_not_placed():
    graph, sides = placed(Module(parameter(64), forward=lambda s, x: torch.relu(x) * torch.exp(s.p0)), random(64))
    assert graph.only(aten.exp.default) not in sides
    assert graph.only(aten.exp.default).args[0].meta["parameter"]


def test_a_constant_that_both_sides_read_is_at_home_on_both():
    model = Module(parameter(64), forward=lambda s, x: torch.atan2(x, s.p0) + torch.relu(x) * s.p0)
    graph, _ = placed(model, random(64))
    assert graph.only(aten.atan2.default).args[1].meta["parameter"]
    assert [node.args[0].meta.get("parameter") for node in graph.calls(to_device)].count(True) == 1


def test_picking_one_of_several_results_runs_where_they_were_made():
    graph, sides = placed(lambda x: [torch.relu(y) for y in torch.tanh(x).split(4)], random(12, 4))
    assert all(sides[node] == "device" for node in graph.calls(operator.getitem, aten.split.Tensor))
    graph, sides = placed(lambda x: torch.relu(torch.sort(x)[0]), random(12, 4))
    assert side_of(graph, sides, operator.getitem) == "host"
    assert graph.only(aten.relu.default).args[0].args[0].target is operator.getitem


def test_the_same_graph_is_placed_the_same_way_every_time():
    def model(x, y):
        return torch.relu(x.permute(1, 0)[:4] * torch.sin(y.reshape(4, 8))).expand(2, 4, 8)

    first = placed(model, random(8, 8), random(32))[0].targets()
    assert all(placed(model, random(8, 8), random(32))[0].targets() == first for _ in range(3))


@pytest.mark.parametrize(("channels", "patch", "side"), [(1, 2, "device"), (3, 4, "host"), (3, 16, "host")])
def test_patches_are_gathered_on_the_host_where_their_rows_are_long(channels, patch, side):
    model = nn.Conv2d(channels, 8, patch, stride=patch)
    graph = capture(model, random(1, channels, 2 * patch, 2 * patch))
    graph.apply(canonicalize, fold_patch_embedding, exact=False)
    sides = place(graph.graph, lambda node: True)
    assert sides[graph.only(operators.gather_patches)] == side


def test_patches_of_an_image_that_the_device_reads_too_are_gathered_on_the_host():
    model = Module(nn.Conv2d(3, 8, 16, stride=16), forward=lambda m, x: (m.p0(x), torch.relu(x)))
    graph = capture(model, random(1, 3, 32, 32))
    graph.apply(canonicalize, fold_patch_embedding, exact=False)
    sides = place(graph.graph, lambda node: True)
    assert side_of(graph, sides, operators.gather_patches) == "host"
    assert side_of(graph, sides, aten.relu.default) == "device"
