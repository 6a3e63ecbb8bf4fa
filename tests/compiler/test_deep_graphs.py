"""Compile time is linear in the nodes of a graph, and no graph is too deep.

Dynamo and AOTAutograd take half a minute for 5,000 nodes, so these graphs are written as ATen and given to the compiler
itself.
"""

import cProfile
import operator
import pstats

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule

import tt_dynamo
from tt_dynamo.compiler.compile import Compiler
from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, insert
from tt_dynamo.options import Options
from tt_dynamo.passes import PASSES

X = torch.linspace(-1, 1, 1024).view(32, 32)
IDS = torch.tensor([1, 2])


def written(body, inputs=(X,), parameters=()):
    """The graph of body(emit, *inputs, *parameters)."""
    mode, graph = FakeTensorMode(), Graph()
    for index, tensor in enumerate([*inputs, *parameters]):
        node = graph.placeholder(f"x{index}")
        is_parameter = index >= len(inputs)
        node.meta.update(val=mode.from_tensor(tensor), parameter=is_parameter, pointer=tensor.data_ptr())
    nodes = list(graph.nodes)
    graph.output((body(lambda target, *args: insert(graph, target, args, like=nodes[0]), *nodes),))
    return GraphModule(torch.nn.Module(), graph)


def repeated(step, x, times):
    for _ in range(times):
        x = step(x)
    return x


