"""Rotary position embedding in every spelling becomes one operation; what only looks like it stays."""

import pytest
import torch
from captured import Module, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.moves import normalize_moves

BATCH, HEADS, SEQ = 2, 3, 5


def halves(x):
    """Llama, Mistral, Qwen, Gemma, Falcon, GPT-NeoX of transformers."""
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def chunks(x):
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), dim=-1)


def neighbours(x):
    """Cohere, GLM, GPT-J of transformers."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def inputs(width, table=None, batch=1):
    table = width if table is None else table
    cos, sin = random(batch, SEQ, table), random(batch, SEQ, table) + 1
    return random(BATCH, HEADS, SEQ, width), cos, sin


def fused(forward, *arguments):
    graph = capture(Module(forward=forward), *arguments)
    graph.apply(normalize_moves)
    graph.apply(canonicalize)
    return graph, graph.apply(fuse_rotary, exact=False)


def whole(rotate):
    def forward(self, x, cos, sin):
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return x * cos + rotate(x) * sin

    return forward


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("rotate", [halves, chunks])
@pytest.mark.parametrize("width", [32, 64, 192])
def test_halves_of_whole_tiles_are_rotary(rotate, width, batch):
    graph, changed = fused(whole(rotate), *inputs(width, batch=batch))
    assert changed == 1
    assert graph.targets() == [aten.reshape.default, aten.reshape.default, operators.rotary]


def test_factors_and_terms_may_stand_in_any_order():
    def forward(self, x, cos, sin):
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return sin * halves(x) + cos * x

    graph, changed = fused(forward, *inputs(64))
    assert changed == 1
    assert [n.name for n in graph.only(operators.rotary).args[1:]]
    assert graph.targets()[-1] is operators.rotary


@pytest.mark.parametrize(
    ("rotate", "width", "size"),
    [
        (halves, 16, 32),
        (halves, 24, 32),
        (halves, 96, 96),
        (halves, 80, 80),
        (neighbours, 64, 32),
        (neighbours, 80, 32),
    ],
)
def test_other_pairs_turn_by_a_matrix_no_larger_than_needed(rotate, width, size):
    graph, changed = fused(whole(rotate), *inputs(width))
    assert changed == 1
    matrix = graph.only(operators.rotary_by_matrix).args[3]
    assert tuple(matrix.meta["val"].shape) == (1, 1, size, size)
    assert graph.targets()[-1] is operators.rotary_by_matrix


def partial(rotate, turning):
    """GPT-NeoX, Phi: the first columns of each head turn, the others pass."""

    def forward(self, x, cos, sin):
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        turned, passed = x[..., :turning], x[..., turning:]
        return torch.cat((turned * cos + rotate(turned) * sin, passed), dim=-1)

    return forward


@pytest.mark.parametrize(
    ("rotate", "width", "turning", "size"),
    [
        (halves, 64, 16, 32),
        (halves, 80, 32, 32),
        (halves, 96, 24, 32),
        (halves, 128, 96, 128),
        (neighbours, 128, 64, 32),
    ],
)
def test_heads_of_which_the_first_columns_turn_stay_whole(rotate, width, turning, size):
    graph, changed = fused(partial(rotate, turning), *inputs(width, turning))
    assert changed == 1
    turn = graph.only(operators.rotary_by_matrix)
    assert turn.args[0].op == "placeholder"
    assert tuple(turn.args[3].meta["val"].shape) == (1, 1, size, size)
    assert not graph.calls(aten.slice.Tensor, aten.cat.default)


def test_columns_that_turn_may_be_the_last():
    def forward(self, x, cos, sin):
        passed, turned = x[..., :48], x[..., 48:]
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return torch.cat((passed, turned * cos + halves(turned) * sin), dim=-1)

    graph, changed = fused(forward, *inputs(64, 16))
    assert changed == 1
    assert not graph.calls(aten.slice.Tensor, aten.cat.default)


def test_queries_and_keys_of_all_layers_share_the_tables_of_whole_heads():
    def forward(self, x, cos, sin):
        once = partial(halves, 16)
        return once(self, x, cos, sin), once(self, x + 1, cos, sin)

    graph, changed = fused(forward, *inputs(64, 16))
    assert changed == 2
    assert len(graph.calls(aten.constant_pad_nd.default)) == 2


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x, cos, sin: x * cos[:, None] + torch.cat((x[..., 16:], -x[..., :16]), -1)[..., :1] * sin[:, None],
        lambda s, x, cos, sin: x * cos[:, None] + torch.tanh(halves(x)) * sin[:, None],
        lambda s, x, cos, sin: x * cos[:, None] + halves(x + 1) * sin[:, None],
        lambda s, x, cos, sin: x * cos[:, None] - halves(x) * sin[:, None],
        lambda s, x, cos, sin: x * cos[:, None] + halves(x.flip(1)) * sin[:, None],
        lambda s, x, cos, sin: x * cos[:, :1, None] + halves(x) * sin[:, :1, None],
    ],
)
def test_what_only_looks_like_it_stays(forward):
    graph, changed = fused(forward, *inputs(32))
    assert changed == 0
    assert not graph.calls(operators.rotary, operators.rotary_by_matrix)


def test_a_part_that_is_joined_in_another_place_is_turned_alone():
    def forward(self, x, cos, sin):
        turned, passed = x[..., :16], x[..., 16:]
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return torch.cat((passed, turned * cos + halves(turned) * sin), dim=-1)

    graph, changed = fused(forward, *inputs(64, 16))
    assert changed == 1
    assert graph.only(operators.rotary_by_matrix).args[0].target is aten.slice.Tensor
    assert graph.calls(aten.cat.default)
