"""Learned tokens beside patches are rows of zeros among them; what else is joined stays joined."""

import pytest
import torch
from captured import Module, capture, parameter, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.patch_embedding import fold_patch_embedding
from tt_dynamo.passes.images.tokens import tokens_among_patches
from tt_dynamo.passes.normalize.canonicalize import canonicalize

BATCH, WIDTH, PATCHES = 2, 6, 6


def rewritten(join, size=(24, 16)):
    """The graph of join(self, patches), with parameters p1 a token, p2 two more and p3 positions of all."""
    shapes = (1, 1, WIDTH), (1, 2, WIDTH), (1, PATCHES + 1, WIDTH)
    model = Module(
        nn.Conv2d(3, WIDTH, 8, 8),
        *(parameter(*shape) for shape in shapes),
        forward=lambda s, x: join(s, s.p0(x).flatten(2).transpose(1, 2)),
    )
    graph = capture(model, random(BATCH, 3, *size))
    return graph, graph.apply(canonicalize, fold_patch_embedding, tokens_among_patches, exact=False)


def vit(s, x):
    return torch.cat([s.p1.expand(BATCH, -1, -1), x], 1) + s.p3


def deit(s, x):
    return torch.cat([s.p1.expand(BATCH, -1, -1), x + s.p3[:, 1:]], 1)


def dinov2_with_registers(s, x):
    x = vit(s, x)
    return torch.cat([x[:, :1], s.p2.expand(BATCH, -1, -1), x[:, 1:]], 1)


def yolos(s, x):
    return torch.cat([s.p1.expand(BATCH, -1, -1), x, s.p2.expand(BATCH, -1, -1)], 1)


@pytest.mark.parametrize(
    ("join", "before", "after"), [(vit, 1, 0), (deit, 1, 0), (dinov2_with_registers, 3, 0), (yolos, 1, 2)]
)
def test_tokens_become_rows_of_zeros_among_the_patches(join, before, after):
    graph, changed = rewritten(join)
    assert changed == 1
    padded = graph.only(aten.constant_pad_nd.default)
    assert padded.args == (graph.only(operators.gather_patches), [0, 0, before, after])
    (total,) = graph.graph.output_node().args[0]
    assert total.target is aten.add.Tensor and total.args[0] is graph.only(operators.linear)


@pytest.mark.parametrize(
    "join",
    [
        lambda s, x: torch.cat([s.p1.expand(BATCH, -1, -1), x.relu()], 1),  # computed
        lambda s, x: torch.cat([s.p1.expand(BATCH, -1, -1), x.flip(1)], 1),  # in another order
        lambda s, x: (torch.cat([s.p1.expand(BATCH, -1, -1), x], 1), x.sum()),  # read elsewhere
        lambda s, x: x + s.p3[:, 1:],  # nothing joined
        lambda s, x: torch.cat([x[:, :2], s.p1.expand(BATCH, -1, -1), x[:, 2:]], 1),  # in the middle
    ],
)
def test_other_patches_stay_as_they_are(join):
    graph, changed = rewritten(join)
    assert changed == 0 and not graph.calls(aten.constant_pad_nd.default)
