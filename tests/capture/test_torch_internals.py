"""What we use of torch that torch promises nobody, piece by piece: what fails here after an upgrade says what broke."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx import traceback as fx_traceback

from tt_dynamo.capture.inputs import parameter_name, source_of
from tt_dynamo.ir import torch_internals
from tt_dynamo.runtime import caches
from tt_dynamo.runtime.caches import DeviceTensor

pytestmark = pytest.mark.usefixtures("clean_dynamo")


class Captured:
    """A backend of torch.compile that keeps the placeholders of the graph of Dynamo and of that of AOTAutograd."""

    def __init__(self) -> None:
        self.dynamo: list[Node] = []
        self.aten: list[Node] = []
        self.modes: list[Any] = []

    def __call__(self, module: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        self.dynamo = module.graph.find_nodes(op="placeholder")
        self.modes = [torch_internals.tracing_mode() for _ in range(2)]

        def forward(graph: GraphModule, _: Any) -> Callable[..., Any]:
            self.aten = graph.graph.find_nodes(op="placeholder")
            return graph.forward

        return torch_internals.aot_autograd(fw_compiler=forward)(module, inputs)  # type: ignore[no-any-return]


@pytest.fixture
def captured() -> Captured:
    return Captured()


# --- Dynamo's inputs and AOTAutograd's ------------------------------------------------------------------------------


def test_dynamo_marks_parameters_and_says_where_they_come_from(captured: Captured) -> None:
    with torch.no_grad():
        torch.compile(nn.Sequential(nn.Linear(3, 3)), backend=captured)(torch.ones(2, 3))
    marked = [node for node in captured.dynamo if torch_internals.is_static_input(node)]
    names = {parameter_name(node._dynamo_source.name) for node in marked}  # type: ignore[attr-defined]
    assert len(captured.dynamo) == 3
    assert names == {"0.weight", "0.bias"}


def test_dynamo_marks_what_is_marked_static(captured: Captured) -> None:
    x, y = torch.ones(3), torch.ones(3)
    torch._dynamo.mark_static_address(x)
    torch.compile(torch.add, backend=captured)(x, y)
    assert [torch_internals.is_static_input(node) for node in captured.dynamo] == [True, False]


def test_aotautograd_says_which_input_each_of_its_own_is(captured: Captured) -> None:
    torch.compile(lambda x, y: x + y, backend=captured)(torch.ones(3), DeviceTensor(torch.ones(3)))
    assert [source_of(node) for node in captured.aten] == [(0, []), (1, ["host"])]


# --- tensor subclasses ----------------------------------------------------------------------------------------------


def test_programs_are_given_the_contents_of_a_subclass_and_guards_are_not(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, cache, fetched = torch.compile(lambda x: x + 1, backend=captured), DeviceTensor(torch.ones(3)), []
    compiled(cache)
    monkeypatch.setattr(caches, "fetch", fetched.append)
    assert compiled(cache).tolist() == [2.0, 2.0, 2.0]
    assert len(fetched) == 1


def test_a_subclass_has_the_shape_strides_and_dtype_of_what_it_wraps() -> None:
    inner = torch.arange(12).reshape(3, 4).t()[1:]
    made = torch_internals.wrapper_like(DeviceTensor, inner)
    assert (made.shape, made.stride(), made.storage_offset()) == (inner.shape, inner.stride(), inner.storage_offset())
    assert (type(made), made.dtype) == (DeviceTensor, inner.dtype)


def test_functions_of_torch_take_a_subclass_as_any_other_tensor() -> None:
    assert type(torch.neg(DeviceTensor(torch.ones(3)))) is Tensor
    assert type(DeviceTensor(torch.ones(3))[1:]) is DeviceTensor


# --- fake tensors, storages, strides --------------------------------------------------------------------------------


def test_a_backend_is_called_while_dynamo_traces(captured: Captured) -> None:
    torch.compile(lambda x: x + 1, backend=captured)(torch.ones(3))
    assert captured.modes[0] is captured.modes[1]
    assert torch_internals.tracing_mode() is not torch_internals.tracing_mode()


def test_values_are_real_inside_a_mode_of_fake_ones() -> None:
    with FakeTensorMode():
        assert torch_internals.is_fake(torch.ones(2))
        with torch_internals.without_modes():
            assert torch.ones(2).tolist() == [1.0, 1.0]
        assert torch_internals.is_fake(torch.ones(2))


def test_tensors_share_a_storage_if_they_share_memory_fake_or_real() -> None:
    mode = FakeTensorMode()
    for x in (torch.ones(4), mode.from_tensor(torch.ones(4), static_shapes=True)):
        assert torch_internals.storage_of(x) == torch_internals.storage_of(x[1:].view(3, 1)) != 0
        assert torch_internals.storage_of(x) != torch_internals.storage_of(x.clone())


def test_dimensions_are_ordered_by_their_strides() -> None:
    image = torch.empty(2, 3, 4, 5)
    assert torch_internals.order_in_memory(image) == [0, 1, 2, 3]
    assert torch_internals.order_in_memory(image.to(memory_format=torch.channels_last)) == [0, 2, 3, 1]


# --- graphs ---------------------------------------------------------------------------------------------------------


def test_nodes_behind_one_are_found_while_a_graph_is_written() -> None:
    graph = Graph()
    first = graph.placeholder("x")
    assert torch_internals.last_node(graph) is first and not list(torch_internals.nodes_after(first))
    second = graph.call_function(torch.neg, (first,))
    third = graph.call_function(torch.neg, (second,))
    assert torch_internals.last_node(graph) is third
    assert list(torch_internals.nodes_after(first)) == [second, third]
    graph.erase_node(third)
    assert torch_internals.last_node(graph) is second


def test_a_run_leaves_torchs_record_of_the_node_that_runs_alone() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(lambda value: (value, dict(fx_traceback.current_meta)), (x,)))
    for node in graph.nodes:
        node.meta["stack_trace"] = "of this node"
    with fx_traceback.preserve_node_meta():
        _, recorded = torch_internals.Run(GraphModule({}, graph)).run(1)
        _, as_torch_does = torch.fx.Interpreter(GraphModule({}, graph)).run(1)
    assert as_torch_does and not recorded


# --- operators ------------------------------------------------------------------------------------------------------


def test_an_operators_schema_says_what_it_writes() -> None:
    arguments = torch.ops.aten.add_.Tensor._schema.arguments
    assert [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write] == ["self"]


def test_operators_are_told_from_higher_order_ones() -> None:
    assert isinstance(torch.ops.aten.add.Tensor, torch._ops.OpOverload)
    assert isinstance(torch.ops.higher_order.cond, torch._ops.HigherOrderOperator)
    assert torch.ops.higher_order.cond.name() == "cond"
