"""Small models and inputs: a batch of eight each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HEADS = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
IDS = torch.arange(256).reshape(8, 32) % 100


class Calling(nn.Module):
    """A model of transformers whose result is its last hidden state."""

    def __init__(self, model: nn.Module, *names: str) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).last_hidden_state


def bert() -> Any:
    from transformers import BertConfig, BertModel

    mask = torch.ones(8, 32)
    mask[1, 20:] = 0
    return Calling(BertModel(BertConfig(**HEADS, vocab_size=128)), "input_ids", "attention_mask"), (IDS, mask)


def vit() -> Any:
    from transformers import ViTConfig, ViTModel

    return Calling(ViTModel(ViTConfig(**HEADS, image_size=64)), "pixel_values"), (torch.randn(8, 3, 64, 64),)


def t5() -> Any:
    from transformers import T5Config, T5Model

    sizes = {"d_model": 64, "d_ff": 128, "d_kv": 8, "num_layers": 2, "num_heads": 8, "vocab_size": 128}
    model = T5Model(T5Config(**sizes, use_cache=False))
    return Calling(model, "input_ids", "decoder_input_ids"), (IDS, IDS[:, :8])


def whisper() -> Any:
    from transformers import WhisperConfig, WhisperModel

    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 8}
    sizes |= {"decoder_attention_heads": 8, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 128}
    sizes |= {"num_mel_bins": 16, "max_source_positions": 50}
    sizes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    model = WhisperModel(WhisperConfig(**sizes, use_cache=False))
    return Calling(model, "input_features", "decoder_input_ids"), (torch.randn(8, 16, 100), IDS[:, :8])


def resnet() -> Any:
    import torchvision

    return torchvision.models.resnet18(), (torch.randn(8, 3, 64, 64),)


def swin() -> Any:
    import timm

    sizes = {"embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "img_size": 56, "num_classes": 10}
    return timm.create_model("swin_tiny_patch4_window7_224", **sizes), (torch.randn(8, 3, 56, 56),)


class Features(nn.Module):
    """The largest feature map of a detector's backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.backbone(x)["0"]


def ssd() -> Any:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    detector = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    return Features(detector.backbone), (torch.randn(8, 3, 96, 96),)
