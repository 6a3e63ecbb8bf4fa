"""ATen operations for which TTNN has no way that is right, and why: they run in eager torch.

Everything else without a lowering is a gap of ours. The reasons complete a sentence that begins with the operation;
reports and lowering/coverage.md show them.
"""

from __future__ import annotations

from typing import Any

from tt_dynamo.ir.graph import aten

_GENERATOR = "stays on the host: random numbers come from torch's generator, whose sequence a seed promises"
_SHAPE = "gives a tensor whose shape depends on values"
_NUMBER = "gives a Python number"
_FFT = "is a Fourier transform, which TTNN has not"
_VOLUME = "pools over three dimensions, which TTNN does not"
_RESIZED_VOLUME = "resizes volumes, which TTNN does not by linear interpolation"
_POSITIONS = "stays on the host: bfloat16 holds positions in an image to 8 bits only"
_LOGARITHM = (
    "stays on the host: bfloat16 takes a probability of 0.999 for 1, whose logarithm is infinite; use "
    "binary_cross_entropy_with_logits"
)

IMPOSSIBLE: dict[Any, str] = {
    aten.rand.default: _GENERATOR,
    aten.randn.default: _GENERATOR,
    aten.randperm.default: _GENERATOR,
    aten.bernoulli.p: _GENERATOR,
    aten.native_dropout.default: _GENERATOR,
    aten.nonzero.default: _SHAPE,
    aten._local_scalar_dense.default: _NUMBER,
    aten.sym_size.int: _NUMBER,
    aten.sym_stride.int: _NUMBER,
    aten.sym_storage_offset.default: _NUMBER,
    aten.sym_numel.default: _NUMBER,
    aten.sym_is_contiguous.default: _NUMBER,
    aten._fft_r2c.default: _FFT,
    aten._fft_c2r.default: _FFT,
    aten.avg_pool3d.default: _VOLUME,
    aten._adaptive_avg_pool3d.default: _VOLUME,
    aten.adaptive_max_pool3d.default: _VOLUME,
    aten.max_pool3d_with_indices.default: _VOLUME,
    aten.upsample_trilinear3d.default: _RESIZED_VOLUME,
    aten.grid_sampler_2d.default: _POSITIONS,
    aten.grid_sampler_3d.default: _POSITIONS,
    aten.binary_cross_entropy.default: _LOGARITHM,
    aten.binary_cross_entropy_backward.default: _LOGARITHM,
    aten.digamma.default: "stays on the host: TTNN's covers positive numbers only",
    aten.erfinv.default: "stays on the host: TTNN's is inaccurate near 0",
    aten.lgamma.default: "stays on the host: TTNN's is off by up to 6 % near 0.55",
}
