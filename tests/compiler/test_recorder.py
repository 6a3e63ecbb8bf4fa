"""The recorder makes each call for real and writes down what a program needs to make it again."""

import operator
from types import SimpleNamespace

import pytest
import torch
from torch.fx import Graph

from tt_dynamo.compiler.codegen import program_source
from tt_dynamo.compiler.recorder import Recorder
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.spec import Spec, Value
from tt_dynamo.ir.ttnn_internals import ttnn_reason
from tt_dynamo.ir.uses import Settings


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def recorder(ttnn, graph):
    return Recorder(ttnn, graph, Settings(core_grid=None, compute_kernel_config=None, grid_size=(8, 8)))


@pytest.fixture
def operand(ttnn, graph, device):
    def operand(*shape, layout="TILE"):
        layout = getattr(ttnn, f"{layout}_LAYOUT")
        tensor = ttnn.empty(shape, dtype=ttnn.bfloat16, layout=layout, device=device.handle)
        return Value(graph.placeholder("x"), tensor)

    return operand


def last(graph):
    return list(graph.nodes)[-1]


def texts(node):
    return {key: getattr(value, "text", value) for key, value in node.kwargs.items()}


def test_a_call_is_made_and_written_down_with_ttnns_answer(ttnn, recorder, graph, operand):
    x = operand(2, 33)
    y = recorder.relu(x)
    node = last(graph)
    assert y.node is node and node.target is ttnn.relu and node.args == (x.node,)
    assert node.meta["path"] == "ttnn.relu" and node.meta["alias"] is None
    assert node.meta["ttnn"] == Spec((2, 33), "bfloat16", "TILE", "DRAM")
    assert (y.shape, y.dtype, y.layout) == ((2, 33), ttnn.bfloat16, ttnn.TILE_LAYOUT)


def test_a_refused_call_says_ttnns_words_and_is_not_written_down(recorder, graph, operand):
    x = operand(2, 33)
    count = len(graph.nodes)
    with pytest.raises(Refused, match=r"^ttnn\.matmul: .*(width|height|dimension|shape)") as caught:
        recorder.matmul(x, x)
    assert "\n" not in str(caught.value) and "backtrace" not in str(caught.value)
    assert len(graph.nodes) == count


def test_a_lowering_may_try_another_way_after_a_refusal(ttnn, recorder, graph, operand):
    x = operand(2, 33)
    with pytest.raises(Refused):
        recorder.matmul(x, x)
    recorder.add(x, x)
    assert last(graph).target is ttnn.add


def test_a_call_with_arguments_of_the_wrong_kind_is_refused(recorder, operand):
    with pytest.raises(Refused, match=r"^ttnn\.permute: "):
        recorder.permute(operand(2, 33), "wrong")


def test_operations_of_submodules_keep_their_path(recorder, graph, operand):
    recorder.transformer.concatenate_heads(operand(1, 2, 32, 32))
    assert last(graph).meta["path"] == "ttnn.transformer.concatenate_heads"


def test_each_of_several_results_is_a_value(recorder, graph, operand):
    parts = recorder.transformer.split_query_key_value_and_split_heads(
        operand(1, 32, 3 * 64), num_heads=2, num_kv_heads=2, transpose_key=False
    )
    assert [part.shape for part in parts] == [(1, 2, 32, 32)] * 3
    assert [(part.node.target, part.node.args[1]) for part in parts] == [(operator.getitem, i) for i in range(3)]
    assert all(part.node.meta["ttnn"].shape == (1, 2, 32, 32) for part in parts)


def test_lists_of_values_are_operands(recorder, graph, operand):
    a, b = operand(32, 32), operand(32, 32)
    assert recorder.concat([a, b], dim=0).shape == (64, 32)
    assert last(graph).args == ([a.node, b.node],)


# --- constants ------------------------------------------------------------------------------------------------------


def test_a_constant_of_ttnn_is_written_as_its_name(ttnn, recorder, graph, operand):
    recorder.to_layout(operand(32, 32), recorder.ROW_MAJOR_LAYOUT)
    text = last(graph).args[1].text
    assert eval(text, {"ttnn": ttnn}) == ttnn.ROW_MAJOR_LAYOUT


def test_a_member_of_an_enumeration_is_written_as_its_name(ttnn, recorder, graph, operand):
    recorder.gelu(operand(32, 32), variant=recorder.GeluVariant.Tanh)
    assert texts(last(graph)) == {"variant": "ttnn.GeluVariant.Tanh"}


