"""Which ATen operations AOTAutograd takes apart, and which it leaves whole because TTNN has them whole.

Linear layers, attention, norms, softmax, gelu, embedding, convolution, pooling and batch norm arrive whole or as the
idioms that `passes/normalize/canonicalize.py` knows. Only what neither TTNN nor a pass has whole stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import get_decompositions

from tt_dynamo.capture import composites_attention, composites_windows  # noqa: F401  (add their own to the composites)
from tt_dynamo.capture.composites import COMPOSITES
from tt_dynamo.ir.strides import laid_out, lies_as_computed

aten = torch.ops.aten

# Moves of data: passes know what they are made of.
MOVES = (
    aten.alias_copy,
    aten.block_diag,
    aten.channel_shuffle,
    aten.diag_embed,
    aten.diagonal_copy,
    aten.expand_copy,
    aten.narrow_copy,
    aten.permute_copy,
    aten.pixel_shuffle,
    aten.pixel_unshuffle,
    aten.rot90,
    aten.split_with_sizes_copy,
    aten.squeeze_copy,
    aten.t_copy,
    aten.trace,
    aten.transpose_copy,
    aten.tril,
    aten.triu,
    aten.unbind_copy,
    aten.unfold_copy,
    aten.unsafe_split,
    aten.unsafe_split_with_sizes,
    aten.unsqueeze_copy,
    aten.view_copy,
)

TAKEN_APART = (
    *MOVES,
    aten.addr,
    aten.aminmax,
    aten.clamp_max,
    aten.clamp_min,
    aten.dist,
    aten.floor_divide,
    aten.nansum,
    aten.norm,
    aten.rsub,
    aten.square,
    aten.masked_fill,
    aten._prelu_kernel_backward,
    aten.binary_cross_entropy_with_logits,
    aten.elu_backward,
    aten.glu,
    aten.glu_backward,
    aten.hardsigmoid_backward,
    aten.hardswish_backward,
    aten.hardtanh_backward,
    aten.heaviside,
    aten.huber_loss,
    aten.huber_loss_backward,
    aten.ldexp,
    aten.leaky_relu_backward,
    aten.log_sigmoid_backward,
    aten.logit_backward,
    aten.mish_backward,
    aten.mse_loss,
    aten.mse_loss_backward,
    aten.nansum,
    aten._fused_rms_norm,
    aten._fused_rms_norm_backward,
    aten._weight_norm_interface,
    aten.native_batch_norm_backward,
    aten.native_dropout_backward,
    aten.native_group_norm_backward,
    aten.native_layer_norm_backward,
    aten.nll_loss_forward,
    aten.nll_loss_backward,
    aten.nll_loss2d_forward,
    aten.nll_loss2d_backward,
    aten.rrelu_with_noise_backward,
    aten.sigmoid_backward,
    aten.silu_backward,
    aten.sinc,
    aten.smooth_l1_loss,
    aten.smooth_l1_loss_backward,
    aten.soft_margin_loss,
    aten.softplus_backward,
    aten.special_entr,
    aten.special_xlog1py,
    aten.tanh_backward,
    aten.threshold_backward,
    aten.xlogy,
)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """A table for AOTAutograd; a new one at every call."""
    table = get_decompositions(TAKEN_APART)
    table.update({target: laid_out(part, target) for target, part in table.items() if lies_as_computed(target)})
    return {**table, **COMPOSITES}
