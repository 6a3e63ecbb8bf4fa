"""Table lookups."""

import pytest
import torch
from compiled import calls, check, compiled, random
from torch import nn

ROWS, WIDTH = 40, 24


@pytest.fixture
def table():
    module = nn.Embedding(ROWS, WIDTH)
    module.weight.data.copy_(random(ROWS, WIDTH))
    return module


@pytest.mark.parametrize("shape", [(2, 3), (3,), (2, 1, 3), (), (1, 1), (1, 33)], ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_rows_are_picked_by_ids_of_any_shape(table, shape, dtype):
    ids = torch.randint(0, ROWS, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    report = check(table, ids, roundings=0)
    assert "embedding" in calls(report)


def test_two_dimensional_ids_cost_one_call(table):
    assert calls(check(table, torch.tensor([[0, ROWS - 1, 7]]), roundings=0)) == ["embedding"]


def test_the_padding_row_is_a_row_like_others():
    module = nn.Embedding(ROWS, WIDTH, padding_idx=3)
    module.weight.data.copy_(random(ROWS, WIDTH))
    check(module, torch.tensor([[3, 0, 3]]), roundings=0)


@pytest.mark.parametrize("bad", [ROWS, -1, 2**31])
def test_an_id_that_is_no_row_is_eagers_error(table, bad):
    with pytest.raises(IndexError):
        compiled(table, torch.tensor([[0, bad]]))


def test_a_table_is_not_untilized_at_every_call():
    table = nn.Embedding(ROWS, 64)
    table.weight.data.copy_(random(ROWS, 64))
    report = check(table, torch.arange(32)[None], roundings=0)
    assert report.device_programs == 1


def test_rows_numbered_by_a_logarithm_of_distances_are_eagers_at_every_position(table):
    """T5's buckets: bfloat16 would put distances next to a border into another one."""

    def model(position):
        distances = (position - torch.arange(512)[None]).clamp(min=0)
        far = 16 + (torch.log(distances.float() / 16) / 2.0794415416798357 * 16).to(torch.int64)
        return table(torch.where(distances < 16, distances, far.clamp(max=ROWS - 1)))

    for position in (511, 300):
        assert "embedding" in calls(check(model, torch.tensor(position), roundings=0))
