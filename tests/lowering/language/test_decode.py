"""One token of each user against a cache on the device: eager's answer, eager's cache, and the calls of an expert."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import BOARD, calls, close, random

import tt_dynamo

KV_HEADS, DIM = 2, 32
ROUNDINGS = 16  # of a chain of projections, rotary embedding and attention


class Layer(torch.nn.Module):
    """Attention of one token to a cache, as decoders of transformers have it."""

    def __init__(self, heads: int, window: int | None, cap: float | None, slides: bool, norms: bool) -> None:
        super().__init__()
        self.heads, self.window, self.cap, self.slides, self.norms = heads, window, cap, slides, norms
        width = heads * DIM
        torch.manual_seed(heads)
        self.q, self.k, self.v = (torch.nn.Linear(width, n * DIM) for n in (heads, KV_HEADS, KV_HEADS))
        self.o = torch.nn.Linear(width, width)
        self.norm = torch.nn.RMSNorm(DIM, eps=1e-6)
        for parameter in self.parameters():
            parameter.data = parameter.data.bfloat16().float()

    def forward(self, x, cos, sin, keys, values, position, given):
        batch, length = len(x), keys.shape[2]
        q, k, v = (project(x).view(batch, 1, -1, DIM).transpose(1, 2) for project in (self.q, self.k, self.v))
        if self.norms:
            q, k = self.norm(q), self.norm(k)
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        rows, at = torch.arange(length), torch.arange(1) + position
        for cache, new in ((keys, k), (values, v)):
            if self.slides:
                rolled = cache.roll(-1, dims=-2)
                rolled[:, :, torch.tensor([-1])] = new
                cache.copy_(rolled)
            else:
                cache.index_copy_(2, at, new)
        mask = None if self.slides else (rows <= at)[None, None, None]
        if self.window is not None:
            mask = mask & (rows > at - self.window)
        mask = given if given is not None else mask
        return self.o(self.attended(q, keys, values, mask).transpose(1, 2).reshape(batch, 1, -1))

    def attended(self, q, keys, values, mask):
        keys, values = (x.repeat_interleave(self.heads // KV_HEADS, 1) for x in (keys, values))
        if self.cap is None:
            return F.scaled_dot_product_attention(q, keys, values, mask)
        scores = torch.tanh(q @ keys.mT * DIM**-0.5 / self.cap) * self.cap
        scores = scores if mask is None else scores + torch.where(mask, 0.0, -1e30)
        return torch.softmax(scores, -1) @ values


class Stack(torch.nn.Module):
    """Layers one after another, each with caches of its own."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x, cos, sin, *inputs):
        *caches, position, given = inputs
        for at, layer in enumerate(self.layers):
            x = layer(x, cos, sin, *caches[2 * at : 2 * at + 2], position, given)
        return x


