"""Moves of data, masks, sums and shared work have one spelling, and what does nothing vanishes."""

import pytest
import torch
from captured import Captured, Module, capture, parameter, random
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.lookups import index_to_embedding


@pytest.fixture
def x():
    return random(2, 5, 8)


# --- moves of data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "move",
    [
        lambda y: y.view(2, 5, 8),
        lambda y: y.permute(0, 1, 2),
        lambda y: y.expand(2, 5, 8),
        lambda y: y[:, 0:5],
        lambda y: y.clone(),
        lambda y: y.transpose(0, 1).transpose(0, 1),
        lambda y: y.unsqueeze(1).squeeze(1),
        lambda y: y.reshape(10, 8).reshape(2, 5, 8),
    ],
)
def test_a_move_that_does_nothing_vanishes(move, x):
    graph = capture(lambda x: torch.relu(move(torch.relu(x))), x)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.relu.default, aten.relu.default]


def test_the_transpose_of_a_vector_vanishes():
    graph = capture(lambda v: torch.relu(torch.relu(v).t()), random(5))
    graph.apply(canonicalize)
    assert graph.targets() == [aten.relu.default, aten.relu.default]


def test_dimensions_are_counted_from_the_front(x):
    graph = capture(lambda x: torch.relu(torch.relu(x).permute(0, -1, 1)), x)
    graph.apply(canonicalize)
    assert graph.only(aten.permute.default).args[1] == [0, 2, 1]


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (lambda y: y.view(10, 8), aten.reshape.default),
        (lambda y: y.unsqueeze(0), aten.reshape.default),
        (lambda y: y.reshape(10, 8).view(80), aten.reshape.default),
        (lambda y: y.transpose(0, 2), aten.permute.default),
        (lambda y: y.transpose(0, 1).transpose(1, 2), aten.permute.default),
        (lambda y: y.unsqueeze(1).transpose(1, 2), aten.reshape.default),
        (lambda y: y.expand(3, 2, 5, 8), aten.expand.default),
        (lambda y: y[:, 1:5], aten.slice.Tensor),
    ],
)
def test_a_run_of_moves_is_one_move_in_one_spelling(move, expected, x):
    graph = capture(lambda x: torch.relu(move(torch.relu(x))), x)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.relu.default, expected, aten.relu.default]


def test_a_cast_to_the_same_dtype_vanishes(x):
    graph = capture(lambda x: torch.relu(aten._to_copy.default(torch.relu(x), dtype=torch.float32)), x)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.relu.default, aten.relu.default]


def test_a_cast_to_another_dtype_stays(x):
    graph = capture(lambda x: x.to(torch.bfloat16).to(torch.float32), x)
    assert graph.apply(canonicalize) == 0
    assert len(graph.calls(aten._to_copy.default)) == 2


@pytest.mark.parametrize("copy", [lambda x: x.clone(), lambda x: aten._to_copy.default(x, dtype=x.dtype)])
def test_a_copy_of_an_input_that_is_returned_stays_a_copy(copy, x):
    graph = capture(copy, x)
    graph.apply(canonicalize)
    (result,) = graph.module(*graph.arguments)
    assert result.data_ptr() != graph.arguments[0].data_ptr()


# --- masks, sums -------------------------------------------------------------------------------------------


def test_and_with_what_is_always_true_is_the_other_operand():
    mask = torch.tensor([[True, False, True]])
    graph = capture(lambda m: (torch.arange(3)[None] >= 0) & m.expand(4, 3), mask)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.expand.default]


def test_and_with_what_is_not_always_true_is_left_alone():
    graph = capture(lambda m: (torch.arange(3) >= 1) & m, torch.tensor([True, False, True]))
    graph.apply(canonicalize)
    assert graph.calls(aten.bitwise_and.Tensor)


def test_and_of_integers_is_left_alone():
    graph = capture(lambda m: m & torch.ones(3, dtype=torch.int64), torch.tensor([2, 3, 4]))
    graph.apply(canonicalize)
    assert graph.calls(aten.bitwise_and.Tensor)


