"""The passes in named phases, in the order in which they run: this table is the whole pipeline on ATen graphs.

A pass is a function (graph, context) -> how many places it changed. After every pass the graph still runs in eager
torch and gives what it gave before. Where a pass stands for a reason, `after` names the passes that must run first, and
why. Placement, layouts and deallocations need the device's answers and are called by the compiler with them; they
stand in files of their own here as well.
"""

import dataclasses
from collections.abc import Callable, Mapping

from torch.fx import Graph

from tt_dynamo.ir.graph import Context
from tt_dynamo.passes.attention.additive_masks import attention_to_prompt
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.bands import fuse_bands
from tt_dynamo.passes.attention.cross_covariance import fuse_cross_covariance
from tt_dynamo.passes.attention.decomposed_positions import fuse_decomposed_positions
from tt_dynamo.passes.attention.heads import fuse_grouped_query, fuse_merge_heads
from tt_dynamo.passes.attention.joined_keys import join_keys, look_up_keys
from tt_dynamo.passes.attention.linear_attention import fuse_linear_attention
from tt_dynamo.passes.attention.merged_columns import order_merged_columns
from tt_dynamo.passes.attention.narrow_heads import join_narrow_heads
from tt_dynamo.passes.attention.pixel_attention import attend_pixels
from tt_dynamo.passes.attention.relative_positions import fuse_relative_positions
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.attention.rotary_tables import rotary_tables
from tt_dynamo.passes.attention.talking_heads import fuse_talking_heads
from tt_dynamo.passes.attention.window_rows import order_window_rows
from tt_dynamo.passes.caches.decode_rows import decode_rows
from tt_dynamo.passes.caches.hold import cache_writes_in_place
from tt_dynamo.passes.fuse.columns import cut_constants, split_biases
from tt_dynamo.passes.fuse.conditions import rows_of_images
from tt_dynamo.passes.fuse.epilogues import (
    fuse_arithmetic,
    fuse_image_activation,
    fuse_linear_activation,
    fuse_residual_norm,
)
from tt_dynamo.passes.fuse.experts import fuse_experts
from tt_dynamo.passes.fuse.fourier import fuse_fourier
from tt_dynamo.passes.fuse.gates import fuse_gates
from tt_dynamo.passes.fuse.joined_sums import fuse_joined_sums
from tt_dynamo.passes.fuse.lerps import fuse_lerps
from tt_dynamo.passes.fuse.linear_parts import fuse_linear_parts
from tt_dynamo.passes.fuse.linears import split_linears
from tt_dynamo.passes.fuse.means import means_of_rows
from tt_dynamo.passes.fuse.modulation import split_modulations
from tt_dynamo.passes.fuse.scales import fold_offsets, fold_scales
from tt_dynamo.passes.fuse.shifts import fold_shifts
from tt_dynamo.passes.fuse.snakes import fuse_snakes
from tt_dynamo.passes.fuse.spelled_out import fuse_gelu, fuse_layer_norm, fuse_rms_norm
from tt_dynamo.passes.fuse.stacks import fuse_stacks
from tt_dynamo.passes.fuse.table_parts import fuse_table_parts
from tt_dynamo.passes.fuse.weighted_sums import fuse_weighted_sums
from tt_dynamo.passes.heads.joint_attention import fuse_joint_attention
from tt_dynamo.passes.heads.joint_heads import split_joint_heads
from tt_dynamo.passes.heads.key_value_heads import split_key_value_heads
from tt_dynamo.passes.heads.lone_heads import split_lone_heads
from tt_dynamo.passes.heads.norm_heads import fuse_norm_heads
from tt_dynamo.passes.heads.pad_heads import pad_heads
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.heads.token_products import join_token_products
from tt_dynamo.passes.images.binned_channels import pad_bins
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.images.joins.channel_hierarchies import join_channel_hierarchies
from tt_dynamo.passes.images.joins.joined_pixels import join_pixels
from tt_dynamo.passes.images.joins.mixed_kernels import join_mixed_kernels
from tt_dynamo.passes.images.joins.summed_parts import sum_parts
from tt_dynamo.passes.images.moved_channels import read_moved_channels
from tt_dynamo.passes.images.norms import fold_batch_norm, split_norm_affine
from tt_dynamo.passes.images.patch_embedding import fold_patch_embedding
from tt_dynamo.passes.images.pixel_products import pixels_to_products
from tt_dynamo.passes.images.pooled_rows import pool_rows
from tt_dynamo.passes.images.signals import signals_to_products
from tt_dynamo.passes.images.split_convolutions import split_convolutions
from tt_dynamo.passes.images.stem import fold_stem
from tt_dynamo.passes.images.tokens import tokens_among_patches
from tt_dynamo.passes.loops.delta_rules import fuse_delta_rules
from tt_dynamo.passes.loops.recurrences import fuse_recurrences
from tt_dynamo.passes.loops.scans import fuse_scans
from tt_dynamo.passes.loops.state_spaces import fuse_state_spaces
from tt_dynamo.passes.loops.wkv import fuse_wkv
from tt_dynamo.passes.moves.class_token import class_token_last
from tt_dynamo.passes.moves.cut_rows import cut_rows
from tt_dynamo.passes.moves.expands import drop_expands
from tt_dynamo.passes.moves.joined_moves import join_moves
from tt_dynamo.passes.moves.joined_rows import join_rows
from tt_dynamo.passes.moves.leading_selects import lead_selects
from tt_dynamo.passes.moves.moved_rows import look_up_moved_rows
from tt_dynamo.passes.moves.permutes import hoist_permutes
from tt_dynamo.passes.moves.reductions import reduce_rows
from tt_dynamo.passes.moves.reshapes import sink_reshapes
from tt_dynamo.passes.moves.stacked_rows import carry_stacked_rows
from tt_dynamo.passes.moves.transposed_operands import transpose_operands
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.complex_numbers import complex_to_real
from tt_dynamo.passes.normalize.constants import fold_constants
from tt_dynamo.passes.normalize.cut_joins import cut_before_joins
from tt_dynamo.passes.normalize.draws import draw_by_shape
from tt_dynamo.passes.normalize.dtypes import promote_operands
from tt_dynamo.passes.normalize.embedding_bags import embedding_bags_to_lookups
from tt_dynamo.passes.normalize.identities import drop_identities
from tt_dynamo.passes.normalize.integer_round_trips import drop_integer_round_trips
from tt_dynamo.passes.normalize.limits import drop_limits
from tt_dynamo.passes.normalize.lookups import index_put_to_embedding, index_to_embedding
from tt_dynamo.passes.normalize.masked_writes import masked_writes_to_where
from tt_dynamo.passes.normalize.moves import keep_strides, normalize_moves
from tt_dynamo.passes.normalize.nearest_codes import nearest_codes
from tt_dynamo.passes.normalize.rankings import index_by_rankings
from tt_dynamo.passes.row_orders import order_rows
from tt_dynamo.passes.rows import sink_rank3_reshapes

