"""Which ATen operations AOTAutograd takes apart, and how; what TTNN has whole is left whole.

Linear layers, attention, norms, softmax, gelu, embedding, convolution, pooling and batch norm arrive whole or as the
idioms that `passes/normalize/canonicalize.py` knows. Only what neither TTNN nor a pass has whole stands here: what
torch decomposes, and composites, for which torch has nothing, or what the device can do less with.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import get_decompositions, register_decomposition

from tt_dynamo.capture.quantized import quantized_decompositions
from tt_dynamo.ir.strides import laid_out, lies_as_computed
from tt_dynamo.ir.torch_internals import order_in_memory
from tt_dynamo.ir.triangular import unit_inverse

aten = torch.ops.aten

# Moves of data, since passes know what they are made of; elementwise operations and norms; losses; gradients.
TAKEN_APART = """
    alias_copy block_diag channel_shuffle diag_embed diagonal_copy expand_copy narrow_copy permute_copy pixel_shuffle
    pixel_unshuffle rot90 split_with_sizes_copy squeeze_copy t_copy trace transpose_copy tril triu unbind_copy
    unfold_copy unsafe_split unsafe_split_with_sizes unsqueeze_copy view_copy

    addr aminmax clamp_max clamp_min dist floor_divide glu heaviside ldexp masked_fill nansum norm rsub sinc
    special_entr special_xlog1py square xlogy _fused_rms_norm _weight_norm_interface

    binary_cross_entropy_with_logits huber_loss mse_loss nll_loss_forward nll_loss2d_forward smooth_l1_loss
    soft_margin_loss

    elu_backward glu_backward hardsigmoid_backward hardswish_backward hardtanh_backward leaky_relu_backward
    log_sigmoid_backward logit_backward mish_backward _prelu_kernel_backward rrelu_with_noise_backward
    sigmoid_backward silu_backward softplus_backward tanh_backward threshold_backward huber_loss_backward
    mse_loss_backward nll_loss_backward nll_loss2d_backward smooth_l1_loss_backward _fused_rms_norm_backward
    native_batch_norm_backward native_dropout_backward native_group_norm_backward native_layer_norm_backward
