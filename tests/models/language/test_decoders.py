"""Language models, prefill and decode with a static cache: eager's logits at every step, all of it on the device."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from decoders import DECODERS, STEPS, build, prefill_and_decode, static_cache, tokens

import tt_dynamo

# The programs of tt_transformers, written by hand, launch 20 and 22 for one layer; here gate and up are one kernel.
PREFILL_LAUNCHES = 18
DECODE_LAUNCHES = 16


@dataclasses.dataclass
class Run:
    """One model, its prompt and some tokens one by one."""

    eager: list[torch.Tensor]
    ours: list[torch.Tensor]
    caches: tuple[Any, Any]  # eager's and ours, afterwards
    reports: list[tt_dynamo.GraphReport]


@pytest.fixture(scope="module")
def run(board_device: Any) -> Any:
    """run(name, batch, layers, steps): results are kept for the tests of this file."""
    kept: dict[Any, Run] = {}

    def run(name: str, batch: int = 2, layers: int = 2, steps: int = STEPS) -> Run:
        key = (name, batch, layers, steps)
        if key not in kept:
            kept[key] = _run(*key)
        return kept[key]

    yield run
    torch._dynamo.reset()


def _run(name: str, batch: int, layers: int, steps: int) -> Run:
    torch._dynamo.reset()
    model, prompt = build(name, layers), DECODERS[name].prompt
    ids = tokens(batch, prompt + steps)
    caches = static_cache(model, prompt + STEPS), static_cache(model, prompt + STEPS)
    masked = DECODERS[name].masked
    eager = prefill_and_decode(model, ids, prompt, caches[0], masked)
    with tt_dynamo.record() as reports:
        ours = prefill_and_decode(torch.compile(model, backend="ttnn"), ids, prompt, caches[1], masked)
    return Run(eager, ours, caches, reports)


# What a default test run does; every other model, batch and depth takes minutes with its 64 steps.
USUAL = ("llama", "mistral, window of 48")


def row(name: str, *values: Any) -> Any:
    usual = name in USUAL and values in ((), (2,))
    return pytest.param(name, *values, id="-".join(map(str, (name, *values))), marks=() if usual else pytest.mark.slow)


TABLE = [row(name, 2) for name in DECODERS]
TABLE += [row(name, batch) for name in ("llama", "gpt2") for batch in (1, 5)]
MODELS = [row(name) for name in DECODERS]


@pytest.mark.parametrize(("name", "batch"), TABLE)
def test_logits_are_eager_s_at_every_step(run: Any, name: str, batch: int) -> None:
    done = run(name, batch)
    assert len(done.ours) == STEPS + 1
    for step, (ours, eager) in enumerate(zip(done.ours, done.eager, strict=True)):
        assert (ours.shape, ours.dtype, ours.stride()) == (eager.shape, eager.dtype, eager.stride())
        assert ours.isfinite().all()
        assert pcc(ours, eager) >= 0.99, step
        assert relative_error(ours, eager) <= 0.1, step


@pytest.mark.parametrize(("name", "batch"), TABLE)
def test_nothing_falls_back(run: Any, name: str, batch: int) -> None:
    for report in run(name, batch).reports:
        assert report.fallbacks == []


@pytest.mark.parametrize("name", MODELS)
def test_the_prompt_is_one_graph_and_so_are_all_steps(run: Any, name: str) -> None:
    assert len(run(name).reports) == DECODERS[name].graphs


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_holds_eager_s_keys_and_values(run: Any, name: str) -> None:
    eager, ours = run(name).caches
    for layer, other in zip(ours.layers, eager.layers, strict=True):
        assert int(layer.cumulative_length) == int(other.cumulative_length)
        for mine, theirs in ((layer.keys, other.keys), (layer.values, other.values)):
            assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
            assert pcc(mine, theirs) >= 0.99
            assert relative_error(mine, theirs) <= 0.1


@pytest.mark.parametrize(
    "batch", [pytest.param(batch, marks=() if batch == 2 else pytest.mark.slow) for batch in (1, 2, 5)]
)
def test_a_layer_of_llama_launches_what_an_expert_s_does(run: Any, batch: int) -> None:
    one, two = (run("llama", batch, layers, steps).reports for layers, steps in ((1, 1), (2, STEPS)))
    prefill, decode = (more.device_programs - fewer.device_programs for fewer, more in zip(one, two, strict=True))
    assert 0 < prefill <= PREFILL_LAUNCHES
    assert 0 < decode <= DECODE_LAUNCHES


@pytest.mark.parametrize("name", MODELS)
def test_attention_to_earlier_tokens_is_heard(name: str) -> None:
    """What the tests above compare would differ by far if a step read nothing of its cache."""
    model, prompt = build(name), DECODERS[name].prompt
    ids = tokens(2, prompt + 1)
    masked = DECODERS[name].masked
    other = torch.cat([tokens(3, prompt)[:2], ids[:, prompt:]], 1)
    last = [prefill_and_decode(model, x, prompt, static_cache(model, prompt + 1), masked)[-1] for x in (ids, other)]
    assert pcc(*last) < 0.95
