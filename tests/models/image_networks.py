"""The convolutional networks that must run whole: how each is built, with statistics of batch norm of its own.

Weights are random and seeded, from the constructors of torchvision. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from unet import UNet


class Segmentation(nn.Module):
    """A segmentation network of torchvision that returns its scores alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import torchvision

        make = getattr(torchvision.models.segmentation, name)
        self.model = make(weights=None, weights_backbone=None, aux_loss=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)["out"]


def classifier(name: str) -> Callable[[], nn.Module]:
    """A classifier of torchvision by its name."""

    def build() -> nn.Module:
        import torchvision

        return getattr(torchvision.models, name)(weights=None)

    return build


def short_resnet() -> nn.Module:
    """ResNet-50 with 5 of its 16 bottlenecks: one that goes on and one of each that halves the image."""
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 2, 1])


@dataclasses.dataclass(frozen=True)
class Network:
    """build: makes it. size: pixels of its images, high and wide."""

    build: Callable[[], nn.Module]
    size: int = 224


NETWORKS = {
    "resnet18": Network(classifier("resnet18")),
    "resnet50": Network(classifier("resnet50")),
    "mobilenet_v2": Network(classifier("mobilenet_v2")),
    "vgg11_bn": Network(classifier("vgg11_bn")),
    "squeezenet": Network(classifier("squeezenet1_0")),
    "regnet_y_400mf": Network(classifier("regnet_y_400mf")),
    "unet": Network(UNet, 256),
    "fcn_resnet50": Network(lambda: Segmentation("fcn_resnet50"), 520),
}
SHORT = {
    "short resnet": Network(short_resnet),
    "small unet": Network(lambda: UNet(16, 2), 64),
}


def built(network: Network) -> nn.Module:
    """A network in evaluation mode whose batch norms have seen a few batches, so that they are not the identity."""
    torch.manual_seed(0)
    model = network.build().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64) * 1.5 + 0.3)
    return model.eval()


def images(network: Network, batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, network.size, network.size, generator=torch.Generator().manual_seed(1))
