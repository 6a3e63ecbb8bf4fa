"""Linear attention is computed on tokens: no heads are split or merged, and images of tokens are made of them."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.heads.token_products import join_token_products
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.moves.joined_moves import join_moves
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants

BATCH, SIDE, HEADS, DIM = 2, 4, 3, 8
SEQ, WIDTH = SIDE * SIDE + 1, HEADS * DIM


def heads(self, x):
    return self.p0(x).reshape(BATCH, SEQ, 3, HEADS, DIM).permute(2, 0, 3, 1, 4).unbind(0)


def merged(y):
    return y.transpose(1, 2).reshape(BATCH, SEQ, WIDTH)


def plain(self, x):
    q, k, v = heads(self, x)
    return self.p1(merged(q @ (k.transpose(-1, -2) @ v)))


def as_one_row(self, x):
    q, k, v = heads(self, x)
    return merged(q @ (k.transpose(-1, -2) @ v)).reshape(1, BATCH * SEQ, WIDTH).sin()


def test_what_holds_merged_heads_keeps_its_shape():
    graph = captured(as_one_row)
    assert graph.apply(join_token_products, exact=False) == 1


def softened(self, x):
    q, k, v = heads(self, x)
    return self.p1(merged(0.3 * (q @ (k.softmax(2).transpose(-1, -2) @ v))))


def convolved(self, x):
    """As CoaT has it: convolutions of the values of all tokens but the first weigh the queries."""
    q, k, v = heads(self, x)
    y = q @ (k.softmax(2).transpose(-1, -2) @ v)
    image = v[:, :, 1:].transpose(-1, -2).reshape(BATCH, WIDTH, SIDE, SIDE)
    gates = self.p2(image).reshape(BATCH, HEADS, DIM, SIDE * SIDE).transpose(-1, -2)
    return self.p1(merged(0.3 * y + F.pad(q[:, :, 1:] * gates, (0, 0, 1, 0, 0, 0))))


def captured(forward):
    torch.manual_seed(0)
    convolution = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
    graph = capture(
        Module(nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 7), convolution, forward=forward),
        random(BATCH, SEQ, WIDTH),
    )
    graph.apply(canonicalize)
    return graph


@pytest.mark.parametrize("forward", [plain, softened, convolved])
def test_products_of_heads_are_those_of_tokens(forward):
    graph = captured(forward)
    assert graph.apply(join_token_products, exact=False) == 1
    for transform in (channels_last, join_moves, fold_constants):
        graph.apply(transform, exact=False)
    assert [shape_of(node) for node in graph.calls(aten.matmul.default)] == [
        (BATCH, WIDTH, WIDTH),
        (BATCH, SEQ, WIDTH),
    ]
    assert len(graph.calls(aten.permute.default)) == 1, "of the keys"
    assert len(graph.calls(aten.slice.Tensor)) == (forward is convolved), "of the values"
    assert len(graph.calls(operators.linear)) == 4


def over_head(self, x):
    q, k, v = heads(self, x)
    return self.p1(merged(q @ (k.softmax(-1).transpose(-1, -2) @ v)))


def normed(self, x):
    q, k, v = heads(self, x)
    return self.p1(merged(q @ (k.transpose(-1, -2) @ v).softmax(-1)))


def attention(self, x):
    q, k, v = heads(self, x)
    return self.p1(merged((q @ k.transpose(-1, -2)) @ v))


@pytest.mark.parametrize("forward", [over_head, normed, attention], ids=lambda f: f.__name__)
def test_what_works_on_columns_of_each_head_stays(forward):
    assert captured(forward).apply(join_token_products, exact=False) == 0


def test_what_reads_tokens_finds_no_reshape_between():
    """`class_token_last` takes tokens through sums: a reshape to their own shape would end there."""

    def residual(self, x):
        q, k, v = heads(self, x)
        return x + merged(q @ (k.transpose(-1, -2) @ v))

    graph = captured(residual)
    assert graph.apply(join_token_products, exact=False) == 1
    (total,) = graph.calls(aten.add.Tensor)
    assert aten.matmul.default in [x.target for x in total.args]
