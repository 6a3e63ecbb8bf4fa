"""Which ATen operations AOTAutograd takes apart, and which it leaves whole because TTNN has them whole.

Linear layers, attention, norms, softmax, gelu, embedding, convolution, pooling and batch norm arrive whole or as the
idioms that `passes/normalize/canonicalize.py` knows. Only what neither TTNN nor a pass has whole stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import get_decompositions

from tt_dynamo.capture.composites import COMPOSITES
from tt_dynamo.ir.strides import laid_out, lies_as_computed

# Moves of data, since passes know what they are made of; elementwise operations and norms; losses; gradients.
TAKEN_APART = """
    alias_copy block_diag channel_shuffle diag_embed diagonal_copy expand_copy narrow_copy permute_copy pixel_shuffle
    pixel_unshuffle rot90 split_with_sizes_copy squeeze_copy t_copy trace transpose_copy tril triu unbind_copy
    unfold_copy unsafe_split unsafe_split_with_sizes unsqueeze_copy view_copy

    addr aminmax clamp_max clamp_min dist floor_divide glu heaviside ldexp masked_fill nansum norm rsub sinc
    special_entr special_xlog1py square xlogy
    _fused_rms_norm _weight_norm_interface

    binary_cross_entropy_with_logits huber_loss mse_loss nll_loss_forward nll_loss2d_forward smooth_l1_loss
    soft_margin_loss

    elu_backward glu_backward hardsigmoid_backward hardswish_backward hardtanh_backward leaky_relu_backward
    log_sigmoid_backward logit_backward mish_backward _prelu_kernel_backward rrelu_with_noise_backward
    sigmoid_backward silu_backward softplus_backward tanh_backward threshold_backward
    _fused_rms_norm_backward native_batch_norm_backward native_dropout_backward native_group_norm_backward
    native_layer_norm_backward
    huber_loss_backward mse_loss_backward nll_loss_backward nll_loss2d_backward smooth_l1_loss_backward
"""


def decompositions() -> dict[Any, Callable[..., Any]]:
    """A table for AOTAutograd; a new one at every call."""
    table = get_decompositions([getattr(torch.ops.aten, name) for name in TAKEN_APART.split()])
    table.update({target: laid_out(part, target) for target, part in table.items() if lies_as_computed(target)})
    return {**table, **COMPOSITES}
