"""ATen operations for which TTNN has no way that is right, and why: they run in eager torch.

Everything else without a lowering is a gap of ours. The reasons complete a sentence that begins with the operation;
reports and lowering/coverage.md show them.
"""

from typing import Any

from tt_dynamo.ir.graph import aten

_REASONS: dict[str, tuple[Any, ...]] = {
    "stays on the host: random numbers come from torch's generator, whose sequence a seed promises": (
        aten.rand.default, aten.randn.default, aten.randperm.default, aten.bernoulli.default, aten.bernoulli.p,
        aten.native_dropout.default,
    ),
    "gives a tensor whose shape depends on values": (aten.nonzero.default,),
    "gives a Python number": (
        aten._local_scalar_dense.default, aten.sym_size.int, aten.sym_stride.int, aten.sym_storage_offset.default,
        aten.sym_numel.default, aten.sym_is_contiguous.default,
    ),
    "is a Fourier transform of complex numbers, which TTNN has not": (aten._fft_r2c.default, aten._fft_c2r.default),
    "has indices that TTNN's has not: which of several equal maxima one names is torch's own choice": (
        aten.max_pool2d_with_indices.default, aten.adaptive_max_pool2d.default,
    ),
    "has windows that differ, or indices, which TTNN's pools have not": (
        aten.adaptive_max_pool3d.default, aten.max_pool3d_with_indices.default,
    ),
    "interpolates, or continues an image, in ways that TTNN's grid_sample has not: it is bilinear, with zeros around": (
        aten.grid_sampler_2d.default, aten.grid_sampler_3d.default,
    ),
    "stays on the host: bfloat16 takes a probability of 0.999 for 1, whose logarithm is infinite; use "
    "binary_cross_entropy_with_logits": (
        aten.binary_cross_entropy.default, aten.binary_cross_entropy_backward.default,
    ),
    "stays on the host: TTNN's covers positive numbers only": (aten.digamma.default,),
    "stays on the host: TTNN's is inaccurate near 0": (aten.erfinv.default,),
    "stays on the host: TTNN's is off by up to 6 % near 0.55": (aten.lgamma.default,),
}  # fmt: skip

IMPOSSIBLE = {target: reason for reason, targets in _REASONS.items() for target in targets}

# Those of other libraries, by name: importing tt_dynamo imports none of them.
_BOXES = "stays on the host, as all that chooses among a detector's boxes"
_OTHERS = {
    **dict.fromkeys(("torchvision::nms", "torchvision::roi_align", "torchvision::roi_pool"), _BOXES),
    **dict.fromkeys(("torchvision::ps_roi_align", "torchvision::ps_roi_pool"), _BOXES),
    "torchvision::deform_conv2d": "reads pixels of its own for each element of a kernel, which TTNN has not",
}


def reason_on_host(target: Any) -> str | None:
    """Why an operation runs in eager torch by plan; None where nothing is known against it."""
    return IMPOSSIBLE.get(target) or _OTHERS.get(getattr(target, "name", str)())
