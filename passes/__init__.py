"""The passes, in the order in which they run: this list is the whole pipeline on ATen graphs.

A pass is a function (graph, context) -> how many places it changed. After every pass the graph still runs in eager
torch and gives what it gave before. Placement, layouts and deallocations need the device's answers and are called by
the compiler with them; they stand in files of their own here as well.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import Graph

from tt_dynamo.ir.graph import Context
from tt_dynamo.passes.caches.decode_rows import decode_rows
from tt_dynamo.passes.caches.hold import hold_caches
from tt_dynamo.passes.caches.rank_3 import carry_rank_4
from tt_dynamo.passes.fuse.attention import fuse_attention
from tt_dynamo.passes.fuse.epilogues import fuse_image_activation, fuse_linear_activation, fuse_residual_norm
from tt_dynamo.passes.fuse.gelu import fuse_gelu
from tt_dynamo.passes.fuse.grouped_query import fuse_grouped_query
from tt_dynamo.passes.fuse.merge_heads import fuse_merge_heads
from tt_dynamo.passes.fuse.pad_heads import pad_heads
from tt_dynamo.passes.fuse.prompt import attend_to_prompt
from tt_dynamo.passes.fuse.qkv import fuse_qkv
from tt_dynamo.passes.fuse.rms_norm import fuse_rms_norm
from tt_dynamo.passes.fuse.rotary import fuse_rotary
from tt_dynamo.passes.fuse.rotary_tables import rotary_tables
from tt_dynamo.passes.fuse.scales import fold_scales
from tt_dynamo.passes.fuse.split_linears import divide_linears
from tt_dynamo.passes.images.affine import pull_out_affine
from tt_dynamo.passes.images.batch_norm import fold_batch_norm
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.images.patch_embedding import fold_patch_embedding
from tt_dynamo.passes.images.resize import resize
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants
from tt_dynamo.passes.normalize.dtypes import promote_operands
from tt_dynamo.passes.normalize.lookups import look_up_rows
from tt_dynamo.passes.normalize.moves import spell_moves
from tt_dynamo.passes.normalize.reductions import canonicalize_reductions
from tt_dynamo.passes.normalize.row_writes import write_rows
from tt_dynamo.passes.normalize.strides import keep_strides

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

# Where one of these raises, its graph runs in eager torch: without them the device might compute other values.
NEEDED_FOR_VALUES = frozenset(
    {"keep_strides", "spell_moves", "promote_operands", "canonicalize_reductions", "rotary_tables"}
)

OPTIONAL: tuple[str, ...] = (
    *(p.__name__ for p in PASSES if p.__name__ not in REQUIRED),
    "insert_deallocations",
)
