"""Device time of convolutions and pools of images [1, 1, batch * height * width, channels], and of volumes."""

import dataclasses
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from tt_dynamo.estimate.chip import Chip, Cost
from tt_dynamo.estimate.kernels import cores_of, moved_bytes, place, row_after_row
from tt_dynamo.estimate.products import fidelity_of, product
from tt_dynamo.estimate.tensor import TILE, Call, Tensor, ceil_div


def convolution(call: Call, chip: Chip) -> Cost:
    """What it computes, and before that the move of an image that it shards anew, in a launch of its own."""
    x, out, config = call.inputs[0], call.outputs[0], call.options.get("conv_config")
    lies_so = (x.sharding, x.cores) == (out.sharding, out.cores)  # TTNN shards the image by the rows of the result
    shards_anew = x.sharded_in_l1 and out.sharded_in_l1 and getattr(config, "reshard_if_not_optimal", False)
    if lies_so or not shards_anew:
        return _convolved(call, chip)
    moved = dataclasses.replace(x, sharding=out.sharding, cores=out.cores, shard_width=0)
    move = place(Call("ttnn.to_memory_config", (x,), (moved,)), chip)
    return _convolved(dataclasses.replace(call, inputs=(moved, *call.inputs[1:])), chip).following(move)


def _convolved(call: Call, chip: Chip) -> Cost:
    """A product of gathered pixels [pixels, kernel * in] and weights [kernel * in, out], after a halo of neighbours.

    The rows of the result are shared by cores sharded by height; in blocks the columns are, too. One that mixes the
    channels of each pixel is a matrix product, as TTNN makes it.
    """
    k, (x, weight), out = chip.k, call.inputs[:2], call.outputs[0]
    fidelity, *_ = fidelity_of(call.options)
    cores = out.cores or min(chip.cores, out.rows)
    # TTNN lays the weights out as [1, 1, kernel * in, out]; on the host they are [out, in, *kernel].
    folded = weight.shape[-2] if weight.shape[:-2] in ((), (1,), (1, 1)) else math.prod(weight.shape[1:])
    depth = ceil_div(folded, TILE)
    across = out.across(cores if out.sharding == "WIDTH_SHARDED" else chip.grid[0])
    if out.sharding != "WIDTH_SHARDED" and _mixes_channels(call.options):
        return _mixed(call, chip, folded, (across, max(1, cores // across)))
    rows = ceil_div(out.rows, max(1, cores // across))
    columns = ceil_div(out.columns, across)
    # The weights come as whole columns from DRAM and are sent to every core.
    weights = depth * out.columns * weight.tile_bytes
    p = chip.tile_product(fidelity, x.tile_bytes, weight.tile_bytes)
    return chip.cost(
        "convolution",
        compute=rows * columns * depth * p,
        l1=chip.cycles(rows * ceil_div(depth, across) * k.gather_pixels_cycles),
        noc=weights / across / k.convolution_weights_gbs,
        dram=(moved_bytes((x, out)) + weights) / k.stream_gbs,
        dispatch=chip.cycles(k.convolution_start_cycles),
        products=out.rows * out.columns * depth,
        fidelity=fidelity,
        dram_bytes=moved_bytes((x, out)) + weights,
        overlap=1.0,
    )


def convolution_of_volumes(call: Call, chip: Chip) -> Cost:
    """A product of gathered voxels and weights [kernel * in, out], rows in and out.

    Cores share the blocks that `Conv3dConfig` tells: of channels in, whose sums are added up, of channels out, and of
    voxels, which fill up whole tiles. Not calibrated.
    """
    k, (x, weight), out = chip.k, call.inputs[:2], call.outputs[0]
    fidelity, *_ = fidelity_of(call.options)
    names = ("C_in_block", "C_out_block", "T_out_block", "H_out_block", "W_out_block")
    channels, columns, *box = (getattr(call.options.get("config"), name, 0) for name in names)
    box = [part or 1 for part in box]
    of_input = max(1, x.shape[-1] // (channels or x.shape[-1]))
    columns = ceil_div(columns or out.shape[-1], TILE)
    *batch, frames, height, width, _ = (1, *out.shape)
    boxes = math.prod(batch) * math.prod(map(ceil_div, (frames, height, width), box))
    blocks = boxes * of_input * ceil_div(out.columns, columns)
    rows, depth = ceil_div(math.prod(box), TILE), ceil_div(weight.shape[0], TILE * of_input)
    per_core = ceil_div(blocks, chip.cores) * rows * depth
    cores = min(chip.cores, blocks)
    weights = depth * columns * weight.tile_bytes * cores  # each core reads its own
    p = chip.tile_product(fidelity, x.tile_bytes, weight.tile_bytes)
    dram_bytes = moved_bytes((x, out)) + weights
    return chip.cost(
        "convolution",
        compute=per_core * columns * p,
        l1=chip.cycles(per_core * k.gather_pixels_cycles),
        dram=dram_bytes / k.row_gbs,
        dispatch=chip.cycles(k.convolution_start_cycles),
        products=out.columns * ceil_div(math.prod(out.shape[:-1]), TILE) * depth * of_input,
        fidelity=fidelity,
        dram_bytes=dram_bytes,
        overlap=1.0,
    )


def _mixes_channels(options: Mapping[str, Any]) -> bool:
    """Whether every pixel of the result reads one pixel, in order.

    Source: use_matmul_for_1x1_conv of tt-metal, ttnn/cpp/ttnn/operations/conv/conv2d/conv2d_utils.cpp.
    """
    steps = [options.get(name) for name in ("kernel_size", "stride", "dilation")]
    is_alone = not any(options.get("padding", (0,))) and options.get("groups") == 1
    return is_alone and all(step is not None and tuple(step) == (1, 1) for step in steps)


def _mixed(call: Call, chip: Chip, channels: int, grid: tuple[int, int]) -> Cost:
    """A convolution as the product that it is, on so many columns and rows of cores."""
    (x, weight), out = call.inputs[:2], call.outputs[0]
    columns, rows = grid
    config = SimpleNamespace(
        kind="2d" if columns > 1 else "1d",
        in0_block_w=max(1, ceil_div(channels, TILE) // columns),
        compute_with_storage_grid_size=SimpleNamespace(x=columns, y=rows),
    )
    given = {"program_config": config, "compute_config": call.options.get("compute_config")}
    laid_out = Tensor((channels, out.shape[-1]), weight.dtype)
    return product(Call("ttnn.linear", (x, laid_out), (out,), given), chip)


def pool(call: Call, chip: Chip) -> Cost:
    """Each pixel of the result reads its window, `kernel_size`, of up to eight tiles of channels at once."""
    out = call.outputs[0]
    window = math.prod(call.options.get("kernel_size") or (3, 3))
    pixels = math.prod(out.shape[:-1])
    cores = out.cores or min(chip.cores, pixels)
    across = out.across(cores)
    per_core = ceil_div(pixels, max(1, cores // across)) * ceil_div(ceil_div(out.columns, across), 8)
    return chip.cost(
        "pool",
        l1=chip.cycles(per_core * window * chip.k.pool_cycles),
        dram=moved_bytes(call.tensors) / chip.k.row_gbs,
        dispatch=chip.cycles(chip.k.convolution_start_cycles),
        dram_bytes=moved_bytes(call.tensors),
    )


def upsample(call: Call, chip: Chip) -> Cost:
    """Pixels are written several times: a page of the result each."""
    out = call.outputs[0]
    pages = ceil_div(math.prod(out.shape[:-1]), cores_of(out, chip))
    return row_after_row(call, chip, "pool", l1=chip.cycles(pages * chip.k.page_cycles))
