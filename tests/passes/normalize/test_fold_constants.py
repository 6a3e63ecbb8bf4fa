"""What depends on parameters and literals alone becomes a module of its own; nothing else does."""

import pytest
import torch
from captured import Captured, Module, capture, parameter, random
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule

from tt_dynamo.ir.graph import aten, is_random
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants


def constants(graph):
    return list(graph.graph.find_nodes(op="call_module"))


@pytest.fixture
def x():
    return random(3, 4)


def test_an_expression_of_parameters_is_one_constant(x):
    model = Module(parameter(4, 4), parameter(4), forward=lambda s, x: x @ (torch.relu(s.p0) @ s.p0.t() + s.p1))
    graph = capture(model, x)
    assert graph.apply(fold_constants) == 1
    (constant,) = constants(graph)
    assert [node.meta["name"] for node in constant.args] == ["p0", "p1"]
    assert graph.targets() == [aten.matmul.default]


def test_a_constant_runs_on_the_parameters_of_the_call(x):
    graph = capture(Module(parameter(4), forward=lambda s, x: x * torch.exp(s.p0)), x)
    graph.apply(fold_constants)
    (constant,) = constants(graph)
    weight = random(4) + 1
    torch.testing.assert_close(graph.module.get_submodule(constant.target)(weight), torch.exp(weight))


def test_a_plain_parameter_needs_no_folding(x):
    graph = capture(Module(parameter(4), forward=lambda s, x: x * s.p0), x)
    assert graph.apply(fold_constants) == 0


def test_a_literal_is_a_constant_without_arguments(x):
    graph = capture(lambda x: x * torch.arange(4).sqrt(), x)
    assert graph.apply(fold_constants) == 1
    (constant,) = constants(graph)
    assert constant.args == () and constant.meta["name"] == constant.target


def test_a_tensor_written_into_the_model_is_a_constant(x):
    graph = capture(lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0]), x)
    assert graph.apply(fold_constants) == 1
    assert not graph.graph.find_nodes(op="get_attr")


def test_what_two_values_read_is_computed_once(x):
    def forward(self, x):
        weight = torch.exp(self.p0)
        return x * weight, x + weight

    graph = capture(Module(parameter(4), forward=forward), x)
    assert graph.apply(fold_constants) == 1
    (constant,) = constants(graph)
    assert len(constant.users) == 2


def test_a_constant_within_a_constant_is_one_of_its_own_only_if_something_else_reads_it(x):
    def forward(self, x, read):
        inner = torch.exp(self.p0)
        y = x * torch.sin(inner)
        return y + inner if read else y

    for read, count in ((False, 1), (True, 2)):
        graph = capture(Module(parameter(4), forward=lambda s, x, read=read: forward(s, x, read)), x)
        assert graph.apply(fold_constants) == count


def test_parts_of_a_split_parameter_are_constants_each(x):
    def forward(self, x):
        first, second = self.p0.split(4)
        return x * first, x * second

    graph = capture(Module(parameter(8), forward=forward), x)
    assert graph.apply(fold_constants) == 2
    assert graph.targets() == [aten.mul.Tensor, aten.mul.Tensor]


def test_a_constant_that_is_returned_is_folded(x):
    graph = capture(Module(parameter(4), forward=lambda s, x: (x + 1, torch.exp(s.p0))), x)
    assert graph.apply(fold_constants) == 1
    assert graph.graph.output_node().args[0][1] in constants(graph)


@pytest.mark.parametrize(
    "draw", [lambda w: torch.rand_like(w), lambda w: w * torch.rand(4), lambda w: nn.functional.dropout(w, 0.5)]
)
def test_random_numbers_are_drawn_at_every_call(draw, x):
    graph = capture(Module(parameter(4), forward=lambda s, x: x * draw(s.p0)), x)
    drawing = [node for node in graph.graph.nodes if is_random(node)]
    assert drawing
    graph.apply(fold_constants)
    assert [node for node in graph.graph.nodes if is_random(node)] == drawing


def test_a_constant_that_random_numbers_read_is_folded_and_they_are_not(x):
    graph = capture(Module(parameter(4), forward=lambda s, x: x * (torch.exp(s.p0) * torch.rand(4))), x)
    assert graph.apply(fold_constants) == 1
    assert graph.calls(aten.rand.default) and not graph.calls(aten.exp.default)


def test_a_write_into_a_parameter_is_not_folded():
    graph, mode = Graph(), FakeTensorMode()
    weight = graph.placeholder("weight")
    weight.meta.update({"val": mode.from_tensor(random(4)), "parameter": True})
    written = graph.call_function(aten.add_.Tensor, (weight, 1))
    written.meta["val"] = weight.meta["val"]
    doubled = graph.call_function(aten.mul.Tensor, (written, 2))
    doubled.meta["val"] = weight.meta["val"]
    graph.output((doubled,))
    captured = Captured(GraphModule(nn.Module(), graph), [random(4)])
    assert captured.apply(fold_constants) == 0


def test_an_input_is_no_constant(x):
    graph = capture(lambda x, y: x * torch.exp(y), x, random(4))
    assert graph.apply(fold_constants) == 0


def test_a_constant_is_named_by_what_its_parameters_names_share(x):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return x @ torch.cat((self.query.weight, self.key.weight)).t()

    graph = capture(Attention(), x)
    graph.apply(canonicalize, fold_constants)
    (constant,) = constants(graph)
    assert constant.meta["name"] == "weight"


def test_a_transposed_weight_keeps_its_name(x):
    graph = capture(nn.Linear(4, 2), x)
    graph.apply(canonicalize, fold_constants)
    (constant,) = constants(graph)
    assert constant.meta["name"] == "weight"
