"""Rotary position embedding on the device: one call each."""

import types

import pytest
import torch
from compiled import calls, check, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.lowering import find


def halves(x):
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), dim=-1)


def neighbours(x):
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def turned(rotate, turning):
    def forward(x, cos, sin):
        part, passed = x[..., :turning], x[..., turning:]
        out = part * cos.unsqueeze(1) + rotate(part) * sin.unsqueeze(1)
        return torch.cat((out, passed), dim=-1) if passed.shape[-1] else out

    return forward


def run(rotate, width, turning=None, seq=7, batch=1, tables=1):
    turning = width if turning is None else turning
    arguments = random(batch, 3, seq, width), random(tables, seq, turning), random(tables, seq, turning, mean=1.0)
    return [c for c in calls(check(turned(rotate, turning), *arguments, roundings=3, cancels=True)) if c != "reshape"]


@pytest.mark.parametrize(("width", "seq"), [(32, 32), (64, 7), (128, 33)])
def test_halves_are_one_call(width, seq):
    assert run(halves, width, seq=seq, batch=2) == ["experimental.rotary_embedding_hf"]


@pytest.mark.parametrize("width", [64, 80, 256])
def test_neighbours_are_one_call(width):
    assert run(neighbours, width) == ["experimental.rotary_embedding_llama"]


def test_heads_smaller_than_a_tile_are_one_call():
    assert run(halves, 16) == ["experimental.rotary_embedding_llama"]


def test_halves_that_end_inside_a_tile_are_a_product_with_a_matrix():
    assert run(halves, 96) == ["matmul", "multiply", "multiply", "add"]


def test_first_columns_turn_in_one_call_with_tables_of_whole_heads():
    assert run(halves, 64, turning=16) == ["pad", "pad", "experimental.rotary_embedding_llama"]


def test_positions_of_their_own_for_each_of_a_batch_make_one_long_sequence():
    found = run(halves, 64, batch=2, tables=2)
    assert found == ["permute", "experimental.rotary_embedding_hf", "permute"]


def test_a_head_that_does_not_fill_its_tiles_is_refused_where_ttnn_would_pair_it_wrongly():
    head = types.SimpleNamespace(shape=(1, 3, 7, 16))
    with pytest.raises(Unsupported, match="does not fill its tiles"):
        find(operators.rotary).function(None, head, head, head)
