"""Core operations on other things than elements."""

import torch

from .core import (
    ARITHMETIC,
    IMPOSSIBLE,
    NO_LOWERING,
    PERMUTED,
    PICKING,
    PROMOTED,
    Core,
    Host,
    image,
    index,
    number,
    two,
)

NO_PRODUCT = Host(("ttnn.matmul: Unsupported data format for input A: DataType::INT32",))
RANDOM = (
    "torch.ops.aten.bernoulli.p stays on the host: random numbers come from torch's generator, whose sequence a seed "
    "promises"
)

GROUP_NORM_BACKWARD = (
    "multiply reshape sum reshape sum reshape to_layout multiply reshape sum multiply reshape sum reshape reshape "
    "to_layout multiply neg addcmul multiply multiply multiply multiply neg multiply multiply multiply subtract "
    "reshape reshape reshape reshape multiply reshape addcmul add reshape reshape reshape reshape multiply "
    "subtract multiply sum reshape sum"
)
BILINEAR = (
    "permute reshape reshape embedding reshape reshape reshape embedding reshape reshape reshape embedding reshape "
    "reshape reshape embedding reshape reshape reshape subtract reshape multiply reshape add reshape reshape subtract "
    "reshape multiply reshape add subtract reshape multiply reshape add reshape permute"
)
POOLED_VOLUME = "reshape permute reshape avg_pool2d avg_pool2d to_memory_config reshape permute reshape"