def turned(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def run(
    batch: int = 3, length: int = 64, position: int = 37, given: bool = False, heads: int = 4,
    window: int | None = None, cap: float | None = None, slides: bool = False, norms: bool = False, layers: int = 1,
) -> list[str]:  # fmt: skip
    """Assert eager's output and caches, and no fallback; the calls of the program."""
    layer = Stack(*(Layer(heads, window, cap, slides, norms) for _ in range(layers))).eval()
    caches = [random(batch, KV_HEADS, length, DIM, mean=mean) for mean in layers * (0.0, 0.5)]
    mask = (torch.arange(batch * length) % 3 > 0).view(batch, 1, 1, length) if given else None
    tables = random(1, 1, 1, DIM), random(1, 1, 1, DIM, mean=0.5)
    arguments: list[Any] = [random(batch, 1, heads * DIM), *tables]
    results = []
    with torch.no_grad(), tt_dynamo.record() as reports:
        for function in (layer, torch.compile(layer, backend="ttnn", dynamic=False, options={"device": BOARD})):
            torch._dynamo.reset()
            mine = [cache.clone() for cache in caches]
            results.append((function(*arguments, *mine, torch.tensor(position), mask), *mine))
    (report,) = reports
    assert not report.fallbacks, report.fallbacks
    for ours, eager in zip(results[1], results[0], strict=True):
        close(ours, eager, layers * ROUNDINGS, cancels=True)
    kept = list(range(length - 1)) if slides else [row for row in range(length) if row != position]
    for ours, eager in zip(results[1][1:], results[0][1:], strict=True):
        assert torch.equal(ours[:, :, kept], eager[:, :, kept])
    return calls(report)


HEADS = ["experimental.nlp_create_qkv_heads_decode", "experimental.rotary_embedding_hf"]
ATTENTION = "transformer.scaled_dot_product_attention_decode"


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_step_is_the_calls_of_an_expert(batch: int) -> None:
    made = run(batch)
    assert [made.count(name) for name in (*HEADS, "experimental.paged_update_cache", ATTENTION)] == [1, 2, 2, 1]
    assert not {"permute", "matmul", "softmax"} & set(made)


@pytest.mark.parametrize(("batch", "norms"), [(1, False), (3, True)])
def test_steps_of_several_layers_write_keys_and_values_at_once(batch: int, norms: bool) -> None:
    made = run(batch, norms=norms, layers=2)
    assert made.count("experimental.paged_fused_update_cache") == 2
    assert "experimental.paged_update_cache" not in made


@pytest.mark.parametrize("length", [48, 50])
def test_a_cache_need_not_fill_its_tiles(length: int) -> None:
    assert run(length=length).count(ATTENTION) == 1


@pytest.mark.parametrize("position", [0, 5, 63])
def test_every_position_sees_what_is_before_it(position: int) -> None:
    run(position=position)


def test_a_window_is_one_call() -> None:
    assert run(window=9).count(ATTENTION) == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_users_may_have_masks_of_their_own(batch: int) -> None:
    assert run(batch, given=True).count(ATTENTION) == 1


def test_a_mask_over_a_cache_that_does_not_fill_its_tiles_is_read_by_the_attention_of_prompts() -> None:
    made = run(length=50, given=True)
    assert ATTENTION not in made and made.count(ATTENTION.removesuffix("_decode")) == 1


@pytest.mark.parametrize("length", [48, 64])
def test_a_full_cache_slides_in_a_lookup(length: int) -> None:
    made = run(length=length, slides=True)
    assert made.count("embedding") == 2 and made.count(ATTENTION) == 1
    assert not {"slice", "concat", "permute"} & set(made)


def test_norms_of_heads_leave_them_on_their_users_cores() -> None:
    made = run(norms=True)
    assert made.count("rms_norm") == 2
    assert made.count("to_memory_config") == 4  # two tables, and the way to each norm


@pytest.mark.parametrize("options", [{}, {"given": True}, {"slides": True}, {"window": 9}])
def test_capped_scores_repeat_no_keys(options: dict[str, Any]) -> None:
    made = run(cap=5.0, **options)
    assert made.count("matmul") == 2 and made.count("softmax") == 1
    assert not {"permute", "repeat_interleave", "concat"} & set(made)


@pytest.mark.parametrize(("seq", "length"), [(5, 64), (32, 64), (37, 64), (40, 64), (70, 128), (40, 50), (50, 50)])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_prompt_leaves_the_rows_behind_it_as_they_were(batch: int, seq: int, length: int) -> None:
    """TTNN writes whole tiles; the cache stays on the device from the first call to the second."""

    def write(cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return cache.index_copy_(2, torch.arange(seq), x)[:, :, -1] + 1

    cache = random(batch, 3, length, 64, mean=2.0)
    expected, function = cache.clone(), torch.compile(write, backend="ttnn", dynamic=False, options={"device": BOARD})
    torch._dynamo.reset()
    with torch.no_grad(), tt_dynamo.record() as reports:
        for mean in (0.0, 1.0):
            x = random(batch, 3, seq, 64, mean=mean)
            close(function(cache, x), write(expected, x), roundings=1)
    assert torch.equal(cache, expected)
    (report,) = reports
    assert not report.fallbacks and calls(report).count("fill_cache") == batch
