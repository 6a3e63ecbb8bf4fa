"""Small models of many kinds of norms and blocks: nothing falls back, and the answers are eager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from comparison import check
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

pytestmark = pytest.mark.usefixtures("clean_dynamo")

WIDTH, HEADS, SEQ = 128, 4, 9
SIZES = {"vocab_size": 100}


def ids() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(2, SEQ, dtype=torch.long)
    mask[1, 6:] = 0
    return torch.randint(0, 100, (2, SEQ)), mask


def tokens() -> tuple[torch.Tensor]:
    return (torch.randn(2, SEQ, WIDTH),)


def distilbert() -> nn.Module:
    config = transformers.DistilBertConfig(dim=WIDTH, hidden_dim=2 * WIDTH, n_layers=2, n_heads=HEADS, **SIZES)
    return transformers.DistilBertModel(config)


def albert() -> nn.Module:
    config = transformers.AlbertConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=HEADS,
        embedding_size=64, **SIZES,
    )  # fmt: skip
    return transformers.AlbertModel(config)


def t5() -> nn.Module:
    config = transformers.T5Config(d_model=WIDTH, d_kv=32, d_ff=2 * WIDTH, num_layers=2, num_heads=HEADS, **SIZES)
    return transformers.T5EncoderModel(config)


class LlamaBlock(nn.Module):
    """The half of a Llama layer that has no attention."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.LlamaConfig(hidden_size=WIDTH, intermediate_size=2 * WIDTH)
        self.norm, self.mlp = LlamaRMSNorm(WIDTH), LlamaMLP(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(self.norm(x))


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True), 2)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "DistilBERT": (distilbert, ids),
    "ALBERT": (albert, ids),
    "T5 encoder": (t5, ids),
    "Llama MLP": (lambda: nn.Sequential(LlamaBlock(), LlamaBlock()), tokens),
    "nn.TransformerEncoder": (encoder, tokens),
    "ConvNeXt block": (lambda: ConvNeXtBlock(64, ls_init_value=0.5), lambda: (torch.randn(2, 64, 14, 14),)),
    "ConvNeXt block of convolutions": (
        lambda: ConvNeXtBlock(64, ls_init_value=0.5, conv_mlp=True), lambda: (torch.randn(2, 64, 14, 14),)
    ),
    "ConvNeXt": (
        lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(32, 64, 96, 128), num_classes=10),
        lambda: (torch.randn(1, 3, 64, 64),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_runs_on_the_device_whole(name: str) -> None:
    make_model, make_inputs = MODELS[name]
    torch.manual_seed(0)
    (report,) = check(_Tensors(make_model().eval()), make_inputs)
    assert not report.fallbacks


class _Tensors(nn.Module):
    """A model as a function of tensors that gives a tensor: transformers give objects."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        result = self.model(x) if mask is None else self.model(input_ids=x, attention_mask=mask)
        return result if isinstance(result, torch.Tensor) else result.last_hidden_state


@pytest.mark.parametrize("name, norms", [("Llama MLP", 2), ("T5 encoder", 5)])
def test_every_root_mean_square_norm_is_one_call(name: str, norms: int) -> None:
    make_model, make_inputs = MODELS[name]
    torch.manual_seed(0)
    (report,) = check(_Tensors(make_model().eval()), make_inputs)
    assert [operation.target for operation in report.operations].count("ttnn.rms_norm") == norms
