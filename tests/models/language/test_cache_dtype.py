"""KV caches in block floats: half the memory, rounded keys and values, nothing else."""

from __future__ import annotations

import pytest
import torch
from comparison import pcc
from decoders import build, prefill_and_decode, static_cache, tokens

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


@pytest.mark.slow
@torch.no_grad()
def test_a_cache_in_bfloat8_b_takes_half_the_memory_and_keeps_the_logits() -> None:
    model, ids, prompt = build("llama", layers=1), tokens(1, 42), 40
    expected = prefill_and_decode(model, ids, prompt, static_cache(model, 64))
    runs = {}
    for dtype in ("bfloat16", "bfloat8_b"):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="ttnn", options={"cache_dtype": dtype})
        with tt_dynamo.record() as reports:
            logits = prefill_and_decode(compiled, ids, prompt, static_cache(model, 64))
        assert not any(report.fallbacks for report in reports)
        assert all(pcc(ours, theirs) >= 0.99 for ours, theirs in zip(logits, expected, strict=True))
        runs[dtype] = reports[1].cache_bytes, logits[-1]
    (full, exact), (half, rounded) = runs["bfloat16"], runs["bfloat8_b"]
    assert 0.5 * full < half < 0.6 * full
    assert not torch.equal(exact, rounded)
