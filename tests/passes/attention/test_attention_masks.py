"""Masks of attention are understood by which keys they let each position read, and everything else is not."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, is_call
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.masks import Masks, seen_positions
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default
LENGTH, HEADS, DIM = 16, 2, 8


def masked(mask, queries=1, position=5, batch=1, fuse=True, **inputs):
    """The captured graph of an attention over a cache whose mask is mask(position, **inputs), and its mask node."""

    def model(q, k, v, position, *rest):
        cached = k.index_copy(2, torch.arange(queries) + position, q)
        return F.scaled_dot_product_attention(q, cached, v, mask(position, *rest))

    q, k = random(batch, HEADS, queries, DIM), random(batch, HEADS, LENGTH, DIM)
    graph = capture(model, q, k, k + 1, torch.tensor(position), *inputs.values())
    graph.apply(canonicalize)
    if fuse:
        graph.apply(fuse_attention, exact=False)
    return graph, graph.only(sdpa).args[3]


def evaluated(graph, node):
    """The value of a node, which is made an output for it."""
    graph.graph.output_node().args = ((*graph.graph.output_node().args[0], node),)
    return graph.run()[-1 - len(graph.arguments)]


def seen(mask):
    return seen_positions(Masks(mask.graph), mask, LENGTH)


def keys():
    return torch.arange(LENGTH)


def transformers_mask(position, queries):
    at = torch.arange(queries) + position
    return (keys() + 0)[None, None, None, :] <= at[None, None, :, None]


CAUSAL = {
    "transformers": lambda p, n: transformers_mask(p, n).expand(1, -1, n, LENGTH),
    "transformers, additive": lambda p, n: torch.where(transformers_mask(p, n), 0.0, torch.finfo(torch.float32).min),
    "masked fill": lambda p, n: torch.zeros(n, LENGTH).masked_fill(keys() > (p + torch.arange(n))[:, None], -torch.inf),
    "not later": lambda p, n: ~(keys() > (p + torch.arange(n))[:, None])[None, None],
    "ones and": lambda p, n: torch.ones(LENGTH, dtype=torch.bool) & transformers_mask(p, n),
    "the other way around": lambda p, n: ((torch.arange(n) + p)[:, None] >= keys())[None, None],
    "less than the next": lambda p, n: (keys() < p + 1 + torch.arange(n)[:, None])[None, None],
    "next greater": lambda p, n: (torch.arange(1, n + 1)[:, None] + p > keys())[None, None],
    "difference": lambda p, n: (keys() - torch.arange(n)[:, None] <= p)[None, None],
    "difference to zero": lambda p, n: (keys() - (torch.arange(n)[:, None] + p) <= 0)[None, None],
}


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_mask_of_keys_up_to_a_position_gives_the_positions(name, queries, fuse):
    graph, mask = masked(lambda p: CAUSAL[name](p, queries), queries, fuse=fuse)
    positions, window = seen(mask)
    assert window is None
    assert positions.meta["val"].shape == (queries,)
    assert evaluated(graph, positions).tolist() == list(range(5, 5 + queries))


def test_positions_are_those_at_which_the_cache_is_written():
    graph, mask = masked(lambda p: transformers_mask(p, 1))
    assert seen(mask) == (graph.only(aten.index_copy.default).args[2], None)


def test_positions_from_an_input_are_that_input():
    graph, mask = masked(lambda _, at: keys() <= at[:, None], queries=3, at=torch.tensor([4, 5, 9]))
    positions, window = seen(mask)
    assert positions.op == "placeholder" and window is None
    assert evaluated(graph, positions).tolist() == [4, 5, 9]


def test_a_mask_that_attention_reads_says_the_same():
    _, mask = masked(lambda p: transformers_mask(p, 1))
    assert is_call(mask, operators.attention_mask)
    assert seen(mask)[0] is not None


@pytest.mark.parametrize("step", [0, 2])
def test_positions_need_not_follow_each_other(step):
    graph, mask = masked(lambda p: (keys() <= p + step * torch.arange(4)[:, None])[None, None], queries=4)
    positions, window = seen(mask)
    assert window is None
    assert evaluated(graph, positions).tolist() == [5 + step * query for query in range(4)]


WINDOWS = {
    "transformers": lambda at, window: (keys() > at - window) & (keys() <= at),
    "last first": lambda at, window: (keys() <= at) & (at - keys() < window),
    "neither": lambda at, window: ~((keys() > at) | (keys() <= at - window)),
    "difference": lambda at, window: (at - keys() >= 0) & (at - keys() <= window - 1),
}


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_gives_its_length_which_counts_the_position_itself(name, queries):
    graph, mask = masked(lambda p: WINDOWS[name]((torch.arange(queries) + p)[:, None], 3)[None, None], queries)
    positions, window = seen(mask)
    assert window == 3
    assert evaluated(graph, positions).tolist() == list(range(5, 5 + queries))


OTHER = {
    "strided keys": lambda p: 2 * keys() <= p,
    "keys from the end": lambda p: LENGTH - 1 - keys() <= p,
    "keys from a position on": lambda p: keys() >= p,
    "twice the position": lambda p: keys() <= p + p,
    "some keys": lambda p: (keys() <= p) & (keys() != 3),
    "either": lambda p: (keys() <= p) | (keys() > 12),
    "not both": lambda p: ~((keys() > p) & (keys() > 3)),
    "later": lambda p: ~(keys() <= p),
    "a bias": lambda p: torch.where(keys() <= p, 1.0, -torch.inf),
    "allowed a little": lambda p: torch.where(keys() <= p, 0.0, -5.0),
    "forbids the first": lambda p: torch.where(keys() <= p, -torch.inf, 0.0),
    "one number for all keys": lambda p: torch.zeros(1, dtype=torch.int64) <= p,
    "rounded keys": lambda p: keys().to(torch.int8) <= p,
}


@pytest.mark.parametrize("name", OTHER)
def test_any_other_mask_gives_none(name):
    _, mask = masked(lambda p: OTHER[name](p)[None, None, None, :])
    assert seen(mask) == (None, None)


def test_a_position_for_each_sequence_gives_none():
    _, mask = masked(lambda _, at: keys() <= at[:, None, None, None], batch=2, at=torch.tensor([3, 7]))
    assert seen(mask) == (None, None)


def test_padding_beside_positions_gives_none():
    padding = torch.ones(2, LENGTH, dtype=torch.bool)
    padding[0, 0] = False
    _, mask = masked(lambda p, kept: transformers_mask(p, 1) & kept[:, None, None, :], batch=2, kept=padding)
    assert seen(mask) == (None, None)


def test_a_query_for_each_key_is_no_position_for_each_query():
    _, mask = masked(lambda _, at: (keys() <= at)[None], queries=LENGTH, position=0, at=torch.arange(LENGTH))
    assert seen(mask) == (None, None)


def test_a_window_that_differs_between_queries_gives_none():
    def mask(p):
        at = (torch.arange(4) + p)[:, None]
        return (keys() <= at) & (keys() >= p)

    _, node = masked(mask, queries=4)
    assert seen(node) == (None, None)


ALL = {
    "counted from the same number": lambda p: (keys() + (p - LENGTH + 1) <= p)[None, None, None],
    "a full window": lambda p: ((keys() + p - LENGTH + 1 > p - LENGTH) & (keys() + p - LENGTH + 1 <= p))[None],
    "no later one": lambda p: ~(keys() + p > p + LENGTH)[None],
}
NOT_ALL = {
    "one too many": lambda p: (keys() + (p - LENGTH + 2) <= p)[None, None, None],
    "of another number": lambda p: (keys() - LENGTH <= p)[None, None, None],
}


@pytest.mark.parametrize("name", ALL)
def test_a_mask_that_allows_every_key_whatever_the_position_goes(name):
    graph, mask = masked(lambda p: ALL[name](p), fuse=False)
    assert bool(condition(graph, mask).all())
    graph.apply(fuse_attention, exact=False)
    assert graph.only(sdpa).args[3] is None


@pytest.mark.parametrize("name", NOT_ALL)
def test_a_mask_that_may_forbid_a_key_stays(name):
    graph, _ = masked(lambda p: NOT_ALL[name](p), fuse=False)
    graph.apply(fuse_attention, exact=False)
    assert graph.only(sdpa).args[3] is not None


def condition(graph, mask):
    value = evaluated(graph, mask)
    return value if value.dtype == torch.bool else value == 0
