"""Spelled out root mean square norms become one operation; what only looks like one stays."""

from __future__ import annotations

import pytest
import torch
from captured import Module, capture, parameter, random, same
from torch import nn
from torch.nn import functional

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def root(x, eps=1e-5):
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def llama(w, x):
    exact = x.to(torch.float32)
    exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-6)
    return w * exact.to(x.dtype)


NORMS = {
    "torch": lambda w, x: functional.rms_norm(x, [x.shape[-1]], w, 1e-5),
    "without weight": lambda w, x: functional.rms_norm(x, [x.shape[-1]]),
    "llama, T5": llama,
    "gemma": lambda w, x: x * root(x) * (1.0 + w),
    "product": lambda w, x: w * (torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * x),
    "division": lambda w, x: x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w,
    "pow": lambda w, x: x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-5, -0.5) * (1 + w),
    "T5, Idefics": lambda w, x: w * (x * root(x.to(torch.float32))).to(x.dtype),
    "root cast alone": lambda w, x: x * root(x.float()).to(x.dtype) * w,
    "weight first": lambda w, x: w * x * root(x),
    "weight of the root": lambda w, x: x * (w * root(x)),
    "positive dimension": lambda w, x: x * torch.rsqrt(x.pow(2).mean(x.ndim - 1, keepdim=True) + 1e-5) * w,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NORMS)
def test_every_spelling_becomes_one_operation(name, dtype):
    model = Module(parameter(33), forward=lambda m, x: NORMS[name](m.p0.to(dtype), x))
    graph = capture(model, random(2, 3, 33).to(dtype))
    graph.apply(canonicalize)
    if dtype == torch.float32:
        assert graph.apply(fuse_rms_norm, exact=False) == 1
    else:
        before = graph.run()
        assert fuse_rms_norm(graph.graph, graph.context) == 1
        same(graph.run(), before, exact=False)
    norm = graph.only(operators.rms_norm)
    assert norm.meta["val"].dtype == dtype
    assert (norm.args[1] is None) == (name == "without weight")
    assert not graph.calls(aten.rsqrt.default, aten.sqrt.default, aten.pow.Tensor_Scalar, aten.mean.dim)


FAMILIES = {
    "gemma3n": "Gemma3nRMSNorm",
    "gemma4": "Gemma4RMSNorm",
    "embedding_gemma2": "EmbeddingGemma2RMSNorm",
    "muse_spark": "MuseSparkRMSNorm",
    "gemma3": "Gemma3RMSNorm",
    "llama4": "Llama4TextRMSNorm",
    "t5": "T5LayerNorm",
    "idefics": "IdeficsRMSNorm",
    "deepseek_v4": "DeepseekV4UnweightedRMSNorm",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_norms_of_transformers_are_one_operation(family):
    name = f"transformers.models.{family}.modeling_{family}"
    found = pytest.importorskip(name, reason=f"transformers 5.23 has {family}")
    kind = getattr(found, FAMILIES[family])
    norm = kind() if "Unweighted" in kind.__name__ else kind(64)
    for weight in norm.parameters():
        weight.data = random(64)
    graph = capture(norm.to(torch.bfloat16), random(2, 5, 64).to(torch.bfloat16))
    graph.apply(canonicalize)
    before = graph.run()
    assert fuse_rms_norm(graph.graph, graph.context) == 1
    same(graph.run(), before, exact=False)
    assert graph.only(operators.rms_norm).args[0].op == "placeholder"
    assert not graph.calls(aten.rsqrt.default, aten.pow.Tensor_Scalar, aten.mean.dim)


def test_several_dimensions_are_one():
    graph = capture(nn.RMSNorm((3, 33)), random(2, 3, 33))
    graph.apply(canonicalize)
    assert graph.apply(fuse_rms_norm, exact=False) == 1
    assert graph.only(operators.rms_norm).args[0].meta["val"].shape == (2, 99)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5),
        lambda m, x: x * torch.rsqrt(x.pow(2).mean((0, 2), keepdim=True) + 1e-5),
        lambda m, x: x * torch.rsqrt(x.pow(3).mean(-1, keepdim=True) + 1e-5),
        lambda m, x: x * torch.rsqrt((x * m.p0).mean(-1, keepdim=True) + 1e-5),
        lambda m, x: m.p0 * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
        lambda m, x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-5),
        lambda m, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)),
        lambda m, x: torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) / x,
        lambda m, x: x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-5, -0.25),
        lambda m, x: (m.p0 * x) * torch.rsqrt((m.p0 * x[:1]).pow(2).mean(-1, keepdim=True) + 1e-5),
    ],
    ids=[
        "rows",
        "not trailing",
        "cube",
        "other factor",
        "other numerator",
        "sum",
        "no eps",
        "reciprocal",
        "fourth root",
        "other rows",
    ],  # fmt: skip
)
def test_what_is_no_rms_norm_stays(forward):
    graph = capture(Module(parameter(33), forward=forward), random(2, 33, 33).abs() + 0.1)
    graph.apply(canonicalize)
    assert graph.apply(fuse_rms_norm) == 0


def test_a_factor_that_is_no_vector_of_the_width_stays_outside():
    graph = capture(Module(parameter(3, 33), forward=lambda m, x: x * root(x) * m.p0), random(2, 3, 33))
    graph.apply(canonicalize)
    assert graph.apply(fuse_rms_norm, exact=False) == 1
    assert graph.only(operators.rms_norm).args[1] is None
    assert len(graph.calls(aten.mul.Tensor)) == 1


def test_what_something_else_reads_stays_for_it():
    def forward(m, x):
        normalized = x * root(x)
        return normalized * m.p0, normalized, root(x)

    graph = capture(Module(parameter(33), forward=forward), random(2, 3, 33))
    graph.apply(canonicalize)
    assert graph.apply(fuse_rms_norm, exact=False) == 1
    assert graph.only(operators.rms_norm).args[1] is None
    assert len(graph.calls(aten.rsqrt.default)) == 1


def gemma(w, x):
    exact = x.float()
    return (exact * torch.pow(exact.pow(2).mean(-1, keepdim=True) + 1e-6, -0.5) * w.float()).type_as(x)


def test_a_norm_of_heads_that_is_cast_back_comes_after_their_move():
    def forward(m, x):
        return gemma(m.p0.bfloat16(), x.view(2, 5, 3, 8)).transpose(1, 2)

    graph = capture(Module(parameter(8), forward=forward), random(2, 5, 24).bfloat16())
    graph.apply(canonicalize)
    before = graph.run()
    assert fuse_rms_norm(graph.graph, graph.context) == 2
    same(graph.run(), before, exact=False)
    assert graph.only(operators.rms_norm).args[0].target is aten.permute.default


def test_a_norm_of_heads_that_are_repeated_is_one_of_heads():
    def forward(m, x):
        heads = x.view(2, 5, 3, 8).transpose(1, 2)
        heads = (heads * root(heads))[:, :, None].expand(2, 3, 4, 5, 8)
        return heads.reshape(2, 12, 5, 8)

    graph = capture(Module(forward=forward), random(2, 5, 24))
    graph.apply(canonicalize)
    graph.apply(fuse_rms_norm, exact=False)
    assert graph.only(operators.rms_norm).meta["val"].shape == (2, 3, 5, 8)
