"""`generate()` through traces: the decode step is captured, and tokens are eager's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from decoders import build, prefill_and_decode, static_cache, tokens
from storyteller import encode, held_out_tales, storyteller

import tt_dynamo
from tt_dynamo.devices.emulation.traces import EmulatedTrace

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    replay = EmulatedTrace.replay
    monkeypatch.setattr(EmulatedTrace, "replay", lambda self: (made.append(self), replay(self)))
    return made


def test_the_trained_model_generates_eager_s_tokens_prompt_after_prompt(replays: list[Any]) -> None:
    model, compiled = storyteller(), storyteller()
    compiled.compile(backend="ttnn", options={"trace": "auto"})
    options: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False, "cache_implementation": "static"}
    with tt_dynamo.record() as reports:
        for number in range(3):
            ids = encode(held_out_tales()[number])[None, :40]
            given = {"attention_mask": torch.ones_like(ids), "eos_token_id": None, **options}
            assert torch.equal(compiled.generate(ids, **given), model.generate(ids, **given))
    assert [report.trace for report in reports if report.phase == "decode"] == ["captured"]
    assert len(replays) >= 3 * 15 - 2


def test_prefill_into_a_cache_that_is_there_is_a_trace_as_well(replays: list[Any]) -> None:
    model, ids = build("llama", 1), tokens(1, 40)
    compiled = torch.compile(model, backend="ttnn", options={"trace": "auto"})
    eager_cache, cache = (static_cache(model, 64) for _ in range(2))
    with tt_dynamo.record() as reports:
        for _ in range(4):
            eager = prefill_and_decode(model, ids, 32, eager_cache)
            ours = prefill_and_decode(compiled, ids, 32, cache)
            for one, other in zip(ours, eager, strict=True):
                assert torch.allclose(one, other, atol=0.1 * float(other.abs().max()))
            for each in (eager_cache, cache):
                each.reset()
    captured = [report.phase for report in reports if report.trace == "captured"]
    assert sorted(set(captured)) == ["decode", "prefill"]
