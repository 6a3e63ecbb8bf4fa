"""Models of images and text at reduced width and depth, each with an image and a prompt around it.

Weights are random and seeded. A prompt has as many image tokens as the model makes features of its image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

VOCABULARY = 320
IMAGE, START, END, VIDEO = 300, 301, 302, 303  # tokens
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
QWEN_VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 128}
QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
ROTARY = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
Sample = tuple[Any, dict[str, torch.Tensor]]


def _prompt(features: int) -> torch.Tensor:
    """A sentence around an image: [1, features + 8]."""
    return torch.tensor([[1, 5, 6, START, *[IMAGE] * features, END, 7, 8, 9]])


def llava() -> Sample:
    """CLIP, two linears, Llama."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    parts = {"vision_config": CLIPVisionConfig(**VISION), "text_config": LlamaConfig(**TEXT)}
    model = LlavaForConditionalGeneration(LlavaConfig(**parts, image_token_index=IMAGE, image_seq_length=16))
    return model, {"input_ids": _prompt(16), "pixel_values": torch.randn(1, 3, 56, 56)}


def paligemma() -> Sample:
    """SigLIP, one linear, Gemma, which attends to the prompt in both directions."""
    from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

    parts = {
        "vision_config": SiglipVisionConfig(**VISION, vision_use_head=False),
        "text_config": GemmaConfig(**TEXT, head_dim=32),
    }
    config = PaliGemmaConfig(**parts, image_token_index=IMAGE, projection_dim=128, hidden_size=128)
    ids = _prompt(16)
    inputs = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "pixel_values": torch.randn(1, 3, 56, 56)}
    return PaliGemmaForConditionalGeneration(config), inputs


def gemma3() -> Sample:
    """SigLIP pooled to four tokens, Gemma 3, which attends to an image's tokens in both directions."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

    parts = {
        "vision_config": SiglipVisionConfig(**VISION, vision_use_head=False),
        "text_config": Gemma3TextConfig(**TEXT, head_dim=32, query_pre_attn_scalar=32, sliding_window=48),
    }
    tokens = {"image_token_index": IMAGE, "boi_token_index": START, "eoi_token_index": END}
    model = Gemma3ForConditionalGeneration(Gemma3Config(**parts, **tokens, mm_tokens_per_image=4))
    ids = _prompt(4)
    images = {"pixel_values": torch.randn(1, 3, 56, 56), "token_type_ids": (ids == IMAGE).long()}
    return model, {"input_ids": ids, **images}


def smolvlm() -> Sample:
    """Two tiles of an image, pixels unshuffled, Llama."""
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

    parts = {"vision_config": SmolVLMVisionConfig(**VISION), "text_config": LlamaConfig(**TEXT)}
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**parts, image_token_id=IMAGE, scale_factor=2))
    mask = torch.ones(1, 2, 56, 56, dtype=torch.bool)
    return model, {
        "input_ids": _prompt(8),
        "pixel_values": torch.randn(1, 2, 3, 56, 56),
        "pixel_attention_mask": mask,
    }


def idefics3() -> Sample:
    """Two tiles of an image, pixels shuffled into channels, Llama."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig

    config = Idefics3Config(
        vision_config=dict(VISION), text_config=LlamaConfig(**TEXT), image_token_id=IMAGE, scale_factor=2
    )
    images = {
        "pixel_values": torch.randn(1, 2, 3, 56, 56),
        "pixel_attention_mask": torch.ones(1, 2, 56, 56, dtype=torch.bool),
    }
    return Idefics3ForConditionalGeneration(config), {"input_ids": _prompt(8), **images}


def internvl() -> Sample:
    """InternViT, four patches a token, Qwen2."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

    sizes = {"image_size": (56, 56), "patch_size": (14, 14)}
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**{**VISION, **sizes}), text_config=Qwen2Config(**TEXT),
        image_token_id=IMAGE, image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    images = {"pixel_values": torch.randn(1, 3, 56, 56)}
    return InternVLForConditionalGeneration(config), {"input_ids": _prompt(4), **images}


def _qwen_inputs(patch: int) -> dict[str, torch.Tensor]:
    """Four by six patches of two frames, of which the model makes two by three features."""
    ids = _prompt(6)
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": torch.randn(24, 3 * 2 * patch * patch),
        "image_grid_thw": torch.tensor([[1, 4, 6]]),
    }


def qwen2_5_vl() -> Sample:
    """Windows in the vision tower, positions of three dimensions in the text."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {**QWEN_VISION, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    text = {**TEXT, "rope_parameters": ROTARY}
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **QWEN_TOKENS)
    return Qwen2_5_VLForConditionalGeneration(config), _qwen_inputs(14)


def qwen3_vl() -> Sample:
    """Features of every vision layer are added to those of the text's first layers, at the image's tokens."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {**QWEN_VISION, "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    text = {**TEXT, "head_dim": 32, "rope_parameters": {**ROTARY, "mrope_interleaved": True}}
    config = Qwen3VLConfig(vision_config=vision, text_config=text, **QWEN_TOKENS)
    return Qwen3VLForConditionalGeneration(config), _qwen_inputs(16)


def glm4v() -> Sample:
    """A grid of learned positions resampled to that of the patches, four patches convolved to a token, GLM-4."""
    from transformers import Glm4vConfig, Glm4vForConditionalGeneration

    vision = {**QWEN_VISION, "patch_size": 14, "image_size": 56}
    text = {**TEXT, "rope_parameters": {**ROTARY, "partial_rotary_factor": 1.0}}
    ends = {"image_start_token_id": START, "image_end_token_id": END}
    videos = {"video_start_token_id": 304, "video_end_token_id": 305}
    tokens = {"image_token_id": IMAGE, "video_token_id": VIDEO, **ends, **videos}
    model = Glm4vForConditionalGeneration(Glm4vConfig(vision_config=vision, text_config=text, **tokens))
    return model, _qwen_inputs(14)


MODELS: dict[str, Callable[[], Sample]] = {
    "LLaVA": llava,
    "PaliGemma": paligemma,
    "Gemma 3": gemma3,
    "SmolVLM": smolvlm,
    "Idefics3": idefics3,
    "InternVL": internvl,
    "GLM-4V": glm4v,
    "Qwen2.5-VL": qwen2_5_vl,
    "Qwen3-VL": qwen3_vl,
}


def build(name: str) -> Sample:
    """The model, in evaluation, and its inputs."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0.0, 0.06)
    return model.eval(), inputs