def test_a_dtype_that_a_value_reports_is_written_as_its_name(ttnn, recorder, graph, operand):
    x = operand(32, 32)
    recorder.typecast(x, x.dtype)
    assert eval(last(graph).args[1].text, {"ttnn": ttnn}) == ttnn.bfloat16


def test_an_object_is_written_as_the_expression_that_makes_it(ttnn, recorder, graph, operand):
    config = recorder.SDPAProgramConfig(
        compute_with_storage_grid_size=recorder.CoreCoord(8, 7), q_chunk_size=32, k_chunk_size=64, exp_approx_mode=False
    )
    q = operand(1, 1, 32, 32)
    recorder.transformer.scaled_dot_product_attention(q, q, q, is_causal=False, program_config=config)
    text = texts(last(graph))["program_config"]
    made = eval(text, {"ttnn": ttnn})
    assert (made.q_chunk_size, made.k_chunk_size, made.exp_approx_mode) == (32, 64, False)
    assert (made.compute_with_storage_grid_size.x, made.compute_with_storage_grid_size.y) == (8, 7)


def test_an_object_that_the_compiler_made_is_written_as_it_was_noted(ttnn, recorder, graph, operand):
    grid = recorder.note(ttnn.CoreGrid(x=4, y=4), "ttnn.CoreGrid(x=4, y=4)")
    recorder.linear(operand(32, 32), operand(32, 32), core_grid=grid)
    assert texts(last(graph)) == {"core_grid": "ttnn.CoreGrid(x=4, y=4)"}


def test_infinities_are_written_as_python_reads_them(recorder, graph, operand):
    recorder.clamp(operand(32, 32), min=float("-inf"), max=float("inf"))
    graph.output(())
    assert 'min=float("-inf"), max=float("inf")' in program_source(graph)


def test_numbers_and_flags_are_written_as_they_are(recorder, graph, operand):
    recorder.note(1, "one")
    recorder.softmax(operand(32, 32), dim=1, numeric_stable=True)
    assert last(graph).kwargs == {"dim": 1, "numeric_stable": True}


def test_an_object_that_no_program_could_make_is_an_error(ttnn, recorder, graph, operand):
    with pytest.raises(TypeError, match="make it through the ttnn namespace"):
        recorder.linear(operand(32, 32), operand(32, 32), core_grid=ttnn.CoreGrid(x=4, y=4))


# --- aliases --------------------------------------------------------------------------------------------------------


def test_a_view_is_an_alias_of_its_operand(recorder, operand):
    x = operand(1, 64, 32)
    y = recorder.reshape(x, (64, 32))
    assert y.node.meta["alias"] is x.node
    z = recorder.reshape(y, (2, 32, 32))
    assert z.node.meta["alias"] is y.node


def test_a_call_that_does_nothing_gives_an_alias(ttnn, recorder, operand):
    x = operand(64, 32)
    assert recorder.to_layout(x, recorder.TILE_LAYOUT).node.meta["alias"] is x.node


def test_a_copy_is_no_alias(recorder, operand):
    x = operand(1, 33, 32)
    assert recorder.clone(x).node.meta["alias"] is None
    assert recorder.reshape(x, (33, 1, 32)).node.meta["alias"] is None


def test_an_alias_of_a_later_operand_is_found(recorder, graph, operand, monkeypatch):
    a, b = operand(64, 32), operand(1, 64, 32)
    second = SimpleNamespace(second=lambda a, b: b)
    alias = Recorder(second, graph, recorder.settings).second(a, b)
    assert alias.node.meta["alias"] is b.node


def test_what_comes_from_the_host_is_no_alias(ttnn, recorder, graph, device):
    source = Value(graph.placeholder("x"), torch.zeros(32, 32))
    options = {
        "dtype": recorder.bfloat16,
        "layout": recorder.TILE_LAYOUT,
        "device": recorder.note(device.handle, "device"),
    }
    value = recorder.from_torch(source, **options)
    assert value.node.meta["alias"] is None
    assert texts(value.node)["device"] == "device"


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "TT_FATAL @ file.cpp:12: a == b\ninfo:\nwidths differ: 3 and 4\nbacktrace:\n --- one\n",
            "widths differ: 3 and 4",
        ),
        ("plain words\nbacktrace:\n --- one", "plain words"),
        ("first\n  second\nthird\nfourth", "first second third"),
        ("", "RuntimeError"),
    ],
)
def test_words_are_the_sentence_in_which_ttnn_refuses(message, expected):
    assert ttnn_reason(RuntimeError(message)) == expected
