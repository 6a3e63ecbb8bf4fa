"""What the mock cannot see: faults that show only on silicon, each in one place with its issue.

Every function here says which tt-metal issue it works around; remove it when that issue is closed in the TTNN that we
require. Nothing here is needed for a call to be valid, so no test without hardware can tell that it may go.
"""

import logging
import math
from typing import Any

from tt_dynamo.ir import meta
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.spec import Value

log = logging.getLogger(__name__)

TILE = 32

# Rows at once of a convolution whose image is sliced in DRAM. With 0, which leaves them to TTNN, weights prepared ahead
# give silently wrong results: https://github.com/tenstorrent/tt-metal/issues/35852
SLICED_BLOCK_HEIGHTS = (1024, 128, 32)


def pad_mask(ttnn: Any, mask: Any) -> Any:
    """A mask whose tile padding holds -inf; filled once, in place, however many calls read it.

    scaled_dot_product_attention reads the padding columns of an explicit mask as part of it: zeros there let padding
    keys into the softmax wherever the key length is no multiple of 32. https://github.com/tenstorrent/tt-metal/issues/54833
    """
    if mask is None or mask.shape[-1] % TILE == 0:
        return mask
    for user in mask.node.users if isinstance(mask, Value) else ():
        if meta.path.get(user, "") == "ttnn.fill_implicit_tile_padding" and "inf" in repr(user.args[1]):
            return Value(user, mask.tensor)
    return ttnn.fill_implicit_tile_padding(mask, -math.inf)


def fill_padding(ttnn: Any, x: Any) -> Any:
    """Zeros in the tile padding of rows that go into a cache.

    fill_cache copies whole tiles, and what lies in the padding may be NaN, which then leaks into attention:
    https://github.com/tenstorrent/tt-metal/issues/42779
    """
    return x if x.shape[-2] % TILE == 0 else ttnn.fill_implicit_tile_padding(x, 0.0)


def convolution(height: int) -> dict[str, bool]:
    """Fields of Conv2dConfig for an image of that height.

    Folding a kernel into its stride takes a flattened image for something else:
    https://github.com/tenstorrent/tt-metal/issues/30985. Tables of a depthwise convolution over one dimension hang in
    DRAM: https://github.com/tenstorrent/tt-metal/issues/47799; those of images lie there, where they take no L1.
    """
    return {"enable_kernel_stride_folding": False, "config_tensors_in_dram": height > 1}


def check_groups(groups: int, channels: int) -> None:
    """Grouped convolutions of more than 4096 channels: https://github.com/tenstorrent/tt-metal/issues/49793"""
    if groups > 1 and channels > 4096:
        raise Unsupported(f"a convolution of {groups} groups with {channels} channels: tt-metal issue 49793")


def check_joined_shards(tensors: Any, dim: int) -> None:
    """Only columns that fill their tiles are joined in shards; any others are left to be joined interleaved.

    concat untilizes what ends inside a tile, and that hangs of shards: https://github.com/tenstorrent/tt-metal/issues/41504
    """
    rank = len(tensors[0].shape)
    if dim % rank != rank - 1 or any(x.shape[-1] % TILE for x in tensors):
        raise Refused("only columns that fill tiles are joined in shards: tt-metal issue 41504")


def check_tiles_of_shards(x: Any) -> None:
    """Shards change their layout where they lie only if they fill their tiles; others are left to do it interleaved.

    Dropping what pads a tile hangs, as above, and so does padding: https://github.com/tenstorrent/tt-metal/issues/44524
    """
    if any(size % TILE for size in x.shape[-2:]):
        raise Refused("only shards that fill tiles change their layout: tt-metal issues 41504 and 44524")


def columns_of_cores(columns: int, banks: int) -> int:
    """Columns of cores of a 2D product whose weight is sharded over DRAM banks, of so many columns and banks.

    TTNN accepts others, but on Blackhole other columns than one for each bank "silently give bad PCC":
    models/tt_transformers/tt/model_config.py of tt-metal. On Wormhole, which has more banks than columns of cores, its
    models run all eight columns.
    """
    return min(columns, banks)


def check_columns_of_cores(columns: int, banks: int, given: int) -> None:
    """Refuse a 2D product on such a weight that its shards would give another number of columns of cores."""
    if given != columns_of_cores(columns, banks):
        raise Refused(f"a product on {given} columns of cores with a weight in {banks} DRAM shards is not trusted")


def refuse_integers(ttnn: Any, x: Any) -> None:
    """Permuting 32-bit integers gives wrong ones: https://github.com/tenstorrent/tt-metal/issues/19950"""
    if x.dtype in (ttnn.int32, ttnn.uint32):
        raise Unsupported("a permute of integers: tt-metal issue 19950")


def math_fidelity(architecture: Any, wanted: str, float32: bool) -> str:
    """The option's fidelity, and for "auto" the highest that is right: HiFi3 on Wormhole where float32 accumulates.

    architecture: of the device, which knows whether HiFi4 with float32 accumulation gives wrong elements. wanted: the
    option. float32: whether that accumulates.
    """
    faulty = fidelity_is_wrong(architecture, "HiFi4", float32)
    if wanted == "auto":
        return "HiFi3" if faulty else "HiFi4"
    if wanted == "HiFi4" and faulty:
        log.warning("HiFi4 with float32 accumulation gives wrong elements on Wormhole (tt-metal issue 38306)")
    return wanted


def fidelity_is_wrong(architecture: Any, fidelity: str, float32: bool) -> bool:
    """Whether it gives wrong elements: HiFi4 on Wormhole where float32 accumulates, tt-metal issue 38306."""
    return bool(architecture.hifi4_is_wrong_in_float32 and fidelity == "HiFi4" and float32)


def exact_sums(ttnn: Any) -> Any:
    """The configuration of sums that count: in float32 whatever the options say, and never HiFi4 (see above)."""
    return compute_kernel_config(ttnn, ttnn.MathFidelity.HiFi3, float32=True)


def compute_kernel_config(ttnn: Any, fidelity: Any, float32: bool) -> Any:
    """How a kernel multiplies, and whether it accumulates in float32: of this class on every architecture."""
    return ttnn.WormholeComputeKernelConfig(
        math_fidelity=fidelity, math_approx_mode=False, fp32_dest_acc_en=float32, packer_l1_acc=True
    )
