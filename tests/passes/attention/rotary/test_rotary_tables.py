"""Cosines and sines of positions that are values come from tables; what no table says exactly stays."""

import pytest
import torch
from captured import Module, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.attention.rotary_tables import MORE, ROWS, rotary_tables
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants
from tt_dynamo.passes.normalize.lookups import index_to_embedding
from tt_dynamo.passes.normalize.moves import normalize_moves

HALF = 16


def frequencies():
    return torch.nn.Parameter(1.0 / 10000 ** (torch.arange(HALF) / HALF))


def cosines(self, positions, join=lambda angles: torch.cat((angles, angles), -1), dtype=torch.float32):
    """How transformers' models compute them, in float32."""
    angles = join(positions[..., None].float() * self.p0)
    return (angles.cos() * 0.5).to(dtype), (angles.sin() * 0.5).to(dtype)


def looked_up(forward, *inputs):
    graph = capture(Module(frequencies(), forward=forward), *inputs)
    for transform in (normalize_moves, canonicalize, fuse_rotary):
        graph.apply(transform, exact=False)
    return graph, graph.apply(rotary_tables)


def rows_of(graph):
    return {tuple(n.args[0].meta["val"].shape) for n in graph.calls(aten.embedding.default)}


def positions(*shape):
    return torch.arange(torch.Size(shape).numel()).view(shape) + 1001


@pytest.mark.parametrize("shape", [(1, 5), (1, 1), (3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cosines_and_sines_of_positions_are_one_lookup_each(shape, dtype):
    graph, changed = looked_up(lambda s, p: cosines(s, p, dtype=dtype), positions(*shape))
    assert changed == 2
    assert rows_of(graph) == {(ROWS, 2 * HALF)}
    graph.apply(fold_constants)
    assert not graph.calls(aten.cos.default, aten.sin.default, aten.mul.Tensor)


def test_tables_are_made_of_the_parameter_in_float32():
    graph, _ = looked_up(lambda s, p: cosines(s, p), positions(1, 5))
    graph.apply(fold_constants)
    parameter = frequencies()
    table = graph.calls(aten.embedding.default)[0].args[0]
    value = graph.module.get_submodule(table.target)(parameter)
    assert value.dtype == torch.float32
    expected = (torch.arange(ROWS)[:, None].float() * torch.cat((parameter, parameter))).cos() * 0.5
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_each_frequency_may_stand_twice_in_a_row():
    def forward(self, p):
        return cosines(self, p, join=lambda angles: angles.repeat_interleave(2, dim=-1))

    graph, changed = looked_up(forward, positions(1, 5))
    assert changed == 2
    assert rows_of(graph) == {(ROWS, 2 * HALF)}


def test_a_token_counted_from_the_length_of_a_cache_is_looked_up():
    def forward(self, length):
        return cosines(self, (torch.arange(1) + length).unsqueeze(0))

    _, changed = looked_up(forward, torch.tensor(1001))
    assert changed == 2


def test_a_table_has_more_rows_than_the_cache_that_the_graph_writes():
    def forward(self, p, x, cache):
        cos, sin = cosines(self, p)
        cache = cache.index_copy(2, p[0], x * cos.unsqueeze(1) + sin.unsqueeze(1))
        return cache

    x, cache = random(1, 2, 3, 2 * HALF), torch.zeros(1, 2, 24, 2 * HALF)
    graph, changed = looked_up(forward, torch.tensor([[4, 5, 6]]), x, cache)
    assert changed == 2
    assert rows_of(graph) == {(24 + MORE, 2 * HALF)}


def test_tables_of_heads_that_turn_in_part_are_whole_heads_wide():
    def forward(self, p, x):
        cos, sin = (t.unsqueeze(1) for t in cosines(self, p))
        turned, passed = x[..., : 2 * HALF], x[..., 2 * HALF :]
        first, second = turned.chunk(2, -1)
        return torch.cat((turned * cos + torch.cat((-second, first), -1) * sin, passed), -1)

    graph, changed = looked_up(forward, positions(1, 5), random(1, 2, 5, 64))
    assert changed == 2
    assert rows_of(graph) == {(ROWS, 64)}
    graph.apply(fold_constants)
    assert not graph.calls(aten.constant_pad_nd.default)


def test_pairs_that_are_read_apart_and_as_rows_are_made_of_what_was_looked_up():
    def forward(self, p):
        pairs = torch.stack(cosines(self, p, join=lambda angles: angles), -1)
        return pairs, pairs.flatten(-2)

    graph, changed = looked_up(forward, positions(1, 5))
    assert changed == 3
    assert rows_of(graph) == {(ROWS, HALF), (ROWS, 2 * HALF)}


def test_positions_that_are_literals_are_constants_without_a_table():
    graph, changed = looked_up(lambda s, x: x * cosines(s, torch.arange(5)[None])[0], random(1, 5, 2 * HALF))
    assert changed == 0


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, p: (p[..., None].float() * s.p0,),  # nothing but the angles
        lambda s, p: (*cosines(s, p), p[..., None].float() * s.p0),  # the angles as well
        lambda s, p: cosines(s, p + 0.5),  # no integers
        lambda s, p: cosines(s, p.bfloat16()),  # rounded before
        lambda s, p: ((p[..., None].float() * s.p0).cumsum(0).cos(),),  # rows of each other
    ],
)
def test_what_no_table_says_exactly_stays(forward):
    graph, changed = looked_up(forward, positions(2, 5))
    assert changed == 0
    assert not graph.calls(aten.embedding.default, operators.look_up)


@pytest.mark.parametrize("places", [[41], [41, 3, 0]], ids=["a token", "a prompt"])
def test_what_rotary_reads_of_rows_of_sines_are_rows_of_tables(places):
    """GPT-J: a gather of sines and cosines, which are cut, repeated and padded for each token."""

    def forward(self, x, places):
        rows = torch.gather(self.p0[None], 1, places[..., None].repeat(1, 1, 2 * HALF))
        sin, cos = (half[:, :, None].repeat_interleave(2, 3) for half in rows.chunk(2, -1))
        turned, passed = x[..., : 2 * HALF], x[..., 2 * HALF :]
        pairs = torch.stack((-turned[..., 1::2], turned[..., ::2]), dim=-1).flatten(-2)
        return torch.cat((turned * cos + pairs * sin, passed), -1).transpose(1, 2)

    table = torch.nn.Parameter(random(48, 2 * HALF))
    graph = capture(Module(table, forward=forward), random(1, len(places), 3, 64), torch.tensor([places]))
    for transform in (normalize_moves, index_to_embedding, canonicalize, fuse_rotary):
        graph.apply(transform, exact=False)
    assert graph.apply(rotary_tables) == 2
    graph.apply(fold_constants)
    assert rows_of(graph) == {(48, 64)}
    assert not graph.calls(aten.gather.default, aten.split.Tensor, aten.expand.default, aten.constant_pad_nd.default)


def test_rows_that_something_else_reads_stay_rows():
    def forward(self, x, places):
        rows = torch.nn.functional.embedding(places, self.p0)
        cos, sin = rows[:, None, :, :32], rows[:, None, :, 32:]
        return x * cos + torch.cat((-x[..., HALF:], x[..., :HALF]), -1) * sin, rows * 2

    table = torch.nn.Parameter(random(48, 64))
    graph = capture(Module(table, forward=forward), random(1, 3, 1, 32), torch.tensor([[41]]))
    for transform in (normalize_moves, canonicalize, fuse_rotary):
        graph.apply(transform, exact=False)
    assert len(graph.calls(operators.rotary)) == 1
    assert graph.apply(rotary_tables) == 0
