"""Attention that a model spells out becomes one operation; what only looks like it stays."""

import math

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default

BATCH, HEADS, QUERIES, KEYS, DIM = 2, 3, 5, 7, 4


@pytest.fixture
def qkv():
    return random(BATCH, HEADS, QUERIES, DIM), random(BATCH, HEADS, KEYS, DIM), random(BATCH, HEADS, KEYS, DIM) + 1


def fused(model, *inputs):
    graph = capture(model, *inputs)
    graph.apply(canonicalize)
    return graph, graph.apply(fuse_attention, exact=False)


def attend(scores, v):
    return torch.softmax(scores, -1) @ v


SPELLINGS = {
    "no scale": (lambda q, k, v: attend(q @ k.mT, v), 1.0),
    "scaled scores": (lambda q, k, v: attend(q @ k.mT * 0.3, v), 0.3),
    "divided scores": (lambda q, k, v: attend(q @ k.mT / math.sqrt(DIM), v), 0.5),
    "divided by an integer": (lambda q, k, v: attend(q @ k.mT / 2, v), 0.5),
    "scaled query": (lambda q, k, v: attend((q * 0.3) @ k.mT, v), 0.3),
    "divided query": (lambda q, k, v: attend((q / 4.0) @ k.mT, v), 0.25),
    "scaled query and scores": (lambda q, k, v: attend((q * 0.3) @ k.mT * 0.5, v), 0.15),
    "scaled transposed key": (lambda q, k, v: attend(q @ (k.mT * 0.3), v), 0.3),
    "scaled query and key": (lambda q, k, v: attend((q * 0.5) @ (k.mT * 0.5), v), 0.25),
    "scale from the left": (lambda q, k, v: attend(0.3 * (q @ k.mT), v), 0.3),
    "matmul": (lambda q, k, v: torch.matmul(F.softmax(torch.matmul(q, k.transpose(2, 3)), dim=3), v), 1.0),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_attention_with_its_scale(spelling, qkv):
    model, scale = SPELLINGS[spelling]
    graph, changed = fused(model, *qkv)
    assert changed == 1
    assert graph.targets() == [sdpa]
    assert graph.only(sdpa).kwargs == {"scale": pytest.approx(scale)}
    assert all(operand.op == "placeholder" for operand in graph.only(sdpa).args[:3])


@pytest.mark.parametrize("masked", [True, False])
def test_attention_arrives_whole_where_torch_would_take_it_apart(masked, qkv):
    q, k, v = qkv
    columns = q.mT.contiguous()  # no kernel of torch's reads rows whose elements lie apart

    def model(columns, k, v, mask=None):
        return F.scaled_dot_product_attention(columns.mT, k, v, mask, scale=0.3)

    graph = capture(model, columns, k, v, *([random(1, 1, QUERIES, KEYS)] if masked else []))
    assert graph.calls(sdpa) and not graph.calls(aten._safe_softmax.default)
    graph.apply(canonicalize)
    assert graph.apply(fuse_attention, exact=False) == masked
    assert graph.only(sdpa).kwargs == {"scale": pytest.approx(0.3)}


@pytest.mark.parametrize("mask", [lambda v: v.mT[:, :, :1], lambda v: torch.where(v[:, :1, None, :, 0] > 0, 0.0, -1e4)])
def test_a_scale_behind_the_mask_scales_both(qkv, mask):
    graph, changed = fused(lambda q, k, v: attend((q @ k.mT + mask(v)) / 2.0, v), *qkv)
    assert changed and graph.only(sdpa).kwargs == {"scale": pytest.approx(0.5)}


def test_a_scaled_key_keeps_its_scale(qkv):
    graph, changed = fused(lambda q, k, v: attend(q @ (k * 0.3).mT, v), *qkv)
    assert changed == 1
    assert graph.targets() == [aten.mul.Tensor, sdpa]


def test_a_key_with_its_heads_made_in_the_same_permute_is_attention():
    q, v = random(BATCH, HEADS, QUERIES, DIM), random(BATCH, HEADS, KEYS, DIM)
    graph, changed = fused(lambda q, k, v: attend(q @ k.permute(0, 2, 3, 1), v), q, random(BATCH, KEYS, HEADS, DIM), v)
    assert changed == 1
    assert graph.only(sdpa).args[1].meta["val"].shape == (BATCH, HEADS, KEYS, DIM)


@pytest.mark.parametrize(
    "shape",
    [
        (BATCH, 1, 1, KEYS),
        (1, 1, QUERIES, KEYS),
        (BATCH, 1, QUERIES, KEYS),
        (1, HEADS, QUERIES, KEYS),
        (BATCH, HEADS, QUERIES, KEYS),
        (BATCH, HEADS, QUERIES, 1),
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_additive_mask_of_any_shape_and_side_joins(shape, side, qkv):
    def model(q, k, v, mask):
        scores = q @ k.mT * 0.5
        return attend(scores + mask if side == "right" else mask + scores, v)

    graph, changed = fused(model, *qkv, random(*shape))
    assert changed == 2, "the attention and its mask"
    mask = graph.only(operators.attention_mask)
    assert graph.only(sdpa).args[3] is mask
    assert mask.meta["val"].shape == (*shape[:2], QUERIES, KEYS)
    assert not graph.calls(aten.add.Tensor, aten.softmax.int)


def test_scores_that_are_the_sum_of_two_products_are_attention_with_a_computed_mask(qkv):
    q, k, v = qkv
    graph, changed = fused(lambda q, k, v, p: attend(q @ k.mT + q @ p.mT, v), q, k, v, k + 1)
    assert changed == 2
    assert graph.only(operators.attention_mask).args[0].target is aten.matmul.default


UNTOUCHED = {
    "softmax over the queries": lambda q, k, v: torch.softmax(q @ k.mT, -2) @ v,
    "softmax over the heads": lambda q, k, v: torch.softmax(q @ k.mT, 1) @ v,
    "no softmax": lambda q, k, v: (q @ k.mT) @ v,
    "key not transposed": lambda q, k, v: attend(q @ torch.exp(k.mT), v),
    "scale after the softmax": lambda q, k, v: (torch.softmax(q @ k.mT, -1) * 0.5) @ v,
    "scale by a tensor": lambda q, k, v: attend(q @ k.mT * q[0, 0, 0, 0], v),
    "mask with a factor": lambda q, k, v: attend(torch.add(q @ k.mT, v.mT[:, :, :1], alpha=2), v),
    "negative scale after the mask": lambda q, k, v: attend((q @ k.mT + v.mT[:, :, :1]) * -0.5, v),
    "mask of lower rank": lambda q, k, v: attend(q @ k.mT + v[0, 0, :, 0], v),
    "values of another width": lambda q, k, v: attend(q @ k.mT, v[..., :3]),
    "keys broadcast over heads": lambda q, k, v: attend(q @ k[:, :1].mT, v),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_what_is_no_attention_stays(name, qkv):
    graph, changed = fused(UNTOUCHED[name], *qkv)
    assert changed == 0
    assert not graph.calls(sdpa)


def weights_too(q, k, v):
    weights = torch.softmax(q @ k.mT, -1)
    return weights @ v, weights


def scores_too(q, k, v):
    scores = q @ k.mT
    return attend(scores, v), scores


def scaled_scores_too(q, k, v):
    scores = q @ k.mT
    return attend(scores * 0.5, v), scores * 0.5


def masked_scores_too(q, k, v):
    scores = q @ k.mT + v.mT[:, :, :1]
    return attend(scores, v), scores


@pytest.mark.parametrize("model", [weights_too, scores_too, scaled_scores_too, masked_scores_too])
def test_attention_whose_inside_is_read_stays(model, qkv):
    _, changed = fused(model, *qkv)
    assert changed == 0


# --- [batch * heads, seq, head_dim] ---------------------------------------------------------------------------------


def heads_of(x):
    return x.view(BATCH, -1, HEADS, DIM).transpose(1, 2).reshape(BATCH * HEADS, -1, DIM)


@pytest.mark.parametrize("scale", ["query", "scores", "baddbmm"])
def test_attention_by_batched_products_gets_its_batch_back(scale):
    inputs = random(BATCH, QUERIES, HEADS * DIM), random(BATCH, KEYS, HEADS * DIM), random(BATCH, KEYS, HEADS * DIM)

    def model(q, k, v):
        q, k, v = heads_of(q), heads_of(k), heads_of(v)
        if scale == "query":
            return attend(torch.bmm(q * 0.5, k.transpose(1, 2)), v)
        return attend(torch.bmm(q, k.transpose(1, 2)) * 0.5, v)

    graph, changed = fused(model, *inputs)
    assert changed == 1
    node = graph.only(sdpa)
    assert node.kwargs == {"scale": 0.5}
    if scale != "query":  # a scale between the query and its heads hides where they come from
        assert [tuple(operand.meta["val"].shape[:2]) for operand in node.args[:3]] == [(BATCH, HEADS)] * 3


def test_batched_products_without_heads_are_attention():
    q, k = random(6, QUERIES, DIM), random(6, KEYS, DIM)
    graph, changed = fused(lambda q, k: attend(torch.bmm(q, k.mT), k), q, k)
    assert changed == 1
    assert len(graph.only(sdpa).args[0].meta["val"].shape) == 4


@pytest.mark.parametrize("shape", [(6, QUERIES, KEYS), (6, 1, KEYS), (1, QUERIES, KEYS), (1, 1, KEYS)])
def test_a_mask_of_batched_products_of_any_shape_joins(shape):
    q, k = random(6, QUERIES, DIM), random(6, KEYS, DIM)
    graph, changed = fused(lambda q, k, mask: attend(torch.bmm(q, k.mT) + mask, k), q, k, random(*shape))
    assert changed == 2
    assert graph.only(operators.attention_mask).meta["val"].shape[2:] == (QUERIES, KEYS)


# --- masks of attention that the model left to torch ----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(QUERIES, KEYS), (BATCH, 1, 1, KEYS), (BATCH, HEADS, QUERIES, KEYS)])
def test_a_boolean_mask_becomes_additive_at_full_query_and_key_length(shape, qkv):
    allowed = random(*shape) > -1.0
    allowed[..., 0] = True
    graph, changed = fused(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), *qkv, allowed)
    assert changed == 1
    mask = graph.only(operators.attention_mask)
    assert graph.only(aten.where.Scalar).args[1:] == (0.0, float("-inf"))
    assert mask.meta["val"].shape == (*([1, 1, *shape])[-4:-2], QUERIES, KEYS)
    assert mask.meta["val"].dtype == torch.float32


def test_a_mask_that_allows_nothing_gives_what_eager_gives(qkv):
    allowed = torch.zeros(BATCH, 1, QUERIES, KEYS, dtype=torch.bool)
    graph, changed = fused(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), *qkv, allowed)
    assert changed == 1


def test_a_mask_is_made_once_for_all_layers_that_read_it(qkv):
    def model(q, k, v, mask):
        y = F.scaled_dot_product_attention(q, k, v, mask)
        return F.scaled_dot_product_attention(y, k, v, mask)

    graph, changed = fused(model, *qkv, random(BATCH, 1, 1, KEYS))
    assert changed == 1
    mask = graph.only(operators.attention_mask)
    assert [node.args[3] for node in graph.calls(sdpa)] == [mask, mask]


def test_a_mask_read_at_two_query_lengths_is_made_for_each(qkv):
    def model(q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, mask), F.scaled_dot_product_attention(k, k, v, mask)

    graph, changed = fused(model, *qkv, random(BATCH, 1, 1, KEYS))
    assert changed == 2
    assert [mask.meta["val"].shape[2] for mask in graph.calls(operators.attention_mask)] == [QUERIES, KEYS]


def test_a_mask_is_read_before_it_was_expanded(qkv):
    def model(q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :].expand(BATCH, 1, QUERIES, KEYS))

    graph, _ = fused(model, *qkv, random(BATCH, KEYS))
    assert not graph.calls(aten.expand.default)


def test_attention_without_a_mask_gets_none(qkv):
    graph, changed = fused(lambda q, k, v: F.scaled_dot_product_attention(q, k, v), *qkv)
    assert changed == 0 and not graph.calls(operators.attention_mask)


# --- masks whose contents are known, and masks in parts -------------------------------------------------------------


def causal(keys=KEYS):
    return torch.arange(keys) <= torch.arange(keys)[:, None]


LITERALS = {
    "boolean": causal,
    "additive": lambda: torch.where(causal(), 0.0, -torch.inf),
    "the smallest number": lambda: torch.where(causal(), 0.0, torch.finfo(torch.float32).min),
    "triangle of ones": lambda: torch.ones(KEYS, KEYS).tril().bool(),
    "filled triangle": lambda: torch.full((KEYS, KEYS), -torch.inf).triu(1),
    "for all sequences": lambda: causal()[None, None].expand(BATCH, 1, KEYS, KEYS),
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_literal_causal_mask_is_a_flag(name, qkv):
    _, k, v = qkv
    graph, changed = fused(lambda k, v: F.scaled_dot_product_attention(k, k, v, LITERALS[name]()), k, v)
    assert changed == 1
    assert graph.only(sdpa).args[3:] == (None, 0.0, True)
    assert graph.targets() == [sdpa]


def test_a_literal_mask_of_nothing_goes(qkv):
    def model(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, torch.ones(QUERIES, KEYS, dtype=torch.bool))

    graph, changed = fused(model, *qkv)
    assert changed == 1
    assert graph.only(sdpa).args[3] is None and graph.only(sdpa).args[5:] in ((), (False,))


def test_a_causal_mask_over_more_keys_than_queries_stays_a_mask(qkv):
    def model(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, torch.arange(KEYS) <= torch.arange(QUERIES)[:, None] + 2)

    graph, _ = fused(model, *qkv)
    assert graph.only(sdpa).args[3] is graph.only(operators.attention_mask)


def test_a_causal_mask_with_padding_stays_a_mask(qkv):
    _, k, v = qkv

    def model(k, v, kept):
        return F.scaled_dot_product_attention(k, k, v, causal()[None, None] & kept[:, None, None, :])

    kept = torch.ones(BATCH, KEYS, dtype=torch.bool)
    kept[0, -2:] = False
    graph, _ = fused(model, k, v, kept)
    assert graph.only(sdpa).args[3] is graph.only(operators.attention_mask)


LOWEST = torch.finfo(torch.float32).min
PARTS = {
    "two masks": lambda scores, a, b, kept: scores + a + b,
    "filled": lambda scores, a, b, kept: (scores + a).masked_fill(~kept, LOWEST),
    "where": lambda scores, a, b, kept: torch.where(kept, scores + a, -torch.inf),
    "filled, then a bias": lambda scores, a, b, kept: scores.masked_fill(~kept, -torch.inf) + b,
    "cast": lambda scores, a, b, kept: scores.double().float() + a,
    "bias of heads": lambda scores, a, b, kept: scores + b[0],
}


@pytest.mark.parametrize("name", PARTS)
def test_masks_in_parts_are_one_mask(name, qkv):
    def model(q, k, v, a, b, kept):
        return attend(PARTS[name](q @ k.mT * 0.5, a, b, kept), v)

    kept = random(BATCH, 1, QUERIES, KEYS) > -1.0
    kept[..., 0] = True
    graph, changed = fused(model, *qkv, random(1, 1, QUERIES, KEYS), random(1, HEADS, 1, KEYS), kept)
    assert changed == 2
    assert graph.only(sdpa).kwargs == {"scale": 0.5}
    assert not graph.calls(aten.softmax.int, aten.matmul.default)


def test_filling_with_a_number_that_scores_may_reach_stays(qkv):
    def model(q, k, v, kept):
        return attend((q @ k.mT).masked_fill(~kept, -100.0), v)

    graph, changed = fused(model, *qkv, random(BATCH, 1, QUERIES, KEYS) > -1.0)
    assert changed == 0


def test_scores_with_a_bias_from_the_product_are_attention():
    def model(bias, q, k, v):  # Bloom: baddbmm with the bias of ALiBi, then the mask at rank 4
        scores = bias.baddbmm(q.flatten(0, 1), k.flatten(0, 1).mT, beta=1.0, alpha=0.3)
        scores = scores.view(BATCH, HEADS, QUERIES, KEYS) + v.mT[:1, :1, :1]
        weights = torch.softmax(scores, -1).view(BATCH * HEADS, QUERIES, KEYS)
        return torch.bmm(weights, v.flatten(0, 1))

    inputs = random(BATCH * HEADS, 1, KEYS), random(BATCH, HEADS, QUERIES, DIM), random(BATCH, HEADS, KEYS, DIM)
    graph, changed = fused(lambda b, q, k: model(b, q, k, k + 1), *inputs)
    assert changed == 2
    assert graph.only(sdpa).kwargs == {"scale": 0.3}
    assert graph.only(operators.attention_mask).meta["val"].shape == (BATCH, HEADS, QUERIES, KEYS)


def test_capped_scores_are_capped_attention(qkv):
    def model(q, k, v, mask):
        return attend(torch.tanh(q @ k.mT * 0.3 / 20.0) * 20.0 + mask, v)

    graph, changed = fused(model, *qkv, random(1, 1, QUERIES, KEYS))
    assert changed == 2
    assert graph.only(operators.capped_attention).args[4:] == (pytest.approx(0.3), 20.0)
    assert not graph.calls(aten.tanh.default, aten.softmax.int)


@pytest.mark.parametrize(("factor", "scale"), [(19.0, 0.95), (None, 0.05)])
def test_any_multiple_of_a_tanh_caps(factor, scale, qkv):
    def model(q, k, v):
        capped = torch.tanh(q @ k.mT / 20.0)
        return attend(capped if factor is None else capped * factor, v)

    graph, changed = fused(model, *qkv)
    assert changed == 1
    assert graph.only(operators.capped_attention).args[4:] == (pytest.approx(scale), factor or 1.0)


@pytest.mark.parametrize("name", ["mask inside", "turned over"])
def test_what_is_no_cap_stays(name, qkv):
    def model(q, k, v, mask):
        inside = q @ k.mT + (mask if name == "mask inside" else 0.0)
        return attend(torch.tanh(inside / 20.0) * (-20.0 if name == "turned over" else 20.0), v)

    graph, changed = fused(model, *qkv, random(1, 1, QUERIES, KEYS))
    assert changed == 0
    assert not graph.calls(operators.capped_attention)
