"""Products follow the math fidelity: the arithmetic of Tenstorrent's ISA documentation, here on integers.

Source: https://github.com/tenstorrent/tt-isa-documentation, WormholeB0/TensixTile/TensixCoprocessor, SrcASrcB.md and
MVMUL.md, whose functional model takes 16 of the inner dimension a phase.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tt_dynamo.devices.emulation.fidelity import MatrixEngine
from tt_dynamo.devices.emulation.references import _convolve_as_matmul

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]

# Of a mantissa of `width` bits with the leading one, what each phase reads of SrcA and of SrcB: from bit, to bit.
BFLOAT16 = {"width": 8, "A": [(3, 8), (0, 3)], "B": [(1, 8), (0, 1)]}
TF32 = {"width": 11, "A": [(6, 11), (1, 6)], "B": [(4, 11), (0, 4)]}
FIDELITIES = ("LoFi", "HiFi2", "HiFi3", "HiFi4")
# Of attention and norms in LoFi: products one after another, each of an operand cut by 2 % on average.
LOFI_LOSS = 0.08


def read(mantissas: torch.Tensor, bits: tuple[int, int]) -> torch.Tensor:
    first, end = bits
    return mantissas & ((1 << end) - (1 << first))


def config(ttnn: Any, fidelity: str, float32: bool = True, l1: bool = True) -> Any:
    return ttnn.WormholeComputeKernelConfig(
        math_fidelity=getattr(ttnn.MathFidelity, fidelity), fp32_dest_acc_en=float32, packer_l1_acc=l1
    )


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("dtype", [BFLOAT16, TF32], ids=["bfloat16", "TF32"])
@pytest.mark.parametrize("phases", [1, 2, 3, 4])
def test_every_pair_of_mantissas_multiplies_as_documented(dtype: dict[str, Any], phases: int) -> None:
    mantissas = torch.arange(1 << dtype["width"] - 1, 1 << dtype["width"], 1 if dtype is BFLOAT16 else 3)
    expected = sum(
        read(mantissas, dtype["B"][phase >> 1])[:, None] * read(mantissas, dtype["A"][phase & 1])[None]
        for phase in range(phases)
    )
    scale = 2.0 ** (1 - dtype["width"])
    b, a = (mantissas * scale)[:, None] * 2.0**-3, (mantissas * -scale)[None] * 2.0**5
    found = MatrixEngine(phases, wide=True).product(b, a)
    assert torch.equal(found.double(), expected * -(scale**2) * 2.0**2)


@pytest.mark.parametrize("phases", [1, 2, 3, 4])
@pytest.mark.parametrize("block", [0, 64])
def test_sums_in_bfloat16_round_after_every_16_and_phase(random: Random, phases: int, block: int) -> None:
    b, a = random(3, 100), random(100, 2)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bfloat16).to(torch.float64)

    def sliced(x: torch.Tensor, register: str, which: int) -> torch.Tensor:
        mantissa, exponent = torch.frexp(x)
        whole = (mantissa.abs() * 256).to(torch.int64)
        return torch.ldexp(read(whole, BFLOAT16[register][which]).double() / 256, exponent) * x.sign()

    total = torch.zeros(3, 2, dtype=torch.float64)
    for first in range(0, 100, block or 100):
        part = torch.zeros_like(total)
        for tile in range(first, min(first + (block or 100), 100), 32):
            for phase in range(phases):
                for k in (slice(tile, min(tile + 16, 100)), slice(tile + 16, min(tile + 32, 100))):
                    part = rounded(part + sliced(b[:, k], "B", phase >> 1) @ sliced(a[k], "A", phase & 1))
        total = rounded(total + part)
    assert torch.equal(MatrixEngine(phases, float32=False, block=block).product(b, a).double(), total)


@pytest.mark.parametrize("float32", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_more_phases_are_closer(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, dtype: str, float32: bool
) -> None:
    a, b = random(64, 128), random(128, 96)
    left, right = (upload(x, dtype=getattr(ttnn, dtype)) for x in (a, b))
    options = {"dtype": ttnn.float32, "program_config": None}
    found = [
        emulated.matmul(left, right, compute_kernel_config=config(ttnn, fidelity, float32), **options).value
        for fidelity in FIDELITIES
    ]
    errors = [error(value, a @ b) for value in found]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]
    assert errors[2] > errors[3] if float32 else errors[3] < 0.01
    assert errors[3] < 1e-6 or not float32
    assert 0.01 < errors[0] < 0.05


def test_operands_lie_in_the_registers_of_ttnns_kernels(ttnn: Any, emulated: Any, upload: Upload) -> None:
    """The first operand keeps 7 bits in LoFi, the second 5."""
    fine, one = torch.full((1, 32), 1 + 2**-6), torch.full((32, 1), 1.0)
    lofi = config(ttnn, "LoFi")
    assert float(emulated.matmul(upload(fine), upload(one), compute_kernel_config=lofi).value) == 32.5
    assert float(emulated.matmul(upload(one.T), upload(fine.T), compute_kernel_config=lofi).value) == 32.0


@pytest.mark.parametrize(("activations", "weights", "fidelity"), [
    ("bfloat8_b", "bfloat4_b", "LoFi"), ("bfloat8_b", "bfloat8_b", "HiFi2"), ("bfloat16", "bfloat16", "HiFi4"),
])  # fmt: skip
def test_enough_phases_lose_nothing(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, activations: str, weights: str, fidelity: str
) -> None:
    """As many as the documentation lists for full precision of what each dtype holds."""
    x, w = upload(random(64, 128), getattr(ttnn, activations)), upload(random(128, 64), getattr(ttnn, weights))
    options = {"compute_kernel_config": config(ttnn, fidelity), "dtype": ttnn.float32}
    assert torch.equal(emulated.matmul(x, w, **options).value, x.value @ w.value)


def test_float32_operands_are_cut_to_what_the_registers_hold(ttnn: Any, emulated: Any, upload: Upload) -> None:
    x = upload(torch.full((1, 32), 1 + 2**-10 + 2**-11), ttnn.float32)
    w = upload(torch.full((32, 1), 1 + 2**-9 + 2**-10), ttnn.float32)
    found = emulated.matmul(x, w, compute_kernel_config=config(ttnn, "HiFi4"))
    assert float(found.value) == 32 * (1 + 2**-10) * (1 + 2**-9)


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("float32", [True, False])
def test_a_convolution_multiplies_as_its_matmul(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, device: Any, fidelity: str, float32: bool
) -> None:
    image, weight = random(1, 1, 64, 32), random(64, 32, 1, 1)
    compute = config(ttnn, fidelity, float32)
    sizes = {"in_channels": 32, "out_channels": 64, "batch_size": 1, "input_height": 8, "input_width": 8}
    convolved = emulated.conv2d(
        input_tensor=upload(image, layout=ttnn.ROW_MAJOR_LAYOUT), device=device.handle, kernel_size=(1, 1), **sizes,
        weight_tensor=emulated.from_torch(weight, dtype=ttnn.bfloat16), compute_config=compute,
    )  # fmt: skip
    product = emulated.matmul(upload(image), upload(weight[..., 0, 0].T), compute_kernel_config=compute)
    torch.testing.assert_close(convolved.value, product.value, rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, (1, 1), (1, 1)), (2, (2, 1), (1, 2)), (8, 2, 1)])
def test_the_matmul_of_a_convolution(random: Random, groups: int, stride: Any, dilation: Any) -> None:
    image, weight = random(2, 8, 9, 10), random(16, 8 // groups, 3, 2)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    found = _convolve_as_matmul(MatrixEngine(), image, weight, **options)
    torch.testing.assert_close(found, functional.conv2d(image, weight, None, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("fidelity", "float32"), [("LoFi", True), ("HiFi2", True), ("HiFi4", False)])
@pytest.mark.parametrize("options", [
    {"is_causal": True}, {"is_causal": False}, {"is_causal": True, "sliding_window_size": 40}, {"attn_mask": 64},
])  # fmt: skip
def test_attention_multiplies_by_the_fidelity(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, fidelity: str, float32: bool, options: dict[str, Any]
) -> None:
    query, key, value = upload(random(2, 4, 64, 64)), upload(random(2, 2, 64, 64)), upload(random(2, 2, 64, 64))
    if "attn_mask" in options:
        options = {"attn_mask": upload(random(1, 1, 64, 64)), "is_causal": False, "scale": 0.2}

    def attend(config: Any) -> torch.Tensor:
        attention = emulated.transformer.scaled_dot_product_attention
        return attention(query, key, value, compute_kernel_config=config, **options).value

    whole, found = attend(config(ttnn, "HiFi4")), attend(config(ttnn, fidelity, float32))
    assert 1e-3 < error(found, whole) < (LOFI_LOSS if fidelity == "LoFi" else 0.02)


def test_decode_multiplies_by_the_fidelity(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    query, key, value = upload(random(1, 2, 4, 64)), upload(random(2, 2, 64, 64)), upload(random(2, 2, 64, 64))
    positions = upload(torch.tensor([9, 63]), dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT)

    def attend(fidelity: str) -> torch.Tensor:
        attention, compute = emulated.transformer.scaled_dot_product_attention_decode, config(ttnn, fidelity)
        return attention(query, key, value, cur_pos_tensor=positions, compute_kernel_config=compute).value

    whole = attend("HiFi4")
    errors = [error(attend(fidelity), whole) for fidelity in FIDELITIES]
    assert LOFI_LOSS > errors[0] > errors[1] > errors[2] == 0


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "softmax", "rotary_embedding_hf"])
def test_elementwise_products_follow_the_fidelity(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, name: str
) -> None:
    """Norms, softmax and rotary embeddings multiply in the matrix engine too."""
    x, weight, angles = upload(random(1, 1, 32, 128)), upload(1 + random(128) / 4), random(1, 1, 32, 128)
    arguments = {
        "layer_norm": ((x,), {"weight": weight, "bias": weight, "residual_input_tensor": x}),
        "rms_norm": ((x,), {"weight": weight}),
        "softmax": ((x,), {"dim": 2}),
        "rotary_embedding_hf": ((x, upload(angles.cos()), upload(angles.sin())), {}),
    }
    operands, options = arguments[name]
    operation = getattr(emulated.experimental if name == "rotary_embedding_hf" else emulated, name)

    def compute(fidelity: str, float32: bool = True) -> torch.Tensor:
        return operation(*operands, compute_kernel_config=config(ttnn, fidelity, float32), **options).value

    whole = compute("HiFi4")
    errors = [error(compute(fidelity), whole) for fidelity in FIDELITIES]
    assert LOFI_LOSS > errors[0] > errors[1] > errors[2] >= errors[3] == 0
    assert error(compute("HiFi4", False), whole) < 0.02


def test_infinities_stay_infinities() -> None:
    x = torch.tensor([[torch.inf, 1.0]])
    for phases in (1, 2, 3, 4):
        assert float(MatrixEngine(phases, wide=True).product(x, torch.ones(2, 1))) == torch.inf
