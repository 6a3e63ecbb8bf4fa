"""Operations that TTNN has whole and ATen has not: custom operators with a torch implementation.

Passes put them into ATen graphs, so a graph still runs in eager torch after every pass. Each is composite: torch
traces through it, which gives shapes to fake tensors and a way back to ATen where TTNN refuses the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

library = torch.library.Library("tt_dynamo", "DEF")  # noqa: TOR901 (lives as long as the process)

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


# Each operator's torch implementation.
FUNCTIONS: dict[Callable[..., object], Callable[..., object]] = {}


def define(schema: str):
    library.define(schema)
    name = schema.partition("(")[0]

    def register(function):
        library.impl(name, function, "CompositeImplicitAutograd")
        operator = getattr(torch.ops.tt_dynamo, name).default
        FUNCTIONS[operator] = function
        return operator

    return register


@define("linear(Tensor x, Tensor weight, Tensor? bias=None, str activation='') -> Tensor")
def linear(x, weight, bias=None, activation=""):
    """x [..., in] times weight [in, out] (TTNN's order, the transpose of torch's) plus bias [out], then activation."""
    out = torch.matmul(x, weight)
    if bias is not None:
        out = out + bias
    return ACTIVATIONS[activation](out) if activation else out


@define("split_heads(Tensor x, int num_heads, int num_kv_heads) -> (Tensor, Tensor, Tensor)")
def split_heads(x, num_heads, num_kv_heads):
    """x [batch, 1, seq, (num_heads + 2 num_kv_heads) head_dim] -> query, key, value [batch, heads, seq, head_dim]."""
    batch, _, seq, width = x.shape
    head_dim = width // (num_heads + 2 * num_kv_heads)
    heads = x.reshape(batch, seq, num_heads + 2 * num_kv_heads, head_dim).permute(0, 2, 1, 3)
    query, key, value = heads.split([num_heads, num_kv_heads, num_kv_heads], 1)
    return query.clone(), key.clone(), value.clone()


@define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? mask, bool is_causal, float? scale, int? window=None)"
    " -> Tensor"
)
def attention(query, key, value, mask, is_causal, scale, window=None):
    """Attention with its heads merged: query [batch, heads, seq, head_dim] ... -> [batch, 1, seq, heads head_dim].

    key and value may have fewer heads, each for as many consecutive heads of queries. window: how many keys a causal
    query reads, the last one at its own place.
    """
    if window is not None:
        near = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        mask, is_causal = near.triu(1 - window), False
    grouped = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(query, key, value, mask, 0.0, is_causal, scale=scale, enable_gqa=grouped)
    return merge_heads(out)


@define("merge_heads(Tensor x) -> Tensor")
def merge_heads(x):
    """x [batch, heads, seq, head_dim] -> [batch, 1, seq, heads head_dim]."""
    batch, heads, seq, head_dim = x.shape
    return x.permute(0, 2, 1, 3).reshape(batch, 1, seq, heads * head_dim)


@define("capped_attention(Tensor query, Tensor key, Tensor value, Tensor? mask, float scale, float cap) -> Tensor")
def capped_attention(query, key, value, mask, scale, cap):
    """softmax(cap tanh(query keyᵀ scale / cap) + mask) value -> [batch, heads, seq, head_dim].

    key and value may have fewer heads, each for as many consecutive heads of queries.
    Source: Gemma Team 2024, https://arxiv.org/abs/2408.00118
    """
    batch, heads, seq, head_dim = query.shape
    kv_heads = key.shape[1]
    rows = query.reshape(batch, kv_heads, heads // kv_heads * seq, head_dim)
    scores = (torch.tanh(torch.matmul(rows, key.mT) * (scale / cap)) * cap).reshape(batch, heads, seq, -1)
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    return torch.matmul(weights.reshape(batch, kv_heads, rows.shape[2], -1), value).reshape(query.shape)


@define("add_layer_norm(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, float eps) -> Tensor")
def add_layer_norm(x, residual, weight, bias, eps):
    """Layer norm of x + residual over the last dimension."""
    return F.layer_norm(x + residual, [x.shape[-1]], weight, bias, eps)


@define("rms_norm(Tensor x, Tensor? weight, float eps) -> Tensor")
def rms_norm(x, weight, eps):
    """x [..., width] over its root mean square along the last dimension, times weight [width]; computed in float32."""
    exact = x.float()
    y = (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    return y if weight is None else y * weight


@define("fold_patches(Tensor x, int height, int width) -> Tensor")
def fold_patches(x, height, width):
    """Images [batch, channels, H, W] -> patches [batch, H/height * W/width, height * width * channels].

    Within a patch the order is row, column, channel.
    """
    batch, channels, h, w = x.shape
    x = x.reshape(batch, channels, h // height, height, w // width, width).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(batch, (h // height) * (w // width), height * width * channels)


@define("look_up(Tensor x, Tensor rows) -> Tensor")
def look_up(x, rows):
    """Rows of x [..., width], numbered through all its leading dimensions, at rows [...] -> [*rows.shape, width]."""
    return x.reshape(-1, x.shape[-1])[rows]


@define("pick(Tensor x, Tensor places) -> Tensor")
def pick(x, places):
    """Elements of x, numbered through all its dimensions, at places [...] -> [*places.shape]."""
    return x.reshape(-1)[places]


@define("index_numbers(Tensor?[] indices, int[] sizes, int? dropped=None) -> Tensor")
def index_numbers(indices, sizes, dropped=None):
    """The numbers of what x[indices] of these sizes reads, less a dimension of one; raises as indexing does."""
    numbers = torch.ops.aten.index.Tensor(torch.arange(torch.Size(sizes).numel()).view(sizes), indices)
    return numbers if dropped is None else numbers.squeeze(dropped)


@define("put_numbers(Tensor?[] indices, int[] sizes, int[] shape, int? dropped=None) -> Tensor")
def put_numbers(indices, sizes, shape, dropped=None):
    """Where each element of x.index_put(indices, values of `shape`) lies in x followed by values; raises as it does."""
    first = torch.Size(sizes).numel()
    values = torch.arange(first, first + torch.Size(shape).numel()).view(shape)
    numbers = torch.ops.aten.index_put.default(torch.arange(first).view(sizes), indices, values)
    return numbers if dropped is None else numbers.squeeze(dropped)


@define("bounded(Tensor index, int size) -> Tensor")
def bounded(index, size):
    """Index as it is; raises as gather does where a number is not in [0, size)."""
    torch.arange(size).gather(0, index.reshape(-1))
    return index.clone()


@define("bounded_along(Tensor index, int size, int dim, int[] shape) -> Tensor")
def bounded_along(index, size, dim, shape):
    """The same for an index [n] along `dim`, repeated over the other dimensions of `shape`."""
    torch.arange(size).gather(0, index)
    line = index.view([-1 if d == dim else 1 for d in range(len(shape))])
    return line.repeat([1 if d == dim else length for d, length in enumerate(shape)])


@define("attention_mask(Tensor mask, Tensor? zeros=None) -> Tensor")
def attention_mask(mask, zeros=None):
    """The additive mask that attention reads, broadcast with `zeros` to [batch or 1, heads or 1, query, key]."""
    return mask.clone() if zeros is None else mask + zeros


@define("to_device(Tensor x, str dtype, str layout) -> Tensor")
def to_device(x, dtype, layout):
    """A value that crosses from the host to the device."""
    return x


@define("to_host(Tensor x) -> Tensor")
def to_host(x):
    """A value that crosses from the device to the host: contiguous, in memory of its own."""
    return x.clone(memory_format=torch.contiguous_format)


@define("to_layout(Tensor x, str layout) -> Tensor")
def to_layout(x, layout):
    """A value on the device in another memory layout."""
    return x


# What becomes TTNN calls one by one where TTNN refuses the whole.
FUSED = frozenset(
    {
        linear,
        split_heads,
        attention,
        merge_heads,
        capped_attention,
        add_layer_norm,
        fold_patches,
        attention_mask,
        rms_norm,
        look_up,
        pick,
    }
)
# What prepares positions, with eager's checks: at home on the host, where the positions are.
AT_HOME_ON_HOST = frozenset({index_numbers, put_numbers, bounded, bounded_along})
TRANSFERS = frozenset({to_device, to_host})
