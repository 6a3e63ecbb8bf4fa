"""TTNN's minimal products and heads in two parts, against torch: shape, dtype and values."""

from typing import Any

import pytest
import torch


@pytest.mark.parametrize("rows", [(1, 1), (2, 1), (1, 40)])
def test_minimal_matmul_split(emulated: Any, upload: Any, random: Any, rows: tuple[int, ...]) -> None:
    x, weight, bias = random(*rows, 48), random(48, 96), random(1, 96)
    found = emulated.experimental.minimal_matmul_split(upload(x), upload(weight), chunks=3, bias_tensor=upload(bias))
    for part, expected in zip(found, (x @ weight + bias).chunk(3, -1), strict=True):
        torch.testing.assert_close(part.value, expected, rtol=1 / 128, atol=1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_dit_minimal_matmul_addcmul_fused(emulated: Any, upload: Any, random: Any, bias: bool) -> None:
    x, weight, residual, gate = random(1, 40, 48), random(48, 64), random(1, 40, 64), random(1, 1, 64)
    added = random(1, 64) if bias else None
    fused = emulated.experimental.dit_minimal_matmul_addcmul_fused
    options = {} if added is None else {"bias_tensor": upload(added)}
    found = fused(upload(x), upload(weight), 0.5, upload(residual), upload(gate), **options)
    expected = residual + 0.5 * (x @ weight + (0 if added is None else added)) * gate
    torch.testing.assert_close(found.value, expected, rtol=1 / 128, atol=1e-1)


def test_a_gate_is_its_first_row(emulated: Any, upload: Any, random: Any) -> None:
    x, weight, residual, gate = random(2, 32, 32), random(32, 32), random(2, 32, 32), random(2, 1, 32)
    found = emulated.experimental.dit_minimal_matmul_addcmul_fused(
        *map(upload, (x, weight)), 1.0, *map(upload, (residual, gate))
    )
    torch.testing.assert_close(found.value, residual + x @ weight * gate[:1], rtol=1 / 128, atol=1e-1)


@pytest.mark.parametrize("split", [32, 64])
def test_nlp_create_q_heads_split(emulated: Any, upload: Any, random: Any, split: int) -> None:
    x = random(2, 1, 40, 3 * 96)
    found = emulated.experimental.nlp_create_q_heads_split(upload(x), num_heads=3, split_head_dim=split)
    heads = x.reshape(2, 40, 3, 96).transpose(1, 2)
    for part, expected in zip(found, heads.split([split, 96 - split], -1), strict=True):
        assert torch.equal(part.value, expected)


def test_joint_scaled_dot_product_attention(ttnn: Any, emulated: Any, upload: Any, random: Any) -> None:
    streams = [random(2, 2, rows, 32) for rows in (40, 32) for _ in range(3)]
    program = ttnn.SDPAProgramConfig(
        compute_with_storage_grid_size=ttnn.CoreCoord(8, 8), q_chunk_size=32, k_chunk_size=32, exp_approx_mode=False
    )
    attention = emulated.transformer.joint_scaled_dot_product_attention
    found = attention(*map(upload, streams), joint_strategy="rear", program_config=program, scale=0.25)
    query, key, value = (torch.cat(both, 2) for both in zip(streams[:3], streams[3:], strict=True))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.25).split([40, 32], 2)
    for part, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(part.value, wanted, rtol=1 / 64, atol=1e-2)


def test_dit_fused_distributed_rmsnorm(emulated: Any, upload: Any, random: Any, device: Any) -> None:
    x, weight, cos, sin = random(1, 1, 40, 3 * 64), random(1, 3 * 64), random(1, 1, 40, 64), random(1, 1, 40, 64)
    matrix = torch.zeros(1, 1, 32, 32)
    matrix[..., range(1, 32, 2), range(0, 32, 2)], matrix[..., range(0, 32, 2), range(1, 32, 2)] = -1.0, 1.0
    found = emulated.experimental.dit_fused_distributed_rmsnorm(
        upload(x), None, device.handle, [], epsilon=1e-5, num_heads_per_device=3, per_head_norm=True,
        weight=upload(weight), transformation_mat=upload(matrix), rope_cos=upload(cos), rope_sin=upload(sin),
    )  # fmt: skip
    heads = torch.nn.functional.rms_norm(x.unflatten(-1, (3, 64)), (64,), eps=1e-5) * weight.reshape(3, 64)
    heads = heads[0].transpose(1, 2)
    crossed = torch.stack([-heads[..., 1::2], heads[..., ::2]], -1).flatten(-2)
    torch.testing.assert_close(found.value, heads * cos + crossed * sin, rtol=1 / 64, atol=2e-2)
