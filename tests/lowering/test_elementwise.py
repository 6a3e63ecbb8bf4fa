"""What is no work: values without elements, and values that are constants."""

import pytest
import torch
from compiled import close, compiled, random


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 0, 5)], ids=str)
def test_what_has_no_elements_is_no_work(shape):
    outputs, report = compiled(lambda x: torch.exp(x) * 2 + x, torch.empty(shape))
    assert outputs.shape == shape
    assert not report.fallbacks
    assert not report.nodes


def test_what_is_like_a_tensor_in_its_shape_alone_is_a_constant():
    def model(x):
        x = torch.relu(x)
        return torch.zeros_like(x), torch.full_like(x, 2.5), torch.ones_like(x, dtype=torch.int64), x.new_full((2,), 3)

    outputs, report = compiled(model, random(3, 5))
    close(outputs, model(random(3, 5)), roundings=0)
    assert not report.nodes
