"""Chains of moves are understood by where they put each element."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import Context
from tt_dynamo.passes import movement
from tt_dynamo.passes.normalize.canonicalize import canonicalize

BATCH, SEQ, HEADS, DIM = 2, 5, 3, 4
WIDTH = HEADS * DIM


def moved(model, *shape):
    """The node behind a canonical chain of moves that starts and ends in a relu."""
    graph = capture(lambda x: torch.relu(model(torch.relu(x))), random(*shape))
    graph.apply(canonicalize)
    return graph.graph.output_node().args[0][0].args[0]


CHAINS = {
    "view": lambda x: x.view(BATCH * SEQ, WIDTH),
    "permute": lambda x: x.permute(2, 0, 1),
    "select": lambda x: x[:, 2],
    "slice": lambda x: x[:, 1:4:2],
    "split": lambda x: x.split(5, dim=2)[1],
    "split with sizes": lambda x: x.split([3, 4, 5], dim=2)[2],
    "unbind": lambda x: x.unbind(1)[3],
    "clone": lambda x: x.permute(1, 0, 2).contiguous(),
    "cut": lambda x: x[..., -8:].split([4, 4], dim=-1)[1],
    "strided": lambda x: x[..., 4::2],
    "last": lambda x: x[..., -4:].select(-1, 2),
    "heads": lambda x: x.view(BATCH, SEQ, HEADS, DIM).transpose(1, 2)[:, 1:],
    "long": lambda x: x.view(BATCH, SEQ, 3, 4).permute(2, 0, 3, 1).unbind(0)[1].contiguous()[:, 1:],
}

# How many elements stay together; where 1, the last dimension itself moves.
GRAINS = {"view": 12, "select": 12, "slice": 12, "unbind": 12, "clone": 12, "cut": 4, "heads": 4}


@pytest.mark.parametrize("name", CHAINS)
def test_positions_say_where_each_element_came_from(name):
    node = moved(CHAINS[name], BATCH, SEQ, WIDTH)
    x = random(BATCH, SEQ, WIDTH)
    grain, where = movement.positions(node, Context())
    wanted = CHAINS[name](x)
    assert torch.equal(x.reshape(-1, grain)[where.reshape(-1).long()].reshape(wanted.shape), wanted)
    assert grain == GRAINS.get(name, 1)


def test_numbers_of_columns_say_what_a_rotation_turns():
    graph = capture(lambda x: torch.relu(torch.cat((-x[:, 2:], x[:, :2]), -1)), random(3, 4))
    (x,), relu = graph.graph.find_nodes(op="placeholder"), graph.graph.output_node().args[0][0]
    columns = movement.run(relu.args[0], {x: torch.arange(1, 5).expand(3, 4)})
    assert torch.equal(columns, torch.tensor([-3, -4, 1, 2]).expand(3, 4))
    assert torch.equal(movement.run(x, {x: columns}), columns)


def test_the_source_is_the_value_at_the_head_of_the_chain():
    node = moved(CHAINS["long"], BATCH, SEQ, WIDTH)
    assert movement.source_of(node).target is torch.ops.aten.relu.default


def test_a_value_that_nothing_moved_is_its_own_source():
    node = moved(torch.exp, 3)
    assert movement.source_of(node) is node and not movement.is_move(node)


def test_picking_from_what_is_no_split_is_no_move():
    node = moved(lambda x: torch.ops.aten.native_layer_norm(x, [4], None, None, 1e-5)[0], 3, 4)
    assert not movement.is_move(node)


@pytest.mark.parametrize("model", [lambda x: x.expand(3, 4), lambda x: torch.cat([x, x]), lambda x: x + 0.5])
def test_what_repeats_joins_or_computes_is_no_move(model):
    assert not movement.is_move(moved(model, 1, 4))


def test_a_source_too_large_to_number_has_no_positions(monkeypatch):
    node = moved(CHAINS["permute"], BATCH, SEQ, WIDTH)
    monkeypatch.setattr(movement, "LIMIT", BATCH * SEQ * WIDTH - 1)
    assert movement.positions(node, Context()) is None
    assert movement.head_columns(node, Context()) is None
    assert not movement.merges_heads(node, Context())


def test_elements_that_stay_together_count_once(monkeypatch):
    node = moved(HEAD_CHAINS["view, transpose"][0], BATCH, SEQ, WIDTH)
    monkeypatch.setattr(movement, "LIMIT", BATCH * SEQ * HEADS)
    assert torch.equal(movement.head_columns(node, Context()).reshape(-1), torch.arange(WIDTH))


def test_equal_chains_are_run_once():
    context = Context()
    first = movement.positions(moved(CHAINS["permute"], BATCH, SEQ, WIDTH), context)
    assert movement.positions(moved(CHAINS["permute"], BATCH, SEQ, WIDTH), context) is first
    assert movement.positions(moved(CHAINS["permute"], BATCH, SEQ + 1, WIDTH), context) is not first


HEAD_CHAINS = {
    "view, transpose": (lambda x: x.view(BATCH, x.shape[1], HEADS, DIM).transpose(1, 2), torch.arange(WIDTH)),
    "from rows": (lambda x: x.view(10, WIDTH).view(BATCH, SEQ, HEADS, DIM).transpose(1, 2), torch.arange(WIDTH)),
    "one of two": (lambda x: x.view(BATCH, SEQ, 2, HEADS, 2)[:, :, 1].transpose(1, 2), torch.arange(6, 12)),
    "interleaved": (
        lambda x: x.view(BATCH, SEQ, DIM, HEADS).permute(0, 3, 1, 2),
        torch.arange(WIDTH).view(DIM, HEADS).t().reshape(-1),
    ),
}


@pytest.mark.parametrize("name", HEAD_CHAINS)
def test_head_columns_are_those_of_the_source_that_make_up_the_heads(name):
    model, columns = HEAD_CHAINS[name]
    found = movement.head_columns(moved(model, BATCH, SEQ, WIDTH), Context())
    assert torch.equal(found.reshape(-1).long(), columns)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.view(BATCH, HEADS, SEQ, DIM),
        lambda x: x.view(BATCH, SEQ, HEADS, DIM),
        lambda x: x.view(BATCH, SEQ, HEADS, DIM).permute(0, 2, 3, 1),
        lambda x: x.view(SEQ, BATCH, HEADS, DIM).permute(1, 2, 0, 3),
        lambda x: x.view(BATCH, SEQ, HEADS, DIM).transpose(1, 2)[:, :, 1:],
        lambda x: x.view(BATCH * SEQ, HEADS, DIM).transpose(0, 1),
    ],
)
def test_what_are_no_heads_has_no_head_columns(model):
    assert movement.head_columns(moved(model, BATCH, SEQ, WIDTH), Context()) is None


def test_values_without_elements_have_no_head_columns():
    assert movement.head_columns(moved(HEAD_CHAINS["view, transpose"][0], BATCH, 0, WIDTH), Context()) is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda y: y.transpose(1, 2).reshape(BATCH, SEQ, WIDTH), True),
        (lambda y: y.transpose(1, 2).reshape(BATCH * SEQ, WIDTH), True),
        (lambda y: y.reshape(BATCH, SEQ, WIDTH), False),
        (lambda y: y.transpose(1, 2)[:, :2], False),
        (lambda y: y.permute(2, 0, 1, 3).reshape(SEQ, BATCH, WIDTH), False),
    ],
)
def test_merged_heads_are_known_by_the_order_of_their_elements(model, expected):
    assert movement.merges_heads(moved(model, BATCH, HEADS, SEQ, DIM), Context()) is expected
