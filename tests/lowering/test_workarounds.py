"""Workarounds make the calls that they are for, and no others."""

import math
from types import SimpleNamespace

import pytest

from tt_dynamo.devices.boards import ARCHITECTURES
from tt_dynamo.ir.errors import Refused
from tt_dynamo.lowering import workarounds


@pytest.mark.parametrize("width", [1, 7, 33, 197])
def test_a_masks_tile_padding_is_minus_infinity(width):
    ttnn = SimpleNamespace(fill_implicit_tile_padding=lambda mask, value: (mask, value))
    mask = SimpleNamespace(shape=(1, 1, 5, width))
    assert workarounds.pad_mask(ttnn, mask) == (mask, -math.inf)


@pytest.mark.parametrize("width", [32, 64, 512])
def test_a_mask_of_whole_tiles_is_left_as_it_is(width):
    mask = SimpleNamespace(shape=(1, 1, 5, width))
    assert workarounds.pad_mask(SimpleNamespace(), mask) is mask


@pytest.mark.parametrize(
    ("arch", "chosen", "float32", "fidelity"),
    [
        ("wormhole_b0", "auto", True, "HiFi3"),
        ("wormhole_b0", "auto", False, "HiFi4"),
        ("blackhole", "auto", True, "HiFi4"),
        ("wormhole_b0", "LoFi", True, "LoFi"),
        ("wormhole_b0", "HiFi4", True, "HiFi4"),
    ],
)
def test_the_highest_fidelity_that_is_right_is_chosen(arch, chosen, float32, fidelity, caplog):
    assert workarounds.math_fidelity(ARCHITECTURES[arch], chosen, float32) == fidelity
    assert ("38306" in caplog.text) == (fidelity == "HiFi4" and float32 and "wormhole" in arch)


@pytest.mark.parametrize(("widths", "dim"), [((32, 48), 3), ((16, 16), -1), ((32, 64), 2)])
def test_shards_that_concat_would_untilize_are_not_joined(widths, dim):
    tensors = [SimpleNamespace(shape=(1, 1, 7, width)) for width in widths]
    with pytest.raises(Refused, match="41504"):
        workarounds.check_joined_shards(tensors, dim)


@pytest.mark.parametrize("dim", [3, -1])
def test_shards_of_whole_tiles_are_joined(dim):
    workarounds.check_joined_shards([SimpleNamespace(shape=(1, 1, 7, width)) for width in (32, 64)], dim)


@pytest.mark.parametrize("shape", [(1, 1, 7, 32), (1, 1, 64, 48)])
def test_shards_that_end_inside_a_tile_keep_their_layout(shape):
    with pytest.raises(Refused, match="41504 and 44524"):
        workarounds.check_tiles_of_shards(SimpleNamespace(shape=shape))
    workarounds.check_tiles_of_shards(SimpleNamespace(shape=(1, 1, 64, 32)))
