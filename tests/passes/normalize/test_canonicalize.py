"""ATen idioms become the operation they mean: linear layers, norms, softmax, attention, products."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, parameter, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize

linear = operators.linear


@pytest.fixture
def x():
    return random(2, 5, 8)


# --- linear ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (5,), (2, 5), (2, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_any_rank_is_one_linear_on_its_own_input(leading, bias):
    graph = capture(nn.Linear(8, 4, bias=bias), random(*leading, 8))
    graph.apply(canonicalize, exact=False)
    node = graph.only(linear)
    assert len(node.args) == (3 if bias else 2)
    if len(leading) > 0:
        assert node.args[0].op == "placeholder"
        assert graph.targets() == [aten.permute.default, linear]
    else:
        assert node.args[0].meta["val"].shape == (1, 8), "TTNN multiplies matrices"


def test_a_product_of_two_matrices_is_a_linear_without_bias():
    graph = capture(torch.mm, random(3, 4), random(4, 5))
    graph.apply(canonicalize)
    assert graph.targets() == [linear]


def test_addmm_with_alpha_or_beta_is_left_alone():
    graph = capture(lambda b, x, w: torch.addmm(b, x, w, beta=0.5, alpha=2.0), random(5), random(3, 4), random(4, 5))
    assert graph.apply(canonicalize) == 0
    assert graph.targets() == [aten.addmm.default]


@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (3, 1), (1,)])
def test_addmm_whose_bias_is_no_row_is_left_alone(shape):
    graph = capture(torch.addmm, random(*shape), random(3, 4), random(4, 5))
    assert graph.apply(canonicalize) == 0
    assert graph.targets() == [aten.addmm.default]


def test_addmm_of_integers_is_left_alone():
    whole = torch.ones(4, 4, dtype=torch.int64)
    graph = capture(torch.addmm, whole[0], whole, whole)
    assert graph.apply(canonicalize) == 0


def test_a_bias_added_behind_the_linear_joins_it(x):
    weight, bias = parameter(8, 4), parameter(4)
    model = Module(weight, bias, forward=lambda self, x: x @ self.p0 + self.p1)
    graph = capture(model, x)
    graph.apply(canonicalize, exact=False)
    assert graph.targets() == [linear]
    assert graph.only(linear).args[2].meta["parameter"]


def test_a_bias_that_is_multiplied_does_not_join(x):
    forward = lambda s, x: torch.add(x @ s.p0, s.p1, alpha=2)  # noqa: E731
    graph = capture(Module(parameter(8, 4), parameter(4), forward=forward), x)
    graph.apply(canonicalize, exact=False)
    assert len(graph.only(linear).args) == 2


def test_a_bias_joins_from_either_side(x):
    model = Module(parameter(8, 4), parameter(4), forward=lambda s, x: s.p1 + x @ s.p0)
    graph = capture(model, x)
    graph.apply(canonicalize, exact=False)
    assert graph.targets() == [linear]


def test_a_sum_with_something_computed_does_not_join_a_linear(x):
    model = Module(parameter(8, 4), forward=lambda s, x: x @ s.p0 + x.sum((0, 1))[:4])
    graph = capture(model, x)
    graph.apply(canonicalize, exact=False)
    assert len(graph.only(linear).args) == 2
    assert graph.calls(aten.add.Tensor)


def test_a_bias_of_another_width_does_not_join(x):
    model = Module(parameter(8, 4), parameter(5, 4), forward=lambda s, x: x @ s.p0 + s.p1)
    graph = capture(model, x)
    graph.apply(canonicalize, exact=False)
    assert len(graph.only(linear).args) == 2


def test_a_bias_does_not_join_a_linear_that_is_read_again(x):
    def forward(self, x):
        y = x @ self.p0
        return y + self.p1, y

    graph = capture(Module(parameter(8, 4), parameter(4), forward=forward), x)
    graph.apply(canonicalize, exact=False)
    assert len(graph.only(linear).args) == 2


def test_a_second_bias_does_not_replace_the_first(x):
    model = Module(nn.Linear(8, 4), parameter(4), forward=lambda s, x: s.p0(x) + s.p1)
    graph = capture(model, x)
    graph.apply(canonicalize, exact=False)
    assert graph.only(linear).args[2] is not graph.only(aten.add.Tensor).args[1]


def test_a_linear_does_not_cross_a_move_of_its_columns(x):
    model = Module(nn.Linear(5, 4), forward=lambda s, x: s.p0(x.transpose(1, 2)))
    graph = capture(model, x)
    graph.apply(canonicalize, exact=False)
    (move,) = (node for node in graph.calls(aten.permute.default) if node.args[0].name == graph_input(graph).name)
    assert graph.only(linear).args[0] is move


def test_a_linear_moves_above_a_move_of_its_rows(x):
    model = Module(nn.Linear(8, 4), forward=lambda s, x: s.p0(x.transpose(0, 1)))
    graph = capture(model, x)
    graph.apply(canonicalize, exact=False)
    assert graph.only(linear).args[0].op == "placeholder"
    assert graph.graph.output_node().args[0][0].target is aten.permute.default


# --- norms, softmax, attention --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 5, 8)])
@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_norm_has_one_result(x, shape, affine):
    graph = capture(nn.LayerNorm(shape, elementwise_affine=affine), x)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.layer_norm.default]


def test_a_layer_norm_whose_statistics_are_read_keeps_them(x):
    graph = capture(lambda x: torch.native_layer_norm(x, [8], None, None, 1e-5)[:2], x)
    graph.apply(canonicalize)
    assert graph.calls(aten.native_layer_norm.default) and not graph.calls(aten.layer_norm.default)


def test_the_first_of_other_results_is_left_alone(x):
    graph = capture(lambda x: torch.sort(x)[0], x)
    assert graph.apply(canonicalize) == 0


def test_a_softmax_is_one_operation(x):
    graph = capture(lambda x: torch.softmax(x, 1), x)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.softmax.int]
    assert graph.only(aten.softmax.int).args[1] == 1


def test_a_softmax_that_changes_the_dtype_is_left_alone(x):
    graph = capture(lambda x: aten._softmax.default(x, -1, False), x)
    node = graph.only(aten._softmax.default)
    node.args[0].meta["val"] = node.args[0].meta["val"].to(torch.bfloat16)  # what half_to_float would read
    assert canonicalize(graph.graph, graph.context) == 0


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_is_one_operation_with_its_scale_and_causality(causal, scale):
    q, k, v = (random(2, 3, 5, 4) for _ in range(3))
    graph = capture(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale), q, k, v)
    graph.apply(canonicalize, exact=False)
    node = graph.only(aten.scaled_dot_product_attention.default)
    assert graph.targets() == [node.target]
    assert node.args[3:] == (None, 0.0, causal) and node.kwargs == {"scale": scale}


def test_attention_keeps_its_mask():
    q, mask = random(2, 3, 5, 4), random(2, 1, 5, 5)
    graph = capture(lambda q, mask: F.scaled_dot_product_attention(q, q, q, mask), q, mask)
    graph.apply(canonicalize, exact=False)
    assert graph.only(aten.scaled_dot_product_attention.default).args[3].op == "placeholder"


def test_attention_whose_statistics_are_read_is_left_alone():
    q = random(2, 3, 5, 4)
    graph = capture(lambda q: aten._scaled_dot_product_flash_attention_for_cpu.default(q, q, q), q)
    assert canonicalize(graph.graph, graph.context) == 0


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_is_one_projection_one_attention_and_one_linear(batch_first, x):
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    graph = capture(lambda x: attention(x, x, x, need_weights=False)[0], x)
    graph.apply(canonicalize, exact=False)
    project, out = graph.calls(linear)
    assert all(len(node.args) == 3 for node in (project, out)), "both have their bias"
    assert project.args[0].op == "placeholder", "the projection reads the input as it is given"
    assert graph.graph.output_node().args[0] == (out,), "nothing moves behind the last linear"
    assert len(graph.calls(aten.scaled_dot_product_attention.default)) == 1
    assert not graph.calls(aten.clone.default, aten.add.Tensor, aten.unsqueeze.default, aten.transpose.int)


def test_a_batched_product_that_an_einsum_was_taken_apart_into_is_a_matmul():
    a, b = random(2, 3, 5, 4), random(2, 3, 4, 6)
    graph = capture(lambda a, b: torch.einsum("xyij,xyjk->xyik", a, b), a, b)
    assert graph.calls(aten.bmm.default)
    graph.apply(canonicalize)
    assert graph.targets() == [aten.matmul.default]


def test_a_batched_product_of_one_token_is_a_matmul_though_its_heads_stood_behind():
    def forward(query, key):
        return query.transpose(1, 2) @ key

    graph = capture(forward, random(1, 1, 3, 8), random(1, 3, 8, 5))
    graph.apply(canonicalize)
    assert shape_of(graph.only(aten.matmul.default)) == (1, 3, 1, 5)


def test_a_batched_product_of_three_dimensions_is_left_alone():
    graph = capture(torch.bmm, random(3, 5, 4), random(3, 4, 6))
    assert graph.apply(canonicalize) == 0


def test_a_batched_product_that_broadcasts_a_batch_keeps_its_expansion():
    graph = capture(torch.matmul, random(2, 3, 5, 4), random(1, 3, 4, 6))
    graph.apply(canonicalize)
    assert graph.calls(aten.expand.default)


# --- several results ------------------------------------------------------------------------------------------------


def canonical(model, *inputs):
    """The graph of a model after the pass, and how many places it changed."""
    graph = capture(model, *inputs)
    return graph, graph.apply(canonicalize)


@pytest.mark.parametrize("name", ["max", "min"])
def test_an_extreme_whose_place_nobody_reads_is_one_result(name, x):
    graph, changed = canonical(lambda x: getattr(x, name)(1, True)[0], x)
    assert changed == 1 and len(graph.calls(getattr(aten, f"a{name}").default)) == 1
    graph, changed = canonical(lambda x: getattr(x, name)(-1)[1], x)
    assert changed == 1 and len(graph.calls(getattr(aten, f"arg{name}").default)) == 1


def test_an_extreme_whose_place_is_read_stays_whole(x):
    assert canonical(lambda x: tuple(x.max(1)), x)[1] == 0
    assert canonical(lambda x: x.max(1)[1], x > 0)[1] == 0  # torch has no place of the largest boolean


def graph_input(graph):
    (node,) = (n for n in graph.graph.find_nodes(op="placeholder") if not n.meta["parameter"])
    return node
