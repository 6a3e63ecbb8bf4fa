"""Which torch values stand for a tensor of each TTNN dtype, and rounding to what that dtype can hold.

Float dtypes are held as torch.float32 tensors whose every element the device dtype can represent, integer dtypes as
torch.int64, so that unsigned 32-bit values keep their sign and compare as numbers.
"""

from types import ModuleType
from typing import Any

import torch
from torch.nn import functional

from .fidelity import to_bfloat16

# What ttnn.to_torch gives for each dtype; the block floats have no torch dtype of their own.
TORCH_DTYPES = {
    "BFLOAT16": torch.bfloat16, "FLOAT32": torch.float32, "BFLOAT8_B": torch.float32, "BFLOAT4_B": torch.float32,
    "UINT8": torch.uint8, "INT8": torch.int8, "UINT16": torch.uint16, "INT32": torch.int32, "UINT32": torch.uint32,
}  # fmt: skip
# Bits of the magnitude of each element, the leading one among them; the exponent is that of its block.
_BLOCK_FLOATS = {"BFLOAT8_B": 7, "BFLOAT4_B": 3}
_BLOCK = 16


def round_to(ttnn: ModuleType, value: torch.Tensor, dtype: Any, on_host: bool = False) -> torch.Tensor:
    """`value` as a device tensor of `dtype` holds it: float32 or int64 storage, representable elements.

    bfloat16 rounds to nearest, ties to even. Of the block floats 16 neighbours of the last dimension share an exponent;
    they are packed by TTNN `on_host`, else by the device. Integers wrap around; floats given for them truncate.
    """
    if dtype.name not in TORCH_DTYPES:
        raise NotImplementedError(f"the emulated device has no values of dtype {dtype.name}")
    if dtype.name in _BLOCK_FLOATS and value.numel():
        value = value.to(torch.float32)
        packed = _in_blocks(value if on_host else to_bfloat16(value), _BLOCK_FLOATS[dtype.name], on_host)
        if packed is None:
            tiles = ttnn.Tensor(tensor=value.contiguous(), data_type=dtype, layout=ttnn.TILE_LAYOUT)
            packed = tiles.to_torch().reshape(value.shape)
        return packed
    target = TORCH_DTYPES[dtype.name]
    return as_held((value if target.is_floating_point else value.to(torch.int64)).to(target))


def _in_blocks(value: torch.Tensor, bits: int, on_host: bool) -> torch.Tensor | None:
    """What TTNN's host packing gives, in a fraction of its time: large weights go through here, and rows of caches.

    The device rounds halves of bfloat8_b away from zero and cuts bits off that for bfloat4_b. value: float32, on the
    device with bfloat16's elements. None where TTNN is to be asked, as of blocks with infinities or of the smallest
    numbers alone.
    Source: https://github.com/tenstorrent/tt-isa-documentation, Packers/FormatConversion.md of Wormhole.
    """
    shape = value.shape if value.ndim else (1,)
    blocks = functional.pad(value.reshape(shape), (0, -shape[-1] % _BLOCK)).unflatten(-1, (-1, _BLOCK))
    lowest, highest = torch.aminmax(blocks, dim=-1, keepdim=True)
    largest = torch.maximum(-lowest, highest)
    if not bool(((largest > 2.0**-100) & (largest < torch.inf) | (largest == 0)).all()):
        return None
    power = (largest.view(torch.int32) & 0x7F800000).view(torch.float32).clamp_min_(2.0**-100)
    if on_host:
        # TTNN shifts a mantissa of 24 bits to the exponent of the block, dropping what falls off, before it rounds.
        elements = (blocks * (2.0**23 / power)).trunc_().mul_(2.0 ** (bits - 24)).round_()
    else:
        elements = (blocks.abs() * (64 / power)).add_(0.5).floor_().clamp_(max=127)
        elements = elements.mul_(2.0 ** (bits - 7)).floor_().copysign_(blocks)
    elements = elements.clamp_(1 - 2**bits, 2**bits - 1).mul_(power * 2.0 ** (1 - bits))
    return elements.flatten(-2)[..., : shape[-1]].reshape(value.shape).contiguous()


def converted(ttnn: ModuleType, tensor: torch.Tensor, dtype: Any) -> torch.Tensor:
    """`tensor`, of any torch dtype, as `ttnn.from_torch` converts it to TTNN's `dtype` on the host."""
    block_float = dtype.name in _BLOCK_FLOATS
    if block_float and tensor.dtype in (torch.float32, torch.bfloat16):
        return round_to(ttnn, tensor, dtype, on_host=True)
    truncated = tensor.dtype.is_floating_point and not TORCH_DTYPES[dtype.name].is_floating_point
    if tensor.numel() and (block_float or truncated):
        # Out of range, and on the way to block floats, what TTNN gives depends on both dtypes: ask it.
        layout = ttnn.TILE_LAYOUT if block_float else ttnn.ROW_MAJOR_LAYOUT
        return as_held(ttnn.from_torch(tensor.contiguous(), dtype=dtype, layout=layout).to_torch())
    return round_to(ttnn, as_held(tensor), dtype)


def as_held(value: torch.Tensor) -> torch.Tensor:
    """Any torch tensor in the storage that values are held in: float32, or int64 for integers and booleans."""
    return value.to(torch.float32 if value.dtype.is_floating_point else torch.int64)
