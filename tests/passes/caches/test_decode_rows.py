"""One token of each user against a cache becomes TTNN's decode calls, users as rows, and gives what it gave before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captured import Captured, Module, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.heads import fuse_grouped_query, fuse_merge_heads
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.caches.decode_rows import USERS, decode_rows
from tt_dynamo.passes.caches.hold import cache_writes_in_place
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.moves import normalize_moves

HEADS, KV_HEADS, DIM, LENGTH = 4, 2, 32, 16
WIDTH = HEADS * DIM
POSITION = 11
BEFORE = (
    cache_writes_in_place, normalize_moves, canonicalize, fuse_rotary, fuse_attention, fuse_grouped_query, fuse_qkv,
    fuse_merge_heads,
)  # fmt: skip


def keys() -> torch.Tensor:
    return torch.arange(LENGTH)


MASKS: dict[str, Any] = {
    "causal": lambda position, given: (keys() <= position)[None, None, None],
    "window": lambda position, given: ((keys() <= position) & (keys() > position - 5))[None, None, None],
    "given": lambda position, given: given,
}


def update(cache: torch.Tensor, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    cache.index_copy_(2, torch.arange(x.shape[2]) + position, x)
    return cache


def slide(cache: torch.Tensor, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    rolled = cache.roll(-1, dims=-2)
    rolled[:, :, torch.tensor([-1])] = x
    cache.copy_(rolled)
    return cache


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def turned_neighbours(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return x * cos + torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2) * sin


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, cap: float | None) -> torch.Tensor:
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
    if cap is None:
        return F.scaled_dot_product_attention(q, k, v, mask)
    scores = torch.tanh(q @ k.mT * DIM**-0.5 / cap) * cap
    scores = scores if mask is None else scores + torch.where(mask, 0.0, -1e30)
    return torch.softmax(scores, -1) @ v


def step(
    batch: int, mask: str | None = "causal", write: Any = update, cap: float | None = None, tokens: int = 1,
    turn: Any = turned, layers: int = 1,
) -> Captured:  # fmt: skip
    """Captured attentions of `tokens` tokens to a cache each, up to where decode_rows runs."""

    def model(self: Any, x, table, *inputs):
        *caches, position, given = inputs
        seen = None if mask is None else MASKS[mask](position, given)
        for layer in range(layers):
            q, k, v, o = (getattr(self, f"p{4 * layer + at}") for at in range(4))
            q, k, v = ((x @ p).view(batch, tokens, -1, DIM).transpose(1, 2) for p in (q, k, v))
            q, k = (turn(heads, table, table + 1) for heads in (q, k))
            k, v = (write(cache, new, position) for cache, new in zip(caches[2 * layer :][:2], (k, v), strict=True))
            x = attended(q, k, v, seen, cap).transpose(1, 2).reshape(batch, tokens, WIDTH) @ o
        return x

    sizes = [(WIDTH, heads * DIM) for heads in (HEADS, KV_HEADS, KV_HEADS)] + [(WIDTH, WIDTH)]
    weights = [torch.nn.Parameter(random(*size) * WIDTH**-0.5) for size in layers * sizes]
    caches = [random(batch, KV_HEADS, LENGTH, DIM) for _ in range(2 * layers)]
    given = (torch.arange(batch * LENGTH) % 3 > 0).view(batch, 1, 1, LENGTH)
    graph = capture(
        Module(*weights, forward=model), random(batch, tokens, WIDTH), random(1, 1, tokens, DIM), *caches,
        torch.tensor(POSITION if tokens == 1 else 0), given,
    )  # fmt: skip
    graph.apply(*BEFORE, exact=False)
    return graph


def caches(graph: Captured) -> list[torch.Tensor]:
    """The caches as a run of the graph leaves them."""
    arguments = [x.clone() if isinstance(x, torch.Tensor) else x for x in graph.arguments]
    with torch.no_grad():
        graph.module(*arguments)
    places = {node: at for at, node in enumerate(graph.graph.find_nodes(op="placeholder"))}
    return [arguments[places[write.args[0]]] for write in graph.calls(aten.copy_.default)]


def rewritten(graph: Captured) -> int:
    graph.module.recompile()
    before = caches(graph)
    changed = graph.apply(decode_rows, exact=False)
    graph.module.recompile()
    torch.testing.assert_close(caches(graph), before)
    return changed


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mask", ["causal", "window", "given"])
def test_users_are_rows_from_the_heads_to_the_output(batch: int, mask: str) -> None:
    graph = step(batch, mask)
    assert rewritten(graph) == 1
    attention = graph.only(operators.attention_decode)
    assert shape_of(attention) == (1, batch, HEADS, DIM)
    assert shape_of(graph.only(operators.split_heads_decode).args[0]) == (1, 1, batch, 2 * WIDTH)
    assert len(graph.calls(operators.rotary_decode)) == 2
    assert len(graph.calls(operators.update_cache_decode)) == 2
    assert not graph.calls(operators.split_heads, operators.rotary, operators.update_cache)
    assert not graph.calls(operators.attention, aten.scaled_dot_product_attention.default)


@pytest.mark.parametrize("batch", [1, 3])
def test_neighbours_turn_by_a_matrix_for_each_user(batch: int) -> None:
    graph = step(batch, turn=turned_neighbours)
    assert rewritten(graph) == 1
    matrices = {turn.args[3] for turn in graph.calls(operators.rotary_by_matrix_decode)}
    assert [shape_of(matrix) for matrix in matrices] == [(1, 1, 32 * batch, 32)]
    assert len(graph.calls(operators.rotary_by_matrix_decode)) == 2
    assert not graph.calls(operators.rotary_by_matrix, aten.permute.default)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_mask_up_to_a_position_becomes_that_position(batch: int) -> None:
    graph = step(batch)
    rewritten(graph)
    positions, mask, _, window = graph.only(operators.attention_decode).args[3:]
    assert shape_of(positions) == (batch,)
    assert mask is None and window is None
    assert {positions} == {update.args[2] for update in graph.calls(operators.update_cache_decode)}


@pytest.mark.parametrize("batch", [1, 3])
def test_several_layers_write_keys_and_values_at_once_and_keys_have_tables_of_their_own(batch: int) -> None:
    graph = step(batch, layers=3)
    assert rewritten(graph) == 3
    assert len(graph.calls(operators.update_caches_decode)) == 3
    assert not graph.calls(operators.update_cache_decode, operators.update_cache)
    assert all(split.args[3] for split in graph.calls(operators.split_heads_decode))
    tables = [(table.args[2:], len(table.users)) for table in graph.calls(operators.by_user)]
    assert sorted(tables) == 2 * [((), 3)] + 2 * [((True,), 3)]


@pytest.mark.parametrize("other", [{"turn": turned_neighbours}, {"write": slide, "mask": None}])
def test_keys_that_turn_by_a_matrix_and_caches_that_slide_are_written_one_by_one(other: dict[str, Any]) -> None:
    graph = step(3, layers=2, **other)
    assert rewritten(graph) == 2
    assert not graph.calls(operators.update_caches_decode)
    assert len(graph.calls(operators.update_cache_decode, operators.slide_cache_decode)) == 4


def test_a_window_becomes_a_position_and_a_number() -> None:
    graph = step(3, "window")
    rewritten(graph)
    positions, mask, _, window = graph.only(operators.attention_decode).args[3:]
    assert shape_of(positions) == (3,)
    assert mask is None and window == 5


def test_any_other_mask_stays_one() -> None:
    graph = step(3, "given")
    rewritten(graph)
    positions, mask, *_ = graph.only(operators.attention_decode).args[3:]
    assert positions is None
    assert shape_of(mask) == (3, 1, HEADS, LENGTH)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_full_cache_that_slides_is_seen_whole(batch: int) -> None:
    graph = step(batch, None, slide)
    assert rewritten(graph) == 1
    attention = graph.only(operators.attention_decode)
    assert len(graph.calls(operators.slide_cache_decode)) == 2
    assert attention.args[3].op == "get_attr" and attention.args[4] is None


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mask", [None, "causal", "given"])
def test_capped_attention_has_a_form_of_its_own(batch: int, mask: str | None) -> None:
    graph = step(batch, mask, slide if mask is None else update, cap=30.0)
    assert rewritten(graph) == 1
    attention = graph.only(operators.capped_attention_decode)
    assert shape_of(attention) == (1, 1, batch, WIDTH)
    assert not graph.calls(operators.capped_attention, operators.merge_heads)
    if mask is not None:
        assert shape_of(attention.args[3])[1:] == (1, 1, LENGTH)


@pytest.mark.parametrize("layers", [1, 2])
def test_keys_that_are_the_values_too_are_one_cache(layers: int) -> None:
    def model(k: torch.Tensor, cache: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        cache.index_copy_(2, position, k)
        for _ in range(layers):
            k = F.scaled_dot_product_attention(k, cache, cache)
        return k

    graph = capture(model, random(1, HEADS, 1, DIM), random(1, HEADS, LENGTH, DIM), torch.tensor([POSITION]))
    graph.apply(*BEFORE, exact=False)
    assert rewritten(graph) == layers
    assert len(graph.calls(operators.update_cache_decode)) == 1


def test_a_prompt_is_no_decode_step() -> None:
    graph = step(2, "causal", tokens=4)
    assert rewritten(graph) == 0


def test_more_users_than_a_tile_has_rows_are_left_alone() -> None:
    graph = step(USERS + 1)
    assert rewritten(graph) == 0


def test_keys_that_are_no_cache_are_left_alone() -> None:
    graph = step(2, "given", lambda cache, x, position: torch.cat([cache[:, :, 1:], x], 2))
    assert rewritten(graph) == 0
