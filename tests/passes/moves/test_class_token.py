"""A class token stands behind the patches of an image, where these are cut from all tokens again."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.movement import start_of
from tt_dynamo.passes.moves.class_token import class_token_last
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant

BATCH, SIDE, WIDTH = 2, 4, 8
PATCHES = SIDE * SIDE


def members():
    torch.manual_seed(0)
    convolution = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
    return nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), convolution, nn.Linear(WIDTH, WIDTH)


def image(x):
    return x.transpose(1, 2).reshape(BATCH, WIDTH, SIDE, SIDE)


def position(self, x):
    """Positions of patches by a convolution, as CPVT and CoaT have them."""
    token, patches = x[:, :1], image(x[:, 1:])
    return torch.cat([token, (self.p2(patches) + patches).flatten(2).transpose(1, 2)], 1)


def block(self, x):
    return x + F.gelu(self.p0(self.p1(position(self, x))))


def linear_attention(self, x):
    y = self.p1(x)
    return x + y @ (self.p3(y).softmax(1).transpose(1, 2) @ y)


def gated(self, x):
    """Padding in the token's place."""
    y = self.p0(x)
    return y * F.pad(y[:, 1:].relu(), (0, 0, 1, 0)) + torch.arange(PATCHES + 1)[:, None]


def captured(forward, token=None):
    token = torch.ones(1, 1, WIDTH) if token is None else token

    def whole(self, patches):
        x = forward(self, block(self, torch.cat([token.expand(BATCH, -1, -1), patches], 1)))
        return x[:, 0], image(x[:, 1:])

    graph = capture(Module(*members(), forward=whole), random(BATCH, PATCHES, WIDTH))
    graph.apply(canonicalize)
    return graph


@pytest.mark.parametrize("forward", [block, linear_attention, gated])
def test_patches_begin_where_tokens_do(forward):
    graph = captured(forward)
    assert graph.apply(class_token_last, exact=False) > 0
    patches = [cut for cut in graph.calls(aten.slice.Tensor) if shape_of(cut)[1:] == (PATCHES, WIDTH)]
    assert patches and all(start_of(cut) == 0 for cut in patches)
    pads = [pad for pad in graph.calls(aten.constant_pad_nd.default) if not is_constant(pad.args[0])]
    assert pads and all(pad.args[1][:4] == [0, 0, 0, 1] for pad in pads)


def test_positions_of_patches_are_added_to_all_tokens():
    graph = captured(block)
    graph.apply(class_token_last, exact=False)
    assert not graph.calls(aten.cat.default)


def softmax_over_columns(self, x):
    y = x.softmax(-1)
    return x + y @ (y.transpose(1, 2) @ x)


def flipped(self, x):
    return x + x.flip(1)


def attended(self, x):
    return x @ x.transpose(1, 2) @ x


@pytest.mark.parametrize("forward", [flipped, attended, softmax_over_columns], ids=lambda f: f.__name__)
def test_what_reads_tokens_in_their_order_keeps_it(forward):
    graph = captured(forward)
    assert graph.apply(class_token_last, exact=False) == 0
