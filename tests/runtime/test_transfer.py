"""A spec alone says how a value goes up: what is uploaded is what the calls of a dumped program upload."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.spec import Spec
from tt_dynamo.runtime.transfer import Border

SHAPE = (1, 1, 32, 32)


@pytest.mark.parametrize(
    "spec",
    [
        Spec(SHAPE, "bfloat16", "TILE"),
        Spec(SHAPE, "float32", "ROW_MAJOR"),
        Spec(SHAPE, "bfloat8_b", "TILE"),
        Spec(SHAPE, "bfloat16", "ROW_MAJOR", "HOST"),
        Spec(SHAPE, "bfloat16", "TILE", placement=(None, None)),
    ],
    ids=lambda spec: f"{spec.dtype} {spec.layout} {spec.memory}",
)
def test_a_value_goes_up_at_its_spec(board_device: Any, spec: Spec) -> None:
    ttnn, x = board_device.namespace(), torch.arange(1024.0).reshape(SHAPE) % 7
    made = Border(board_device, ttnn).up(x, spec)
    assert (made.dtype.name.lower(), made.layout.name) == (spec.dtype, spec.layout)
    assert (made.device() is None) == (spec.memory == "HOST")
    assert torch.equal(ttnn.to_torch(made, dtype=torch.float32), x)
    (call,) = spec.calls
    assert call.startswith(
        f"ttnn.from_torch(weight, dtype=ttnn.{spec.dtype}, layout=ttnn.{spec.layout}_LAYOUT, device="
    )


def test_what_ttnn_prepares_goes_to_it_on_the_host_first(board_device: Any) -> None:
    ttnn = board_device.namespace()
    spec = Spec(SHAPE, "bfloat16", "TILE", prepare="ttnn.to_device(ttnn.to_layout(weight, ttnn.TILE_LAYOUT), device)")
    assert spec.calls == (
        "ttnn.from_torch(weight, dtype=ttnn.bfloat16, layout=ttnn.ROW_MAJOR_LAYOUT, device=None)",
        spec.prepare,
    )
    made = Border(board_device, ttnn).up(torch.ones(SHAPE), spec)
    assert made.layout == ttnn.TILE_LAYOUT and made.device() is not None


def test_an_input_that_ttnn_prepares_for_itself_is_not_cut_over_a_mesh(board_device: Any) -> None:
    spec = Spec(SHAPE, "bfloat16", "TILE", memory="HOST", placement=(None, 3))
    with pytest.raises(Unsupported, match="prepares this operand once for all chips"):
        Border(board_device, board_device.namespace()).up(torch.ones(SHAPE), spec)
