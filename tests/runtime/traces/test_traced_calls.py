"""What a call through a trace asks of TTNN: a copy for each input, a replay, a read for each result; no memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import Attention
from test_traced_images import resnet, vit

import tt_dynamo
from tt_dynamo.devices.emulation.traces import EmulatedTrace

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def bert() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128, vocab_size=99
    )
    return transformers.BertModel(config)


IDS, MASK = torch.randint(0, 10, (2, 8)), torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
CASES = {
    "attention": (Attention, {"ids": IDS, "keep": MASK.bool()}),
    "bert": pytest.param(bert, {"input_ids": IDS, "attention_mask": MASK}, marks=pytest.mark.slow),
    "vit": pytest.param(vit, {"pixel_values": torch.randn(2, 3, 32, 32)}, marks=pytest.mark.slow),
    "resnet": pytest.param(resnet, {"pixel_values": torch.randn(2, 3, 32, 32)}, marks=pytest.mark.slow),
}


@pytest.mark.parametrize(("build", "inputs"), CASES.values(), ids=CASES)
@torch.no_grad()
def test_a_call_is_one_copy_an_input_a_replay_and_one_read_a_result(
    build: Any, inputs: dict[str, torch.Tensor], ttnn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"trace": True, "dry_run": True, "fallback": "error"}
    replays: list[Any] = []
    monkeypatch.setattr(EmulatedTrace, "replay", lambda self: replays.append(self))
    with tt_dynamo.record() as reports:
        call = torch.compile(build().eval(), backend="ttnn", options=options)
        for _ in range(3):
            call(**inputs)
    (report,) = reports
    assert report.trace == "captured"
    replays.clear()
    ttnn._ttnn.graph.begin_graph_capture(ttnn.graph.RunMode.NORMAL)
    try:
        call(**inputs)
    finally:
        events = ttnn._ttnn.graph.end_graph_capture()
    calls = [event["params"]["name"].split("::")[-1] for event in events if event["node_type"] == "function_start"]
    ups, downs = (sum(t.direction == way for t in report.transfers) for way in ("to_device", "to_host"))
    assert calls == ["copy_to_device"] * ups + ["convert_tt_tensor_to_framework_tensor"] * downs
    assert len(replays) == 1
    assert not any("allocate" in event["node_type"] for event in events)
