"""Core ATen operations for which TTNN has no way, and why: they run in eager torch.

Everything else without a lowering is a gap of ours. The reasons complete a sentence that begins with the operation; reports
and lowering/coverage.md show them.
"""

from __future__ import annotations

from typing import Any

from tt_dynamo.graph import aten

_GENERATOR = "stays on the host: random numbers come from torch's generator, whose sequence a seed promises"
_SHAPE = "gives a tensor whose shape depends on values"
_NUMBER = "gives a Python number"
_FFT = "is a Fourier transform, which TTNN has not"
_VOLUME = "pools volumes, which TTNN does not"

IMPOSSIBLE: dict[Any, str] = {
    aten.rand.default: _GENERATOR,
    aten.randn.default: _GENERATOR,
    aten.randperm.default: _GENERATOR,
    aten.nonzero.default: _SHAPE,
    aten._local_scalar_dense.default: _NUMBER,
    aten.sym_size.int: _NUMBER,
    aten.sym_stride.int: _NUMBER,
    aten.sym_storage_offset.default: _NUMBER,
    aten.sym_numel.default: _NUMBER,
    aten._fft_r2c.default: _FFT,
    aten._fft_c2r.default: _FFT,
    aten.max_pool3d_with_indices.default: _VOLUME,
}
