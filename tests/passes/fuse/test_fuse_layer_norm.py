"""Spelled out layer norms become one operation; what only looks like one stays."""

from __future__ import annotations

import pytest
import torch
from captured import Module, capture, parameter, random
from torch.nn import functional

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.spelled_out import fuse_layer_norm, fuse_rms_norm
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def centered(x):
    return x - x.mean(-1, keepdim=True)


def variance(x):
    return x.var(-1, unbiased=False, keepdim=True)


def squares(x):
    return centered(x).pow(2).mean(-1, keepdim=True)


NORMS = {
    "DeBERTa": lambda w, b, x: w * (centered(x) / torch.sqrt(squares(x) + 1e-5)) + b,
    "Pocket TTS": lambda w, b, x: centered(x) * torch.rsqrt(variance(x) + 1e-5) * w + b,
    "division": lambda w, b, x: b + w * (centered(x) / torch.sqrt(variance(x) + 1e-5)),
    "without weight": lambda w, b, x: functional.layer_norm(x, [x.shape[-1]]) * w + b,
    "Cohere": lambda w, b, x: w * (centered(x) * torch.rsqrt(squares(x) + 1e-5)),
}


@pytest.mark.parametrize("name", NORMS)
def test_every_spelling_becomes_one_operation(name):
    graph = capture(
        Module(parameter(33), parameter(33), forward=lambda m, x: NORMS[name](m.p0, m.p1, x)), random(2, 3, 33)
    )
    graph.apply(canonicalize)
    assert graph.apply(fuse_rms_norm, fuse_layer_norm, exact=False) > 0
    assert graph.targets() == [aten.layer_norm.default]
    norm = graph.only(aten.layer_norm.default)
    assert norm.args[2] is not None and (norm.args[3] is None) == (name == "Cohere")


FAMILIES = {"cohere2": "Cohere2LayerNorm", "deberta": "DebertaLayerNorm", "pocket_tts": "PocketTTSFlowLayerNorm"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_norms_of_transformers_are_one_operation(family):
    name = f"transformers.models.{family}.modeling_{family}"
    norm = getattr(pytest.importorskip(name, reason=f"transformers 5.23 has {family}"), FAMILIES[family])(64)
    for parameters in norm.parameters():
        parameters.data = random(64)
    graph = capture(norm.to(torch.bfloat16), random(2, 5, 64).to(torch.bfloat16))
    graph.apply(canonicalize)
    before = graph.run()
    fuse_rms_norm(graph.graph, graph.context)
    assert fuse_layer_norm(graph.graph, graph.context) > 0
    assert graph.only(aten.layer_norm.default).args[0].op == "placeholder"
    assert not graph.calls(operators.rms_norm, aten.mean.dim, aten.var.correction, aten.sub.Tensor)
    for new, old in zip(graph.run(), before, strict=True):
        torch.testing.assert_close(new, old, rtol=2**-6, atol=2**-6)  # eager rounds what it subtracts to bfloat16


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: centered(x) * torch.rsqrt(x.var(-1, keepdim=True) + 1e-5),
        lambda m, x: centered(x) * torch.rsqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5),
        lambda m, x: centered(x) * torch.rsqrt(torch.var(x, None, correction=0, keepdim=True) + 1e-5),
        lambda m, x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(variance(x) + 1e-5),
        lambda m, x: (x - m.p0.mean(-1, keepdim=True)) * torch.rsqrt(variance(x) + 1e-5),
        lambda m, x: functional.layer_norm(x, [33], m.p0, m.p0) + m.p0,
        lambda m, x: functional.layer_norm(x, [33], m.p0) + x,
        lambda m, x: functional.layer_norm(x, [33, 33]) * m.p0 + m.p0,
    ],
    ids=[
        "unbiased",
        "variance of rows",
        "variance of all",
        "mean of rows",
        "other mean",
        "second bias",
        "residual",
        "vector of many rows",
    ],
)
def test_what_is_no_layer_norm_stays(forward):
    graph = capture(Module(parameter(33), forward=forward), random(2, 33, 33))
    graph.apply(canonicalize)
    assert graph.apply(fuse_rms_norm, fuse_layer_norm) == 0


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("norm", [functional.layer_norm, functional.rms_norm])
def test_a_scale_and_shift_of_all_rows_are_weight_and_bias(norm, batch):
    def adaptive(x, scale, shift):
        return norm(x, [33], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    graph = capture(adaptive, random(batch, 3, 33), random(batch, 33), random(batch, 33).flip(0))
    graph.apply(canonicalize)
    changed = graph.apply(fuse_rms_norm, fuse_layer_norm, exact=False)
    multiplied, added = len(graph.calls(aten.mul.Tensor)), len(graph.calls(aten.add.Tensor))
    if norm is functional.rms_norm:
        weight = graph.only(operators.rms_norm).args[1]
        assert (weight is None) == (batch == 2)
        assert (multiplied, added) == ((1, 2) if batch == 2 else (0, 2))
    else:
        assert changed == (2 if batch == 1 else 0)
        assert (multiplied, added) == ((1, 2) if batch == 2 else (0, 1))


def test_a_norm_of_heads_comes_behind_the_move_that_brings_them_to_the_front():
    """Persimmon normalizes queries and keys before."""

    def forward(m, x):
        return functional.layer_norm(x.view(2, 5, 3, 8), [8], m.p0, m.p1).transpose(1, 2)

    graph = capture(Module(parameter(8), parameter(8), forward=forward), random(2, 5, 24))
    graph.apply(canonicalize)
    assert graph.apply(fuse_layer_norm) == 1
    assert graph.targets()[-1] is aten.layer_norm.default
