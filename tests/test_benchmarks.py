"""The benchmarks: handwritten encoders are right and as lean as they claim, and `run.py` measures and labels.

`benchmarks/` is no package that gets installed: its modules are imported from its folder here, as its scripts do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tt_dynamo.devices import Device, open_device

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
BATCH, SEQ, LAYERS = 2, 40, 2  # a sequence length that is no multiple of a tile


@pytest.fixture(scope="module")
def device() -> Device:
    return open_device("n150")


@pytest.fixture
def handwritten(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import handwritten

    return handwritten


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def bert(layers: int) -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=100, hidden_size=128, num_attention_heads=2, intermediate_size=256, num_hidden_layers=layers
    )
    mask = torch.ones(BATCH, SEQ, dtype=torch.int64)
    mask[0, 30:] = 0
    inputs = {
        "input_ids": torch.randint(0, config.vocab_size, (BATCH, SEQ)),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, (BATCH, SEQ)),
    }
    return spread(BertModel(config)), inputs


def vit(layers: int) -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=64, hidden_size=128, num_attention_heads=2, intermediate_size=256, num_hidden_layers=layers
    )
    config.num_labels = 10
    return spread(ViTForImageClassification(config)), {"pixels": torch.randn(BATCH, 3, 64, 64)}


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """`model` for inference with weights and biases large enough that each part of it shows in the result."""
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.1 if parameter.ndim > 1 else 0.3))
    return model.eval()


def build_bert(handwritten: ModuleType, ttnn: Any, device: Device, model: Any) -> Any:
    return handwritten.Bert(ttnn, device.handle, model.state_dict(), model.config, batch=BATCH, seq=SEQ)


def build_vit(handwritten: ModuleType, ttnn: Any, device: Device, model: Any) -> Any:
    return handwritten.Vit(ttnn, device.handle, model.state_dict(), model.config, batch=BATCH)


def pcc(ours: torch.Tensor, expected: torch.Tensor) -> float:
    assert ours.shape == expected.shape
    assert ours.isfinite().all()
    return torch.corrcoef(torch.stack((ours.flatten().float(), expected.flatten())))[0, 1].item()


def captured(ttnn: Any, call: Callable[[], Any]) -> list[dict[str, Any]]:
    """The nodes of TTNN's graph capture of `call`."""
    ttnn.graph.begin_graph_capture(ttnn.graph.RunMode.NORMAL)
    try:
        call()
    finally:
        nodes = ttnn.graph.end_graph_capture()
    return nodes


def kernel_launches(nodes: list[dict[str, Any]]) -> int:
    return sum(node["node_type"] == "program_execution" for node in nodes)


def peak_dram(nodes: list[dict[str, Any]]) -> int:
    sizes = [0]
    for node in nodes:
        sign = {"buffer_allocate": 1, "buffer_deallocate": -1}.get(node["node_type"], 0)
        if sign and node["params"]["type"] == "DRAM":
            sizes.append(sizes[-1] + sign * int(node["params"]["size"]))
    return max(sizes)


def test_handwritten_bert_computes_what_transformers_does(device: Device, handwritten: ModuleType) -> None:
    model, inputs = bert(LAYERS)
    hidden, pooled = build_bert(handwritten, device.namespace(), device, model)(**inputs)
    expected = model(**inputs)
    tokens = inputs["attention_mask"].bool()
    assert pcc(hidden, expected.last_hidden_state) > 0.999
    assert pcc(pooled, expected.pooler_output) > 0.999
    torch.testing.assert_close(hidden[tokens].float(), expected.last_hidden_state[tokens], atol=0.1, rtol=0.1)


def test_handwritten_bert_does_not_attend_to_padding(device: Device, handwritten: ModuleType) -> None:
    model, inputs = bert(LAYERS)
    encoder = build_bert(handwritten, device.namespace(), device, model)
    padding = ~inputs["attention_mask"].bool()
    other = {**inputs, "input_ids": torch.where(padding, 7, inputs["input_ids"])}
    assert torch.equal(encoder(**inputs)[0][~padding], encoder(**other)[0][~padding])


def test_handwritten_vit_computes_what_transformers_does(device: Device, handwritten: ModuleType) -> None:
    model, inputs = vit(LAYERS)
    logits = build_vit(handwritten, device.namespace(), device, model)(**inputs)
    expected = model(inputs["pixels"]).logits
    assert pcc(logits, expected) > 0.999
    torch.testing.assert_close(logits.float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(("make", "build", "per_layer", "around"), [(bert, build_bert, 9, 9), (vit, build_vit, 11, 9)])
def test_handwritten_layers_make_the_fewest_kernel_launches(
    device: Device, handwritten: ModuleType, make: Any, build: Any, per_layer: int, around: int
) -> None:
    launches = []
    for layers in (1, 2):
        model, inputs = make(layers)
        ttnn = device.namespace(dry_run=True)
        encoder = build(handwritten, ttnn, device, model)
        launches.append(kernel_launches(captured(ttnn, partial(encoder, **inputs))))
    assert launches == [around + per_layer, around + 2 * per_layer]


def test_a_handwritten_layer_holds_only_what_its_largest_step_needs(device: Device, handwritten: ModuleType) -> None:
    model, inputs = bert(LAYERS)
    ttnn = device.namespace(dry_run=True)
    encoder = build_bert(handwritten, ttnn, device, model)
    hidden, mask = BATCH * 64 * 128 * 2, BATCH * 64 * 64 * 2  # bytes, with tile padding
    # The split into heads: the layer's input, the joint projection of three times its size, and the heads.
    assert peak_dram(captured(ttnn, partial(encoder, **inputs))) == (1 + 3 + 3) * hidden + mask


def test_handwritten_heads_that_are_no_whole_tiles_are_refused(device: Device, handwritten: ModuleType) -> None:
    # TTNN takes them and copies whole tiles, which puts heads together wrongly.
    model, _inputs = bert(1)
    model.config.num_attention_heads = 8
    with pytest.raises(ValueError, match="whole tiles"):
        build_bert(handwritten, device.namespace(dry_run=True), device, model)
