"""Moves by index on the emulated device, element by element."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


@pytest.mark.parametrize("reduce", [None, "add", "multiply"])
def test_scatter_combines_what_meets_at_one_place(
    emulated: Any, ttnn: Any, upload: Upload, random: Random, reduce: str | None
) -> None:
    x, source, index = random(3, 8), random(3, 5), torch.tensor([[0, 7, 7, 2, 1]] * 3)
    expected = x.clone()
    for row in range(3):
        for column, place in enumerate(index[row].tolist()):
            old, new = expected[row, place].item(), source[row, column].item()
            expected[row, place] = new if reduce is None else old + new if reduce == "add" else old * new
    rows = ttnn.ROW_MAJOR_LAYOUT
    operands = upload(x, layout=rows), 1, upload(index, ttnn.uint32, rows), upload(source, layout=rows)
    found = emulated.scatter(*operands, reduce=reduce)
    torch.testing.assert_close(found.value, expected, rtol=1 / 256, atol=1e-6)
