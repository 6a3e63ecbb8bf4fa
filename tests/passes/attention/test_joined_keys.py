"""Scores of several products that one softmax reads are one attention, and gathered keys are lookups."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import PRODUCTS
from tt_dynamo.passes.attention.joined_keys import join_keys, look_up_keys
from tt_dynamo.passes.normalize.canonicalize import canonicalize

HEADS, BLOCKS, SIZE, DIM = 2, 5, 4, 8
sdpa = aten.scaled_dot_product_attention.default


def heads(x):
    return x.view(1, BLOCKS * SIZE, HEADS, DIM).transpose(1, 2).reshape(1, HEADS, BLOCKS, SIZE, DIM)


def gathered(x):
    """Keys or values of the first block, which all read, of those around and of a random one."""
    around = torch.cat([x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]], 3)
    chosen = torch.tensor([[4, 0, 2], [1, 1, 3]])[None, :, :, None, None].expand(1, HEADS, 3, SIZE, DIM)
    return x[:, :, 0], around, torch.gather(x, 2, chosen)


def big_bird(self, x, mask, columns=(SIZE, 4 * SIZE)):
    query, key, value = (heads(f(x)) for f in (self.p0, self.p1, self.p2))
    query = query[:, :, 1:-1]
    (first, around, chosen), held = gathered(key), gathered(value)
    scores = [
        torch.einsum("bhlqd,bhkd->bhlqk", query, first) * 0.5 + mask[:, :, None, None, :SIZE],
        torch.matmul(query, around.mT) * 0.5 + mask[:, :, None, None, SIZE:],
        torch.matmul(query, chosen.mT) * 0.5,
    ]
    weights = torch.softmax(torch.cat(scores, -1), -1)
    start, stop = columns
    out = torch.matmul(weights[..., start:stop], held[1]) + torch.matmul(weights[..., stop:], held[2])
    return out + torch.einsum("bhlqk,bhkd->bhlqd", weights[..., :start], held[0])


def captured(forward):
    members = [nn.Linear(6, HEADS * DIM) for _ in range(3)]
    graph = capture(Module(*members, forward=forward), random(1, BLOCKS * SIZE, 6), random(1, 1, 4 * SIZE))
    graph.apply(canonicalize, exact=False)
    return graph


def test_blocks_read_all_their_keys_at_once():
    graph = captured(big_bird)
    assert graph.apply(join_keys, exact=False) == 1
    assert graph.only(sdpa) and not graph.calls(*PRODUCTS, aten.softmax.int)
    assert graph.apply(look_up_keys, exact=False) == 2
    assert all(node.target is operators.look_up for node in graph.only(sdpa).args[1:3])


def beside_all_keys(self, x, mask):
    query, key, value = (heads(f(x)) for f in (self.p0, self.p1, self.p2))
    whole = [y.reshape(1, HEADS, -1, DIM) for y in (key, value)]
    chosen = [y[:, :, 2:].reshape(1, HEADS, -1, DIM) for y in (torch.cat([key, key], 2), torch.cat([value, value], 2))]
    return sdpa(query[:, :, 0], *whole), sdpa(query[:, :, 0], *chosen)


def test_attention_to_all_keys_reads_the_heads_that_others_are_looked_up_in():
    graph = captured(beside_all_keys)
    assert graph.apply(look_up_keys, exact=False) == 4
    whole, chosen = graph.calls(sdpa)
    assert [x.args[0] for x in chosen.args[1:3]] == [*whole.args[1:3]]


def twice(self, x, mask):
    return torch.cat([big_bird(self, x, mask), big_bird(self, x + 1, mask)], -1)


def test_layers_share_a_mask():
    graph = captured(twice)
    assert graph.apply(join_keys, exact=False) == 2
    first, second = graph.calls(sdpa)
    assert first.args[3] is second.args[3]


def unmasked(self, x, mask):
    """Two attentions without masks, of as many products and other numbers of keys, and one that drops a key."""
    query, key, value = (heads(f(x)) for f in (self.p0, self.p1, self.p2))

    def attend(first, second):
        keys, held = ([y[:, :, 0, :n] for n in (first, second)] for y in (key, value))
        weights = torch.softmax(torch.cat([query[:, :, 0] @ each.mT for each in keys], -1), -1)
        return weights[..., :first] @ held[0] + weights[..., first:] @ held[1]

    return torch.cat([attend(4, 3), attend(2, 3)], -1)


def test_attentions_without_masks_read_none():
    graph = captured(unmasked)
    assert graph.apply(join_keys, exact=False) == 2
    assert [node.args[3] for node in graph.calls(sdpa)] == [None, None]


def fewer_columns(self, x, mask):
    query, key, value = (heads(f(x))[:, :, 0] for f in (self.p0, self.p1, self.p2))
    weights = torch.softmax(torch.cat([query @ key.mT, query @ value.mT], -1), -1)
    return weights[..., :SIZE] @ value + weights[..., SIZE : SIZE + 2] @ value[:, :, :2]


def without_the_first(self, x, mask):
    query, key, value = (heads(f(x))[:, :, 0] for f in (self.p0, self.p1, self.p2))
    weights = torch.softmax(torch.cat([query @ key.mT, query @ value.mT], -1), -1)
    return weights[..., SIZE:] @ value


@pytest.mark.parametrize("forward", [without_the_first, fewer_columns])
def test_weights_that_nothing_is_multiplied_with_stay(forward):
    graph = captured(forward)
    assert graph.apply(join_keys, exact=False) == 0 and graph.only(aten.softmax.int)
