"""Which mesh is opened on hardware, and in which order meshes are closed, by stand-ins for TTNN."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tt_dynamo.devices import DeviceError
from tt_dynamo.devices.meshes import check_one_host, check_shape, close_mesh, default_shape, shape_of


def machine(kind: str, chips: int, system: tuple[int, ...]) -> Any:
    """TTNN on a machine with such a cluster."""
    cluster = SimpleNamespace(get_cluster_type=lambda: SimpleNamespace(name=kind))
    described = SimpleNamespace(SystemMeshDescriptor=lambda: SimpleNamespace(shape=lambda: system))
    internals = SimpleNamespace(multi_device=described)
    return SimpleNamespace(cluster=cluster, get_num_devices=lambda: chips, _ttnn=internals)


@pytest.mark.parametrize(
    ("kind", "chips", "system", "expected"),
    [
        ("N150", 1, (1, 1), (1, 1)),
        ("N300", 2, (1, 2), (1, 2)),
        ("T3K", 8, (2, 4), (1, 8)),  # as the emulated one
        ("P300_X2", 4, (2, 2), (2, 2)),
        ("CUSTOM", 6, (2, 4), (1, 6)),  # a description of other chips than there are
    ],
)
def test_hardware_is_opened_as_the_mesh_that_is_there(
    kind: str, chips: int, system: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert default_shape(machine(kind, chips, system)) == expected


def test_hardware_with_fewer_chips_says_what_is_there() -> None:
    ttnn = machine("N300", 2, (1, 2))
    check_shape(ttnn, "hardware", (2, 1))
    with pytest.raises(DeviceError, match=r"'hardware' has 2 chips, a mesh of 2x4 wants 8; 'hardware:1x2' takes all"):
        check_shape(ttnn, "hardware", (2, 4))


def test_a_mesh_of_other_than_two_axes_counts_as_a_line() -> None:
    assert [shape_of(SimpleNamespace(shape=shape)) for shape in ([2, 4], [8], [2, 2, 2])] == [(2, 4), (1, 8), (1, 8)]


def test_parts_of_a_mesh_are_closed_before_it() -> None:
    closed: list[str] = []

    def mesh(name: str, chips: int, *parts: Any) -> Any:
        return SimpleNamespace(name=name, get_num_devices=lambda: chips, get_submeshes=lambda: parts)

    ttnn = SimpleNamespace(
        close_device=lambda handle: closed.append(f"device {handle.name}"),
        close_mesh_device=lambda handle: closed.append(f"mesh {handle.name}"),
    )
    close_mesh(ttnn, mesh("whole", 4, mesh("half", 2, mesh("chip", 1)), mesh("rest", 2)))
    assert closed == ["device chip", "mesh half", "mesh rest", "mesh whole"]


def test_several_hosts_are_known_by_ttnns_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE", raising=False)
    for size, initialized in ((1, True), (4, False)):
        check_one_host(
            SimpleNamespace(
                distributed_context_is_initialized=lambda i=initialized: i,
                distributed_context_world_size=lambda n=size: n,
            )
        )
    with pytest.raises(DeviceError, match="one of 4"):
        check_one_host(
            SimpleNamespace(distributed_context_is_initialized=lambda: True, distributed_context_world_size=lambda: 4)
        )
