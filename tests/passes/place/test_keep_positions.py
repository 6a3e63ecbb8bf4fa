"""Positions at which images are read are float32, and only what they are computed by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Context, aten
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.place.positions import FLOAT32, keep_positions, reads_exactly

IMAGE, AT, OFFSETS = random(1, 32, 4, 5), random(1, 2, 3, 2), random(1, 2, 3, 2)


def placed(function, refuses=lambda node: False):
    graph = capture(function, IMAGE, AT, OFFSETS).module.graph
    channels_last(graph, Context())
    sides = {node: "device" for node in graph.nodes if node.op == "call_function"}
    return graph, sides, keep_positions(graph, sides, refuses)


def exact(graph):
    return [node.target for node in graph.nodes if meta.dtype.get(node, "") == FLOAT32]


def test_arithmetic_up_to_what_a_network_gives_is_float32():
    graph, _, count = placed(lambda x, at, o: F.grid_sample(x, (at + o.tanh() / 5) * 2 - 1, align_corners=False))
    assert count == 4
    assert exact(graph) == [aten.div.Tensor, aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor]


def test_what_moves_a_result_of_a_network_is_not():
    graph, *_ = placed(lambda x, at, o: F.grid_sample(x, o.tanh().permute(0, 2, 1, 3) + 1, align_corners=False))
    assert exact(graph) == [aten.add.Tensor]


def test_positions_are_found_behind_their_parts():
    def function(x, at, o):
        columns, rows = (at + o).split([1, 1], -1)
        return F.grid_sample(x, torch.cat([columns * 2, rows * 3], -1), align_corners=False), rows.tanh()

    graph, *_ = placed(function)
    (tanh,) = graph.find_nodes(op="call_function", target=aten.tanh.default)
    assert len(exact(graph)) == 7 and tanh.args[0].target is aten._to_copy.default


def test_other_readers_get_a_cast_and_arithmetic_reads_float32():
    def function(x, at, o):
        position = at + o
        return F.grid_sample(x, position, align_corners=False), position - at, position.tanh()

    graph, sides, _ = placed(function)
    (tanh,) = graph.find_nodes(op="call_function", target=aten.tanh.default)
    (flow,) = graph.find_nodes(op="call_function", target=aten.sub.Tensor)
    assert tanh.args[0].target is aten._to_copy.default and sides[tanh.args[0]] == "device"
    assert reads_exactly(flow) and flow not in meta.dtype and not reads_exactly(tanh)


def test_a_position_moved_for_a_difference_is_float32():
    def function(x, at, o):
        first = at + o
        second = first + F.grid_sample(x, first, align_corners=False).permute(0, 2, 3, 1)[..., :2]
        return (second - at).tanh()

    graph, *_ = placed(function)
    assert exact(graph) == [aten.add.Tensor, aten.add.Tensor]
    (difference,) = graph.find_nodes(op="call_function", target=aten.sub.Tensor)
    assert reads_exactly(difference) and difference not in meta.dtype


def test_what_ttnn_refused_is_not():
    graph, *_ = placed(lambda x, at, o: F.grid_sample(x, (at + o) * 2, align_corners=False), lambda node: True)
    assert not exact(graph)


def test_a_graph_that_reads_no_image_so_has_none():
    graph = capture(lambda x: x * 2 + 1, torch.ones(3)).module.graph
    assert keep_positions(graph, {}, lambda node: False) == 0
    assert not graph.find_nodes(op="call_function", target=operators.grid_sample)