"""


def decompositions() -> dict[Any, Callable[..., Any]]:
    """A table for AOTAutograd; a new one at every call."""
    return {**_taken_apart(), **COMPOSITES, **quantized_decompositions()}


@functools.cache
def _taken_apart() -> dict[Any, Callable[..., Any]]:
    table = get_decompositions([getattr(aten, name) for name in TAKEN_APART.split()])
    table.update({target: laid_out(part, target) for target, part in table.items() if lies_as_computed(target)})
    return table


# Each takes the arguments of an ATen operation and gives its results in ATen operations that are lowered or that passes
# know; AOTAutograd traces through them. NotImplemented leaves the operation as it is.
COMPOSITES: dict[Any, Callable[..., Any]] = {}
composite = functools.partial(register_decomposition, registry=COMPOSITES, unsafe=True)


@composite(aten.native_dropout.default)
def native_dropout(x: Tensor, p: float, train: bool | None) -> Any:
    """x with elements dropped at the rate p and the rest scaled, and which were kept.

    The same elements as in eager torch, which draws in the order of x's memory. What is drawn into is not x, so the
    draw runs on the host while x stays on the device.
    """
    if train is False or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    order = order_in_memory(x)
    noise = aten.bernoulli.p(torch.empty([x.shape[d] for d in order], dtype=x.dtype, device=x.device), 1 - p)
    kept = noise.permute([order.index(d) for d in range(x.ndim)]).to(torch.bool)
    scale = 1 / (1 - p) if p < 1 else 0.0
    return x * torch.where(kept, scale, 0.0).to(x.dtype), kept


@composite(aten._trilinear.default)
def trilinear(
    a: Tensor, b: Tensor, c: Tensor, expand1: list[int], expand2: list[int], expand3: list[int], sumdim: list[int],
    unroll_dim: int = 1,
) -> Any:  # fmt: skip
    """The form that a bilinear layer has: a [n, in1], b [out, in1, in2], c [n, in2]."""
    if (list(expand1), list(expand2), list(expand3), list(sumdim)) != ([1, 3], [0], [1, 2], [2, 3]):
        return NotImplemented
    return torch.einsum("ni,oij,nj->no", a, b, c)


@composite(aten.rrelu_with_noise_functional.default)
def rrelu(
    x: Tensor, noise: Tensor, lower: float = 0.125, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> Any:
    """Outside training the slope is the middle of its range."""
    return NotImplemented if training else (aten.leaky_relu(x, (lower + upper) / 2), noise)


@composite(aten.select_backward.default)
def select_backward(grad: Tensor, sizes: list[int], dim: int, index: int) -> Tensor:
    """The gradient of x.select(dim, index): zeros around it."""
    index %= sizes[dim]
    return slice_backward(grad.unsqueeze(dim), sizes, dim, index, index + 1, 1)


@composite(aten.slice_backward.default)
def slice_backward(grad: Tensor, sizes: list[int], dim: int, start: int, end: int, step: int) -> Any:
    """The gradient of a slice of neighbouring elements: zeros around it."""
    if step != 1:
        return NotImplemented
    dim %= len(sizes)
    before = slice(start, end).indices(sizes[dim])[0]
    pairs = [0, 0] * (len(sizes) - 1 - dim) + [before, sizes[dim] - before - grad.shape[dim]]
    return aten.constant_pad_nd.default(grad, pairs, 0)


@composite(aten._pdist_forward.default)
def pdist(x: Tensor, p: float = 2.0) -> Any:
    """The distances between the rows of x [n, width], each pair once: [n (n - 1) / 2]."""
    if len(x) < 2:
        return NotImplemented
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return torch.linalg.vector_norm(x[first] - x[second], p, -1)


LSTM = 2  # the number of that kind of layer


@composite(aten.mkldnn_rnn_layer.default)
def lstm_layer(
    x: Tensor, input_weight: Tensor, state_weight: Tensor, input_bias: Tensor, state_bias: Tensor, state: Tensor,
    cell: Tensor, reverse: bool, batch_sizes: list[int], mode: int, hidden_size: int, num_layers: int, has_biases: bool,
    bidirectional: bool, batch_first: bool, train: bool,
) -> Any:  # fmt: skip
    """One layer of nn.LSTM in one direction: x [tokens, batch, in], state and cell [1, batch, hidden].

    What inputs give is one product for all tokens; each token then takes a product of the state and what gates it.
    Source: Hochreiter & Schmidhuber 1997, with the forget gates of Gers et al. 2000.
    """
    if mode != LSTM or num_layers != 1 or bidirectional or batch_first or batch_sizes or train:
        return NotImplemented
    inputs = F.linear(x, input_weight, input_bias + state_bias if has_biases else None)
    h, c = state[0], cell[0]
    states: list[Tensor] = []
    for given in reversed(inputs.unbind(0)) if reverse else inputs.unbind(0):
        keep, forget, new, out = (F.linear(h, state_weight) + given).chunk(4, -1)
        c = forget.sigmoid() * c + keep.sigmoid() * new.tanh()
        h = out.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states[::-1] if reverse else states), h[None], c[None], x.new_empty(0)


@composite(aten.linalg_solve_triangular.default)
def solve_triangular(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """x with a x = b, or x a = b where not `left`, of a triangular a [..., n, n] with ones on its diagonal."""
    if not unitriangular or not a.is_floating_point() or not a.numel():
        return NotImplemented
    inverse = unit_inverse(a.triu(1) if upper else a.tril(-1))
    return (inverse @ b if left else b @ inverse).mT.contiguous().mT  # eager's lies column by column


# A window of an image is a product of an interval of rows and one of columns. So a gradient of windows is the product
# rows x gradient x columnsᵀ; each matrix is what windows of one dimension give of the identity, and is constant.


def _identity(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)


def _pair(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    values = values or default
    return (values[0], values[-1])


@composite(aten.avg_pool2d_backward.default)
def avg_pool2d_backward(
    grad: Tensor, x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> Any:  # fmt: skip
    """grad [..., windows down, windows across] spread over the windows' positions: the shape of x [..., H, W]."""
    sums = 1 if divisor_override else None
    geometry = zip(x.shape[-2:], _pair(kernel_size), _pair(stride, kernel_size), _pair(padding), strict=True)
    rows, columns = (
        aten.avg_pool2d(_identity(size, x)[None], (1, kernel), (1, step), (0, pad), ceil_mode, count_include_pad, sums)[
            0
        ]
        for size, kernel, step, pad in geometry
    )
    spread = rows @ grad @ columns.mT
    return spread / divisor_override if divisor_override else spread