CORE = [
    Core("div.Tensor_mode", lambda make: (*two(make), {"rounding_mode": "floor"}), "divide floor typecast subtract add",
        None, None),
    Core("div.Scalar_mode", lambda make: (*number(make), {"rounding_mode": "trunc"}), "divide trunc typecast",
        ARITHMETIC, PROMOTED),
    Core("pow.Scalar", lambda make: (2, make(3, 40)), "rpow", ARITHMETIC, PROMOTED),
    Core("clamp.default", lambda make: (make(3, 40), 1, 2), "clamp", ARITHMETIC, PROMOTED),
    Core("clamp.Tensor", lambda make: (make(3, 40), make(40), make(3, 1)), "maximum minimum", ARITHMETIC, None),
    Core("_to_copy.default", lambda make: (make(3, 40), {"dtype": torch.float32}), "", "typecast"),
    Core("where.self", lambda make: (make(3, 40) > 1, make(3, 40), make(40)), "where", "typecast where"),
    Core("sum.dim_IntList", lambda make: (make(2, 3, 40), [0, 2], True), "sum", ARITHMETIC, "typecast sum typecast"),
    Core("mean.dim", lambda make: (make(2, 3, 40), [-1]), "mean", None, None),
    Core("prod.dim_int", lambda make: (make(3, 40), 1), "typecast permute reshape cumprod slice reshape typecast",
        ARITHMETIC, "min typecast"),
    Core("var.dim", lambda make: (make(3, 40), [1]), "var", None, None),
    Core("var.correction", lambda make: (make(3, 40), [1], {"correction": 0}), "var", None, None),
    Core("amax.default", lambda make: (make(3, 40), [1]), "max", ARITHMETIC),
    Core("amin.default", lambda make: (make(3, 40), [1]), "min", ARITHMETIC),
    Core("argmax.default", lambda make: (make(3, 40), 1), "argmax typecast", "argmax typecast", None),
    Core("argmin.default", lambda make: (make(3, 40), 1), "neg to_layout argmax typecast", ARITHMETIC, None),
    Core("max.dim", lambda make: (make(3, 40), 1), "to_layout argmax typecast max to_layout", ARITHMETIC),
    Core("min.dim", lambda make: (make(3, 40), 1), "min neg to_layout argmax typecast to_layout", ARITHMETIC),
    Core("any.dim", lambda make: (make(3, 40), 1), "ne max", "ne typecast max", "max"),
    Core("any.dims", lambda make: (make(2, 3, 40), [0, 1]), "ne max", "ne typecast max", "max"),
    Core("cumsum.default", lambda make: (make(3, 40), 1), "cumsum typecast", ARITHMETIC),
    Core("topk.default", lambda make: (make(3, 64), 4), "typecast topk typecast typecast", ARITHMETIC, None),
    Core("_softmax.default", lambda make: (make(3, 40), 1, False), "softmax", None, None),
    Core("_log_softmax.default", lambda make: (make(3, 40), 1, False), "moreh_logsoftmax", None, None),
    Core("select.int", lambda make: (make(3, 40), 0, 1), "slice reshape"),
    Core("slice.Tensor", lambda make: (make(3, 40), 1, 2, 30, 2), "slice"),
    Core("expand.default", lambda make: (make(1, 40), [3, 40]), "expand"),
    Core("view.default", lambda make: (make(3, 40), [2, 60]), "reshape"),
    Core("cat.default", lambda make: ([make(3, 40), make(3, 2)], 1), "concat", PERMUTED),
    Core("unsqueeze.default", lambda make: (make(3, 40), 1), "reshape"),
    Core("squeeze.dim", lambda make: (make(3, 1, 40), 1), "reshape"),
    Core("squeeze.dims", lambda make: (make(1, 3, 1, 40), [0, 2]), "reshape"),
    Core("permute.default", lambda make: (make(2, 3, 40), [2, 0, 1]), "permute", PERMUTED),
    Core("repeat.default", lambda make: (make(3, 40), [2, 1, 2]), "reshape repeat"),
    Core("flip.default", lambda make: (make(3, 40), [1]), "permute reshape embedding reshape permute", NO_LOWERING),
    Core("split_with_sizes.default", lambda make: (make(3, 40), [32, 8], 1), "slice slice"),
    Core("constant_pad_nd.default", lambda make: (make(3, 40), [1, 2, 0, 1], 0), "pad"),
    Core("as_strided.default", lambda make: (make(3, 40), [3, 10], [40, 2], 1),
        "permute reshape embedding reshape permute", NO_LOWERING),
    Core("diagonal.default", lambda make: (make(8, 8),), "reshape reshape gather reshape", NO_LOWERING),
    Core("slice_scatter.default", lambda make: (make(3, 40), make(3, 8), 1, 2, 10),
        "slice to_layout slice to_layout concat", Host(("a permute of integers: tt-metal issue 19950",),
        calls="slice slice")),
    Core("select_scatter.default", lambda make: (make(3, 40), make(40), 0, 1), "reshape slice slice concat"),
    Core("copy.default", lambda make: (make(3, 40), make(40)), "reshape expand"),
    Core("reflection_pad1d.default", lambda make: (make(2, 3, 40), [1, 2]), "permute reshape embedding permute",
        NO_LOWERING, None),
    Core("reflection_pad2d.default", lambda make: (image(make), [1, 2, 3, 1]),
        "permute reshape reshape embedding reshape permute", NO_LOWERING, None),
    Core("reflection_pad3d.default", lambda make: (make(1, 2, 4, 4, 4), [1, 1, 1, 1, 1, 1]),
        "permute reshape reshape embedding reshape permute", NO_LOWERING, None),
    Core("replication_pad2d.default", lambda make: (image(make), [1, 2, 3, 1]),
        "permute reshape reshape embedding reshape permute", NO_LOWERING, None),
    Core("replication_pad3d.default", lambda make: (make(1, 2, 4, 4, 4), [1, 1, 1, 1, 1, 1]),
        "permute reshape reshape embedding reshape permute", NO_LOWERING, None),
    Core("index.Tensor", lambda make: (make(8, 40), [index(5, rows=8)]), "reshape embedding reshape", NO_LOWERING),
    Core("index_put.default", lambda make: (make(8, 40), [index(5, rows=8)], make(5, 40)),
        "concat reshape embedding reshape", NO_LOWERING),
    Core("index_select.default", lambda make: (make(8, 40), 0, index(5, rows=8)), "reshape embedding reshape",
        NO_LOWERING),
    Core("gather.default", lambda make: (make(8, 40), 1, index(8, 40, rows=40)), "gather", PICKING),
    Core("scatter.value", lambda make: (make(8, 40), 1, index(8, 40, rows=40), 1), "scatter", PICKING),
    Core("scatter.src", lambda make: (make(8, 40), 1, index(8, 40, rows=40), make(8, 40)), "scatter", PICKING),
    Core("scatter_add.default", lambda make: (make(8, 40), 1, index(8, 40, rows=40), make(8, 40)), "scatter", PICKING),
    Core("scatter_reduce.two", lambda make: (make(8, 40), 1, index(8, 40, rows=40), make(8, 40), "sum"), "scatter",
        PICKING),
    Core("masked_scatter.default", lambda make: (make(3, 40), make(3, 40) > 1, make(3, 40)), "reshape reshape reshape "
        "gather reshape to_layout where", NO_LOWERING),
    Core("embedding.default", lambda make: (make(16, 64), index(2, 5, rows=16)), "embedding",
        Host(("ttnn.embedding: Weights tensor must have BFLOAT16 dtype",))),
    Core("embedding_dense_backward.default", lambda make: (make(2, 32, 64), index(2, 32, rows=16), 16, -1, False),
        NO_LOWERING),
    Core("_embedding_bag.default", lambda make: (make(16, 64), index(8, rows=16), torch.tensor([0, 4])), NO_LOWERING,
        None, None),
    Core("mm.default", lambda make: (make(3, 40), make(40, 5)), "linear", NO_LOWERING, None),
    Core("bmm.default", lambda make: (make(2, 3, 40), make(2, 40, 5)), "matmul", NO_PRODUCT, None),
    Core("addmm.default", lambda make: (make(5), make(3, 40), make(40, 5)), "linear", NO_PRODUCT, None),
    Core("native_layer_norm.default", lambda make: (make(3, 64), [64], make(64), make(64), 1e-5),
        "reshape mean var reshape reshape add rsqrt layer_norm", None, None),
    Core("native_layer_norm_backward.default", lambda make: (make(3, 64), make(3, 64), [64], make(3, 1), make(3, 1),
        make(64), make(64), [True, True, True]), "subtract multiply multiply multiply sum multiply sum multiply "
        "subtract subtract divide multiply multiply sum sum", None, None),
    Core("native_group_norm.default", lambda make: (image(make), make(32), make(32), 1, 32, 64, 4, 1e-5),
        "reshape to_memory_config layer_norm to_memory_config reshape mean var reshape reshape add rsqrt reshape "
        "to_layout reshape to_layout addcmul", None, None),
    Core("native_group_norm_backward.default", lambda make: (image(make), image(make), make(1, 4), make(1, 4), make(32),
        1, 32, 64, 4, [True, True, True]), GROUP_NORM_BACKWARD, None, None,
        others={torch.bfloat16: GROUP_NORM_BACKWARD.replace("to_layout ", "")}, roundings=12),
    Core("_native_batch_norm_legit_no_training.default", lambda make: (image(make), make(32), make(32), make(32),
        make(32), 0.1, 1e-5), "add rsqrt multiply multiply subtract reshape reshape addcmul", None, None),
    Core("_native_batch_norm_legit.no_stats", lambda make: (image(make), make(32), make(32), True, 0.1, 1e-5),
        "reshape layer_norm reshape mean var reshape reshape add rsqrt reshape to_layout reshape to_layout addcmul",
        None, None),
    Core("_cdist_forward.default", lambda make: (make(3, 8), make(5, 8), 2.0, None),
        "reshape reshape subtract multiply sum sqrt", None, None, others={torch.bfloat16: None}),
    Core("_pdist_forward.default", lambda make: (make(5, 8),), "reshape embedding reshape reshape embedding reshape "
        "subtract multiply sum sqrt", None, None, others={torch.bfloat16: None}),
    Core("convolution.default", lambda make: (image(make), make(32, 32, 3, 3), make(32), [1, 1], [1, 1], [1, 1], False,
        [0, 0], 1), "permute reshape prepare_conv_weights prepare_conv_bias conv2d to_memory_config reshape permute",
        ARITHMETIC, None),
    Core("convolution_backward.default", lambda make: (image(make), image(make), make(32, 32, 3, 3), [32], [1, 1], [1,
        1], [1, 1], False, [0, 0], 1, [True] * 3), NO_LOWERING, None, None),
    Core("avg_pool1d.default", lambda make: (make(1, 32, 8), [2]), "reshape permute avg_pool2d to_memory_config "
        "permute reshape", None, None, others={torch.int64: Host(("torch.ops.aten.avg_pool2d.default has no lowering "
        "to TTNN",), calls="reshape reshape")}),
    Core("avg_pool2d.default", lambda make: (image(make), [2, 2]), "permute reshape avg_pool2d to_memory_config "
        "reshape permute", None, None, others={torch.int64: NO_LOWERING}),
    Core("avg_pool2d_backward.default", lambda make: (make(1, 32, 4, 4), image(make), [2, 2], [2, 2], [0, 0], False,
        True, None), "reshape to_layout matmul linear reshape", None, None, others={torch.int64:
        Host((*NO_PRODUCT.reasons, "torch.ops.aten.mm.default has no lowering to TTNN"),
        calls="reshape reshape reshape reshape")}),
    Core("avg_pool3d.default", lambda make: (make(1, 2, 4, 4, 4), [2, 2, 2]), POOLED_VOLUME, None, None,
        others={torch.bfloat16: None, torch.int64: NO_LOWERING}),
    Core("adaptive_avg_pool1d.default", lambda make: (make(1, 32, 8), [2]), "reshape permute avg_pool2d "
        "to_memory_config permute reshape", None, None),
    Core("_adaptive_avg_pool2d.default", lambda make: (image(make), [2, 2]), "permute reshape avg_pool2d "
        "to_memory_config reshape permute", None, None),
    Core("_adaptive_avg_pool2d_backward.default", lambda make: (make(1, 32, 2, 2), image(make)),
        "reshape to_layout matmul linear reshape", None, None),
    Core("_adaptive_avg_pool3d.default", lambda make: (make(1, 2, 4, 4, 4), [2, 2, 2]), POOLED_VOLUME, None, None),
    Core("max_pool2d_with_indices.default", lambda make: (image(make), [2, 2]), IMPOSSIBLE, IMPOSSIBLE, None),
    Core("max_pool2d_with_indices_backward.default", lambda make: (make(1, 32, 4, 4), image(make), [2, 2], [2, 2], [0,
        0], [1, 1], False, index(1, 32, 4, 4, rows=64)), NO_LOWERING, None, None),
    Core("max_pool3d_with_indices.default", lambda make: (make(1, 2, 4, 4, 4), [2, 2, 2]), IMPOSSIBLE, IMPOSSIBLE,
        None),
    Core("upsample_nearest2d.vec", lambda make: (image(make), None, [2.0, 2.0]),
        "permute reshape reshape embedding reshape permute", None, None, others={torch.bfloat16:
        "permute to_layout reshape reshape embedding reshape permute"}),
    Core("upsample_bilinear2d.vec", lambda make: (image(make), None, False, [2.0, 2.0]), BILINEAR, None, None,
        others={torch.bfloat16: BILINEAR.replace("permute reshape", "permute to_layout reshape", 1)}),
    Core("grid_sampler_2d.default", lambda make: (image(make), make(1, 4, 4, 2).round(), 0, 0, False),
        "permute reshape reshape grid_sample reshape reshape permute", None, None),
    Core("col2im.default", lambda make: (make(1, 8, 4), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]),
        "reshape permute reshape to_layout matmul linear reshape", None, NO_LOWERING),
    Core("full.default", lambda make: ([3, 40], 2.0), ""),
    Core("empty.memory_format", lambda make: ([3, 40],), ""),
    Core("empty_strided.default", lambda make: ([3, 40], [40, 1]), ""),
    Core("scalar_tensor.default", lambda make: (2.0,), ""),
    Core("arange.start_step", lambda make: (0, 40, 2), ""),
    Core("rand.default", lambda make: ([3, 40],), IMPOSSIBLE),
    Core("randn.default", lambda make: ([3, 40],), IMPOSSIBLE),
    Core("randperm.default", lambda make: (40,), IMPOSSIBLE),
    Core("native_dropout.default", lambda make: (make(3, 40), 0.5, True), Host((RANDOM,), calls="nez where multiply"),
        None, None),
    Core("_fft_r2c.default", lambda make: (make(3, 40), [1], 0, True), IMPOSSIBLE, None, None, others={torch.bfloat16:
        None}),
    Core("_fft_c2r.default", lambda make: (torch.complex(make(3, 21), make(3, 21)), [1], 0, 40), IMPOSSIBLE, None, None,
        others={torch.bfloat16: None}),
    Core("_local_scalar_dense.default", lambda make: (make(1),), Host()),
    Core("sym_size.int", lambda make: (make(3, 40), 0), ""),
    Core("sym_stride.int", lambda make: (make(3, 40), 0), ""),
]  # fmt: skip
