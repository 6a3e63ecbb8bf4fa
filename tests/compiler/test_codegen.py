"""A program is text that reads as written by hand and runs as it stands."""

import ast
import math
import operator

import pytest
import torch
from torch.fx import Graph

from tt_dynamo.compiler.codegen import Expression, program_source
from tt_dynamo.ir.graph import aten, target_name
from tt_dynamo.ir.helpers import checked, restrided
from tt_dynamo.runtime.program import load


class Text:
    """A program graph by hand, its text, and what it computes with a stand-in for TTNN."""

    def __init__(self, *placeholders):
        self.graph = Graph()
        self.inputs = [self.graph.placeholder(name) for name in placeholders]

    def call(self, path, *args, name=None, module=None, **kwargs):
        node = self.graph.create_node("call_function", lambda *a, **k: None, args, kwargs, name=name)
        node.meta["path"] = path
        if module is not None:
            node.meta["module"] = module
        return node

    def source(self, *outputs):
        self.graph.output(outputs)
        source = program_source(self.graph)
        ast.parse(source)
        return source

    def body(self, *outputs):
        source = self.source(*outputs)
        return [line.strip() for line in source[source.index("\n):\n") + 4 :].splitlines()]


class Ttnn:
    """Stands for TTNN: tensors of torch, and a log of the calls."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return args[0] if args else None

        return call


def test_a_program_is_one_function_of_the_device_and_its_inputs():
    program = Text("x", "weight")
    y = program.call("ttnn.linear", *program.inputs, name="linear")
    source = program.source(y)
    assert source.startswith("import torch\nimport ttnn\n")
    assert "def forward(\n    device,\n    x,\n    weight,\n):\n    linear = ttnn.linear(x, weight)\n" in source
    assert source.endswith("    return (linear,)\n")


def test_a_program_runs_as_its_text_says():
    program = Text("x")
    y = program.call("ttnn.relu", program.inputs[0], name="relu")
    ttnn = Ttnn()
    assert load(program.source(y, None, 3), ttnn)("device", "value") == ("value", None, 3)
    assert ttnn.calls == [("relu", ("value",), {})]


def test_a_program_without_nodes_returns_what_it_is_given():
    assert load(Text("x").source(), Ttnn())("device", 1) == ()


def test_a_name_is_dropped_at_its_last_use():
    program = Text("x")
    a = program.call("ttnn.a", program.inputs[0], name="a")
    b = program.call("ttnn.b", a, name="b")
    c = program.call("ttnn.c", a, b, name="c")
    assert program.body(c) == ["a = ttnn.a(x)", "b = ttnn.b(a)", "c = ttnn.c(a, b); a = b = None", "return (c,)"]


def test_inputs_and_outputs_are_not_dropped():
    program = Text("x")
    a = program.call("ttnn.a", program.inputs[0], name="a")
    b = program.call("ttnn.b", a, name="b")
    assert not any("None" in line for line in program.body(a, b))


def test_a_result_that_nothing_reads_gets_no_name():
    program = Text("x")
    program.call("ttnn.deallocate", program.inputs[0])
    assert program.body() == ["ttnn.deallocate(x)", "return ()"]


def test_parts_are_picked_by_index():
    program = Text("x")
    split = program.call("ttnn.split", program.inputs[0], name="split")
    part = program.graph.create_node("call_function", operator.getitem, (split, 1), name="part")
    part.meta["path"] = "getitem"
    assert program.body(part)[1] == "part = split[1]; split = None"


def test_a_buffer_is_freed_with_its_name():
    program = Text("x")
    a = program.call("ttnn.a", program.inputs[0], name="a")
    b = program.call("ttnn.b", a, name="b")
    for freed in (a, program.inputs[0]):
        program.graph.create_node("call_method", "deallocate", (freed,))
    assert program.body(b) == ["a = ttnn.a(x)", "b = ttnn.b(a)", "a = None", "x.deallocate()", "return (b,)"]


@pytest.mark.parametrize(
    ("target", "args", "kwargs", "text"),
    [
        (aten.reshape.default, ([1, 2],), {}, "x.reshape([1, 2])"),
        (aten.unsqueeze.default, (1,), {}, "x.unsqueeze(1)"),
        (aten._to_copy.default, (), {"dtype": torch.bool}, "x.to(torch.bool, copy=True)"),
        (
            aten._to_copy.default,
            (),
            {"dtype": torch.bool, "device": torch.device("cpu")},
            "x.to(torch.bool, copy=True)",
        ),
        (aten.where.Scalar, (0.0, -math.inf), {}, 'torch.where(x, 0.0, float("-inf"))'),
        (aten.relu.default, (), {}, "torch.ops.aten.relu.default(x)"),
        (
            aten._to_copy.default,
            (),
            {"dtype": torch.bool, "memory_format": torch.preserve_format},
            "torch.ops.aten._to_copy.default(x, dtype=torch.bool, memory_format=torch.preserve_format)",
        ),
        (aten._to_copy.default, (), {"device": torch.device("cpu")}, None),
        (aten._to_copy.default, (), {"dtype": torch.bool, "device": torch.device("meta")}, None),
    ],
)
def test_calls_of_torch_are_written_as_methods_where_those_do_the_same(target, args, kwargs, text):
    program = Text("x")
    y = program.graph.create_node("call_function", target, (program.inputs[0], *args), kwargs, name="y")
    line = program.body(y)[0]
    assert line == f"y = {text}" if text else line.startswith("y = torch.ops.aten._to_copy.default(x, ")


def test_written_casts_and_choices_give_what_the_operations_do():
    program = Text("x")
    mask = program.graph.call_function(aten._to_copy.default, (program.inputs[0],), {"dtype": torch.bool})
    tall = program.graph.call_function(aten.unsqueeze.default, (mask, 1))
    chosen = program.graph.call_function(aten.where.Scalar, (tall, 0.0, -math.inf))
    x = torch.tensor([0, 1, 2])
    found = load(program.source(mask, chosen), Ttnn())("device", x)
    expected = x.bool(), torch.tensor([[-math.inf], [0.0], [0.0]])
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


def test_a_cast_to_the_same_dtype_is_a_copy_as_the_operation_s_is():
    program = Text("x")
    copied = program.graph.call_function(aten._to_copy.default, (program.inputs[0],), {"dtype": torch.float32})
    x = torch.ones(3)
    (found,) = load(program.source(copied), Ttnn())("device", x)
    assert torch.equal(found, x) and found.data_ptr() != x.data_ptr()


def test_methods_are_called_on_their_tensor():
    program = Text("x")
    y = program.graph.create_node("call_method", "to", (program.inputs[0], torch.bfloat16), {"copy": True}, name="y")
    assert program.body(y)[0] == "y = x.to(torch.bfloat16, copy=True)"


def test_operations_of_the_host_are_written_as_torch_calls_them():
    program = Text("x")
    y = program.graph.create_node("call_function", aten.add.Tensor, (program.inputs[0], 1), {"alpha": 2}, name="add")
    assert target_name(y) == "torch.ops.aten.add.Tensor"
    outputs = load(program.source(y), Ttnn())("device", torch.ones(2))
    assert torch.equal(outputs[0], torch.full((2,), 3.0))


def test_comments_say_which_module_a_call_comes_from_where_it_changes():
    program = Text("x")
    a = program.call("ttnn.a", program.inputs[0], name="a", module="encoder.0")
    b = program.call("ttnn.b", a, name="b", module="encoder.0")
    y = program.call("ttnn.c", b, name="c", module="encoder.1")
    a, b, c = "a = ttnn.a(x)", "b = ttnn.b(a); a = None", "c = ttnn.c(b); b = None"
    assert program.body(y) == ["# encoder.0", a, b, "# encoder.1", c, "return (c,)"]


@pytest.mark.parametrize(
    "value",
    [
        1,
        -2.5,
        True,
        None,
        "text",
        (1, 2),
        (1,),
        (),
        [1, [2, 3]],
        math.inf,
        -math.inf,
        torch.float32,
        torch.device("cpu"),
        slice(1, None, 2),
        torch.contiguous_format,
        torch.strided,
    ],
    ids=str,
)
def test_an_argument_reads_back_as_it_was(value):
    program = Text()
    y = program.call("ttnn.call", value, option=value)
    ttnn = Ttnn()
    load(program.source(y), ttnn)("device")
    assert ttnn.calls == [("call", (value,), {"option": value})]
    assert type(ttnn.calls[0][1][0]) is type(value)


def test_not_a_number_reads_back():
    program = Text()
    y = program.call("ttnn.call", math.nan)
    assert math.isnan(load(program.source(y), Ttnn())("device")[0])


def test_an_expression_is_written_as_its_text():
    program = Text("x")
    y = program.call("ttnn.to_layout", program.inputs[0], Expression("ttnn.TILE_LAYOUT", object()), name="y")
    assert program.body(y)[0] == "y = ttnn.to_layout(x, ttnn.TILE_LAYOUT)"


def test_what_calls_construct_is_made_once_above_the_function():
    program = Text("x")
    config = "ttnn.WormholeComputeKernelConfig(math_approx_mode=False)"
    a = program.call("ttnn.a", program.inputs[0], config=Expression(config, object()), name="a")
    b = program.call("ttnn.b", a, config=Expression(config, object()), name="b")
    source = program.source(b)
    assert source.count(config) == 1
    assert f"\ncompute_kernel_config = {config}\n" in source.partition("def forward")[0]
    assert "a = ttnn.a(x, config=compute_kernel_config)" in source


def test_different_objects_of_a_kind_get_different_names_that_no_value_has():
    program = Text("x", "core_grid")
    y = program.inputs[0]
    for size in (4, 8):
        grid = Expression(f"ttnn.CoreGrid(x={size}, y={size})", object())
        y = program.call("ttnn.a", y, core_grid=grid, name=f"y{size}")
    source = program.source(y)
    assert "core_grid_1 = ttnn.CoreGrid(x=4, y=4)" in source and "core_grid_2 = ttnn.CoreGrid(x=8, y=8)" in source
    assert "core_grid=core_grid_2" in source


def test_expressions_within_lists_are_shared_too():
    program = Text("x")
    y = program.call("ttnn.a", program.inputs[0], [Expression("ttnn.UnaryWithParam(1)", object())], name="y")
    assert "unary_with_param = ttnn.UnaryWithParam(1)" in program.source(y)


# --- helpers --------------------------------------------------------------------------------------------------------


def helper(function, *args):
    """What a program that calls one of the helpers gives for x."""
    program = Text("x")
    y = program.graph.create_node("call_function", function, (program.inputs[0], *args), name="y")
    source = program.source(y)
    assert source.count("def ") == 2, "the helper that it calls, and no other"
    return lambda x: load(source, Ttnn())("device", x)[0]


def test_programs_carry_only_the_helpers_that_they_call():
    program = Text("x")
    assert program.source(program.call("ttnn.a", program.inputs[0])).count("def ") == 1


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_integers_within_bounds_become_int32(dtype):
    x = torch.tensor([0, 1]).to(dtype)
    result = helper(checked, 0, 2)(x)
    assert result.dtype == torch.int32 and result.tolist() == [0, 1]


@pytest.mark.parametrize("values", [[0, 2], [-1, 1], [2**40]])
def test_integers_out_of_bounds_are_an_error(values):
    with pytest.raises(IndexError, match="expected 0 <= i < 2"):
        helper(checked, 0, 2)(torch.tensor(values))


def test_no_integers_are_within_all_bounds():
    assert helper(checked, 0, 2)(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


STRIDES = [((3, 4), (1, 3)), ((3, 4), (8, 1)), ((2, 1, 4), (4, 4, 1)), ((3, 4), (0, 1)), ((3, 4), (0, 0)), ((), ())]


@pytest.mark.parametrize(("shape", "stride"), STRIDES, ids=str)
def test_an_output_gets_eagers_strides_and_memory_of_its_own(shape, stride):
    once = [1 if step == 0 else size for size, step in zip(shape, stride, strict=True)]
    x = torch.randn(once).expand(shape).contiguous()
    result = helper(restrided, shape, stride)(x)
    assert torch.equal(result, x) and result.stride() == stride
    assert result.data_ptr() != x.data_ptr()