@composite(aten._adaptive_avg_pool2d_backward.default)
def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The same for windows from floor(l H / count) to ceil((l + 1) H / count)."""
    rows, columns = (
        aten._adaptive_avg_pool2d(_identity(size, x)[None], (size, count))[0]
        for size, count in zip(x.shape[-2:], grad.shape[-2:], strict=True)
    )
    return rows @ grad @ columns.mT


@composite(aten.col2im.default)
def col2im(
    x: Tensor, output_size: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int], padding: Sequence[int],
    stride: Sequence[int],
) -> Any:  # fmt: skip
    """Columns x [batch, channels kernel, windows] added up where their windows lie: [batch, channels, *output_size]."""
    if not x.is_floating_point() or not x.numel():
        return NotImplemented
    sizes, kernels = _pair(output_size), _pair(kernel_size)
    rows, across = (  # [size, kernel, windows]
        aten.im2col(_identity(size, x).view(size, 1, size, 1), (kernel, 1), (gap, 1), (pad, 0), (step, 1))
        for size, kernel, gap, pad, step in zip(
            sizes, kernels, _pair(dilation), _pair(padding), _pair(stride), strict=True
        )
    )
    batch, channels = x.shape[:-2], x.shape[-2] // math.prod(kernels)
    columns = x.reshape(-1, *kernels, rows.shape[-1], across.shape[-1]).permute(0, 1, 3, 2, 4)
    columns = columns.reshape(-1, kernels[0] * rows.shape[-1], kernels[1] * across.shape[-1])
    return (rows.flatten(1) @ columns @ across.flatten(1).mT).reshape(*batch, channels, *sizes)


@composite(aten._transformer_encoder_layer_fwd.default)
def transformer_encoder_layer(
    src: Tensor, embed_dim: int, num_heads: int, qkv_weight: Tensor, qkv_bias: Tensor, proj_weight: Tensor,
    proj_bias: Tensor, use_gelu: bool, norm_first: bool, eps: float, norm_weight_1: Tensor, norm_bias_1: Tensor,
    norm_weight_2: Tensor, norm_bias_2: Tensor, ffn_weight_1: Tensor, ffn_bias_1: Tensor, ffn_weight_2: Tensor,
    ffn_bias_2: Tensor, mask: Tensor | None = None, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """What nn.TransformerEncoderLayer becomes in evaluation: src [batch, seq, embed_dim]."""

    def residual(x: Tensor, layer: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor) -> Tensor:
        if norm_first:
            return x + layer(F.layer_norm(x, (embed_dim,), weight, bias, eps))
        return F.layer_norm(x + layer(x), (embed_dim,), weight, bias, eps)

    def attention(x: Tensor) -> Tensor:
        return native_multi_head_attention(
            x, x, x, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, False, False, mask_type
        )[0]

    def feedforward(x: Tensor) -> Tensor:
        hidden = F.linear(x, ffn_weight_1, ffn_bias_1)
        return F.linear(F.gelu(hidden) if use_gelu else F.relu(hidden), ffn_weight_2, ffn_bias_2)

    x = residual(src, attention, norm_weight_1, norm_bias_1)
    return residual(x, feedforward, norm_weight_2, norm_bias_2)


@composite(aten._native_multi_head_attention.default)
def native_multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_head: int, qkv_weight: Tensor, qkv_bias: Tensor,
    proj_weight: Tensor, proj_bias: Tensor, mask: Tensor | None = None, need_weights: bool = True,
    average_attn_weights: bool = True, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """Self-attention with its projections; with the weights of attention where they are needed."""
    if query is not key or key is not value:
        return NotImplemented
    projected = F.linear(query, qkv_weight, qkv_bias).split(embed_dim, -1)
    q, k, v = (part.view(*query.shape[:2], num_head, -1).transpose(1, 2) for part in projected)
    if mask is not None:  # of [query, key], of [batch, key] where its type is 1, or of all dimensions
        mask = mask.to(torch.bool)[:, None, None] if mask_type == 1 else mask.to(torch.bool)
    if need_weights:
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores if mask is None else scores.masked_fill(mask, float("-inf"))
        weights = torch.softmax(scores, -1)
        heads, weights = weights @ v, weights.mean(1) if average_attn_weights else weights
    else:
        heads, weights = F.scaled_dot_product_attention(q, k, v, None if mask is None else ~mask), None
    return F.linear(heads.transpose(1, 2).flatten(2), proj_weight, proj_bias), weights


@composite(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def attention_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor, dropout_p: float,
    is_causal: bool, *, attn_mask: Tensor | None = None, scale: float | None = None,
) -> Any:  # fmt: skip
    """Gradients of attention by query, key and value [batch, heads, seq, head_dim], from its weights computed anew.

    Nothing reads `logsumexp` then, so the forward graph does not keep it, and has TTNN's attention whole. Several
    heads of queries may share one of keys and values.
    """
    if dropout_p:
        return NotImplemented
    sharing = query.shape[1] // key.shape[1]
    if sharing > 1:
        key, value = (x.repeat_interleave(sharing, 1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.mT * scale
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    if attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.softmax(scores, -1)
    grad_weights = aten._softmax_backward_data(grad_out @ value.mT, weights, -1, weights.dtype)
    grad_key, grad_value = grad_weights.mT @ query * scale, weights.mT @ grad_out
    if sharing > 1:
        grad_key, grad_value = (x.unflatten(1, (-1, sharing)).sum(2) for x in (grad_key, grad_value))
    return grad_weights @ key * scale, grad_key, grad_value