def test_a_choice_between_two_numbers_is_made_before_the_condition_is_broadcast():
    def additive(mask):
        low = torch.tensor(-3.0e38)
        return torch.where(mask[:, None, None, :].expand(2, 1, 4, 3), torch.tensor(0.0), low)

    graph = capture(additive, torch.tensor([[True, False, True], [True, True, True]]))
    graph.apply(canonicalize)
    node = graph.only(aten.where.Scalar)
    assert node.args[1:] == (0.0, pytest.approx(-3.0e38))
    assert node.args[0].meta["val"].shape == (2, 1, 1, 3)


def test_a_choice_between_tensors_is_left_alone(x):
    graph = capture(lambda x: torch.where(x > 0, x, torch.tensor(0.0)), x)
    graph.apply(canonicalize)
    assert graph.calls(aten.where.self) and not graph.calls(aten.where.Scalar)


def test_a_choice_between_numbers_of_another_dtype_is_left_alone(x):
    def model(x):
        one, two = torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
        return torch.where(x > 0, one, two)

    graph = capture(model, x)
    graph.apply(canonicalize)
    assert graph.calls(aten.where.self) and not graph.calls(aten.where.Scalar)


def test_a_choice_between_two_numbers_by_a_computed_condition(x):
    graph = capture(lambda x: torch.where(x > 0, torch.tensor(0.0), torch.tensor(-1.0)), x)
    graph.apply(canonicalize)
    assert graph.only(aten.where.Scalar).args == (graph.only(aten.gt.Scalar), 0.0, -1.0)


def test_a_choice_of_a_row_of_numbers_is_left_alone(x):
    graph = capture(lambda x: torch.where(x > 0, torch.tensor(0.0), torch.arange(8.0)), x)
    graph.apply(canonicalize)
    assert graph.calls(aten.where.self)


def test_adding_zero_vanishes(x):
    graph = capture(lambda x: torch.relu(torch.relu(x) + 0), x)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.relu.default, aten.relu.default]


@pytest.mark.parametrize("number", [1, 0.0, False])
def test_adding_a_number_that_may_change_value_or_dtype_stays(number, x):
    graph = capture(lambda x: torch.relu(x) + number, x)
    graph.apply(canonicalize)
    assert graph.calls(aten.add.Tensor)


@pytest.mark.parametrize(("values", "zero"), [([1, 2], 0.0), ([True, False], 0)])
def test_adding_zero_that_changes_the_dtype_stays(values, zero):
    graph = capture(lambda x: x + zero, torch.tensor(values))
    graph.apply(canonicalize)
    assert graph.calls(aten.add.Tensor)


@pytest.mark.parametrize(
    "forward", [lambda s, x: (x + s.p0) + s.p1, lambda s, x: s.p1 + (x + s.p0), lambda s, x: (s.p0 + x) + s.p1]
)
def test_constants_that_are_added_in_turn_are_added_to_each_other_first(forward, x):
    graph = capture(Module(parameter(8), parameter(5, 8), forward=forward), x)
    graph.apply(canonicalize, exact=False)
    first, second = graph.calls(aten.add.Tensor)
    assert all(operand.meta["parameter"] for operand in first.args)
    assert second.args[1] is first


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: (x + torch.sin(x)) + s.p0,
        lambda s, x: (x + s.p0) + torch.sin(x),
        lambda s, x: torch.add(x, s.p0, alpha=2) + s.p0,
        lambda s, x: torch.add(x + s.p0, s.p0, alpha=2),
        lambda s, x: (y := x + s.p0, y + s.p0),
    ],
)
def test_sums_that_are_not_all_constants_keep_their_order(forward, x):
    graph = capture(Module(parameter(8), forward=forward), x)
    assert graph.apply(canonicalize) == 0


# --- shared work ----------------------------------------------------------------------------------------------------


def test_what_is_computed_twice_is_computed_once(x):
    graph = capture(lambda x: torch.relu(x + 1) * torch.relu(x + 1), x)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.add.Tensor, aten.relu.default, aten.mul.Tensor]


@pytest.mark.parametrize(
    "model", [lambda x: (x + 1) * (x + 2), lambda x: x.sum(0) * x.sum(1), lambda x: (x + 1) * torch.add(x, 1, alpha=2)]
)
def test_what_differs_in_an_argument_is_computed_twice(model, x):
    x = x[:, :2]
    graph = capture(model, x)
    count = len(graph.targets())
    graph.apply(canonicalize)
    assert len(graph.targets()) == count


