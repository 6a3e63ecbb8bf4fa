"""Models whose data movement is measured: how each is built, with few layers, and what it is called with.

Weights are random, from the constructors of torchvision, timm and transformers; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectors import yolo8, yolo11, yolo12
from torch import nn
from written_networks import cycle_gan, residual_unet, temporal_network
from written_windows import swin_ir, swin_unetr

Built = tuple[nn.Module, dict[str, Any] | tuple[Any, ...]]


def image(size: int = 224, batch: int = 1, channels: int = 3) -> tuple[torch.Tensor]:
    return (torch.randn(batch, channels, size, size),)


def timm_model(name: str, size: int = 224, batch: int = 1, **options: Any) -> Callable[[], Built]:
    """A model of timm by its name."""

    def build() -> Built:
        import timm

        return timm.create_model(name, pretrained=False, **options), image(size, batch)

    return build


def timm_class(path: str, size: int = 224, **options: Any) -> Callable[[], Built]:
    """A model of timm by its class, "nest.Nest": what its names build has a depth of its own."""

    def build() -> Built:
        import timm.models

        module, name = path.split(".")
        return getattr(getattr(timm.models, module), name)(**options), image(size)

    return build


def vision_model(name: str, size: int = 224, **options: Any) -> Callable[[], Built]:
    """A classifier of torchvision by its name."""

    def build() -> Built:
        import torchvision

        return getattr(torchvision.models, name)(weights=None, **options), image(size)

    return build


class Segmentation(nn.Module):
    """A segmentation network of torchvision that returns its scores alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import torchvision

        self.model = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)["out"]


def transformers_model(head: str, config: str, arguments: Callable[[], dict], **options: Any) -> Callable[[], Built]:
    """A model of transformers with a reduced configuration; what it is called with comes from `arguments`."""

    def build() -> Built:
        import transformers

        torch.manual_seed(0)
        made = getattr(transformers, config)(**options)
        return getattr(transformers, head)(made), arguments()

    return build


def tokens(length: int = 64, batch: int = 1, vocabulary: int = 100) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        ids = torch.randint(5, vocabulary, (batch, length))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return make


def prompt(length: int = 64, vocabulary: int = 100) -> Callable[[], dict[str, Any]]:
    return lambda: {"input_ids": torch.randint(5, vocabulary, (1, length)), "use_cache": False}


def pixels(size: int = 224, name: str = "pixel_values") -> Callable[[], dict[str, Any]]:
    return lambda: {name: torch.randn(1, 3, size, size)}


SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
WORDS = {**SMALL, "vocab_size": 128}
DECODER = {**WORDS, "num_key_value_heads": 2, "head_dim": 32, "pad_token_id": 0, "max_position_embeddings": 256}


def mvit() -> Built:
    """MViT-v2 with a block of one scale and two of the next two."""
    from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

    return MultiScaleVit(MultiScaleVitCfg(depths=(1, 2, 2), num_heads=1)), image()


def gated_mlp() -> Built:
    """gMLP with two blocks."""
    from timm.layers import GatedMlp
    from timm.models.mlp_mixer import MlpMixer, SpatialGatingBlock

    options = {"num_blocks": 2, "embed_dim": 256, "mlp_ratio": 6, "mlp_layer": GatedMlp}
    return MlpMixer(patch_size=16, block_layer=SpatialGatingBlock, **options), image()


def torchvision_swin() -> Built:
    """Torchvision's Swin with two stages."""
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 96, [2, 2], num_heads=[3, 6], window_size=[7, 7]), image()


def short_resnet(**options: Any) -> Callable[[], Built]:
    """ResNet-50 with 5 of its 16 bottlenecks."""

    def build() -> Built:
        from torchvision.models.resnet import Bottleneck, ResNet

        return ResNet(Bottleneck, [1, 1, 2, 1], **options), image()

    return build


def short_densenet() -> Built:
    """DenseNet with two of the layers of each block."""
    from torchvision.models.densenet import DenseNet

    return DenseNet(32, (2, 2, 2, 2), 64), image()


