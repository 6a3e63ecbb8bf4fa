"""Complex numbers become pairs of real ones wherever they are read as real ones, and rotations become rotary."""

from __future__ import annotations

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, values_of
from tt_dynamo.passes import PASSES
from tt_dynamo.passes.normalize.complex_numbers import complex_to_real


def pairs(x):
    return torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))


def turned(x, factors):
    return torch.view_as_real(pairs(x) * factors).flatten(3).type_as(x)


def by_positions(x, positions, frequencies):
    angles = positions[..., None].float() * frequencies
    factors = torch.polar(torch.ones_like(angles), angles) * 1.5
    return turned(x, factors[:, :, None])


HEADS, POSITIONS, FREQUENCIES = random(2, 8, 4, 32), torch.arange(8)[None] + 3, random(16)
TABLE = torch.polar(torch.ones(64, 16), torch.randn(64, 16, generator=torch.Generator().manual_seed(1)))
ROTATIONS = {
    "of angles of positions": (by_positions, (HEADS, POSITIONS, FREQUENCIES)),
    "of rows of a table": (lambda x, table: turned(x, table[3:11].view(1, 8, 1, 16)), (HEADS, TABLE)),
    "of found rows": (lambda x, t, at: turned(x, t[at][:, :, None]), (HEADS, TABLE, POSITIONS)),
    "of heads before the sequence": (
        lambda x, table: turned(x.transpose(1, 2), table[:8].unsqueeze(0).unsqueeze(1)),
        (HEADS, TABLE),
    ),
    "of cosines and sines": (
        lambda x, a: turned(x, torch.view_as_complex(torch.stack((a.cos(), a.sin()), -1))[None, :, None]),
        (HEADS, random(8, 16)),
    ),
    "of bfloat16": (by_positions, (HEADS.bfloat16(), POSITIONS, FREQUENCIES)),
}


@pytest.mark.parametrize("name", ROTATIONS)
def test_a_product_with_a_table_is_a_rotary_embedding(name):
    function, inputs = ROTATIONS[name]
    graph = capture(function, *inputs)
    assert graph.apply(complex_to_real, exact=False) == 1
    for run in PASSES:
        run(graph.graph, graph.context)
    graph.graph.lint()
    assert len(graph.calls(operators.rotary_by_matrix)) == 1
    expected = function(*inputs)
    torch.testing.assert_close(graph.run()[0], expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item())


X, Y = random(3, 4, 2), random(3, 4, 2).flip(0)
COMPUTED = {
    "a sum and a difference": lambda x, y: torch.view_as_real(
        torch.view_as_complex(x) + torch.view_as_complex(y) - torch.view_as_complex(y).conj()
    ),
    "its real part alone": lambda x, y: (torch.view_as_complex(x) * torch.view_as_complex(y)).real,
    "its imaginary part alone": lambda x, y: torch.complex(x[..., 0], y[..., 1]).conj().imag,
    "a real factor": lambda x, y: torch.view_as_real(y[..., 0] * torch.view_as_complex(x) * -2),
    "lengths": lambda x, y: torch.view_as_real(torch.polar(x[..., 0].abs(), y[..., 1])),
    "parts of it": lambda x, y: torch.view_as_real(torch.view_as_complex(x).split(2, 1)[1].repeat(2, 1).flip(0)),
    "joined": lambda x, y: torch.view_as_real(torch.stack((torch.view_as_complex(x), -torch.view_as_complex(y)))),
    "double precision": lambda x, y: torch.view_as_real(torch.view_as_complex(x.double()) * torch.view_as_complex(y)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_read_as_real_numbers_is_computed_with_real_numbers(name):
    graph = capture(COMPUTED[name], X, Y)
    assert graph.apply(complex_to_real, exact=False) == 1
    assert not any(value.is_complex() for node in graph.graph.nodes for value in values_of(node))


def test_what_no_rule_says_is_read_by_its_parts():
    graph = capture(lambda x, y: torch.view_as_real(torch.view_as_complex(x).exp() * torch.view_as_complex(y)), X, Y)
    assert graph.apply(complex_to_real, exact=False) == 1
    assert len(graph.calls(aten.view_as_complex.default)) == 1, "the exponential's own"


STAYING = {
    "an operation that has no parts": lambda x, y: torch.view_as_real(torch.view_as_complex(x).exp()),
    "a complex result": lambda x, y: torch.view_as_complex(x) * torch.view_as_complex(y),
    "a complex number": lambda x, y: torch.view_as_real(torch.view_as_complex(x) * 2j),
    "joined with real numbers": lambda x, y: torch.view_as_real(torch.cat((torch.view_as_complex(x), y[..., 0]))),
}


@pytest.mark.parametrize("name", STAYING)
def test_others_stay(name):
    graph = capture(STAYING[name], X, Y)
    assert graph.apply(complex_to_real) == 0
