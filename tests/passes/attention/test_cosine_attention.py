"""Cosine attention: vectors of length one, and scores with a scale of each head."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, parameter, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default


def applied(model, *inputs):
    graph = capture(model, *inputs)
    graph.apply(canonicalize, fuse_rms_norm, fuse_attention, exact=False)
    return graph


def test_normalize_is_a_norm_of_rows():
    graph = applied(lambda x: F.normalize(x, dim=-1), torch.cat([random(2, 3, 8), torch.zeros(1, 3, 8)]))
    assert graph.only(operators.rms_norm) and not graph.calls(aten.div.Tensor, aten.linalg_vector_norm.default)


@pytest.mark.parametrize("options", [{"dim": 1}, {"p": 1.0, "dim": -1}])
def test_other_lengths_stay(options):
    graph = applied(lambda x: F.normalize(x, **options), random(2, 3, 8))
    assert not graph.calls(operators.rms_norm)


def test_a_scale_of_each_head_goes_into_the_query():
    scale, bias = parameter(3, 1, 1), parameter(1, 3, 6, 6)

    def attend(q, k, v):
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return torch.softmax(scores * scale.clamp(max=2.0).exp() + bias, -1) @ v

    graph = applied(attend, *(random(2, 3, 6, 8) for _ in range(3)))
    assert graph.only(sdpa).kwargs["scale"] == 1.0
    assert len(graph.calls(operators.rms_norm)) == 2 and not graph.calls(aten.softmax.int)


def test_a_scale_of_each_query_or_behind_a_mask_stays():
    rows, heads, bias = parameter(6, 1), parameter(3, 1, 1), parameter(1, 3, 6, 6)
    operands = [random(2, 3, 6, 8) for _ in range(3)]
    for model in (
        lambda q, k, v: torch.softmax((q @ k.transpose(-2, -1)) * rows, -1) @ v,
        lambda q, k, v: torch.softmax((q @ k.transpose(-2, -1) + bias) * heads, -1) @ v,
    ):
        assert not applied(model, *operands).calls(sdpa)
