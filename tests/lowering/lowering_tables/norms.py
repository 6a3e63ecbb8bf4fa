"""Norms of every kind, and what training keeps of them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from compiled import positive, random, rounded
from torch import nn

from .row import Row

X = random(2, 3, 33)
IMAGE = random(2, 6, 4, 5)
W, B, LAST = random(6), random(6, mean=1.0), random(5)
ROW, COLUMN, OTHER = random(1, 33), random(4, 1), random(4, 33, mean=0.5)


def affine(module: nn.Module) -> nn.Module:
    """The module with weights, biases and statistics that bfloat16 represents and that are far from 1 and 0."""
    module = rounded(module)
    for name, buffer in module.named_buffers():
        if name.endswith("var"):
            buffer.copy_(positive(*buffer.shape))
        elif name.endswith("mean"):
            buffer.copy_(random(*buffer.shape))
    for parameter in module.parameters():
        parameter.data.copy_(random(*parameter.shape, mean=1.0))
    return module


def _layer_norm(*shape: int) -> nn.Module:
    norm = affine(nn.LayerNorm(shape))
    norm.bias.data.copy_(random(*shape))
    return norm


def _summed(norm: nn.Module) -> Callable[..., torch.Tensor]:
    return lambda x, y: norm(x + y)


def _computed(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(torch.relu(x), mean, torch.exp(variance), *affine)


GROUP_NORMS = [(5, 6), (5, 6, 7), (2, 6, 4, 5), (2, 6, 3, 4, 5)]
BY_THEIR_INPUT = [
    (nn.InstanceNorm1d(6), (2, 6, 9), "reshape layer_norm reshape"),
    (nn.InstanceNorm2d(6), (2, 6, 4, 5), "reshape layer_norm reshape"),
    (nn.InstanceNorm2d(6), (6, 4, 5), "reshape layer_norm reshape"),
    (nn.InstanceNorm2d(6, affine=True), (2, 6, 4, 5), "reshape layer_norm reshape addcmul"),
    (nn.InstanceNorm3d(6), (2, 6, 3, 4, 5), "reshape layer_norm reshape"),
    (nn.BatchNorm2d(6, track_running_stats=False), (2, 6, 4, 5), "permute reshape layer_norm reshape permute addcmul"),
]
BY_STATISTICS = [
    (nn.BatchNorm1d(6), (5, 6)),
    (nn.BatchNorm1d(6), (5, 6, 7)),
    (nn.BatchNorm2d(6), (2, 6, 4, 5)),
    (nn.BatchNorm2d(6, affine=False), (2, 6, 4, 5)),
    (nn.BatchNorm3d(6), (2, 6, 3, 4, 5)),
    (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), (2, 6, 4, 5)),
]
WITH_STATISTICS = {
    "native_layer_norm: statistics": (lambda x: torch.native_layer_norm(torch.relu(x), [5], LAST, LAST, 1e-5),
        "relu reshape mean var reshape reshape add rsqrt layer_norm"),
    "native_layer_norm: statistics over all": (
    lambda x: torch.native_layer_norm(torch.relu(x), [2, 6, 4, 5], None, None, 1e-5),
            "relu reshape mean var reshape reshape add rsqrt reshape layer_norm reshape"
    ),
    "native_group_norm: statistics": (lambda x: torch.native_group_norm(torch.relu(x), W, B, 2, 6, 20, 3, 1e-5),
        "relu reshape layer_norm reshape mean var reshape reshape add rsqrt addcmul"),
    "native_group_norm: statistics without weight": (
    lambda x: torch.native_group_norm(torch.relu(x), None, None, 2, 6, 20, 3, 1e-5),
            "relu reshape layer_norm reshape mean var reshape reshape add rsqrt"
    ),
    "_native_batch_norm_legit: statistics": (
    lambda x: torch._native_batch_norm_legit(torch.relu(x), W, B, True, 0.1, 1e-5),
            "relu permute reshape layer_norm reshape permute mean var reshape reshape add rsqrt addcmul"
    ),
    "_native_batch_norm_legit: statistics without bias": (
    lambda x: torch._native_batch_norm_legit(torch.relu(x), W, None, True, 0.1, 1e-5),
            "relu permute reshape layer_norm reshape permute mean var reshape reshape add rsqrt multiply"
    ),
}  # fmt: skip
OF_VECTORS = {
    "normalize": (lambda x: F.normalize(torch.relu(x), dim=-1), "relu rms_norm"),
    "normalize: by sums": (lambda x: F.normalize(torch.relu(x), dim=0, p=1), "relu abs sum maximum divide"),
    "cosine_similarity": (
        lambda x: F.cosine_similarity(torch.relu(x), OTHER),
        "relu multiply sum sqrt multiply sum sqrt maximum maximum divide divide multiply sum",
    ),
    "_weight_norm: rows": (
        lambda x: torch._weight_norm(torch.relu(x), COLUMN, 0),
        "relu multiply sum sqrt divide multiply",
    ),
    "_weight_norm: columns": (
        lambda x: torch._weight_norm(torch.relu(x), ROW, 1),
        "relu multiply sum sqrt divide multiply",
    ),
}

ROWS = [
    *(
        Row(f"layer_norm: over {shape}", _layer_norm(*shape), random(*(2, 3, 33)[: 3 - len(shape)], *shape), calls,
            cancels=True)
    for shape, calls in {(8,): "layer_norm", (33,): "layer_norm", (64,): "layer_norm", (3, 33):
            "reshape reshape reshape layer_norm reshape",
                             (2, 3, 33): "reshape reshape reshape layer_norm reshape"}.items()
    ),
    *(
        Row(f"layer_norm: {options}", rounded(nn.LayerNorm(33, **options)), X, "layer_norm")
        for options in [{"elementwise_affine": False}, {"bias": False}, {"eps": 0.5}]
    ),
    *(
        Row(f"layer_norm: {shape}", rounded(nn.LayerNorm(33)), random(*shape), "layer_norm")
        for shape in [(33,), (1, 33), (2, 2, 3, 33)]
    ),
    Row("layer_norm: of a sum", _summed(rounded(nn.LayerNorm(33))), (X, random(2, 3, 33, mean=1.0)), "layer_norm",
        programs=1),
    Row("linear: by a weight norm", nn.utils.parametrizations.weight_norm(rounded(nn.Linear(33, 5))), random(3, 33),
        "linear", roundings=2, cancels=True),
    *(
        Row(f"{norm}: {shape}", affine(norm), random(*shape), "addcmul", roundings=3, cancels=True)
        for norm, shape in BY_STATISTICS
    ),
    Row("batch_norm: computed statistics", _computed, (IMAGE, *[random(6)] * 4),
        "relu exp add rsqrt multiply multiply subtract reshape reshape addcmul", roundings=6, cancels=True),
    *(
        Row(f"native_group_norm: {shape} in {groups}, affine={with_affine}",
            affine(nn.GroupNorm(groups, 6, affine=with_affine)), random(*shape),
            "reshape layer_norm reshape" + " addcmul" * with_affine, roundings=3, cancels=True)
        for groups, with_affine in [(1, True), (3, True), (6, True), (3, False)]
        for shape in GROUP_NORMS
        if (groups, len(shape)) != (6, 2)  # eager torch refuses to normalize single numbers
    ),
    *(
        Row(f"{norm}: of its input {shape}", affine(norm), random(*shape), calls, roundings=3, cancels=True)
        for norm, shape, calls in BY_THEIR_INPUT
    ),
    *(Row(name, norm, IMAGE, calls, roundings=3, cancels=True) for name, (norm, calls) in WITH_STATISTICS.items()),
    *(
        Row(f"rms_norm: {shape} {options}", affine(nn.RMSNorm(33, **options)), random(*shape), "rms_norm")
        for shape in [(33,), (5, 33), (2, 3, 33), (2, 2, 3, 2, 33)]
        for options in [{}, {"elementwise_affine": False}, {"eps": 0.5}]
    ),
    Row("rms_norm: over several dimensions", lambda x, w: F.rms_norm(torch.relu(x), [3, 33], w), (X, random(3, 33)),
        "relu reshape rms_norm"),
    *(Row(name, norm, random(4, 33), calls, roundings=6, cancels=True) for name, (norm, calls) in OF_VECTORS.items()),
]  # fmt: skip
