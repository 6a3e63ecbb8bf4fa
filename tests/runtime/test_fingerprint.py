"""Some bytes of tensors, read at their addresses: whole writes show, and nothing but the tensors is read."""

from __future__ import annotations

import pytest
import torch

from tt_dynamo.runtime.fingerprint import Fingerprint

TENSORS = {
    "a matrix": torch.ones(300, 200),
    "one number": torch.tensor(1.0),
    "a flag": torch.tensor(True),
    "fewer bytes than a word": torch.ones(3, dtype=torch.bfloat16)[1:],
    "at an odd address": torch.ones(100, dtype=torch.int8)[3:],
    "transposed": torch.ones(6, 7, 8).permute(2, 0, 1),
    "some columns of a matrix": torch.ones(60, 50)[:, 10:20],
    "expanded": torch.ones(40, 1).expand(40, 30),
    "float64": torch.ones(9, 9, dtype=torch.float64),
    "complex": torch.ones(9, 9, dtype=torch.complex64),
    "of inference mode": torch.inference_mode()(torch.ones)(9, 9),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_write_to_all_of_a_tensor_is_seen(name: str) -> None:
    tensor = TENSORS[name]
    found = Fingerprint([torch.ones(2), tensor, torch.ones(50, 50)])
    assert found.is_current()
    with torch.inference_mode():
        (tensor[:, :1] if name == "expanded" else tensor).data.zero_()
    assert not found.is_current()


@pytest.mark.parametrize("index", [0, -1])
def test_the_first_and_the_last_element_are_read(index: int) -> None:
    tensor = torch.ones(1000)
    found = Fingerprint([tensor])
    tensor[index] = 2
    assert not found.is_current()
    tensor[index] = 1
    assert found.is_current()


def test_columns_between_those_of_a_tensor_are_not_its_own() -> None:
    matrix = torch.ones(60, 256)
    found = Fingerprint([matrix[:, 64:128]])
    matrix[:, 128:] = 2
    matrix[:, :64] = 2
    assert found.is_current()


def test_nans_are_equal_and_zeros_of_other_sign_are_not() -> None:
    tensor = torch.full((100,), float("nan"))
    assert Fingerprint([tensor]).is_current()
    tensor.zero_()
    found = Fingerprint([tensor])
    tensor.neg_()
    assert not found.is_current()


@pytest.mark.parametrize("tensors", [[], [torch.ones(0, 3)], [torch.ones(3, device="meta")]])
def test_nothing_to_read_stays_as_it_is(tensors: list[torch.Tensor]) -> None:
    assert Fingerprint(tensors).is_current()
