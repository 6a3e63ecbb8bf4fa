"""Convolutions of one pixel are linears where tokens read them, and convolutions among images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.images.pixel_products import pixels_to_products
from tt_dynamo.passes.moves.joined_moves import join_moves
from tt_dynamo.passes.normalize.canonicalize import canonicalize

BATCH, WIDTH, SIZE = 2, 8, 6
Tensor = torch.Tensor


def image(tokens: Tensor) -> Tensor:
    return tokens.unflatten(1, (SIZE, SIZE)).permute(0, 3, 1, 2)


def tokens(image: Tensor) -> Tensor:
    return image.flatten(2).transpose(1, 2)


def rewritten(forward: Callable[..., object], *modules: nn.Module) -> tuple[int, int, int]:
    """How many convolutions become linears; how many linears and convolutions there are then."""
    torch.manual_seed(0)
    graph = capture(Module(*modules, forward=forward), random(BATCH, SIZE * SIZE, WIDTH))
    graph.apply(canonicalize, channels_last, join_moves, exact=False)
    count = graph.apply(pixels_to_products, exact=False)
    return count, len(graph.calls(operators.linear)), len(graph.calls(operators.conv2d))


@pytest.mark.parametrize("bias", [True, False])
def test_tokens_on_both_sides_of_a_pixel(bias: bool) -> None:
    pixel = nn.Conv2d(WIDTH, 12, 1, bias=bias)
    assert rewritten(lambda s, x: tokens(s.p0(image(x))) * 2, pixel) == (1, 1, 0)


def test_the_last_one_behind_channels_that_are_cut() -> None:
    def gated(s: Module, x: Tensor) -> Tensor:
        y, gate = s.p1(s.p0(image(x))).chunk(2, 1)
        return tokens(s.p2(y * torch.relu(gate))) + x

    deep = nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1, groups=2 * WIDTH)
    assert rewritten(gated, nn.Conv2d(WIDTH, 2 * WIDTH, 1), deep, nn.Conv2d(WIDTH, WIDTH, 1)) == (1, 1, 2)


OTHERS: dict[str, tuple[Callable[..., object], tuple[nn.Module, ...]]] = {
    "larger kernels": (lambda s, x: tokens(s.p0(image(x))), (nn.Conv2d(WIDTH, 4, 3, padding=1),)),
    "strides": (lambda s, x: tokens(s.p0(image(x))), (nn.Conv2d(WIDTH, 4, 1, 2),)),
    "groups": (lambda s, x: tokens(s.p0(image(x))), (nn.Conv2d(WIDTH, 4, 1, groups=2),)),
    "padding": (lambda s, x: tokens(s.p0(image(x))), (nn.Conv2d(WIDTH, 4, 1, padding=1),)),
    "images": (lambda s, x: s.p0(image(x)), (nn.Conv2d(WIDTH, 4, 1),)),
    "an image read besides": (lambda s, x: (tokens(y := s.p0(image(x))), y * 2), (nn.Conv2d(WIDTH, 4, 1),)),
    "what a convolution left": (
        lambda s, x: tokens(s.p1(torch.relu(s.p0(image(x))))),
        (nn.Conv2d(WIDTH, 4, 3, padding=1), nn.Conv2d(4, WIDTH, 1)),
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_convolutions_stay(case: str) -> None:
    forward, modules = OTHERS[case]
    assert rewritten(forward, *modules)[0] == 0