def test_one_and_one_point_zero_are_not_the_same_argument():
    graph = capture(lambda x: (x + 1, x + 1.0), torch.tensor([1, 2]))
    graph.apply(canonicalize)
    assert len(graph.calls(aten.add.Tensor)) == 2


def test_random_numbers_are_drawn_as_often_as_before(x):
    graph = capture(lambda x: torch.rand_like(x) + torch.rand_like(x), x)
    graph.apply(canonicalize)
    assert len(graph.calls(aten.rand_like.default)) == 2


def test_equal_writes_are_all_made():
    graph, mode = Graph(), FakeTensorMode()
    x = graph.placeholder("x")
    writes = [graph.call_function(aten.add_.Tensor, (x, 1)) for _ in range(2)]
    for node in (x, *writes):
        node.meta["val"] = mode.from_tensor(random(4))
    graph.output((x,))
    captured = Captured(GraphModule(nn.Module(), graph), [random(4)])
    captured.apply(canonicalize)
    assert len(captured.calls(aten.add_.Tensor)) == 2


def test_shared_work_belongs_to_the_modules_that_share_it(x):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = _Sine(), _Sine()

        def forward(self, x):
            return self.one(x) * self.two(x)

    graph = capture(Twice(), x)
    names = [path for path, _ in graph.calls(aten.sin.default)[0].meta["nn_module_stack"].values()]
    graph.apply(canonicalize)
    shared = [path for path, _ in graph.only(aten.sin.default).meta["nn_module_stack"].values()]
    assert shared == names[:-1] and "one" in names[-1]


def test_nothing_to_do_is_said_so(x):
    graph = capture(lambda x: torch.relu(x) * 2, x)
    assert graph.apply(canonicalize) == 0


class _Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


def written(copied):
    """A model that gives what `copied` made of its input, and then writes that."""

    def model(x):
        y = copied(x)
        x.zero_()
        return y

    return model


@pytest.mark.parametrize(
    "copied",
    [
        lambda x: x[1:3].clone(),
        lambda x: x.t().contiguous(),
        lambda x: (x + 0).view(-1),
    ],
)
def test_what_the_graph_writes_later_is_copied_before(copied):
    graph = capture(written(copied), random(4, 4))
    graph.apply(canonicalize, exact=True)
    assert len(graph.calls(aten.clone.default, aten.add.Tensor)) == 1


def test_a_copy_that_is_read_before_the_write_is_dropped():
    def model(x):
        y = torch.relu(x.t().clone())
        x.zero_()
        return y

    graph = capture(model, random(4, 4))
    graph.apply(canonicalize, exact=True)
    assert not graph.calls(aten.clone.default)


# --- parts of concatenations ----------------------------------------------------------------------------------------


def test_literals_of_equal_numbers_are_one(x):
    def shifted_twice(x):
        return torch.relu(x).roll(1, 0) + torch.exp(x).roll(1, 0) + torch.relu(x).roll(1, 0)

    graph = capture(shifted_twice, x)
    graph.apply(index_to_embedding, canonicalize)
    assert len(graph.graph.find_nodes(op="get_attr")) == 1
    assert len(graph.calls(operators.look_up)) == 2


# --- moves of rows and linears ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "stays"), [(2, True), (1, False)], ids=("between tiles", "as a view"))
def test_rows_that_something_else_reads_are_moved_once(heads, stays):
    """Rows of 40 that become two times 20 begin inside a tile."""

    def forward(m, x):
        rows = torch.relu(x).reshape(1, heads, 40 // heads, 8)
        return m.p0(rows), rows.sin()

    graph = capture(Module(nn.Linear(8, 16), forward=forward), random(1, 1, 40, 8) if stays else random(40, 8))
    graph.apply(canonicalize, exact=False)
    assert (graph.only(operators.linear).args[0].target is aten.reshape.default) == stays


def test_rows_that_linears_alone_read_are_moved_behind_them():
    def forward(m, x):
        rows = torch.relu(x).reshape(1, 2, 20, 8)
        return m.p0(rows), m.p1(rows)

    graph = capture(Module(nn.Linear(8, 16), nn.Linear(8, 16), forward=forward), random(1, 1, 40, 8))
    graph.apply(canonicalize, exact=False)
    assert all(x.args[0].target is aten.relu.default for x in graph.calls(operators.linear))
