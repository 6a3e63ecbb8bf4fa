"""Masks that attention adds: those of a token that reads a cache hold no infinity."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random
from torch.fx import Interpreter

from tt_dynamo.ir import operators
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.caches.hold import cache_writes_in_place
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def one_token(mask):
    """A step that writes its key and value into caches and attends to them, with `mask` of what is allowed."""

    def model(q, k, keys, values, position, allowed):
        keys.index_copy_(2, position, k)
        values.index_copy_(2, position, k)
        return F.scaled_dot_product_attention(q, keys, values, mask(allowed))

    return model


@pytest.mark.parametrize(
    "mask",
    [
        lambda allowed: allowed,
        lambda allowed: torch.where(allowed, 0.0, -torch.inf),
        lambda allowed: torch.zeros(2, 1, 1, 64).masked_fill(~allowed, -torch.inf),
        lambda allowed: torch.where(allowed, torch.arange(64.0), -torch.inf),
    ],
    ids=["boolean", "chosen", "filled", "beside a bias"],
)
def test_the_mask_of_a_token_that_reads_a_cache_is_finite(mask):
    allowed = (torch.arange(64) >= torch.tensor([40, 0])[:, None])[:, None, None]
    inputs = [random(2, 3, 1, 8), random(2, 3, 1, 8), random(2, 3, 64, 8), random(2, 3, 64, 8), torch.tensor([50])]
    graph = capture(one_token(mask), *inputs, allowed)
    for transform in (cache_writes_in_place, canonicalize):
        graph.apply(transform, exact=False)
    graph.apply(fuse_attention, exact=False)
    (node,) = graph.calls(operators.attention_mask)
    interpreter = Interpreter(graph.module, garbage_collect_values=False)
    interpreter.run(*[x.clone() for x in graph.arguments])
    value = interpreter.env[node]
    assert value.isfinite().all() and torch.equal(value > -1e30, allowed.expand(value.shape))


@pytest.mark.parametrize(("queries", "keys"), [(3, 6), (6, 3)])
def test_a_causal_flag_is_a_mask_where_queries_and_keys_are_not_as_many(queries, keys):
    q, k = random(2, 3, queries, 32), random(2, 3, keys, 32)
    graph = capture(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, k + 1)
    graph.apply(fuse_attention)
    attention = graph.only(torch.ops.aten.scaled_dot_product_attention.default)
    assert attention.args[3].target is operators.attention_mask and not attention.args[5]


def test_a_cap_is_no_causal_flag():
    def model(q, k, v):
        return torch.softmax(torch.tanh(q @ k.mT / 5.0) * 5.0, -1) @ v

    q, k = random(2, 3, 3, 32), random(2, 3, 6, 32)
    graph = capture(model, q, k, k + 1)
    graph.apply(canonicalize)
    graph.apply(fuse_attention, exact=False)
    assert graph.only(operators.capped_attention).args[3] is None


def test_a_mask_of_the_least_number_that_is_scaled_gives_no_nan():
    def model(q, keep):
        hidden = (1 - keep) * torch.finfo(torch.float32).min
        return torch.softmax((q @ q.mT + hidden) / 0.5, -1) @ q

    graph = capture(model, random(2, 3, 5, 4), torch.tensor([1.0, 1, 1, 1, 0]).reshape(1, 1, 1, 5))
    assert graph.apply(canonicalize, fuse_attention, exact=False) == 2
