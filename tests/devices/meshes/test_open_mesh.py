"""Meshes are opened, shared, refused and closed; each cluster in a process of its own."""

from __future__ import annotations

from typing import Any

import pytest
from fresh_process import FreshProcess

from tt_dynamo.devices.mock.toolchain import cache_root


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs code in a fresh process with the cache of the tests, where the kernels of the fabric are."""
    fresh = FreshProcess(tmp_path_factory.mktemp("meshes"), seconds=400)
    start = """
        import json, os
        from tt_dynamo.devices import DeviceError, open_device

        def refusal(action, *given):
            try:
                return f"no error, but {action(*given)}"
            except DeviceError as error:
                return str(error)
    """
    return lambda code, **environment: fresh.run(start + code, TT_DYNAMO_CACHE=str(cache_root()), **environment)


@pytest.fixture(scope="module")
def ours(opening: Any) -> dict[str, Any]:
    """What a process saw that opened a T3000."""
    found: dict[str, Any] = opening("""
        before = dict(os.environ)
        refused = {"3x3": refusal(open_device, "t3k:3x3")}
        device = open_device("t3k")
        import ttnn
        grid = device.handle.compute_with_storage_grid_size()
        fabrics = [ttnn.get_fabric_config().name]
        facts = [device.description, device.board, device.choice, device.shape, device.chips, [grid.x, grid.y]]
        shared = all(open_device(choice) is device for choice in ("t3k", "auto", "t3k:1x8", device.choice))
        refused["2x4"] = refusal(open_device, "t3k:2x4")
        refused["n150"] = refusal(open_device, "n150")
        part = device.handle.create_submesh(ttnn.MeshShape(1, 2))
        of_user = open_device(part)
        parts = [of_user.description, of_user.choice, of_user.shape, open_device("t3k:1x2") is of_user]
        device.close()
        refused["closed"] = refusal(lambda: device.handle)
        refused["part closed"] = refusal(of_user.check_open)
        fabrics.append(ttnn.get_fabric_config().name)
        shapes = []
        for choice in ("t3k:2x4", "t3k:4x2", "t3k:1x4", "t3k:2x2", "t3k:1x1"):
            other = open_device(choice)
            shapes.append([other.description, list(other.handle.shape), ttnn.get_fabric_config().name])
            other.close()
        print(json.dumps({"refused": refused, "fabrics": fabrics, "facts": facts, "shared": shared, "parts": parts,
                          "shapes": shapes, "restored": dict(os.environ) == before}))
    """)
    return found


def test_a_t3000_is_a_line_of_eight_chips_of_n300s(ours: dict[str, Any]) -> None:
    assert ours["facts"] == ["t3k 1x8 (emulated)", "n300", "t3k:1x8", [1, 8], 8, [8, 8]]
    assert ours["restored"]
    assert ours["output"] == ""


def test_what_is_open_is_shared_by_all_that_name_it(ours: dict[str, Any]) -> None:
    assert ours["shared"]


def test_meshes_of_other_shapes_open_one_after_another(ours: dict[str, Any]) -> None:
    assert ours["shapes"] == [
        ["t3k 2x4 (emulated)", [2, 4], "FABRIC_1D"],
        ["t3k 4x2 (emulated)", [4, 2], "FABRIC_1D"],
        ["t3k 1x4 (emulated)", [1, 4], "FABRIC_1D"],
        ["t3k 2x2 (emulated)", [2, 2], "FABRIC_1D"],
        ["t3k 1x1 (emulated)", [1, 1], "DISABLED"],
    ]


def test_the_fabric_is_chosen_and_put_back(ours: dict[str, Any]) -> None:
    assert ours["fabrics"] == ["FABRIC_1D", "DISABLED"]


def test_more_chips_than_there_are_are_refused_with_what_is_there(ours: dict[str, Any]) -> None:
    assert "'t3k' has 8 chips, a mesh of 3x3 wants 9; 't3k:1x8' takes all" in ours["refused"]["3x3"]


def test_two_meshes_of_the_same_chips_are_refused(ours: dict[str, Any]) -> None:
    assert "its chips are open as a mesh of 1x8. Use 't3k:1x8' here, or close" in ours["refused"]["2x4"]
    assert "already opened 't3k', and TTNN keeps one cluster" in ours["refused"]["n150"]


def test_a_submesh_is_a_device_until_the_mesh_is_closed(ours: dict[str, Any]) -> None:
    assert ours["parts"] == ["t3k 1x2 (emulated)", "t3k:1x2", [1, 2], True]
    assert "was closed; open it" in ours["refused"]["closed"]
    assert "was closed; open it" in ours["refused"]["part closed"]


@pytest.fixture(scope="module")
def of_user(opening: Any) -> dict[str, Any]:
    """What a process saw whose user opened an N300 without a fabric, and then with one of their own choice."""
    found: dict[str, Any] = opening("""
        from tt_dynamo.devices.clusters import CLUSTERS
        from tt_dynamo.devices.mock.toolchain import mock_environment
        os.environ.update(mock_environment(CLUSTERS["n300"]))
        import ttnn
        refused = {}
        options = {"dispatch_core_config": ttnn.DispatchCoreConfig(ttnn.DispatchCoreType.WORKER)}
        mesh = ttnn.open_mesh_device(ttnn.MeshShape(1, 2), **options)
        refused["no fabric"] = refusal(open_device, mesh)
        ttnn.close_mesh_device(mesh)
        ttnn.set_fabric_config(ttnn.FabricConfig.FABRIC_2D)
        mesh = ttnn.open_mesh_device(ttnn.MeshShape(2, 1), **options)
        device = open_device(mesh)
        facts = [device.description, device.board, device.choice, open_device("auto") is device]
        refused["1x2"] = refusal(open_device, "n300")
        device.close()
        still_open = list(mesh.shape)
        device = open_device(mesh)
        ttnn.close_mesh_device(mesh)
        refused["closed"] = refusal(device.check_open)
        ttnn.set_fabric_config(ttnn.FabricConfig.FABRIC_2D)  # closing a mesh disables it
        ours = open_device("n300")
        fabrics = [ttnn.get_fabric_config().name]
        ours.close()
        fabrics.append(ttnn.get_fabric_config().name)
        print(json.dumps({"refused": refused, "facts": facts, "still_open": still_open, "fabrics": fabrics}))
    """)
    return found


def test_a_mesh_of_the_user_is_used_and_left_open(of_user: dict[str, Any]) -> None:
    assert of_user["facts"] == ["n300 2x1 (emulated)", "n300", "n300:2x1", True]
    assert of_user["still_open"] == [2, 1]


def test_a_mesh_of_the_user_without_fabric_is_refused_with_what_to_call(of_user: dict[str, Any]) -> None:
    assert (
        "ttnn.set_fabric_config(ttnn.FabricConfig.FABRIC_1D) before ttnn.open_mesh" in of_user["refused"]["no fabric"]
    )


def test_a_mesh_that_the_user_closed_says_so(of_user: dict[str, Any]) -> None:
    assert "n300 2x1 (emulated) that you opened was closed" in of_user["refused"]["closed"]


def test_another_shape_of_what_the_user_opened_is_refused(of_user: dict[str, Any]) -> None:
    assert "you opened a mesh of 2x1 of its chips" in of_user["refused"]["1x2"]


def test_a_fabric_that_the_user_chose_is_kept(of_user: dict[str, Any]) -> None:
    assert of_user["fabrics"] == ["FABRIC_2D", "FABRIC_2D"]


def test_several_hosts_are_refused(opening: Any) -> None:
    found = opening(
        """
        print(json.dumps({"refused": refusal(open_device, "n150")}))
        """,
        OMPI_COMM_WORLD_SIZE="2",
    )
    assert "one of 2 (tt-run, mpirun): meshes over several hosts are not supported" in found["refused"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("n300", ["n300 1x2 (emulated)", "n300", [8, 8], "FABRIC_1D"]),
        ("p300", ["p300 1x2 (emulated)", "p150", [11, 10], "FABRIC_1D"]),
        ("p150x2", ["p150x2 1x2 (emulated)", "p150", [11, 10], "FABRIC_1D"]),
        ("p150x4", ["p150x4 1x4 (emulated)", "p150", [11, 10], "FABRIC_1D"]),
        ("p150x8", ["p150x8 1x8 (emulated)", "p150", [11, 10], "FABRIC_1D"]),
        ("galaxy", ["galaxy 8x4 (emulated)", "n150", [8, 9], "FABRIC_1D"]),
    ],
)
def test_each_cluster_opens_as_its_usual_mesh(opening: Any, choice: str, expected: list[Any]) -> None:
    found = opening(f"""
        device = open_device({choice!r})
        import ttnn
        grid = device.handle.compute_with_storage_grid_size()
        facts = [device.description, device.board, [grid.x, grid.y], ttnn.get_fabric_config().name]
        device.close()
        print(json.dumps({{"facts": facts}}))
    """)
    assert found["facts"] == expected
