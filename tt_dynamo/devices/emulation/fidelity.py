"""Products as the matrix engine computes them, by math fidelity and by what it accumulates in.

Its multipliers take 5 bits of a mantissa in SrcA and 7 of one in SrcB, each with the leading one, so a whole product
takes four phases, of which LoFi runs one, HiFi2 two, HiFi3 three and HiFi4 all. Bits are cut off, not rounded away:

    phase   SrcA                 SrcB
    0       first 4 bits         first 6 bits
    1       next 5               first 6
    2       first 4              next 4
    3       next 5               next 4

bfloat16 has 7 bits after the leading one, bfloat8_b up to 6 and bfloat4_b up to 2, whatever their block's exponent.
float32 operands are cut to 10 bits (TF32), to the 7 of bfloat16 where that is accumulated in. Of a matmul, the second
operand is in SrcA and the first in SrcB; of a convolution, the weights and the image. Wormhole and Blackhole are alike.

Accumulated in bfloat16, the sum is rounded after every 16 products and every phase, 32 of the inner dimension at once.
With packer_l1_acc, that is so in each block of the inner dimension, and of the sums of blocks. The program config tells
their size; where it tells none, TTNN chooses one that is not known here, and two tiles stand for it.

Matmul, linear, convolutions, attention, norms, softmax and rotary embeddings use it for every product that TTNN's
kernels leave to the matrix engine. Exponentials and roots are the vector unit's and whole here; so are reductions,
pools, and binary operations, which take no compute kernel config.

Not modelled: what HiFi3 leaves out where no operand and no result is float32, at most 2**-11 of a product and 2**-14 on
average, which bfloat16 does not show; the order of additions within 16; flushed denormals; infinities and NaN, which
stay those of IEEE 754; the rounding of halves, here to even. Without a compute kernel config products are whole.

Sources: https://github.com/tenstorrent/tt-isa-documentation, WormholeB0/TensixTile/TensixCoprocessor, pages SrcASrcB
(fidelity phases), MVMUL and ELWMUL (functional models); of operands and registers, TTNN's llk_unpack_AB_matmul.h.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Bits after the leading one: of the first slice, and of both.
SRC_A, SRC_B = (4, 9), (6, 10)
_BFLOAT16 = 7
_TILE, _FACE = 32, 16
# Elements of a sum in bfloat16 that are added up at a time, so that they stay in the caches.
_IN_CACHE = 1 << 15


def cut(x: Tensor, bits: int) -> Tensor:
    """float32 elements with the first `bits` of their mantissas after the leading one, the others zero."""
    return (x.view(torch.int32) & -(1 << 23 - bits)).view(torch.float32)


def to_bfloat16(x: Tensor) -> Tensor:
    """float32 elements rounded to what bfloat16 can hold."""
    return x.bfloat16().float()


def _rest(x: Tensor, bits: int) -> Tensor:
    return (x - cut(x, bits)).nan_to_num_(0.0)  # infinities leave none


@dataclass(frozen=True)
class MatrixEngine:
    """How one operation multiplies.

    phases: 1 to 4, LoFi to HiFi4. float32: what it accumulates in, else bfloat16. wide: an operand or the result may be
    float32. block: elements of the inner dimension whose sum the packer adds to that of others, 0 for all of them.
    """

    phases: int = 4
    float32: bool = True
    wide: bool = False
    block: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether products of bfloat16 are those of float32, as far as bfloat16 shows."""
        return self.float32 and self.phases > 2

    def product(self, src_b: Tensor, src_a: Tensor, multiply: Callable[..., Tensor] = torch.matmul) -> Tensor:
        """src_b @ src_a of float32 values, or what else `multiply` computes that is linear in both.

        Anything but torch.matmul is accumulated in float32 whatever the configuration says.
        """
        if self.wide:
            src_b, src_a = (cut(x, b[1] if self.float32 else _BFLOAT16) for x, b in ((src_b, SRC_B), (src_a, SRC_A)))
        if not self.float32 and multiply is torch.matmul:
            return self._in_bfloat16(src_b, src_a)
        result = multiply(
            cut(src_b, SRC_B[0]) if self.phases < 3 else src_b, cut(src_a, SRC_A[0]) if self.phases < 2 else src_a
        )
        if self.phases == 3 and self.wide:
            result -= multiply(_rest(src_b, SRC_B[0]), _rest(src_a, SRC_A[0]))
        return result

    def _in_bfloat16(self, src_b: Tensor, src_a: Tensor) -> Tensor:
        slices_b = [cut(src_b, SRC_B[0]), _rest(src_b, SRC_B[0])]
        slices_a = [cut(src_a, SRC_A[0]), _rest(src_a, SRC_A[0])]
        phases = [(phase >> 1, phase & 1) for phase in range(self.phases)]
        phases = [(b, a) for b, a in phases if slices_b[b].any() and slices_a[a].any()]  # zeros change no sum
        if src_a.ndim > 2:
            return self._sum(slices_b, slices_a, phases)
        rows = max(_FACE, _IN_CACHE // src_a.shape[-1])
        parts = zip(*(x.reshape(-1, x.shape[-1]).split(rows) for x in slices_b), strict=True)
        sums = [self._sum(part, slices_a, phases) for part in parts]
        return torch.cat(sums).reshape(*src_b.shape[:-1], src_a.shape[-1])

    def _sum(self, slices_b: Any, slices_a: Any, phases: list[tuple[int, int]]) -> Tensor:
        length = slices_b[0].shape[-1]
        total = slices_b[0][..., :0] @ slices_a[0][..., :0, :]  # zeros
        for first in range(0, length, block := self.block or length):
            block_sum = torch.zeros_like(total)
            for tile in range(first, min(first + block, length), _TILE):
                for b, a in phases:
                    for face in range(tile, min(tile + _TILE, length), _FACE):
                        some = slice(face, face + _FACE)
                        block_sum = to_bfloat16(slices_b[b][..., some] @ slices_a[a][..., some, :] + block_sum)
            total = to_bfloat16(total + block_sum)
        return total


def engine_of(config: Any, program_config: Any = None, wide: bool = False) -> MatrixEngine:
    """What a compute kernel config asks for. program_config: of the product or of the attention."""
    if config is None:
        return MatrixEngine()
    block = getattr(program_config, "k_chunk_size", None) or getattr(program_config, "in0_block_w", 2) * _TILE
    phases = ("LoFi", "HiFi2", "HiFi3", "HiFi4").index(config.math_fidelity.name) + 1
    return MatrixEngine(phases, config.fp32_dest_acc_en, wide, block if config.packer_l1_acc else 0)