Pass = Callable[[Graph, Context], int]


@dataclasses.dataclass(frozen=True)
class Step:
    """A pass and its place.

    after: the passes that must run first, and why
    required: `disable_passes` may not name it
    for_values: without it the device might compute other values. Where it raises, its graph runs in eager torch.
    """

    run: Pass
    after: Mapping[Pass, str] = dataclasses.field(default_factory=dict)
    required: bool = False
    for_values: bool = False


PHASES: dict[str, tuple[Step, ...]] = {
    # First: what is left is as short as a layer.
    "loops": (
        Step(fuse_scans),
        Step(fuse_delta_rules),
        Step(fuse_state_spaces),
        Step(fuse_wkv),
        Step(fuse_recurrences),
    ),
    "normalize": (
        Step(fuse_experts),
        Step(complex_to_real),
        Step(index_by_rankings),
        Step(cache_writes_in_place),
        Step(keep_strides, {complex_to_real: "no pairs are laid out"}, required=True, for_values=True),
        Step(normalize_moves, {keep_strides: "copies lose their strides"}, required=True, for_values=True),
        Step(embedding_bags_to_lookups, required=True),
        Step(
            index_to_embedding,
            {cache_writes_in_place: "rolls of caches become lookups", fuse_experts: "it reads rows of experts"},
            required=True,
        ),
        Step(index_put_to_embedding, {cache_writes_in_place: "writes into a cache become lookups"}, required=True),
        Step(masked_writes_to_where, required=True),
        Step(draw_by_shape, required=True),
        Step(drop_integer_round_trips, required=True),
        Step(promote_operands, required=True, for_values=True),
        Step(canonicalize, {cache_writes_in_place: "the copy into a cache is dropped"}, required=True),
        Step(drop_identities, {canonicalize: "views and casts around them are gone"}),
        Step(cut_before_joins, {canonicalize: "it looks through reshapes, one at a time"}),
        Step(fuse_joined_sums, {canonicalize: "parts are cut once"}),
        Step(drop_limits),
        Step(nearest_codes, {canonicalize: "it reads linear and argmax"}),
        Step(cut_rows, {canonicalize: "cuts are as few as they can be"}),
        Step(join_rows, {canonicalize: "moves are as few as they can be"}),
        Step(join_token_products, {canonicalize: "it reads linear"}),
        Step(class_token_last, {join_token_products: "heads are tokens by then"}),
        Step(order_window_rows, {canonicalize: "it reads linear"}),
        Step(
            order_rows,
            {
                canonicalize: "it reads linear",
                order_window_rows: "windows of heads become lookups",
                index_to_embedding: "windows become lookups",
                join_rows: "so do merged patches",
            },
        ),
    ),
    "images": (
        Step(join_mixed_kernels),
        Step(join_channel_hierarchies, {join_mixed_kernels: "parts that are convolved alike are one by then"}),
        Step(fold_batch_norm, {join_mixed_kernels: "one norm is behind all kernels"}),
        Step(fold_patch_embedding),
        Step(fold_stem, {fold_batch_norm: "it reads convolutions", fold_patch_embedding: "patches are folded alone"}),
        Step(attend_pixels, {fold_batch_norm: "it reads convolutions"}),
        Step(pad_bins, {fuse_joined_sums: "it takes products of their values"}),
        Step(read_moved_channels, {fold_batch_norm: "norms are weights by then"}),
        Step(sum_parts, {read_moved_channels: "it fills parts that it can", fold_batch_norm: "it reads convolutions"}),
        Step(split_convolutions, {read_moved_channels: "what it rewrites is not cut any more"}),
        Step(split_norm_affine, {fold_batch_norm: "it takes the norms behind convolutions too"}, required=True),
        Step(pool_rows),
        Step(
            channels_last,
            {
                fold_patch_embedding: "it takes the convolution of the patches",
                fold_stem: "it takes convolutions",
                pool_rows: "it takes pools",
                join_mixed_kernels: "it takes convolutions",
                split_convolutions: "it takes convolutions",
                split_norm_affine: "it takes group norms without weights only",
            },
            required=True,
        ),
        Step(join_moves, {channels_last: "its moves meet those of the model"}),
        Step(join_pixels, {channels_last: "it reads conv2d", join_moves: "pixels are rows"}),
        Step(pixels_to_products, {channels_last: "it reads conv2d", join_moves: "tokens are rows of the image"}),
        Step(signals_to_products, {channels_last: "it reads conv2d", join_moves: "no moves hide lookups"}),
        Step(
            tokens_among_patches,
            {fold_patch_embedding: "it reads the linear of patches", join_moves: "nothing moves behind that by then"},
        ),
        Step(fuse_image_activation, {channels_last: "it reads conv2d"}),
    ),
    "fuse": (
        Step(fuse_linear_attention),
        Step(join_narrow_heads, {channels_last: "heads are columns", fuse_linear_attention: "it reads that"}),
        Step(fuse_stacks, {canonicalize: "views are reshapes"}),
        Step(fuse_table_parts),
        Step(split_modulations, {fuse_table_parts: "it takes the sums that are left"}),
        Step(fuse_fourier),
        Step(fuse_rotary),
        Step(rotary_tables, {cache_writes_in_place: "caches say how long tables are"}, required=True, for_values=True),
        Step(fuse_rms_norm),
        Step(fuse_layer_norm, {fuse_rms_norm: "a layer norm is an rms_norm of what is centered"}),
        Step(fuse_bands, {index_to_embedding: "blocks are lookups"}),
        Step(fuse_talking_heads),
        Step(fuse_decomposed_positions),
        Step(fuse_cross_covariance, {fuse_rms_norm: "norms are no moves"}),
        Step(fuse_relative_positions, {canonicalize: "it reads products"}),
        Step(join_keys),
        Step(
            fuse_attention,
            {
                fuse_decomposed_positions: "scores are read at rank 4",
                fuse_talking_heads: "it mixes no heads",
                fuse_cross_covariance: "values are no heads of channels",
                join_keys: "several products are one by then",
            },
        ),
        Step(look_up_keys, {fuse_attention: "it reads attention"}),
        Step(fold_scales, {fuse_attention: "attention takes the scales that it can"}),
        Step(cut_constants),
        Step(split_biases, {fold_scales: "nothing is between a linear and its biases"}),
        Step(fuse_grouped_query, {fuse_attention: "it reads attention", fuse_rotary: "it looks through rotary"}),
        Step(attention_to_prompt, {cache_writes_in_place: "it reads fill_cache", fuse_attention: "it reads attention"}),
        Step(order_merged_columns, {fuse_attention: "it reads attention"}),
        Step(pad_heads, {order_merged_columns: "heads are merged one beside the other by then"}),
        Step(
            split_joint_heads,
            {fuse_rotary: "it swaps heads and sequence behind the join", fuse_rms_norm: "it reads rms_norm"},
        ),
        Step(
            fuse_qkv,
            {
                split_joint_heads: "it reads the heads of each stream",
                fuse_rms_norm: "the scale goes into the weight of the query's norm",
                fold_scales: "a scaled query keeps a projection of its own",
                split_biases: "queries with a bias are projections",
                pad_heads: "it pads the three linears",
            },
        ),
        Step(fuse_merge_heads, dict.fromkeys((fuse_grouped_query, attention_to_prompt, pad_heads), "heads are apart")),
        Step(fuse_joint_attention, {fuse_merge_heads: "it reads attention with merged heads"}),
        Step(
            fuse_norm_heads,
            {fuse_joint_attention: "it turns each stream by itself", fuse_qkv: "it reads split_heads"},
        ),
        Step(lead_selects, {split_joint_heads: "heads that are selected are split by kernels"}),
        Step(rows_of_images, {fuse_qkv: "it reads projections in place"}),
        Step(
            hoist_permutes,
            {channels_last: "convolutions have their permutes", fuse_qkv: "heads have theirs"},
        ),
        Step(reduce_rows, {channels_last: "channels are last", hoist_permutes: "fewer permutes are left"}),
        Step(fuse_weighted_sums, {reduce_rows: "rows are summed"}),
        Step(fold_shifts, {hoist_permutes: "channels are last"}),
        Step(look_up_moved_rows, {hoist_permutes: "permutes are as few as they can be"}),
        Step(
            split_linears,
            {
                hoist_permutes: "columns are cut before they are permuted",
                fuse_qkv: "it divides the projection of the heads too",
                rows_of_images: "rows of images are its columns",
            },
        ),
        Step(
            split_key_value_heads,
            {fuse_qkv: "three of one input are split at once", split_linears: "parts of a linear are linears by then"},
        ),
        Step(split_lone_heads, {split_key_value_heads: "two of one input are split at once"}),
        Step(fold_offsets, {split_linears: "of a modulation's parts, the scales take their one"}),
        Step(fuse_gelu),
        Step(fuse_linear_activation, {fuse_gelu: "it reads gelu", split_linears: "parts take their activations"}),
        Step(
            transpose_operands,
            {fuse_linear_activation: "it keeps activations", hoist_permutes: "permutes are as few as they can be"},
        ),
        Step(sink_reshapes, {fuse_linear_activation: "activations of linears are no steps by themselves"}),
        Step(means_of_rows, {sink_reshapes: "it reads what is cut in a line"}),
        Step(drop_expands, {fuse_attention: "it reads masks as they are expanded"}),
        Step(fuse_residual_norm),
        Step(fuse_snakes, {channels_last: "channels are last"}),
        Step(fuse_lerps),
        Step(
            fuse_gates,
            {
                fuse_residual_norm: "it reads sums",
                fuse_linear_activation: "a gate is behind a plain one",
                fuse_snakes: "a snake is a sum of a product too",
                fuse_lerps: "a mean is no gate",
            },
        ),
        Step(
            fuse_arithmetic,
            {
                fuse_linear_activation: "linears take activations",
                fuse_residual_norm: "norms take sums",
                fuse_lerps: "a mean is no sum",
                fuse_gates: "gates take sums",
            },
        ),
        Step(
            fuse_linear_parts,
            {split_linears: "it joins parts of one input", fold_offsets: "parts take their ones", fuse_gates: "gates"},
        ),
    ),
    "caches": (
        Step(carry_stacked_rows, {fuse_stacks: "it mixes them by a product", fuse_gates: "updates are one sum"}),
        Step(decode_rows, {cache_writes_in_place: "it reads update_cache", fuse_qkv: "it reads split_heads"}),
        Step(
            sink_rank3_reshapes,
            {fuse_residual_norm: "it moves past add_layer_norm", decode_rows: "it reads tokens as rows"},
        ),
    ),
    "constants": (Step(fold_constants, required=True),),  # last: whatever a pass makes of weights is folded
}

STEPS = tuple(step for phase in PHASES.values() for step in phase)
PASSES: tuple[Pass, ...] = tuple(step.run for step in STEPS)
REQUIRED = frozenset(step.run.__name__ for step in STEPS if step.required)
NEEDED_FOR_VALUES = frozenset(step.run.__name__ for step in STEPS if step.for_values)
OPTIONAL = (*(step.run.__name__ for step in STEPS if not step.required), "insert_deallocations")
