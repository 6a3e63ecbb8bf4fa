"""Spelled out gelus become one operation; what only looks like one stays."""

from __future__ import annotations

import math

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.spelled_out import fuse_gelu
from tt_dynamo.passes.normalize.canonicalize import canonicalize

SPELLINGS = {
    "gelu_new": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
        "tanh",
    ),
    "other order": (
        lambda x: (torch.tanh((0.044715 * torch.pow(x, 3) + x) * math.sqrt(2.0 / math.pi)) + 1) * (x * 0.5),
        "tanh",
    ),
    "erf": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), "none"),
    "erf of a product": (lambda x: 0.5 * x * (torch.erf(x * math.sqrt(0.5)) + 1), "none"),
    "halved": (lambda x: x / 2 * (1.0 + torch.erf(x / math.sqrt(2.0))), "none"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_becomes_one_operation(name):
    function, approximate = SPELLINGS[name]
    graph = capture(function, random(3, 33))
    graph.apply(canonicalize)
    assert graph.apply(fuse_gelu, exact=False) == 1
    assert graph.targets() == [aten.gelu.default]
    assert graph.only(aten.gelu.default).kwargs == {"approximate": approximate}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 0.5 * x * (1.0 + torch.erf(x)),
        lambda x: x * (1.0 + torch.erf(x / math.sqrt(2.0))),
        lambda x: 0.5 * x * (2.0 + torch.erf(x / math.sqrt(2.0))),
        lambda x: 0.5 * x.exp() * (1.0 + torch.erf(x / math.sqrt(2.0))),
        lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.05 * torch.pow(x, 3.0)))),
        lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 2.0)))),
        lambda x: 0.5 * x * (1.0 + torch.tanh(0.8 * (x + 0.044715 * torch.pow(x, 3.0)))),
    ],
    ids=["argument", "no half", "two", "other x", "cubic factor", "square", "outer factor"],
)
def test_what_is_no_gelu_stays(function):
    graph = capture(function, random(3, 33))
    graph.apply(canonicalize)
    assert graph.apply(fuse_gelu) == 0
