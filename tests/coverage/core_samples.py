"""One call of every core ATen operation, for asking where it runs: `python tests/coverage/core_coverage.py`.

Each entry takes a maker of tensors (`make(*shape)`: positive numbers of the dtype under test) and gives the
arguments of the call, a dictionary at the end for keywords. Where operands may broadcast, they do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Make = Callable[..., torch.Tensor]
Arguments = Callable[[Make], tuple]


def _one(make: Make) -> tuple:
    return (make(3, 40),)


def _two(make: Make) -> tuple:
    return make(2, 3, 40), make(40)


def _number(make: Make) -> tuple:
    return make(3, 40), 2


def _image(make: Make) -> torch.Tensor:
    return make(1, 32, 8, 8)


def _index(*shape: int, rows: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % rows


UNARY = [
    "abs", "acos", "acosh", "alias", "asin", "asinh", "atan", "atanh", "bitwise_not", "ceil", "clone", "cos", "cosh",
    "elu", "erf", "exp", "expm1", "floor", "gelu", "hardtanh", "isinf", "isnan", "leaky_relu", "log", "log10",
    "log1p", "log2", "logical_not", "mean", "neg", "reciprocal", "relu", "round", "rsqrt", "sigmoid", "sign", "sin",
    "sinh", "sqrt", "tan", "tanh", "trunc", "any", "prod", "nonzero", "sort",
]  # fmt: skip

BINARY_TENSOR = [
    "add", "bitwise_and", "bitwise_or", "bitwise_xor", "div", "fmod", "mul", "remainder", "sub", "eq", "ne", "le",
    "ge", "gt", "lt",
]  # fmt: skip
BINARY_DEFAULT = ["atan2", "maximum", "minimum", "logical_and", "logical_or", "logical_xor"]
SCALAR = ["add", "div", "fmod", "mul", "remainder", "sub", "eq", "ne", "le", "ge", "gt", "lt", "fill"]

SAMPLES: dict[str, Arguments] = {
    **{f"{name}.default": _one for name in UNARY},
    **{f"{name}.Tensor": _two for name in BINARY_TENSOR},
    **{f"{name}.default": _two for name in BINARY_DEFAULT},
    **{f"{name}.Scalar": _number for name in SCALAR},
    **{f"bitwise_{name}.Scalar": lambda make: (make(3, 40), True) for name in ("and", "or", "xor")},
    "div.Tensor_mode": lambda make: (*_two(make), {"rounding_mode": "floor"}),
    "div.Scalar_mode": lambda make: (*_number(make), {"rounding_mode": "trunc"}),
    "pow.Tensor_Tensor": _two,
    "pow.Tensor_Scalar": _number,
    "pow.Scalar": lambda make: (2, make(3, 40)),
    "clamp.default": lambda make: (make(3, 40), 1, 2),
    "clamp.Tensor": lambda make: (make(3, 40), make(40), make(3, 1)),
    "_to_copy.default": lambda make: (make(3, 40), {"dtype": torch.float32}),
    "where.self": lambda make: (make(3, 40) > 1, make(3, 40), make(40)),
    # reductions, scans, sorting
    "sum.dim_IntList": lambda make: (make(2, 3, 40), [0, 2], True),
    "mean.dim": lambda make: (make(2, 3, 40), [-1]),
    "prod.dim_int": lambda make: (make(3, 40), 1),
    "var.dim": lambda make: (make(3, 40), [1]),
    "var.correction": lambda make: (make(3, 40), [1], {"correction": 0}),
    "amax.default": lambda make: (make(3, 40), [1]),
    "amin.default": lambda make: (make(3, 40), [1]),
    "argmax.default": lambda make: (make(3, 40), 1),
    "argmin.default": lambda make: (make(3, 40), 1),
    "max.dim": lambda make: (make(3, 40), 1),
    "min.dim": lambda make: (make(3, 40), 1),
    "any.dim": lambda make: (make(3, 40), 1),
    "any.dims": lambda make: (make(2, 3, 40), [0, 1]),
    "cumsum.default": lambda make: (make(3, 40), 1),
    "topk.default": lambda make: (make(3, 64), 4),
    "_softmax.default": lambda make: (make(3, 40), 1, False),
    "_log_softmax.default": lambda make: (make(3, 40), 1, False),
    # moves
    "select.int": lambda make: (make(3, 40), 0, 1),
    "slice.Tensor": lambda make: (make(3, 40), 1, 2, 30, 2),
    "expand.default": lambda make: (make(1, 40), [3, 40]),
    "view.default": lambda make: (make(3, 40), [2, 60]),
    "cat.default": lambda make: ([make(3, 40), make(3, 2)], 1),
    "unsqueeze.default": lambda make: (make(3, 40), 1),
    "squeeze.dim": lambda make: (make(3, 1, 40), 1),
    "squeeze.dims": lambda make: (make(1, 3, 1, 40), [0, 2]),
    "permute.default": lambda make: (make(2, 3, 40), [2, 0, 1]),
    "repeat.default": lambda make: (make(3, 40), [2, 1, 2]),
    "flip.default": lambda make: (make(3, 40), [1]),
    "split_with_sizes.default": lambda make: (make(3, 40), [32, 8], 1),
    "constant_pad_nd.default": lambda make: (make(3, 40), [1, 2, 0, 1], 0),
    "as_strided.default": lambda make: (make(3, 40), [3, 10], [40, 2], 1),
    "diagonal.default": lambda make: (make(8, 8),),
    "slice_scatter.default": lambda make: (make(3, 40), make(3, 8), 1, 2, 10),
    "select_scatter.default": lambda make: (make(3, 40), make(40), 0, 1),
    "copy.default": lambda make: (make(3, 40), make(40)),
    "reflection_pad1d.default": lambda make: (make(2, 3, 40), [1, 2]),
    "reflection_pad2d.default": lambda make: (_image(make), [1, 2, 3, 1]),
    "reflection_pad3d.default": lambda make: (make(1, 2, 4, 4, 4), [1, 1, 1, 1, 1, 1]),
    "replication_pad2d.default": lambda make: (_image(make), [1, 2, 3, 1]),
    "replication_pad3d.default": lambda make: (make(1, 2, 4, 4, 4), [1, 1, 1, 1, 1, 1]),
    # indexing
    "index.Tensor": lambda make: (make(8, 40), [_index(5, rows=8)]),
    "index_put.default": lambda make: (make(8, 40), [_index(5, rows=8)], make(5, 40)),
    "index_select.default": lambda make: (make(8, 40), 0, _index(5, rows=8)),
    "gather.default": lambda make: (make(8, 40), 1, _index(8, 40, rows=40)),
    "scatter.value": lambda make: (make(8, 40), 1, _index(8, 40, rows=40), 1),
    "scatter.src": lambda make: (make(8, 40), 1, _index(8, 40, rows=40), make(8, 40)),
    "scatter_add.default": lambda make: (make(8, 40), 1, _index(8, 40, rows=40), make(8, 40)),
    "scatter_reduce.two": lambda make: (make(8, 40), 1, _index(8, 40, rows=40), make(8, 40), "sum"),
    "masked_scatter.default": lambda make: (make(3, 40), make(3, 40) > 1, make(3, 40)),
    "embedding.default": lambda make: (make(16, 64), _index(2, 5, rows=16)),
    "embedding_dense_backward.default": lambda make: (make(2, 32, 64), _index(2, 32, rows=16), 16, -1, False),
    "_embedding_bag.default": lambda make: (make(16, 64), _index(8, rows=16), torch.tensor([0, 4])),
    # products and norms
    "mm.default": lambda make: (make(3, 40), make(40, 5)),
    "bmm.default": lambda make: (make(2, 3, 40), make(2, 40, 5)),
    "addmm.default": lambda make: (make(5), make(3, 40), make(40, 5)),
    "native_layer_norm.default": lambda make: (make(3, 64), [64], make(64), make(64), 1e-5),
    "native_layer_norm_backward.default": lambda make: (
        make(3, 64), make(3, 64), [64], make(3, 1), make(3, 1), make(64), make(64), [True, True, True]
    ),
    "native_group_norm.default": lambda make: (_image(make), make(32), make(32), 1, 32, 64, 4, 1e-5),
    "native_group_norm_backward.default": lambda make: (
        _image(make), _image(make), make(1, 4), make(1, 4), make(32), 1, 32, 64, 4, [True, True, True]
    ),
    "_native_batch_norm_legit_no_training.default": lambda make: (
        _image(make), make(32), make(32), make(32), make(32), 0.1, 1e-5
    ),
    "_native_batch_norm_legit.no_stats": lambda make: (_image(make), make(32), make(32), True, 0.1, 1e-5),
    "_cdist_forward.default": lambda make: (make(3, 8), make(5, 8), 2.0, None),
    "_pdist_forward.default": lambda make: (make(5, 8),),
    # images
    "convolution.default": lambda make: (
        _image(make), make(32, 32, 3, 3), make(32), [1, 1], [1, 1], [1, 1], False, [0, 0], 1
    ),
    "convolution_backward.default": lambda make: (
        _image(make), _image(make), make(32, 32, 3, 3), [32], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3
    ),
    "avg_pool1d.default": lambda make: (make(1, 32, 8), [2]),
    "avg_pool2d.default": lambda make: (_image(make), [2, 2]),
    "avg_pool2d_backward.default": lambda make: (
        make(1, 32, 4, 4), _image(make), [2, 2], [2, 2], [0, 0], False, True, None
    ),
    "avg_pool3d.default": lambda make: (make(1, 2, 4, 4, 4), [2, 2, 2]),
    "adaptive_avg_pool1d.default": lambda make: (make(1, 32, 8), [2]),
    "_adaptive_avg_pool2d.default": lambda make: (_image(make), [2, 2]),
    "_adaptive_avg_pool2d_backward.default": lambda make: (make(1, 32, 2, 2), _image(make)),
    "_adaptive_avg_pool3d.default": lambda make: (make(1, 2, 4, 4, 4), [2, 2, 2]),
    "max_pool2d_with_indices.default": lambda make: (_image(make), [2, 2]),
    "max_pool2d_with_indices_backward.default": lambda make: (
        make(1, 32, 4, 4), _image(make), [2, 2], [2, 2], [0, 0], [1, 1], False, _index(1, 32, 4, 4, rows=64)
    ),
    "max_pool3d_with_indices.default": lambda make: (make(1, 2, 4, 4, 4), [2, 2, 2]),
    "upsample_nearest2d.vec": lambda make: (_image(make), None, [2.0, 2.0]),
    "upsample_bilinear2d.vec": lambda make: (_image(make), None, False, [2.0, 2.0]),
    "grid_sampler_2d.default": lambda make: (_image(make), make(1, 4, 4, 2), 0, 0, False),
    "col2im.default": lambda make: (make(1, 8, 4), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]),
    # values that no tensor goes into, randomness, and the rest
    "full_like.default": _number,
    "full.default": lambda make: ([3, 40], 2.0),
    "empty.memory_format": lambda make: ([3, 40],),
    "empty_strided.default": lambda make: ([3, 40], [40, 1]),
    "scalar_tensor.default": lambda make: (2.0,),
    "arange.start_step": lambda make: (0, 40, 2),
    "rand.default": lambda make: ([3, 40],),
    "randn.default": lambda make: ([3, 40],),
    "randperm.default": lambda make: (40,),
    "native_dropout.default": lambda make: (make(3, 40), 0.5, True),
    "_fft_r2c.default": lambda make: (make(3, 40), [1], 0, True),
    "_fft_c2r.default": lambda make: (torch.complex(make(3, 21), make(3, 21)), [1], 0, 40),
    "_local_scalar_dense.default": lambda make: (make(1),),
    "sym_size.int": lambda make: (make(3, 40), 0),
    "sym_stride.int": lambda make: (make(3, 40), 0),
    "sym_storage_offset.default": _one,
    "sym_numel.default": _one,
    "sym_is_contiguous.default": _one,
}  # fmt: skip
