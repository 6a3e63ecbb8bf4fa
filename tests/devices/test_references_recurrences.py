"""Recurrences along tokens on the emulated device, against their torch definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tt_dynamo.ir import operators

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


def delta_rule(ttnn: Any, emulated: Any, upload: Upload, *operands: torch.Tensor, **options: Any) -> tuple[Any, Any]:
    ones = torch.ones(1, 1, 32, 32)
    tiles = {"eye": torch.eye(32)[None, None], "tril": ones.tril(), "ones": ones, "masks": ones.repeat(1, 1, 1, 3)}
    options |= {name: upload(tile, ttnn.float32) for name, tile in tiles.items()}
    operands = tuple(upload(x) for x in operands)
    output, state = emulated.transformer.chunk_gated_delta_rule(*operands, chunk_size=32, **options)
    return output.value, state and state.value


@pytest.mark.parametrize("key_heads", [4, 2])
def test_a_delta_rule_carries_its_state_from_token_to_token(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, key_heads: int
) -> None:
    queries, keys = random(2, 64, 32 * key_heads), random(2, 64, 32 * key_heads)
    values, betas, state = random(2, 64, 128), random(2, 64, 4).sigmoid().bfloat16().float(), random(2, 4, 32, 32)
    g = -random(2, 64, 4).abs()
    given = (queries, keys, values, g, betas)
    expected, last = operators.gated_delta_rule_and_state(*given, None, *[g] * 4)
    output, none = delta_rule(ttnn, emulated, upload, *given)
    torch.testing.assert_close(output, expected.transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert none is None
    expected, last = operators.gated_delta_rule_and_state(*given, state, *[g] * 4)
    options = {"initial_state": upload(state, ttnn.float32), "output_final_state": True, "output_head_major": True}
    output, found = delta_rule(ttnn, emulated, upload, *given, **options)
    torch.testing.assert_close(output, expected.flatten(0, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, last, rtol=1e-4, atol=1e-5)


def test_a_delta_rule_of_heads_apart_has_no_values_here(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    x, g = random(1, 32, 2, 32), random(1, 32, 2)
    with pytest.raises(NotImplementedError, match="flat heads"):
        delta_rule(ttnn, emulated, upload, x, x, x, g, g)
