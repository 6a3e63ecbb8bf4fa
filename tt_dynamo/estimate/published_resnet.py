"""The calls of ResNet-50 as its authors in tt-metal make them, all in bfloat8_b and one phase.

Source: models/demos/ttnn_resnet/tt/ttnn_functional_resnet50.py. The images arrive as [batch * 3 * 224, 224] in L1 and
are folded there by 2 x 2 pixels, so that the first convolution has a stride of 1. Stages 1 and 2 lie in height shards,
3 and 4 in block shards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

from tt_dynamo.estimate.chip import Chip
from tt_dynamo.estimate.tensor import Call, Tensor

PRECISION = SimpleNamespace(math_fidelity="LoFi", fp32_dest_acc_en=False, packer_l1_acc=True)
BLOCKS = (3, 4, 6, 3)
# Cores of stages 1 and 2, which lie in height shards, and of 3 and 4, columns times rows.
CORES = {"wormhole_b0": (56, 56, 56, 56), "blackhole": (112, 98, 104, 104)}


@dataclass(frozen=True)
class _Stage:
    """Where the images of a stage lie."""

    batch: int
    sharding: str
    cores: int

    def images(self, side: int, channels: int, dtype: str = "bfloat8_b", layout: str = "TILE") -> Tensor:
        return Tensor((1, 1, self.batch * side**2, channels), dtype, layout, "L1", self.sharding, self.cores)

    def convolution(self, x: Tensor, side: int, channels: int, kernel: int, stride: int = 1) -> Call:
        weight = Tensor((1, 1, kernel**2 * x.shape[-1], channels), "bfloat8_b")
        options = {
            "kernel_size": (kernel, kernel),
            "stride": (stride, stride),
            "padding": (kernel // 2, kernel // 2),
            "dilation": (1, 1),
            "groups": 1,
            "compute_config": PRECISION,
        }
        return Call("ttnn.conv2d", (x, weight), (self.images(side, channels),), options)


def resnet_calls(chip: Chip, batch: int) -> Iterator[Call]:
    """One forward pass of `batch` images of 224 x 224 pixels."""
    stem = _Stage(batch, "HEIGHT_SHARDED", chip.cores)
    rows = Tensor((batch, 3, 224, 224), "bfloat16", "ROW_MAJOR", "L1", "HEIGHT_SHARDED", chip.cores)
    folded = stem.images(115, 16, "bfloat16", "ROW_MAJOR")
    yield Call("ttnn.fold", (rows,), (folded,), {"use_transpose_as_fold": True})
    first = stem.convolution(folded, 112, 64, 4)
    yield first
    pooled = stem.images(56, 64, "bfloat16", "ROW_MAJOR")
    yield Call("ttnn.max_pool2d", first.outputs, (pooled,), {"kernel_size": (3, 3)})
    stages = [
        _Stage(batch, "HEIGHT_SHARDED" if number < 2 else "BLOCK_SHARDED", cores)
        for number, cores in enumerate(CORES[chip.architecture])
    ]
    moved = stages[0].images(56, 64, "bfloat16", "ROW_MAJOR")
    x, side = stages[0].images(56, 64), 56
    yield Call("ttnn.reshard", (pooled,), (moved,))
    yield Call("ttnn.to_layout", (moved,), (x,))
    for number, (stage, blocks) in enumerate(zip(stages, BLOCKS, strict=True)):
        if number and (chip.architecture == "blackhole" or number > 1):
            moved = stage.images(side, x.shape[-1])
            yield Call("ttnn.reshard", (x,), (moved,))
            x = moved
        for block in range(blocks):
            stride = 2 if number and not block else 1
            for call in _bottleneck(stage, x, side, 64 << number, stride, with_shortcut=not block):
                yield call
                x = call.outputs[0]
            side //= stride
    yield from _head(batch, x)


def _bottleneck(stage: _Stage, x: Tensor, side: int, channels: int, stride: int, with_shortcut: bool) -> Iterator[Call]:
    narrow = stage.convolution(x, side, channels, 1)
    middle = stage.convolution(narrow.outputs[0], side // stride, channels, 3, stride)
    wide = stage.convolution(middle.outputs[0], side // stride, 4 * channels, 1)
    yield from (narrow, middle, wide)
    shortcut = stage.convolution(x, side // stride, 4 * channels, 1, stride)
    if with_shortcut:
        yield shortcut
    yield Call("ttnn.add", (wide.outputs[0],) * 2, wide.outputs, {"activations": ["relu"]})


def _head(batch: int, x: Tensor) -> Iterator[Call]:
    """The mean over the pixels and the classes, in width shards, with changes of layout between."""
    side, channels = 7, x.shape[-1]

    def lying(shape: tuple[int, ...], layout: str = "TILE") -> Tensor:
        return Tensor(shape, "bfloat8_b" if layout == "TILE" else "bfloat16", layout, "L1", "WIDTH_SHARDED", 32)

    images, sums, last = (1, 1, batch * side**2, channels), (batch, 1, side**2, channels), (1, 1, batch, channels)
    rows, by_image = lying(images, "ROW_MAJOR"), lying(sums, "ROW_MAJOR")
    means, flat, classes = lying((batch, 1, 1, channels)), lying(last), lying((1, 1, batch, 1024))
    yield Call("ttnn.reshard", (x,), (lying(images),))
    yield Call("ttnn.untilize_with_unpadding", (lying(images),), (rows,))
    yield Call("ttnn.tilize_with_val_padding", (by_image,), (lying(sums),))
    yield Call("ttnn.mean", (lying(sums),), (means,))
    yield Call("ttnn.untilize_with_unpadding", (means,), (lying(last, "ROW_MAJOR"),))
    yield Call("ttnn.tilize_with_val_padding", (lying(last, "ROW_MAJOR"),), (flat,))
    grid = SimpleNamespace(x=8, y=4)
    config = SimpleNamespace(kind="1d", in0_block_w=2, compute_with_storage_grid_size=grid)
    options = {"program_config": config, "compute_kernel_config": PRECISION}
    yield Call("ttnn.linear", (flat, Tensor((channels, 1024), "bfloat8_b")), (classes,), options)
    yield Call("ttnn.untilize_with_unpadding", (classes,), (lying((1, 1, batch, 1024), "ROW_MAJOR"),))
