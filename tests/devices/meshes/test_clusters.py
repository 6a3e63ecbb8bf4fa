"""The clusters that can be emulated, by what is written of them."""

from __future__ import annotations

import pytest

from tt_dynamo.devices import CHOICES, DeviceError
from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS
from tt_dynamo.devices.clusters import CLUSTERS, board_of, cluster_of, one_chip_choice, parse_choice
from tt_dynamo.options import OptionError, Options


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_names_each_of_its_chips_once_and_uses_each_channel_once(name: str) -> None:
    cluster = CLUSTERS[name]
    chips = sorted(chip for card in cluster.cards for chip in card)
    assert chips == list(range(cluster.shape[0] * cluster.shape[1]))
    ends = [end for a, i, b, j in cluster.links for end in ((a, i), (b, j))]
    assert len(set(ends)) == len(ends)
    assert {chip for chip, _ in ends} == (set(chips) if cluster.chips > 1 else set())
    assert cluster.board in BOARD_DESCRIPTIONS
    assert cluster_of(cluster.kind, cluster.chips) is cluster


def test_one_chip_of_an_n300_is_no_whole_n300() -> None:
    assert (CLUSTERS["n300-1"].chips, CLUSTERS["n300"].chips) == (1, 2)
    assert CLUSTERS["n300-1"].board == CLUSTERS["n300"].board == CLUSTERS["t3k"].board == "n300"
    assert [one_chip_choice(board) for board in BOARD_DESCRIPTIONS] == ["n150", "n300-1", "p150"]


def test_hardware_that_is_not_emulated_has_the_figures_of_its_chips() -> None:
    assert [board_of(kind) for kind in ("N300", "T3K", "P300_X2", "P150_X4", "P100")] == [
        "n300", "n300", "p150", "p150", "p100",
    ]  # fmt: skip


def test_a_choice_may_name_a_shape() -> None:
    assert parse_choice("t3k:2x4") == ("t3k", (2, 4))
    assert parse_choice("hardware:1x2") == ("hardware", (1, 2))
    assert parse_choice("t3k") == ("t3k", None)


@pytest.mark.parametrize("choice", ["t3k:", "t3k:8", "t3k:2x", "t3k:0x8", "t3k:2x4x1", "t3k:axb", "auto:1x2"])
def test_a_shape_that_is_none_is_refused_with_how_to_write_it(choice: str) -> None:
    with pytest.raises(DeviceError, match="write it as in 't3k:2x4'"):
        parse_choice(choice)


def test_options_take_every_choice_with_and_without_a_shape() -> None:
    for choice in CHOICES:
        assert Options.parse({"device": choice}).device == choice
    assert Options.parse({"device": "t3k:2x4"}).device == "t3k:2x4"
    with pytest.raises(OptionError, match="did you mean 't3k'"):
        Options.parse({"device": "t3:2x4"})
