"""Moves of data on the device, to the last bit."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, falls_back, random

MOVES = {
    "flattened": (lambda x: x.reshape(-1), "reshape"),
    "rows joined": (lambda x: x.reshape(6, 33), "reshape"),
    "columns split": (lambda x: x.reshape(2, 3, 3, 11), "reshape"),
    "a dimension more": (lambda x: x[:, None], "reshape"),
    "dimensions permuted": (lambda x: x.permute(2, 0, 1), "permute"),
    "rows and columns exchanged": (lambda x: x.mT, "permute"),
    "repeated along a dimension of one": (lambda x: x[:, :1].expand(2, 4, 33), "expand"),
    "repeated along a new dimension": (lambda x: x.expand(5, 2, 3, 33), "expand"),
    "rows cut off": (lambda x: x[:, 1:], "slice"),
    "every second column": (lambda x: x[..., ::2], "slice"),
    "columns counted from the end": (lambda x: x[..., -5:-1], "slice"),
    "beyond the end": (lambda x: x[:, 1:100], "slice"),
    "one row": (lambda x: x[:, 1], "slice"),
    "the last column": (lambda x: x[..., -1], "slice"),
    "repeated": (lambda x: x.repeat(1, 2, 3), "repeat"),
    "repeated with a dimension more": (lambda x: x.repeat(2, 1, 1, 1), "repeat"),
    "padded behind": (lambda x: F.pad(x, (0, 2)), "pad"),
    "padded in two dimensions": (lambda x: F.pad(x, (0, 31, 0, 2), value=1.5), "pad"),
}


@pytest.mark.parametrize("name", MOVES)
def test_elements_are(name):
    move, call = MOVES[name]
    report = check(lambda x: torch.relu(move(torch.relu(x))), random(2, 3, 33), roundings=0)
    assert call in calls(report)


SPLITS = {
    "unbind": lambda x: x.unbind(1),
    "split": lambda x: x.split(10, -1),
    "split with sizes": lambda x: x.split([3, 10, 20], 2),
    "chunk": lambda x: x.chunk(2, -1),
    "split along the first dimension": lambda x: x.split(1),
}


@pytest.mark.parametrize("name", SPLITS)
def test_parts_are_eagers(name):
    check(lambda x: [torch.relu(part) for part in SPLITS[name](torch.relu(x))], random(2, 3, 33), roundings=0)


@pytest.mark.parametrize("shape", [(2, 3, 33), (2, 32, 64), (1, 5), (4,)], ids=str)
@pytest.mark.parametrize("dim", [0, -1])
def test_tensors_are_joined_along_a_dimension(shape, dim):
    report = check(lambda x: torch.relu(torch.cat([torch.relu(x), torch.tanh(x).abs(), x], dim)), random(*shape))
    assert "concat" in calls(report)


def test_tiles_are_joined_without_a_change_of_layout():
    report = check(lambda x: torch.relu(torch.cat([torch.relu(x), x], 1)), random(2, 32, 64), roundings=0)
    assert "to_layout" not in calls(report)


def test_parts_of_different_sizes_are_joined():
    check(lambda x, y: torch.relu(torch.cat([x, torch.relu(y)], 1)), random(2, 1, 33), random(2, 5, 33), roundings=0)


def test_padding_in_front_gives_eagers_answer():
    assert "front padding" in falls_back(lambda x: F.pad(torch.relu(x), (1, 2)), random(3, 5)).reason


def test_padding_by_less_than_nothing_gives_eagers_answer():
    falls_back(lambda x: F.pad(torch.relu(x), (0, -2)), random(3, 5))


def test_a_copy_that_is_returned_beside_what_it_copies_is_a_tensor_of_its_own():
    def model(x):
        y = torch.relu(x)
        return y, y.clone()

    (y, copy), _ = compiled(model, random(3, 5))
    copy.zero_()
    assert y.any()


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.relu(x).permute(1, 0),
        lambda x: torch.relu(x).permute(1, 0).contiguous(),
        lambda x: torch.relu(x)[:, ::2],
        lambda x: torch.relu(x)[:1].expand(3, 5),
        lambda x: torch.relu(x).unsqueeze(1).transpose(0, 2),
    ],
)
def test_outputs_have_eagers_strides(model):
    check(model, random(3, 5), roundings=0)