def floats(count):
    def body(emit, x):
        return repeated(lambda y: emit(aten.mul.Tensor, emit(aten.relu.default, y), 0.5), x, count // 2)

    return written(body)


def integers(count):
    def body(emit, x, ids):
        ids = repeated(lambda i: emit(aten.mul.Tensor, emit(aten.add.Tensor, i, 1), 2), ids, count // 2)
        return emit(aten.index.Tensor, x, [emit(aten.remainder.Scalar, ids, 7)])

    return written(body, (X, IDS))


def integers_by_way_of_floats(count):
    def body(emit, x, ids):
        y = repeated(lambda y: emit(aten.cos.default, y), emit(aten.sin.default, ids), count)
        return emit(aten.index.Tensor, x, [emit(aten.bitwise_or.Tensor, ids, emit(aten.gt.Scalar, y, 0.5))])

    return written(body, (X, IDS))


def diamonds(count):
    """Each level reads the one before twice."""

    def body(emit, x, ids):
        ids = repeated(lambda i: emit(aten.remainder.Scalar, emit(aten.add.Tensor, i, i), 7), ids, count // 2)
        return emit(aten.index.Tensor, x, [ids])

    return written(body, (X, IDS))


def wide(count):
    """Every number is read by a few, and one node reads them all."""

    def body(emit, x, ids):
        first = [emit(aten.add.Tensor, ids, i) for i in range(count // 2)]
        second = [emit(aten.mul.Tensor, a, b) for a, b in zip(first, [*first[1:], first[0]], strict=True)]
        return emit(aten.index.Tensor, x, [emit(aten.remainder.Scalar, emit(aten.cat.default, second), 7)])

    return written(body, (X, IDS))


def moves(count):
    def body(emit, x):
        def step(y):
            turned = emit(aten.permute.default, emit(aten.reshape.default, y, [16, 64]), [1, 0])
            return emit(aten.reshape.default, turned, [32, 32])

        return emit(aten.relu.default, repeated(step, emit(aten.relu.default, x), count // 3))

    return written(body)


def rows_of_a_linear(count):
    def body(emit, x, weight):
        def step(y):
            return emit(aten.permute.default, emit(aten.reshape.default, y, [2, 16, 8, 4]), [0, 2, 1, 3])

        y = emit(aten.reshape.default, emit(aten.mm.default, x, weight), [2, 8, 16, 4])
        return emit(aten.relu.default, repeated(step, y, count // 2))

    return written(body, (X,), (X.clone(),))


def splits(count):
    def body(emit, x):
        def step(y):
            halves = emit(aten.split.Tensor, y, 16, 1)
            return emit(aten.cat.default, [emit(operator.getitem, halves, 1), emit(operator.getitem, halves, 0)], 1)

        return repeated(step, x, count // 4)

    return written(body)


def linears(count):
    weight = torch.eye(32).roll(1, 0)
    return written(lambda emit, x, w: repeated(lambda y: emit(aten.mm.default, y, w), x, count), (X,), (weight,))


def linears_with_weights_of_their_own(count):
    def body(emit, x, *weights):
        for weight in weights:
            x = emit(operators.linear, x, emit(aten.permute.default, weight, [1, 0]))
        return x

    return written(body, (X,), [torch.eye(32) for _ in range(count // 2)])


def convolutions(count):
    window = [None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1]

    def body(emit, x, weight):
        return repeated(lambda y: emit(aten.convolution.default, y, weight, *window), x, count)

    return written(body, (X.view(1, 16, 8, 8),), (torch.eye(16).view(16, 16, 1, 1),))


def constants(count):
    def body(emit, x, weight):
        weight = repeated(lambda w: emit(aten.mul.Tensor, emit(aten.relu.default, w), 0.5), weight, count // 2)
        return emit(aten.mul.Tensor, x, weight)

    return written(body, (X,), (X.clone(),))


def literals(count):
    """Whose values are asked for at every step."""

    def body(emit, x):
        ones = emit(aten.full.default, [32, 32], True)
        mask = repeated(lambda y: emit(aten.bitwise_and.Tensor, emit(aten.logical_not.default, y), y), ones, count // 2)
        return emit(aten.where.self, mask, x, emit(aten.mul.Tensor, x, 2.0))

    return written(body)


def masks(count):
    """Attention that reads a mask of many comparisons, and scores that many operations make."""

    def body(emit, x, ids):
        start = emit(aten.slice.Tensor, ids, 0, 0, 1)
        position = repeated(lambda p: emit(aten.add.Tensor, p, p), start, count // 4)
        keys = emit(aten.arange.default, 32)
        mask = emit(aten.le.Tensor, keys, position)
        mask = repeated(lambda m: emit(aten.logical_and.default, m, m), mask, count // 4)
        mask = emit(aten.where.self, mask, emit(aten.full.default, [], 0.0), emit(aten.full.default, [], -float("inf")))
        scores = emit(aten.add.Tensor, emit(aten.matmul.default, x, emit(aten.permute.default, x, [1, 0])), mask)
        scores = repeated(lambda s: emit(aten.mul.Tensor, s, 0.999), scores, count // 2)
        return emit(aten.matmul.default, emit(aten.softmax.int, scores, 1), x)

    return written(body, (X, IDS))


def rolls(count):
    def body(emit, x):
        return repeated(lambda y: emit(aten.roll.default, y, [1], [0]), x, count)

    return written(body)


ALL = (floats, integers, integers_by_way_of_floats, diamonds, wide, moves, rows_of_a_linear, splits, linears,
       linears_with_weights_of_their_own, convolutions, constants, literals, masks, rolls)  # fmt: skip
# What takes TTNN itself longer than a moment, thousands of times.
COSTLY = {linears, rows_of_a_linear, linears_with_weights_of_their_own, convolutions, masks, rolls, wide}
# Past Python's stack of 1,000 calls by default.
DEPTHS = [pytest.param(graph, 1200, id=graph.__name__) for graph in ALL]
DEPTHS += [
    pytest.param(graph, 5000, id=f"{graph.__name__}-5000", marks=pytest.mark.slow)
    for graph in ALL
    if graph not in COSTLY
]


@pytest.mark.parametrize(("written_graph", "nodes"), DEPTHS)
def test_a_deep_graph_compiles_and_runs(written_graph, nodes, board_device):
    module = written_graph(nodes)
    arguments = [_example(node.meta["val"]) for node in module.graph.find_nodes(op="placeholder")]
    with torch.no_grad(), tt_dynamo.record() as reports:
        expected = module(*arguments)
        outputs = Compiler(module, board_device, Options(), "deep").compile()(list(arguments))
    assert not reports[0].fallbacks and not reports[0].notes
    torch.testing.assert_close(outputs[0], expected[0], rtol=0.02, atol=0.02)


def _example(value):
    if value.dtype == torch.int64:
        return IDS
    size = value.shape[0]
    return torch.eye(size).view(value.shape) if value.numel() == size * size else X.view(value.shape)


def _calls(run):
    """How many functions were called, of Python or of C."""
    profile = cProfile.Profile()
    profile.runcall(run)
    return pstats.Stats(profile).total_calls


@pytest.mark.parametrize("written_graph", ALL, ids=lambda function: function.__name__)
def test_passes_take_time_linear_in_the_nodes(written_graph):
    def calls(count):
        graph = written_graph(count).graph
        return _calls(lambda: [transform(graph, Context()) for transform in PASSES])

    assert calls(1200) < 5.5 * calls(300)


@pytest.mark.parametrize("written_graph", [integers, diamonds, wide], ids=lambda function: function.__name__)
def test_integer_arithmetic_takes_time_linear_in_its_depth_and_width(written_graph, board_device):
    def calls(count):
        module = written_graph(count)
        with torch.no_grad():
            return _calls(Compiler(module, board_device, Options(), "integers").compile)

    assert calls(800) < 5.5 * calls(200)
