"""Language models keep weights and caches in block floats: what reads them reads rounded values, and rounds once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rounded_once import check, packed_on_device
from torch.nn import functional

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


@pytest.fixture
def packed(ttnn: Any) -> Callable[..., torch.Tensor]:
    """A torch tensor as TTNN's host packing rounds it."""
    return lambda tensor, dtype: ttnn.from_torch(tensor, dtype=dtype, layout=ttnn.TILE_LAYOUT).to_torch()


@pytest.mark.parametrize("dtype", ["bfloat8_b", "bfloat4_b"])
@pytest.mark.parametrize("name", ["linear", "matmul"])
def test_weights_are_rounded_at_the_upload_alone(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, packed: Upload, dtype: str, name: str
) -> None:
    x, weight, target = random(1, 1, 8, 96), random(96, 70), getattr(ttnn, dtype)
    rounded = packed(weight, target)
    assert not torch.equal(rounded, weight), "every weight fits: the test needs others"
    found = getattr(emulated, name)(upload(x), upload(weight, target))
    assert found.dtype == ttnn.bfloat16
    check(found, x @ rounded)


@pytest.mark.parametrize("dtype", ["bfloat8_b", "bfloat4_b"])
@pytest.mark.parametrize("source", ["bfloat16", "float32", "bfloat8_b"])
def test_typecast_packs(ttnn: Any, emulated: Any, upload: Upload, random: Random, dtype: str, source: str) -> None:
    x, target = upload(random(2, 3, 50, 70), getattr(ttnn, source)), getattr(ttnn, dtype)
    for found in (emulated.typecast(x, target), emulated.typecast(x, dtype=target)):
        assert found.dtype == target
        assert torch.equal(found.value, packed_on_device(x.value, dtype))
    assert torch.equal(emulated.typecast(found, ttnn.bfloat16).value, packed_on_device(x.value, dtype))


def test_attention_reads_block_float_caches(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, packed: Upload
) -> None:
    q, k, v = random(1, 1, 4, 64), random(1, 2, 64, 64), random(1, 2, 64, 64)
    caches = [upload(x, ttnn.bfloat8_b) for x in (k, v)]
    position = upload(torch.tensor([40]), ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
    found = emulated.transformer.scaled_dot_product_attention_decode(upload(q), *caches, cur_pos_tensor=position)
    k, v = (packed(x, ttnn.bfloat8_b)[:, :, :41] for x in (k, v))
    expected = functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, enable_gqa=True)
    check(found, expected.transpose(1, 2))


def test_a_gate_and_a_soft_cap_of_block_floats(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    x, y = random(1, 1, 8, 96), random(1, 1, 8, 96)
    a, b = upload(x, ttnn.bfloat8_b), upload(y, ttnn.bfloat8_b)
    found = emulated.multiply(a, b, input_tensor_a_activations=[ttnn.UnaryOpType.SILU])
    assert found.dtype == ttnn.bfloat8_b
    assert torch.equal(found.value, packed_on_device(functional.silu(a.value) * b.value, "bfloat8_b"))
    capped = emulated.multiply(emulated.tanh(emulated.multiply(upload(x), 1 / 2)), 2.0)
    torch.testing.assert_close(capped.value, 2 * torch.tanh(x / 2), rtol=2**-7, atol=1e-6)
