"""Which formula an operation of TTNN has: one table."""

from collections.abc import Callable

from tt_dynamo.estimate import attention, collectives, images, kernels, products, recurrences
from tt_dynamo.estimate.chip import Chip, Cost
from tt_dynamo.estimate.tensor import Call

Formula = Callable[[Call, Chip], Cost]

_NAMES: dict[Formula, str] = {
    products.product: (
        "linear matmul experimental.minimal_matmul experimental.minimal_matmul_split "
        "experimental.dit_minimal_matmul_addcmul_fused"
    ),
    products.chosen_groups: "sparse_matmul",
    attention.attention: "transformer.scaled_dot_product_attention",
    attention.joint_attention: "transformer.joint_scaled_dot_product_attention",
    attention.attention_decode: (
        "transformer.scaled_dot_product_attention_decode transformer.paged_scaled_dot_product_attention_decode"
    ),
    kernels.norm: "layer_norm rms_norm experimental.dit_fused_distributed_rmsnorm",
    kernels.softmax: (
        "softmax moreh_logsoftmax moreh_softmax_backward moreh_logsoftmax_backward softmax_in_place "
        "transformer.attention_softmax_ scale_mask_softmax_in_place"
    ),
    kernels.group_norm: "group_norm",
    kernels.unary: (
        "abs ceil floor frac neg round sign trunc relu relu6 hardtanh leaky_relu threshold clamp signbit isinf isnan "
        "isneginf isposinf eqz nez ltz gtz lez gez logical_not square deg2rad rad2deg fill full_like zeros_like "
        "ones_like hardsigmoid hardswish bitwise_not"
    ),
    kernels.activation: "exp sigmoid silu tanh",
    kernels.slow_unary: (
        "acos acosh asin asinh atan atanh cos cosh erf erfc erfinv exp2 expm1 log log10 log1p log2 reciprocal rsqrt "
        "sin sinh sqrt tan gelu gelu_bw log_sigmoid mish selu celu elu softplus logit pow rpow "
        "remainder fmod atan2 hypot logaddexp logaddexp2 lgamma digamma i0 cbrt tanhshrink"
    ),
    kernels.snake: "snake_beta",
    kernels.binary: (
        "add subtract multiply mul divide div rsub rdiv maximum minimum eq ne lt le gt ge logical_and logical_or "
        "logical_xor where mac lerp addcmul addcdiv bitwise_and bitwise_or bitwise_xor"
    ),
    kernels.copy: ("concat pad repeat expand typecast clone copy experimental.slice_write"),
    kernels.fill_padding: "fill_implicit_tile_padding",
    kernels.part: "slice split chunk mesh_partition",
    kernels.transpose: "permute transpose fold",
    kernels.reshape: "reshape view unsqueeze squeeze",
    kernels.place: "to_memory_config interleaved_to_sharded sharded_to_interleaved reshard move reallocate",
    kernels.change_layout: "to_layout tilize untilize tilize_with_val_padding untilize_with_unpadding",
    kernels.heads: (
        "experimental.nlp_create_qkv_heads experimental.nlp_concat_heads experimental.nlp_create_q_heads_split "
        "transformer.concatenate_heads "
        "transformer.split_query_key_value_and_split_heads experimental.split_query_key_value_and_split_heads"
    ),
    kernels.heads_of_any_cores: "experimental.nlp_create_qkv_heads_vit",
    kernels.heads_decode: "experimental.nlp_create_qkv_heads_decode experimental.nlp_concat_heads_decode",
    kernels.rotary: (
        "experimental.rotary_embedding_hf experimental.rotary_embedding_llama experimental.rotary_embedding "
        "experimental.rotary_embedding_llama_fused_qk"
    ),
    kernels.update_cache: "experimental.paged_update_cache update_cache experimental.paged_fused_update_cache",
    kernels.fill_cache: "fill_cache experimental.paged_fill_cache",
    kernels.embedding: "embedding",
    kernels.reduce: "mean sum max min var std prod experimental.fast_reduce_nc",
    kernels.rank: "sort topk cumsum cumprod sampling",
    kernels.prefix_scan: "experimental.prefix_scan",
    recurrences.delta_rule: "transformer.chunk_gated_delta_rule",
    kernels.scan_rows: "argmax gather scatter",
    images.convolution: "conv2d conv1d conv_transpose2d",
    images.convolution_of_volumes: "experimental.conv3d",
    images.pool: "max_pool2d avg_pool2d",
    images.upsample: "upsample grid_sample",
    collectives.gather: "all_gather all_broadcast experimental.all_gather_async",
    collectives.scatter: "reduce_scatter experimental.reduce_scatter_minimal_async",
    collectives.reduce: "all_reduce experimental.all_reduce_async",
    collectives.broadcast: "broadcast",
    collectives.exchange: "all_to_all_dispatch all_to_all_combine",
    # Transfers are counted by their bytes; weights are prepared once, and empty tensors hold nothing.
    kernels.nothing: (
        "from_torch to_torch to_device from_device get_device_tensors deallocate empty "
        "prepare_conv_weights prepare_conv_bias prepare_conv_transpose2d_weights prepare_conv_transpose2d_bias "
        "experimental.prepare_conv3d_weights"
    ),
}

OPERATIONS = {f"ttnn.{name}": formula for formula, names in _NAMES.items() for name in names.split()}
