"""A convolution that embeds patches becomes a fold and a linear; every other convolution stays."""

import pytest
import torch
from captured import Module, capture, parameter, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.patch_embedding import fold_patch_embedding
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def embedded(patch, channels=3, size=None, bias=True, out=6, batch=2):
    """A ViT's patch embedding and its graph after the pass."""
    height, width = patch if isinstance(patch, tuple) else (patch, patch)
    size = size or (3 * height, 2 * width)
    convolution = nn.Conv2d(channels, out, patch, stride=patch, bias=bias)
    model = Module(convolution, forward=lambda s, x: s.p0(x).flatten(2).transpose(1, 2))
    graph = capture(model, random(batch, channels, *size))
    changed = graph.apply(canonicalize, fold_patch_embedding, exact=False)
    return graph, changed


@pytest.mark.parametrize("patch", [2, 4, 7, 8, 14, 16, 32, (8, 16), (16, 4), (1, 2)])
def test_patches_of_every_size_are_folded(patch):
    graph, changed = embedded(patch)
    assert changed == 1
    assert not graph.calls(aten.convolution.default)
    width = patch[1] if isinstance(patch, tuple) else patch
    moved = operators.gather_patches if width > 3 else operators.fold_patches
    assert graph.only(operators.linear).args[0] is graph.only(moved)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 12])
def test_images_of_any_channels_are_folded_without_padding_them(channels):
    graph, changed = embedded(8, channels)
    assert changed == 1
    moved = operators.gather_patches if channels < 8 else operators.fold_patches
    assert graph.only(moved).meta["val"].shape == (2, 6, 8 * 8 * channels)


def test_an_input_is_split_into_rows_of_patches_before_it_goes_up():
    graph, _ = embedded(16)
    rows = graph.only(operators.gather_patches).args[0]
    assert rows.target is aten.reshape.default and rows.args[0].op == "placeholder"


@pytest.mark.parametrize("size", [(49, 32), (48, 47), (33, 40), (16, 47)])
def test_rows_and_columns_that_fill_no_patch_are_cut_off(size):
    graph, changed = embedded(16, size=size)
    assert changed == 1
    rows, height, columns, width = graph.only(operators.gather_patches).args[0].meta["val"].shape[2:]
    assert (rows * height, columns * width) == (size[0] // 16 * 16, size[1] // 16 * 16)


def test_an_image_of_whole_patches_is_not_sliced():
    graph, _ = embedded(16)
    assert not graph.calls(aten.slice.Tensor)


def test_a_convolution_without_bias_is_a_linear_without_bias():
    graph, changed = embedded(16, bias=False)
    assert changed == 1
    assert graph.only(operators.linear).args[2:] in ((), (None,))


def test_the_moves_behind_the_convolution_meet_those_of_the_linear():
    graph, _ = embedded(16)
    assert graph.graph.output_node().args[0] == (graph.only(operators.linear),)


def test_an_image_that_comes_out_of_the_embedding_is_one():
    graph = capture(nn.Conv2d(3, 6, 16, 16), random(2, 3, 48, 32))
    assert graph.apply(canonicalize, fold_patch_embedding, exact=False) == 1


STAYING = {
    "padded": nn.Conv2d(4, 8, 4, 4, padding=2),
    "padded columns": nn.Conv2d(4, 8, 4, 4, padding=(0, 1)),
    "overlapping": nn.Conv2d(4, 8, 4, 2),
    "overlapping columns": nn.Conv2d(4, 8, 4, (4, 2)),
    "gaps": nn.Conv2d(4, 8, 3, 4),
    "grouped": nn.Conv2d(4, 8, 4, 4, groups=2),
    "dilated": nn.Conv2d(4, 8, 4, 4, dilation=2),
    "1x1": nn.Conv2d(4, 8, 1, 1),
    "transposed": nn.ConvTranspose2d(4, 8, 4, 4),
}


@pytest.mark.parametrize("name", STAYING)
def test_a_convolution_that_embeds_no_patches_stays(name):
    graph = capture(STAYING[name], random(2, 4, 16, 16))
    graph.apply(canonicalize)
    assert graph.apply(fold_patch_embedding) == 0
    assert graph.calls(aten.convolution.default)


def test_patches_of_an_image_that_was_computed_stay_a_convolution():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 2, 2))
    graph = capture(model, random(2, 3, 10, 10))
    assert graph.apply(canonicalize, fold_patch_embedding) == 0


def test_a_convolution_of_signals_stays():
    graph = capture(nn.Conv1d(4, 8, 4, 4), random(2, 4, 8))
    graph.apply(canonicalize)
    assert graph.apply(fold_patch_embedding) == 0


@pytest.mark.parametrize("kernel", [(2, 4, 4), (1, 2, 2), (2, 1, 1), (3, 5, 7)])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_patches_of_volumes_are_gathered(kernel, channels):
    size = [2 * length + 1 for length in kernel]
    graph = capture(nn.Conv3d(channels, 6, kernel, kernel), random(2, channels, *size))
    assert graph.apply(canonicalize, fold_patch_embedding, exact=False) == 1
    assert graph.only(operators.linear).args[0] is graph.only(operators.gather_patches)
    assert not graph.calls(aten.convolution.default)


@pytest.mark.parametrize("convolution", [nn.Conv2d(3, 6, 8, 8), nn.Conv3d(3, 6, (2, 8, 8), (2, 8, 8))])
def test_a_patch_that_is_the_whole_image_is_not_moved(convolution):
    graph = capture(lambda x: convolution(x).flatten(1), random(5, 3, *convolution.kernel_size))
    assert graph.apply(canonicalize, fold_patch_embedding, exact=False) == 1
    assert not graph.calls(operators.gather_patches, operators.fold_patches)
    assert graph.only(operators.linear).args[0].target is aten.reshape.default


def test_a_convolution_with_a_computed_weight_stays():
    model = Module(parameter(6, 3, 4, 4), forward=lambda s, x, w: nn.functional.conv2d(x, s.p0 * w, None, 4))
    graph = capture(model, random(2, 3, 8, 8), random(1))
    graph.apply(canonicalize)
    assert graph.apply(fold_patch_embedding) == 0


def test_a_convolution_with_a_computed_bias_stays():
    model = Module(parameter(6, 3, 4, 4), forward=lambda s, x, b: nn.functional.conv2d(x, s.p0, b, 4))
    graph = capture(model, random(2, 3, 8, 8), random(6))
    graph.apply(canonicalize)
    assert graph.apply(fold_patch_embedding) == 0


def test_two_embeddings_of_one_image_are_both_folded():
    model = Module(nn.Conv2d(3, 6, 4, 4), nn.Conv2d(3, 6, 8, 8), forward=lambda s, x: (s.p0(x), s.p1(x)))
    graph = capture(model, random(1, 3, 16, 16))
    assert graph.apply(canonicalize, fold_patch_embedding, exact=False) == 2


def test_a_constant_weight_that_was_computed_from_parameters_is_folded():
    model = Module(parameter(6, 3, 4, 4), forward=lambda s, x: nn.functional.conv2d(x, torch.tanh(s.p0), None, 4))
    graph = capture(model, random(2, 3, 8, 8))
    assert graph.apply(canonicalize, fold_patch_embedding, exact=False) == 1