MODELS: dict[str, Callable[[], Built]] = {
    # windows
    "swin_tiny": timm_model("swin_tiny_patch4_window7_224", depths=(2, 2)),
    "swinv2_tiny": timm_model("swinv2_tiny_window8_256", 256, depths=(2, 2)),
    "torchvision swin": torchvision_swin,
    "maxvit_tiny": timm_model("maxvit_tiny_tf_224", depths=(1, 1, 1, 1)),
    "twins_svt_small": timm_model("twins_svt_small", depths=(2, 2, 2, 2)),
    "twins_pcpvt_small": timm_model("twins_pcpvt_small", depths=(1, 1, 1, 1)),
    "davit_tiny": timm_class("davit.DaVit", depths=(1, 1, 1, 1)),
    "mvitv2_tiny": mvit,
    "focalnet_tiny": timm_class("focalnet.FocalNet", depths=(1, 1, 1)),
    "hiera_tiny": timm_class("hiera.Hiera", stages=(1, 1, 1, 1)),
    "nest_tiny": timm_class("nest.Nest", embed_dims=(96, 192, 384), num_heads=(3, 6, 12), depths=(1, 1, 2)),
    "samvit": timm_model("samvit_base_patch16_224", depth=3),
    "pvt_v2_b0": timm_class("pvt_v2.PyramidVisionTransformerV2", depths=(1, 1, 1, 1)),
    "swin2sr": transformers_model(
        "Swin2SRForImageSuperResolution", "Swin2SRConfig", pixels(64), embed_dim=60, depths=[2, 2], num_heads=[6, 6],
        upsampler="pixelshuffledirect", upscale=2,
    ),
    "donut swin": transformers_model(
        "DonutSwinModel", "DonutSwinConfig", pixels(224), embed_dim=96, depths=[2, 2], num_heads=[3, 6]
    ),
    # vision transformers
    "vit_tiny": timm_model("vit_tiny_patch16_224", depth=2),
    "deit3_small": timm_model("deit3_small_patch16_224", depth=2),
    "beit_base": timm_model("beit_base_patch16_224", depth=2),
    "cait_xxs24": timm_model("cait_xxs24_224", depth=2),
    "xcit_nano": timm_model("xcit_nano_12_p16_224", depth=2),
    "eva02_tiny": timm_model("eva02_tiny_patch14_224", depth=2),
    "crossvit_9": timm_model("crossvit_9_240", 240, depth=((1, 2, 0),)),
    "levit_128s": timm_model("levit_128s", depth=(1, 1, 1)),
    "coat_tiny": timm_model("coat_lite_tiny"),
    "mixer_s16": timm_class("mlp_mixer.MlpMixer", num_blocks=2),
    "gmlp_s16": gated_mlp,
    "poolformer_s12": timm_model("poolformer_s12"),
    "caformer_s18": timm_model("caformer_s18"),
    "efficientformer_l1": timm_model("efficientformer_l1", depths=(1, 1, 1, 2)),
    "efficientvit_b0": timm_model("efficientvit_b0"),
    "fastvit_t8": timm_model("fastvit_t8", 256),
    "mobilevit_xxs": timm_model("mobilevit_xxs", 256),
    "edgenext_xx_small": timm_class("edgenext.EdgeNeXt", 256, depths=(1, 2, 2, 2)),
    # convolutions
    "resnet18": vision_model("resnet18"),
    "resnext50": short_resnet(groups=32, width_per_group=4),
    "res2net50": timm_model("res2net50_26w_4s", layers=(1, 1, 1, 1)),
    "densenet121": short_densenet,
    "mobilenet_v3": vision_model("mobilenet_v3_small"),
    "efficientnet_b0": vision_model("efficientnet_b0"),
    "shufflenet_v2": vision_model("shufflenet_v2_x0_5"),
    "googlenet": vision_model("googlenet", init_weights=False, aux_logits=False),
    "convnext_tiny": timm_model("convnext_tiny", depths=(1, 1, 1, 1)),
    "regnety_002": timm_model("regnety_002"),
    "mixnet_s": timm_model("mixnet_s"),
    "hrnet_w18_small": timm_model("hrnet_w18_small"),
    "vgg11": vision_model("vgg11"),
    "deeplabv3": lambda: (Segmentation("deeplabv3_mobilenet_v3_large"), image()),
    "yolov8n": lambda: (yolo8(), image(320)),
    "yolo11n": lambda: (yolo11(), image(320)),
    "yolo12n": lambda: (yolo12(), image(320)),
    "cyclegan": cycle_gan,
    "monai unet": residual_unet,
    "swin unetr": swin_unetr,
    "swinir": swin_ir,
    "temporal network": temporal_network,
    "segformer": transformers_model(
        "SegformerForSemanticSegmentation", "SegformerConfig", pixels(128), depths=[1, 1, 1, 1]
    ),
    "whisper encoder": transformers_model(
        "WhisperForAudioClassification", "WhisperConfig", lambda: {"input_features": torch.randn(1, 80, 3000)},
        d_model=128, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=256,
    ),
    "wav2vec2": transformers_model(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", lambda: {"input_values": torch.randn(1, 16000)}, **SMALL
    ),
    # language
    "bert": transformers_model("BertModel", "BertConfig", tokens(), **WORDS),
    "roberta": transformers_model("RobertaModel", "RobertaConfig", tokens(), **WORDS),
    "distilbert": transformers_model(
        "DistilBertModel", "DistilBertConfig", tokens(), dim=128, n_layers=2, n_heads=4, hidden_dim=256, vocab_size=128
    ),
    "modernbert": transformers_model("ModernBertModel", "ModernBertConfig", tokens(), **WORDS, pad_token_id=0),
    "t5": transformers_model(
        "T5EncoderModel", "T5Config", tokens(), d_model=128, num_layers=2, num_heads=4, d_kv=32, d_ff=256,
        vocab_size=128,
    ),
    "albert": transformers_model("AlbertModel", "AlbertConfig", tokens(), **WORDS, embedding_size=64),
    "gpt2": transformers_model(
        "GPT2LMHeadModel", "GPT2Config", prompt(), n_embd=128, n_layer=2, n_head=4, vocab_size=128
    ),
    "llama": transformers_model("LlamaForCausalLM", "LlamaConfig", prompt(), **DECODER),
    "qwen2": transformers_model("Qwen2ForCausalLM", "Qwen2Config", prompt(), **DECODER),
    "qwen3": transformers_model("Qwen3ForCausalLM", "Qwen3Config", prompt(), **DECODER),
    "gemma2": transformers_model("Gemma2ForCausalLM", "Gemma2Config", prompt(), **DECODER),
    "phi3": transformers_model("Phi3ForCausalLM", "Phi3Config", prompt(), **DECODER),
    "mistral": transformers_model("MistralForCausalLM", "MistralConfig", prompt(), **DECODER),
    "opt": transformers_model(
        "OPTForCausalLM", "OPTConfig", prompt(), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        ffn_dim=256, vocab_size=128, word_embed_proj_dim=128,
    ),
    "clip text": transformers_model("CLIPTextModel", "CLIPTextConfig", tokens(), **WORDS),
    "siglip": transformers_model("SiglipVisionModel", "SiglipVisionConfig", pixels(), **SMALL),
    "dinov2": transformers_model("Dinov2Model", "Dinov2Config", pixels(), hidden_size=128, num_hidden_layers=2,
                                 num_attention_heads=4),
}  # fmt: skip
