"""Rows and elements by number, to the last bit, with eager's errors."""

import dataclasses
from unittest import mock

import pytest
import torch
from compiled import check, compiled, random
from lowering_tables.indexing import ROWS_OF_TABLE, SHAPE, table

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.lowering import registry

WRONG = {
    "index": (lambda x, i: x[:, i], 3),
    "index below the first": (lambda x, i: x[:, i], -4),
    "index where another is right": (lambda x, i: x[i - i, i], 3),
    "index_select": (lambda x, i: x.index_select(1, i), 3),
    "index_select counts from no end": (lambda x, i: x.index_select(1, i), -1),
    "gather": (lambda x, i: x.gather(1, i.expand(2, 1, 4, 33)), 3),
    "gather counts from no end": (lambda x, i: x.gather(1, i.expand(2, 1, 4, 33)), -1),
    "scatter": (lambda x, i: x.scatter(1, i.expand(2, 1, 4, 33), 1.0), 3),
    "index_put": (lambda x, i: x.index_put((i,), x[:1]), 2),
    "index_add": (lambda x, i: x.index_add(1, i, x[:, :1]), 3),
    "take": (lambda x, i: x.take(i), 2 * 3 * 4 * 33),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_eager_torch_refuses_is_refused(name):
    pick, bad = WRONG[name]

    def model(x, i):
        return torch.relu(pick(torch.relu(x), i))

    with pytest.raises((IndexError, RuntimeError)):
        model(random(*SHAPE), torch.tensor([bad]))
    with pytest.raises((IndexError, RuntimeError), match="(?i)out of|range|bounds|index"):
        compiled(model, random(*SHAPE), torch.tensor([bad]))


def test_a_program_checks_its_indices_by_itself():
    """Without operators of ours: it runs where tt_dynamo is not installed."""
    report = check(lambda x, i: torch.relu(x)[:, i] * 1, random(*SHAPE), torch.tensor([1, 0]), roundings=0)
    assert "def index_numbers(" in report.code and "torch.ops.tt_dynamo" not in report.code


def test_a_lookup_that_ttnn_refuses_is_eagers_indexing():
    def model(x, i):
        return torch.relu(x)[:, i] * 1

    def refuse(ttnn, x, rows):
        raise Unsupported("for this test")

    refusing = dataclasses.replace(registry._lowerings[operators.look_up], function=refuse)
    with mock.patch.dict(registry._lowerings, {operators.look_up: refusing}):
        inputs = random(*SHAPE), torch.tensor([1, 0])
        output, report = compiled(model, *inputs)
    assert torch.equal(output, model(*inputs)) and report.fallbacks


@pytest.mark.parametrize("bad", [ROWS_OF_TABLE, -1, 2**31])
def test_an_id_that_is_no_row_is_eagers_error(bad):
    with pytest.raises(IndexError):
        compiled(table(), torch.tensor([[0, bad]]))
