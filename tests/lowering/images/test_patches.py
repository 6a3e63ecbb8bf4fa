"""Patch embeddings: a fold and one linear."""

import pytest
import torch
from compiled import calls, check, random, rounded
from torch import nn


def embedding(channels, patch, bias=True):
    convolution = rounded(nn.Conv2d(channels, 10, patch, patch, bias=bias))
    return lambda image: convolution(image).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("patch", [4, 7, 8, 14, 16, 32, (2, 8), (16, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_patches_of_every_size_are_folded_on_the_device(patch, channels):
    height, width = patch if isinstance(patch, tuple) else (patch, patch)
    report = check(embedding(channels, patch), random(2, channels, 3 * height, 2 * width))
    assert {"fold", "linear"} <= set(calls(report))
    assert not any("conv" in call for call in calls(report))


@pytest.mark.parametrize("size", [(49, 32), (48, 47), (33, 40)], ids=str)
def test_rows_and_columns_that_fill_no_patch_are_cut_off(size):
    check(embedding(3, 16), random(1, 3, *size))


def test_an_image_comes_out_of_an_embedding_as_of_its_convolution():
    check(rounded(nn.Conv2d(3, 10, 8, 8)), random(2, 3, 24, 16))


def test_an_embedding_without_bias():
    check(embedding(3, 8, bias=False), random(1, 3, 16, 16))


def test_a_class_token_and_positions_join_the_patches():
    class Embeddings(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Conv2d(3, 32, 8, 8)
            self.token = nn.Parameter(random(1, 1, 32))
            self.position = nn.Parameter(random(1, 7, 32))

        def forward(self, image):
            patches = self.project(image).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.token.expand(image.shape[0], -1, -1), patches], 1)
            return tokens + self.position

    check(rounded(Embeddings()), random(2, 3, 24, 16), roundings=2, cancels=True)
