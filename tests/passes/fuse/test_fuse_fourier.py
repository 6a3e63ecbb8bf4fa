"""Transforms of real values become products; those of complex ones, and very long ones, stay."""

from __future__ import annotations

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.fourier import fuse_fourier
from tt_dynamo.passes.normalize.canonicalize import canonicalize

TRANSFORMS = {
    "the real part of both": lambda x: torch.fft.fftn(x, dim=(1, 2)).real,
    "the imaginary part of both": lambda x: torch.fft.fftn(x, dim=(1, 2)).imag,
    "one after the other": lambda x: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real,
    "half of it": lambda x: torch.view_as_real(torch.fft.rfft(x, norm="ortho")),
    "half of all": lambda x: torch.view_as_real(torch.fft.rfftn(x, norm="forward")),
    "there and back": lambda x: torch.fft.ifft(torch.fft.fft(x, dim=0), dim=0).real,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_of_real_values_becomes_products(name):
    graph = capture(TRANSFORMS[name], random(3, 5, 6))
    graph.apply(canonicalize)
    assert graph.apply(fuse_fourier, exact=False) == 1
    assert not graph.calls(aten.view_as_real.default)


def test_both_dimensions_of_matrices_are_two_products_of_each_kind():
    graph = capture(TRANSFORMS["the real part of both"], random(3, 5, 6))
    graph.apply(canonicalize, fuse_fourier, exact=False)
    assert len(graph.calls(operators.resample)) == 2 and graph.calls(aten.sub.Tensor)


STAYING = {
    "complex": (lambda x: torch.fft.fft(torch.view_as_complex(x)).real, (3, 4, 2)),
    "long": (lambda x: torch.fft.fft(x).real, (1, 4096)),
}


@pytest.mark.parametrize("name", STAYING)
def test_others_stay(name):
    function, shape = STAYING[name]
    graph = capture(function, random(*shape))
    assert graph.apply(canonicalize, fuse_fourier) == 0
