"""Models quantized by torchao: weights of 8 and 4 bits go up as block floats, and QDQ graphs stay on the device."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from decoders import enliven

import tt_dynamo

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}


def llama() -> tuple[Any, torch.Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SIZES, num_key_value_heads=1, vocab_size=128, max_position_embeddings=64)
    return LlamaForCausalLM(config), torch.randint(0, 128, (1, 32))


def vit() -> tuple[Any, torch.Tensor]:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**SIZES, image_size=32, patch_size=8)), torch.randn(1, 3, 32, 32)


def int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig()


def int4() -> Any:
    """A scale for each 32 values of a row."""
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))


def quantized(make: Callable[[], tuple[Any, torch.Tensor]], config: Any) -> tuple[Any, torch.Tensor]:
    from torchao.quantization import quantize_

    torch.manual_seed(0)
    model, given = make()
    model = enliven(model.eval())
    quantize_(model, config)
    return model, given


@pytest.mark.parametrize(
    ("make", "config"),
    [
        pytest.param(make, config, id=f"{make.__name__} {config.__name__}", marks=() if usual else pytest.mark.slow)
        for make, config, usual in ((llama, int8, True), (llama, int4, False), (vit, int8, False), (vit, int4, False))
    ],
)
@torch.no_grad()
def test_weights_of_few_bits_are_block_floats_and_the_report_says_so(make: Any, config: Any) -> None:
    model, given = quantized(make, config())
    eager = model(given).logits
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn", options={"preset": "balanced"})(given).logits
    (report,) = reports
    assert report.fallbacks == []
    assert pcc(ours, eager) >= 0.99
    (note,) = [note for note in report.notes if "stored as int8" in note]
    assert 'they go up as bfloat8_b, weight_dtype="bfloat16" keeps' in note
    assert report.weight_dtypes["bfloat8_b"] > report.weight_dtypes["bfloat16"] / 4


@pytest.mark.parametrize("dtype", ["bfloat16", "bfloat4_b"])
@torch.no_grad()
def test_weights_of_few_bits_go_up_as_they_are_asked_for(dtype: str) -> None:
    model, given = quantized(llama, int8())
    eager = model(given).logits
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn", options={"preset": "accuracy", "weight_dtype": dtype})(given).logits
    (report,) = reports
    (note,) = [note for note in report.notes if "stored as int8" in note]
    assert f"they go up as {dtype}" in note
    assert ("bfloat8_b" in report.weight_dtypes, "bfloat4_b" in report.weight_dtypes) == (False, dtype == "bfloat4_b")
    assert pcc(ours, eager) >= (0.9995 if dtype == "bfloat16" else 0.9)


class Images(torch.nn.Module):
    """Convolutions, a batch norm that export folds, and linears."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.BatchNorm2d(32)
        self.second = torch.nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.up, self.down = torch.nn.Linear(32, 64), torch.nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x))))).mean((2, 3))
        return self.down(torch.nn.functional.gelu(self.up(x)))


@torch.no_grad()
def test_a_qdq_graph_of_convolutions_and_linears_runs_whole() -> None:
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(Images().eval(), (x,)).module(), quantizer)
    prepared(x)
    model = convert_pt2e(prepared)
    move_exported_model_to_eval(model)
    assert any("quantize_per_tensor" in str(node.target) for node in model.graph.nodes)
    eager = model(x)
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(x)
    (report,) = reports
    assert report.fallbacks == []
    assert pcc(ours, eager) >= 0.99
    assert relative_error(ours, eager) <= 0.05
