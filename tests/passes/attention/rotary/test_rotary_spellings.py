"""Rotary position embedding: tables of any rank, heads anywhere, tokens that do not turn."""

import pytest
import torch
from captured import Module, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.moves import normalize_moves

BATCH, HEADS, SEQ, WIDTH = 2, 3, 5, 32
ROTARY = (operators.rotary, operators.rotary_by_matrix)


def halves(x):
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), dim=-1)


def neighbours(x):
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def turn(x, cos, sin, rotate=halves):
    return x * cos + rotate(x) * sin


def parts(x, cos, sin):
    """gpt-oss: tables of half a head."""
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def pairs(x, cos, sin):
    """Meta's Llama: elements beside one another, as real and imaginary parts."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)


def fused(forward, *arguments):
    graph = capture(Module(forward=lambda self, *inputs: forward(*inputs)), *arguments)
    graph.apply(normalize_moves)
    graph.apply(canonicalize)
    return graph, graph.apply(fuse_rotary, exact=False)


def tables(*shape):
    return random(*shape), random(*shape) + 1


@pytest.mark.parametrize(
    ("x", "table"),
    [
        ((BATCH, HEADS, SEQ, WIDTH), (SEQ, WIDTH)),
        ((BATCH, HEADS, SEQ, WIDTH), (1, SEQ, WIDTH)),
        ((BATCH, HEADS, SEQ, WIDTH), (BATCH, 1, SEQ, WIDTH)),
        ((BATCH, SEQ, WIDTH), (SEQ, WIDTH)),
        ((BATCH, SEQ, WIDTH), (BATCH, SEQ, WIDTH)),
        ((BATCH, 2, HEADS, SEQ, WIDTH), (1, 1, 1, SEQ, WIDTH)),
        ((BATCH, HEADS, 1, WIDTH), (BATCH, 1, 1, WIDTH)),
        ((1, HEADS, SEQ, WIDTH), (HEADS, SEQ, WIDTH)),
    ],
)
def test_tables_have_any_rank_that_broadcasts(x, table):
    graph, changed = fused(turn, random(*x), *tables(*table))
    assert changed == 1
    assert len(graph.only(operators.rotary).args[1].meta["val"].shape) == 4
    assert set(graph.targets()) <= {operators.rotary, aten.reshape.default}


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("seq", [1, SEQ])
def test_heads_behind_the_sequence_come_before_it(seq, batch):
    def forward(x, cos, sin):
        return turn(x, cos.unsqueeze(2), sin.unsqueeze(2)).transpose(1, 2)

    graph, changed = fused(forward, random(BATCH, seq, HEADS, WIDTH), *tables(batch, seq, WIDTH))
    assert changed == 1
    assert tuple(graph.only(operators.rotary).meta["val"].shape) == (BATCH, HEADS, seq, WIDTH)
    assert len(graph.calls(aten.permute.default)) == (seq > 1)


def test_queries_and_keys_that_are_packed_turn_together():
    def forward(x, cos, sin):
        return turn(x, cos[:, None, None], sin[:, None, None])

    graph, changed = fused(forward, random(BATCH, SEQ, 2, HEADS, WIDTH), *tables(SEQ, WIDTH))
    assert changed == 1
    assert graph.only(operators.rotary).args[0].meta["val"].shape[1] == 2 * HEADS


@pytest.mark.parametrize(("spelled", "target"), [(parts, operators.rotary), (pairs, operators.rotary_by_matrix)])
def test_parts_that_are_joined_are_one_rotation(spelled, target):
    graph, changed = fused(spelled, random(BATCH, HEADS, SEQ, WIDTH), *tables(SEQ, WIDTH // 2))
    assert changed == 1
    assert graph.targets()[-1] is target
    assert not graph.calls(aten.mul.Tensor, aten.slice.Tensor, aten.select.int)


@pytest.mark.parametrize("rotate", [halves, neighbours])
@pytest.mark.parametrize("split", [False, True])
def test_tokens_that_do_not_turn_stay_with_the_others(rotate, split):
    """The class token of EVA-02 and DINOv3."""

    def forward(x, cos, sin):
        token, rest = x.split([1, SEQ - 1], -2) if split else (x[:, :, :1], x[:, :, 1:])
        return torch.cat((token, turn(rest, cos, sin, rotate)), dim=-2)

    graph, changed = fused(forward, random(BATCH, HEADS, SEQ, WIDTH), *tables(SEQ - 1, WIDTH))
    assert changed == 1
    assert len(graph.calls(*ROTARY)) == 1
    assert not graph.calls(aten.cat.default, aten.slice.Tensor)


def test_columns_that_turn_by_the_row_and_by_the_column_of_a_picture_turn_at_once():
    def forward(x, cos, sin, other_cos, other_sin):
        first, second = x.chunk(2, -1)
        return torch.cat((turn(first, cos, sin), turn(second, other_cos, other_sin)), -1)

    arguments = [*tables(SEQ, WIDTH), *(table * 2 for table in tables(SEQ, WIDTH))]
    graph, changed = fused(forward, random(BATCH, HEADS, SEQ, 2 * WIDTH), *arguments)
    assert changed == 1
    assert graph.only(operators.rotary_by_matrix).args[0].op == "placeholder"


@pytest.mark.parametrize(
    "forward",
    [
        # tables of the batch and the columns alone
        lambda x, cos, sin: turn(x, cos[:1], sin[:1]),
        # columns that turn with themselves, and a second half of the first one's columns alone
        lambda x, cos, sin: torch.cat((x[..., :16] * cos[..., :16] - x[..., :16] * sin[..., :16], x[..., 16:]), -1),
        lambda x, cos, sin: torch.cat(
            (
                x[..., :16] * cos[..., :16] - x[..., 16:] * sin[..., :16],
                x[..., :16] * cos[..., :16] + x[..., :16] * sin[..., :16],
            ),
            -1,
        ),
    ],
)
def test_what_only_looks_like_it_stays_as_it_is(forward):
    graph, changed = fused(forward, random(BATCH, HEADS, SEQ, WIDTH), *tables(SEQ, WIDTH))
    assert changed == 0
    assert not graph.calls(*ROTARY)


def test_tokens_that_are_joined_in_another_order_are_turned_alone():
    def forward(x, cos, sin):
        return torch.cat((turn(x[:, :, 1:], cos, sin), x[:, :, :1]), dim=2)

    graph, changed = fused(forward, random(BATCH, HEADS, SEQ, WIDTH), *tables(SEQ - 1, WIDTH))
    assert changed == 1
    assert graph.calls(aten.cat.default)
