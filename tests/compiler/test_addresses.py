"""A steady call reuses the addresses of the one before, and the report says so."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from fresh_process import BOARD
from small_models import Attention, Summed
from torch import nn

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def fill(keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Two caches, which stay on the device."""
    rows = torch.arange(keys.shape[2])
    return tuple(torch.zeros(1, 2, 64, 32).index_copy(2, rows, x) for x in (keys, values))


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="ttnn", options={"device": BOARD, "dry_run": True, "fallback": "error"})


def encoder() -> Callable[[], Any]:
    model = compiled(Attention().eval())
    return lambda: model(torch.zeros(2, 32, dtype=torch.int64), torch.ones(2, 32, dtype=torch.bool))


def conv_net() -> Callable[[], Any]:
    features = nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
    model = compiled(nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval())
    return lambda: model(torch.zeros(2, 3, 32, 32))


def state() -> Callable[[], Any]:
    model = compiled(Summed())
    return lambda: model(torch.ones(32, 32))


def decoder() -> Callable[[], Any]:
    """A decode step after a prompt, each one position further."""
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    model = compiled(transformers.LlamaForCausalLM(config).eval())
    cache = transformers.StaticCache(config=config, max_cache_len=64)
    model(input_ids=torch.zeros(1, 32, dtype=torch.int64), past_key_values=cache)
    return lambda: model(input_ids=torch.zeros(1, 1, dtype=torch.int64), past_key_values=cache)


def allocated(ttnn: Any, call: Callable[[], Any]) -> list[dict[str, Any]]:
    """The buffers that a call allocates, as TTNN's graph capture notes them."""
    ttnn.graph.begin_graph_capture(ttnn.graph.RunMode.NORMAL)
    try:
        call()
    finally:
        nodes = ttnn.graph.end_graph_capture()
    return [node["params"] for node in nodes if node["node_type"] == "buffer_allocate"]


@torch.no_grad()
@pytest.mark.parametrize("build", [encoder, conv_net, state, decoder])
def test_a_steady_call_allocates_where_the_one_before_did(build: Any, board_device: Any) -> None:
    with tt_dynamo.record() as reports:
        call = build()
        call()
    report = reports[-1]
    assert report.new_allocations == 0 and not report.held_results
    assert "; 0 new allocations in a steady call" in str(report)
    call()
    calls = [allocated(board_device.namespace(dry_run=True), call) for _ in range(3)]
    places = [{(buffer["type"], buffer["address"]) for buffer in buffers} for buffers in calls]
    assert places[0] and all(later <= before for before, later in itertools.pairwise(places))
    assert report.highest_dram_address > 0
    assert (report.lowest_l1_address > 0) == any(kind == "L1" for kind, _ in places[0])


@torch.no_grad()
def test_results_that_the_caller_holds_lie_elsewhere_in_the_next_call(board_device: Any) -> None:
    model, inputs = compiled(fill), (torch.randn(1, 2, 32, 32), torch.randn(1, 2, 32, 32))
    with tt_dynamo.record() as reports:
        held = model(*inputs)
    (report,) = reports
    assert len(held) == report.held_results == 2
    assert report.new_allocations == 2
    assert "2 new allocations in a steady call beside 2 held results of the one before" in " ".join(str(report).split())
