"""The passes, in the order in which they run: this list is the whole pipeline on ATen graphs.

A pass is a function (graph, context) -> how many places it changed. After every pass the graph still runs in eager
torch and gives what it gave before. Placement, layouts and deallocations need the device's answers and are called by
the compiler with them; they stand in files of their own here as well.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import Graph

from tt_dynamo.graph import Context
from tt_dynamo.passes.attend_to_prompt import attend_to_prompt
from tt_dynamo.passes.canonicalize import canonicalize
from tt_dynamo.passes.canonicalize_reductions import canonicalize_reductions
from tt_dynamo.passes.carry_rank_4 import carry_rank_4
from tt_dynamo.passes.channels_last import channels_last
from tt_dynamo.passes.decode_rows import decode_rows
from tt_dynamo.passes.divide_linears import divide_linears
from tt_dynamo.passes.fold_batch_norm import fold_batch_norm
from tt_dynamo.passes.fold_constants import fold_constants
from tt_dynamo.passes.fold_patch_embedding import fold_patch_embedding
from tt_dynamo.passes.fold_scales import fold_scales
from tt_dynamo.passes.fuse_attention import fuse_attention
from tt_dynamo.passes.fuse_gelu import fuse_gelu
from tt_dynamo.passes.fuse_grouped_query import fuse_grouped_query
from tt_dynamo.passes.fuse_image_activation import fuse_image_activation
from tt_dynamo.passes.fuse_linear_activation import fuse_linear_activation
from tt_dynamo.passes.fuse_merge_heads import fuse_merge_heads
from tt_dynamo.passes.fuse_qkv import fuse_qkv
from tt_dynamo.passes.fuse_residual_norm import fuse_residual_norm
from tt_dynamo.passes.fuse_rms_norm import fuse_rms_norm
from tt_dynamo.passes.fuse_rotary import fuse_rotary
from tt_dynamo.passes.hold_caches import hold_caches
from tt_dynamo.passes.keep_strides import keep_strides
from tt_dynamo.passes.look_up_rows import look_up_rows
from tt_dynamo.passes.pad_heads import pad_heads
from tt_dynamo.passes.promote_operands import promote_operands
from tt_dynamo.passes.pull_out_affine import pull_out_affine
from tt_dynamo.passes.resize import resize
from tt_dynamo.passes.rotary_tables import rotary_tables
from tt_dynamo.passes.spell_moves import spell_moves
from tt_dynamo.passes.write_rows import write_rows

Pass = Callable[[Graph, Context], int]

PASSES: tuple[Pass, ...] = (
    hold_caches,
    keep_strides,
    spell_moves,
    look_up_rows,
    write_rows,
    promote_operands,
    canonicalize,
    canonicalize_reductions,
    fold_batch_norm,
    fold_patch_embedding,
    pull_out_affine,
    resize,
    channels_last,
    fuse_image_activation,
    fuse_rotary,
    rotary_tables,
    fuse_rms_norm,
    fuse_attention,
    fold_scales,
    fuse_grouped_query,
    attend_to_prompt,
    pad_heads,
    fuse_qkv,
    fuse_merge_heads,
    divide_linears,
    fuse_gelu,
    fuse_linear_activation,
    fuse_residual_norm,
    decode_rows,
    carry_rank_4,
    fold_constants,
)

REQUIRED = frozenset(
    {
        "keep_strides",
        "promote_operands",
        "canonicalize",
        "canonicalize_reductions",
        "fold_constants",
        "channels_last",
        "resize",
        "spell_moves",
        "look_up_rows",
        "write_rows",
        "pull_out_affine",
        "rotary_tables",
    }
)

OPTIONAL: tuple[str, ...] = (
    *(p.__name__ for p in PASSES if p.__name__ not in REQUIRED),
    "insert_deallocations",
)
