"""Operations that TTNN has whole and ATen has not: custom operators with a torch implementation.

Passes put them into ATen graphs, so a graph still runs in eager torch after every pass. Each is composite: torch
traces through it, which gives shapes to fake tensors and a way back to ATen where TTNN refuses the whole.
"""

from tt_dynamo.ir.operators.attention import (
    BY_PARTS,
    attention,
    attention_decode,
    attention_mask,
    by_user,
    capped_attention,
    capped_attention_decode,
    merge_heads,
    split_heads,
    split_heads_decode,
)
from tt_dynamo.ir.operators.cache import fill_cache, slide_cache, slide_cache_decode, update_cache, update_cache_decode
from tt_dynamo.ir.operators.definition import CACHE_WRITES, FUNCTIONS, FUSED, HOST, TRANSFERS, define, library
from tt_dynamo.ir.operators.host_call import HostCall
from tt_dynamo.ir.operators.image import (
    IMAGE_ACTIVATIONS,
    WHOLE,
    add_activation,
    avg_pool2d,
    can_be_block_sharded,
    conv2d,
    conv_transpose2d,
    fold_patches,
    group_norm,
    max_pool2d,
    rearrange,
    repeat_pixels,
    resample,
    to_flat,
    to_nchw,
)
from tt_dynamo.ir.operators.index import bounded, bounded_along, index_numbers, look_up, pick, put_numbers
from tt_dynamo.ir.operators.linear import ACTIVATIONS, add_layer_norm, linear, rms_norm
from tt_dynamo.ir.operators.rotary import rotary, rotary_by_matrix, rotary_decode
from tt_dynamo.ir.operators.transfer import to_device, to_host, to_layout
