"""Rows and elements by number, to the last bit, with eager's errors."""

import dataclasses
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.lowering import registry

SHAPE = (2, 3, 4, 33)

# positions that the program knows: one lookup of rows
KNOWN = {
    "rolled": (lambda x: x.roll((1, -2), (1, 2)), "embedding"),
    "rolled along the last dimension": (lambda x: x.roll(5, -1), "embedding"),
    "rolled as a line": (lambda x: x.roll(3), "gather"),
    "flipped": (lambda x: x.flip(0, 2), "embedding"),
    "flipped along the last dimension": (lambda x: x.flip(-1), "embedding"),
    "flipped in all dimensions": (lambda x: x.flip(0, 1, 2, 3), "gather"),
    "rotated": (lambda x: x.rot90(1, (1, 2)), "embedding"),
    "reflected": (lambda x: F.pad(x, (2, 1, 1, 3), mode="reflect"), "embedding"),
    "reflected in one dimension": (lambda x: F.pad(x[0], (2, 1), mode="reflect"), "embedding"),
    "reflected in three dimensions": (lambda x: F.pad(x, (2, 1, 1, 3, 1, 2), mode="reflect"), "embedding"),
    "replicated": (lambda x: F.pad(x, (2, 1, 1, 3), mode="replicate"), "embedding"),
    "windows": (lambda x: x.unfold(2, 3, 1), "embedding"),
    "columns of an image": (lambda x: F.unfold(x, 2, padding=1), "embedding"),
    "a diagonal": (lambda x: x.diagonal(1, 1, 2), "embedding"),
    "read by strides": (lambda x: x.as_strided((5, 33), (66, 1), 33), "embedding"),
    "rows in any order": (lambda x: x[:, [2, 0, 0]], "embedding"),
    "columns in any order": (lambda x: x[..., [2, 0, -1]], "embedding"),
    "rows in order": (lambda x: x[:, [1, 2]], "slice"),
    "the last row": (lambda x: x[:, [-1]], "slice"),
    "rows by two lists": (lambda x: x[[0, 1], [2, 0]], "embedding"),
    "rows by two lists that are apart": (lambda x: x[[0, 1], :, [2, 0]], "embedding"),
    "every second row written": (lambda x: torch.slice_scatter(x, x[:, :, :2], 2, 0, 4, 2), "embedding"),
    "a diagonal written": (lambda x: torch.diagonal_scatter(x, x.diagonal(0, 1, 2) * 2, 0, 1, 2), "gather"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_positions_are(name):
    move, call = KNOWN[name]
    report = check(lambda x: torch.relu(move(torch.relu(x))), random(*SHAPE), roundings=0)
    assert call in calls(report)


INDEXED = {
    "rows": (lambda x, i: x[i], (2,)),
    "rows of every batch": (lambda x, i: x[:, i], (3,)),
    "rows by a matrix of ids": (lambda x, i: x[:, i.view(2, 2)], (3, 4)),
    "columns": (lambda x, i: x[..., i], (33,)),
    "two dimensions": (lambda x, i: x[:, i, i], (3,)),
    "two dimensions apart": (lambda x, i: x[i, :, i], (2,)),
    "two dimensions broadcast": (lambda x, i: x[i, i[:, None]], (2,)),
    "the first and the last": (lambda x, i: x[i, ..., i], (2,)),
    "all dimensions": (lambda x, i: x[i, i, i, i], (2,)),
    "selected": (lambda x, i: x.index_select(2, i % 4), (4,)),
    "taken": (lambda x, i: x.take(i), (700,)),
}


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_indices_pick(name, dtype):
    pick, (size, *_) = INDEXED[name]
    if dtype == torch.int32 and name == "taken":
        pytest.skip("eager torch takes by int64 alone")
    ids = torch.tensor([0, size - 1, -1 if name != "selected" else 0, -size if name != "selected" else 1]).to(dtype)
    report = check(lambda x, i: torch.relu(pick(torch.relu(x), i)), random(*SHAPE), ids, roundings=0)
    assert "embedding" in calls(report) or "gather" in calls(report)


PUT = {
    "rows": lambda x, i, v: x.index_put((i,), v),
    "one row": lambda x, i, v: x.index_put((i,), v[0]),
    "one number": lambda x, i, v: x.index_put((i,), torch.tensor(2.5)),
    "by two indices": lambda x, i, v: x.index_put((i, i), v[:, 0]),
    "by all": lambda x, i, v: x.index_put((i, i, i, i), torch.relu(v)[:, 0, 0, 0]),
    "copied": lambda x, i, v: x.index_copy(2, i, x[:, :, :2] * 2),
    "filled": lambda x, i, v: x.index_fill(1, i, 2.5),
    "an item": lambda x, i, v: _set(x, i, v),
}


def _set(x, i, v):
    y = x.clone()
    y[:, i] = v[:, :1]
    return y


@pytest.mark.parametrize("name", PUT)
def test_values_are_put(name):
    inputs = random(*SHAPE), torch.tensor([1, 0]), random(2, 3, 4, 33) + 1
    report = check(lambda x, i, v: torch.relu(PUT[name](torch.relu(x), i, v)), *inputs, roundings=1)
    assert "concat" in calls(report) or name == "by all"  # where elements are fewer bytes than the whole


def test_of_two_writes_to_one_place_eagers_wins():
    inputs = random(3, 33), torch.tensor([1, 1, -2]), random(4, 33)[:3]
    check(lambda x, i, v: torch.relu(x).index_put((i,), torch.relu(v)) * 1, *inputs, roundings=0)


GATHERED = {
    "gathered": lambda x, i: x.gather(3, i),
    "gathered along the first dimension": lambda x, i: x.gather(0, i % 2),
    "gathered in a part": lambda x, i: x.gather(2, i[:1, :2] % 4),
    "gathered from a line": lambda x, i: x[0, 0, 0].gather(0, i[0, 0, 0]),
    "taken along a dimension": lambda x, i: x.take_along_dim(i, 3),
    "scattered": lambda x, i: x.scatter(3, torch.arange(33).flip(0).expand(2, 3, 4, 33) + 0 * i, x),
    "scattered numbers": lambda x, i: x.scatter(3, i, 2.5),
    "scattered along the first dimension": lambda x, i: x.scatter(1, i[:, :1] % 3, x),
    "scattered into a line": lambda x, i: x[0, 0, 0].scatter(0, i[0, 0, 0], 1.0),
}


@pytest.mark.parametrize("name", GATHERED)
def test_elements_are(name):
    ids = torch.randint(0, 33, SHAPE, generator=torch.Generator().manual_seed(0))
    report = check(lambda x, i: torch.relu(GATHERED[name](torch.relu(x), i)), random(*SHAPE), ids, roundings=0)
    assert {"gather", "scatter"} & set(calls(report))


SUMS = {
    "scatter_add": lambda x, i: x.scatter_add(1, i % 3, x),
    "scatter with add": lambda x, i: x.scatter(1, i % 3, x, reduce="add"),
    "scatter with multiply": lambda x, i: x.scatter(1, i % 3, 2.0, reduce="multiply"),
    "scatter_reduce of sums": lambda x, i: x.scatter_reduce(1, i % 3, x, "sum"),
    "scatter_reduce of products": lambda x, i: x.scatter_reduce(1, i % 3, x, "prod"),
    "sums of what is scattered alone": lambda x, i: x.scatter_reduce(1, i % 3, x, "sum", include_self=False),
    "products of what is scattered alone": lambda x, i: x.scatter_reduce(1, i % 3, x, "prod", include_self=False),
    "index_add": lambda x, i: x.index_add(1, i[0, 0, 0, :2] % 3, x[:, :2]),
    "index_add of multiples": lambda x, i: x.index_add(1, i[0, 0, 0, :2] % 3, x[:, :2], alpha=2),
    "index_put that accumulates": lambda x, i: x.index_put((i[0, 0, 0, :3] % 2 - 2,), x[0], accumulate=True),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_eagers(name):
    ids = torch.randint(0, 33, SHAPE, generator=torch.Generator().manual_seed(0))
    report = check(lambda x, i: torch.relu(SUMS[name](torch.relu(x), i)), random(*SHAPE), ids, roundings=2)
    assert "scatter" in calls(report)


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


def test_an_index_that_the_device_computes_is_checked_on_the_host():
    check(lambda x: torch.relu(x)[:, torch.relu(x).argmax(1)[0, 0]] * 1, random(*SHAPE), roundings=0)


def test_integers_are_picked_exactly():
    table = torch.tensor([2**24 + 1, -(2**24) - 1, 2**40])
    picked, _ = compiled(lambda t, i: t[i], table, torch.tensor([2, 0, 1]))
    assert torch.equal(picked, table[[2, 0, 1]])


def test_a_shifted_window_is_one_lookup():
    """Swin: rolled, cut into windows, and back."""

    def windows(x):
        x = torch.relu(x).roll((-2, -2), (1, 2))
        return torch.relu(x.view(1, 2, 4, 2, 4, 32).permute(0, 1, 3, 2, 4, 5).reshape(4, 16, 32))

    report = check(windows, random(1, 8, 8, 32), roundings=0)
    assert calls(report).count("embedding") == 1 and "permute" not in calls(report)


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
