"""Image models through traces: values of the program without, batch after batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def vit() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128, image_size=32, patch_size=8,
        num_labels=10,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def resnet() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], layer_type="bottleneck", num_labels=10
    )
    return transformers.ResNetForImageClassification(config)


@pytest.mark.slow
@pytest.mark.parametrize("build", [vit, resnet])
@torch.no_grad()
def test_a_traced_model_gives_the_values_of_the_program_without(build: Any) -> None:
    model, images = build().eval(), [torch.randn(2, 3, 32, 32) for _ in range(4)]
    expected = [torch.compile(model, backend="ttnn")(image).logits for image in images]
    torch._dynamo.reset()
    with tt_dynamo.record() as reports:
        call = torch.compile(model, backend="ttnn", options={"trace": True, "fallback": "error"})
        results = [call(image).logits for image in images]
    assert [report.trace for report in reports] == ["captured"]
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result, other)
