"""Writes where a mask is true are choices on the device, with eager's values and eager's errors."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.masked_writes import masked_writes_to_where

MASK = torch.tensor([[False, True, True, False, False], [True, False, True, False, True]])
WRITES = (aten.masked_scatter.default, aten.index_put.default)


def written(model, *inputs):
    graph = capture(lambda x, *others: torch.relu(model(torch.relu(x), *others)), *inputs)
    graph.apply(masked_writes_to_where)
    return graph


ROWS = {
    "masked_scatter by a column": lambda x, m, v: x.masked_scatter(m.unsqueeze(-1), v),
    "masked_scatter by a column that is expanded": lambda x, m, v: x.masked_scatter(m.unsqueeze(-1).expand_as(x), v),
    "masked_scatter into what is broadcast": lambda x, m, v: x[:1].masked_scatter(m.unsqueeze(-1), v),
    "masked_scatter of another shape": lambda x, m, v: x.masked_scatter(m.unsqueeze(-1), v.reshape(2, -1)),
    "masked_scatter of more than is needed": lambda x, m, v: x.masked_scatter(m.unsqueeze(-1), torch.cat([v, v, v])),
    "masked_scatter of more than whole rows": (
        lambda x, m, v: x.masked_scatter(m.unsqueeze(-1), torch.cat([v.flatten(), v[0, :2]]))
    ),
    "masked_scatter by one mask for all batches": (
        lambda x, m, v: x.masked_scatter(m[0, :, None], torch.cat([v, v]))
    ),
    "index_put": lambda x, m, v: x.index_put((m,), v),
    "index_put of the leading dimension": lambda x, m, v: x.flatten(0, 1).index_put((m.flatten(),), v),
    "index_put of rows that span two dimensions": (
        lambda x, m, v: x.unflatten(2, (2, 2)).index_put((m,), v.unflatten(1, (2, 2)))
    ),
    "index_put of one column for all": lambda x, m, v: x.index_put((m,), v[:, :1]),
}  # fmt: skip
ELEMENTS = {
    "masked_scatter by elements": lambda x, m, v: x[..., 0].masked_scatter(m, v),
    "index_put by elements": lambda x, m, v: x[..., 0].index_put((m,), v[:, 0]),
}
BROADCAST = {
    "one number": lambda x, m, v: x.index_put((m,), torch.tensor(2.5)),
    "one row": lambda x, m, v: x.index_put((m,), v[0]),
    "one row, as a matrix": lambda x, m, v: x.index_put((m,), v[:1]),
    "one number for elements": lambda x, m, v: x[..., 0].index_put((m,), torch.tensor([2.5])),
}


def sample():
    return random(2, 5, 4), MASK, random(5, 4) + 3


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_looked_up(name):
    graph = written(ROWS[name], *sample())
    assert not graph.calls(*WRITES)
    assert len(graph.calls(operators.look_up)) == len(graph.calls(aten.where.self)) == 1


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_are_picked(name):
    graph = written(ELEMENTS[name], *sample())
    assert not graph.calls(*WRITES, operators.look_up)
    assert len(graph.calls(operators.pick)) == 1


@pytest.mark.parametrize("name", BROADCAST)
def test_what_is_the_same_for_every_place_is_chosen_alone(name):
    graph = written(BROADCAST[name], *sample())
    assert not graph.calls(*WRITES, operators.look_up, operators.pick)
    assert len(graph.calls(aten.where.self)) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda x, m, v: x.index_put((m,), v, accumulate=True),
        lambda x, m, v: x.to(torch.int64).masked_scatter(m.unsqueeze(-1), v.to(torch.int64)),
        lambda x, m, v: x.index_put((m, torch.tensor([0, 1, 2, 3, 0])), v[:, 0]),
        lambda x, m, v: x.index_put((torch.tensor([1, 0]),), v[:2].reshape(2, 1, 4)),
    ],
)
def test_other_writes_stay_as_they_are(write):
    graph = capture(write, *sample())
    assert masked_writes_to_where(graph.graph, graph.context) == 0


@pytest.mark.parametrize(
    "write",
    [lambda x, m, v: x.masked_scatter(m.unsqueeze(-1), v), lambda x, m, v: x.index_put((m,), v)],
)
@pytest.mark.parametrize("count", [2, 4, 6])
def test_a_count_that_differs_is_eager_s_error_or_value(write, count):
    x, mask, _ = sample()
    values = random(count, 4) + 3
    model = torch.compile(lambda *inputs: torch.relu(write(*inputs)) * 1, backend="ttnn")
    try:
        expected = torch.relu(write(x, mask, values))
    except (RuntimeError, IndexError) as error:
        words = str(error).split(":")[0]
        with pytest.raises(type(error), match=words):
            model(x, mask, values)
    else:
        torch.testing.assert_close(model(x, mask, values), expected, rtol=0.01, atol=0.01)
