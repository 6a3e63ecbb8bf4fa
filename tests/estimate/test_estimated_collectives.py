"""The estimate of collectives against examples worked by hand: bytes over links, hops and starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tt_dynamo.devices.clusters import CLUSTERS
from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.chip import Chip, Cost, chip_of
from tt_dynamo.estimate.tensor import Call, Tensor

X = Tensor((1, 1, 128, 4096))  # 1 MB
NAMES = ("all_gather", "reduce_scatter", "all_reduce", "broadcast", "all_broadcast", "all_to_all_dispatch")


def chip(name: str, mesh: tuple[int, int] | None = None) -> Chip:
    cluster = CLUSTERS[name]
    return chip_of(cluster.board, mesh=mesh or cluster.shape, links=cluster.links_between)


def cost(name: str, on: Chip, x: Tensor = X, axis: int | None = 1) -> Cost:
    return estimate(Call(f"ttnn.{name}", (x,), (x,), {"cluster_axis": axis}), on)


def test_a_reduction_over_a_t3000_sends_its_bytes_twice_over_one_link() -> None:
    on = chip("t3k")
    sent, hops, starts = 2 * X.bytes * 7 / 8 / 12.5, 14 * 1000, 2 * on.cycles(on.k.start_cycles)
    found = cost("all_reduce", on)
    assert found.seconds * 1e9 == pytest.approx(sent + hops + starts, rel=0.02)
    assert (found.launches, found.bound, found.family) == (2, "NoC", "collective")


def test_parts_that_are_no_whole_tiles_are_broadcast_joined_and_added() -> None:
    on, x = chip("t3k"), Tensor((1, 1, 128, 896))
    found = cost("all_reduce", on, x)
    assert found.launches == 3
    assert found.seconds > cost("all_reduce", on, Tensor((1, 1, 128, 1024))).seconds


def test_a_gather_brings_the_parts_of_the_others_along_its_axis() -> None:
    on = replace(chip("t3k", (2, 4)), k=chip("t3k").k)
    fixed = on.cycles(on.k.start_cycles)
    for axis, chips in ((0, 2), (1, 4), (None, 8)):
        expected = X.bytes * (chips - 1) / 12.5 + (chips - 1) * 1000 + fixed
        assert cost("all_gather", on, axis=axis).seconds * 1e9 == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_more_links_and_faster_ones_take_less_time(name: str) -> None:
    t3k, p150x8 = chip("t3k"), chip("p150x8")
    assert cost(name, replace(t3k, links=2)).seconds < cost(name, t3k).seconds
    assert cost(name, p150x8).seconds < cost(name, t3k).seconds


@pytest.mark.parametrize("name", NAMES)
def test_more_chips_and_more_bytes_take_more_time(name: str) -> None:
    assert cost(name, chip("n300")).seconds < cost(name, chip("t3k")).seconds
    larger = Tensor((1, 1, 512, 4096))
    assert cost(name, chip("t3k")).seconds < cost(name, chip("t3k"), larger).seconds


def test_a_partition_sends_nothing() -> None:
    part = Tensor((1, 1, 128, 512))
    call = Call("ttnn.mesh_partition", (X,), (part,), {"cluster_axis": 1})
    assert estimate(call, chip("t3k")) == estimate(replace(call, name="ttnn.slice"), chip("t3k"))


def test_a_link_of_those_to_a_chip_without_pcie_is_the_dispatchers() -> None:
    found = {name: cluster.links_between for name, cluster in CLUSTERS.items() if cluster.chips > 1}
    assert found == {"n300": 1, "t3k": 1, "p300": 2, "p150x2": 4, "p150x4": 2, "p150x8": 2, "galaxy": 4}
