"""Opening devices: choices, errors, what is left behind. Most of it needs a process that has opened nothing yet."""

import os
from pathlib import Path
from typing import Any

import pytest
from fresh_process import BOARD, FreshProcess

from tt_dynamo.devices import Device, DeviceError, open_device
from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS
from tt_dynamo.devices.clusters import CLUSTERS

OTHER_BOARDS = [name for name, cluster in CLUSTERS.items() if cluster.chips == 1 and name != BOARD]

FIRST = """
    import json, logging, os, sys
    from importlib.util import find_spec
    from pathlib import Path

    logging.basicConfig(filename="../log", format="%(levelname)s %(name)s %(message)s", level=logging.INFO)
    refused = {}
    before = dict(os.environ)
    package = Path(find_spec("ttnn").origin).parent

    def stamps():  # other processes may compile it to bytecode
        files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        return {str(path): path.lstat().st_mtime_ns for path in files if ".pyc." not in path.name}

    untouched = stamps()
    from tt_dynamo.devices import DeviceError, open_device
    imported = [name for name in ("ttnn", "torch", "loguru") if name in sys.modules]
    for choice in ("hardware", "n15O", 7):
        try:
            open_device(choice)
        except DeviceError as error:
            refused[str(choice)] = str(error)
    device = open_device()
    restored = dict(os.environ) == before
    try:
        open_device("p150")
    except DeviceError as error:
        refused["p150"] = str(error)

    import torch
    ttnn, raw = device.namespace(), device.namespace(dry_run=True)
    one = torch.ones(64, 64)
    x = ttnn.from_torch(one, dtype=raw.bfloat16, layout=raw.TILE_LAYOUT, device=device.handle)
    y = ttnn.linear(x, x, activation="relu")
    try:
        raw.matmul(raw.to_layout(x.tensor, raw.ROW_MAJOR_LAYOUT), x.tensor)
    except RuntimeError as error:
        refused["matmul"] = str(error)
    print(json.dumps({
        "imported": imported, "refused": refused, "restored": restored,
        "description": device.description, "module": raw.linear is sys.modules["ttnn"].linear,
        "shared": open_device("n150") is device is open_device("auto") is open_device(device),
        "handle": open_device(device.handle) is device,
        "package_changed": stamps() != untouched,
        "value": ttnn.to_torch(y)[0, 0].item(), "after": dict(os.environ) == before,
    }))
"""


@pytest.fixture(scope="module")
def first(fresh: FreshProcess) -> dict[str, Any]:
    """What a process saw that opened the default device with an empty cache."""
    return fresh.run(FIRST) | {"log": (fresh.working.parent / "log").read_text().splitlines()}


# The choice of hardware depends on the machine: these tests say what happens on one that has none.
no_hardware = pytest.mark.skipif(Path("/dev/tenstorrent").exists(), reason="runs where there is no accelerator")


def test_importing_the_package_imports_neither_ttnn_nor_torch(first: dict[str, Any]) -> None:
    assert first["imported"] == []


@no_hardware
def test_auto_without_hardware_is_an_emulated_n150_and_says_so_once(first: dict[str, Any]) -> None:
    assert first["description"] == "n150 (emulated)"
    ours = [line for line in first["log"] if " tt_dynamo" in line]
    assert len(ours) == 1
    assert ours[0].startswith("INFO tt_dynamo.devices.device opened n150 (emulated)")
    assert "/dev/tenstorrent" in ours[0]


@no_hardware
def test_hardware_without_hardware_names_what_was_looked_for_and_what_to_do(first: dict[str, Any]) -> None:
    assert "/dev/tenstorrent" in first["refused"]["hardware"]
    assert "'n150'" in first["refused"]["hardware"]


def test_an_unknown_choice_names_the_nearest_known_one(first: dict[str, Any]) -> None:
    assert "did you mean 'n150'?" in first["refused"]["n15O"]
    assert "not 7" in first["refused"]["7"]


def test_another_board_in_the_same_process_is_refused_with_the_reason(first: dict[str, Any]) -> None:
    assert "one cluster per process" in first["refused"]["p150"]


def test_opening_again_gives_the_same_device(first: dict[str, Any]) -> None:
    assert first["shared"]
    assert first["handle"]


def test_the_environment_is_as_before_once_the_device_is_open(first: dict[str, Any]) -> None:
    assert first["restored"]
    assert first["after"]


def test_a_fresh_process_computes(first: dict[str, Any]) -> None:
    assert first["value"] == 64
    assert first["module"]


def test_nothing_is_written_but_to_our_cache(first: dict[str, Any], fresh: FreshProcess) -> None:
    assert not first["package_changed"]
    assert fresh.files(fresh.working) == set()
    assert fresh.files(fresh.home) == set()
    assert any(name.endswith(".elf") for name in fresh.files(fresh.cache))


def test_a_refused_call_raises_and_prints_nothing(first: dict[str, Any]) -> None:
    assert "must be tilized" in first["refused"]["matmul"]
    assert first["output"] == ""


@pytest.fixture(scope="module")
def owned(first: dict[str, Any], fresh: FreshProcess) -> dict[str, Any]:
    """What a process saw that opened an emulated N150 by itself, with the cache of the first process."""
    kernels = fresh.files(fresh.cache)
    found = fresh.run("""
        import json, os
        from tt_dynamo.devices import DeviceError, open_device
        from tt_dynamo.devices.clusters import CLUSTERS
        from tt_dynamo.devices.mock.toolchain import mock_environment

        def refusal(choice):
            try:
                return f"no error, but {open_device(choice)}"
            except DeviceError as error:
                return str(error)

        os.environ.update(mock_environment(CLUSTERS["n150"]))
        import torch, ttnn
        handle = ttnn.open_mesh_device(ttnn.MeshShape(1, 1))
        refusals = [refusal("p150")]
        device = open_device(handle)
        refusals.append(refusal("p150"))
        shared = open_device(handle) is open_device("n150") is open_device("auto") is device

        def linear(handle, namespace):
            x = namespace.from_torch(torch.ones(64, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=handle)
            return namespace.linear(x, x, activation="relu")

        value = device.namespace().to_torch(linear(handle, device.namespace()))[0, 0].item()
        device.close()
        after_close = list(linear(handle, ttnn).shape)
        open_device(handle)
        ttnn.close_mesh_device(handle)
        refusals.append(refusal(handle))
        ours = open_device("n150")
        print(json.dumps({
            "description": device.description, "shared": shared, "value": value, "refusals": refusals,
            "after_close": after_close, "ours": ours.handle is not handle and list(linear(ours.handle, ttnn).shape),
        }))
    """)
    return found | {"new_files": fresh.files(fresh.cache) - kernels}


def test_a_device_that_the_user_opened_is_used(owned: dict[str, Any]) -> None:
    assert owned["description"] == "n150 (emulated)"
    assert owned["value"] == 64


def test_a_device_that_the_user_opened_is_what_its_name_gives_too(owned: dict[str, Any]) -> None:
    assert owned["shared"]


def test_a_device_that_the_user_opened_is_left_open(owned: dict[str, Any]) -> None:
    assert owned["after_close"] == [64, 64]


def test_a_device_that_the_user_closed_is_refused_and_gives_way_to_ours(owned: dict[str, Any]) -> None:
    assert "was closed" in owned["refusals"][2]
    assert owned["ours"] == [64, 64]


def test_a_board_is_refused_when_the_user_opened_another(owned: dict[str, Any]) -> None:
    before_we_saw_it, after = owned["refusals"][:2]
    assert "already opened 'n150'" in before_we_saw_it
    assert "already opened 'n150'" in after


def test_kernels_come_from_the_cache_in_the_next_process(owned: dict[str, Any]) -> None:
    assert {name for name in owned["new_files"] if "/kernels/" in name} == set()


def test_a_closed_device_says_so_and_can_be_opened_again(fresh: FreshProcess) -> None:
    found = fresh.run("""
        import json
        from tt_dynamo.devices import DeviceError, EmulationError, open_device
        import torch

        def said(action, kind):
            try:
                return f"no error, but {action()}"
            except kind as error:
                return str(error)

        device = open_device("n150")
        ttnn = device.namespace()
        options = {"dtype": ttnn.bfloat16, "layout": ttnn.TILE_LAYOUT}
        x = ttnn.from_torch(torch.ones(2, 2), **options, device=device.handle)
        on_host = ttnn.from_torch(torch.ones(2, 2), **options)
        class Dependent:
            def release(self):
                lost.append(device.closed)

        lost, dependents = [], [Dependent(), Dependent()]
        device.depend(dependents[0])
        device.depend(dependents.pop())
        device.close()
        device.close()
        released = lost
        errors = [said(lambda: device.handle, DeviceError), said(device.namespace, DeviceError)]
        lost = [said(lambda: ttnn.to_torch(x), EmulationError), said(lambda: ttnn.relu(x), EmulationError)]
        again = open_device("n150")
        y = ttnn.to_device(on_host, again.handle)
        print(json.dumps({"errors": errors, "lost": lost, "released": released, "closed": device.closed,
                          "again": again is not device and not again.closed,
                          "sum": ttnn.to_torch(ttnn.add(y, y)).sum().item()}))
    """)
    assert found["closed"]
    assert found["released"] == [False], "once, while the device is open, and only what is still alive"
    assert all("was closed; open it again" in error for error in found["errors"])
    assert all("lost when its device was closed" in error for error in found["lost"])
    assert found["again"]
    assert found["sum"] == 8


def test_several_processes_may_fill_an_empty_cache_at_once(tmp_path: Path) -> None:
    code = """
        import json, torch
        from tt_dynamo.devices import open_device
        device = open_device("n150")
        ttnn = device.namespace()
        x = ttnn.from_torch(torch.ones(64, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device.handle)
        print(json.dumps({"value": ttnn.to_torch(ttnn.softmax(ttnn.linear(x, x), dim=-1))[0, 0].item()}))
    """
    both = FreshProcess(tmp_path)
    processes = [both.start(code) for _ in range(2)]
    assert [both.finish(process)["value"] for process in processes] == [1 / 64, 1 / 64]
    assert not [name for name in both.files(both.cache) if ".new-" in name]
    assert len(list(both.cache.iterdir())) == 1


@pytest.mark.parametrize("board", OTHER_BOARDS)
def test_each_other_board_opens_with_its_worker_grid(fresh: FreshProcess, board: str) -> None:
    found = fresh.run(f"""
        import json
        from tt_dynamo.devices import open_device
        device = open_device({board!r})
        ttnn = device.namespace(dry_run=True)
        # Enough tiles for every worker: TTNN places a program on all of them.
        x = ttnn.zeros((2048, 2048), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device.handle)
        ttnn.relu(x)
        grid = device.handle.compute_with_storage_grid_size()
        dram = ttnn.get_memory_view(device.handle, ttnn.BufferType.DRAM)
        print(json.dumps({{
            "board": device.board, "grid": [grid.x, grid.y], "arch": device.handle.arch().name,
            "architecture": device.architecture.name, "dram": dram.num_banks * dram.total_bytes_per_bank,
        }}))
    """)
    assert found["board"] == CLUSTERS[board].board
    assert (found["grid"], found["arch"]) == EXPECTED[board]
    facts = BOARD_DESCRIPTIONS[CLUSTERS[board].board]
    assert (found["grid"], found["architecture"]) == (list(facts.grid), facts.arch)
    assert 0.99 * facts.dram_bytes < found["dram"] <= facts.dram_bytes  # the driver keeps some


@pytest.mark.slow
def test_ttnn_still_checks_n300_programs_against_the_wrong_grid(fresh: FreshProcess) -> None:
    """The probe behind the workaround in `tt_dynamo/devices/boards.py`: when it fails, the workaround can go."""
    found = fresh.run("""
        import dataclasses, json, os
        from pathlib import Path
        from tt_dynamo.devices.clusters import CLUSTERS
        from tt_dynamo.devices.mock.toolchain import mock_environment

        n300 = dataclasses.replace(CLUSTERS["n300-1"], harvest_mask=0x42)
        Path("../n300.yaml").write_text(n300.descriptor)
        os.environ.update(mock_environment(n300), TT_METAL_MOCK_CLUSTER_DESC_PATH=str(Path("../n300.yaml").resolve()))
        import ttnn
        device = ttnn.open_device(device_id=0)
        grid = device.compute_with_storage_grid_size()
        x = ttnn.zeros((2048, 2048), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
        try:
            ttnn.relu(x)
            refusal = ""
        except RuntimeError as error:
            refusal = str(error)
        print(json.dumps({"grid": [grid.x, grid.y], "refusal": refusal}))
    """)
    assert found["grid"] == [8, 8]
    assert "The compute worker grid on this device is 8x7" in found["refusal"]


# Retail boards: N150 and one chip of N300 have 8x8 workers, P150 has 120 cores less the dispatch column.
EXPECTED = {"n150": ([8, 8], "WORMHOLE_B0"), "n300-1": ([8, 8], "WORMHOLE_B0"), "p150": ([11, 10], "BLACKHOLE")}


def test_the_board_under_test_has_its_worker_grid(device: Device) -> None:
    grid = device.handle.compute_with_storage_grid_size()
    assert ([grid.x, grid.y], device.handle.arch().name) == EXPECTED[BOARD]


@pytest.mark.parametrize(
    ("version", "advice"), [((3, 11), "CPython 3.10 and 3.12 only"), ((3, 12), "pip install 'ttnn==0.81.*'")]
)
def test_a_missing_ttnn_says_why_and_what_to_do(fresh: FreshProcess, version: tuple[int, int], advice: str) -> None:
    found = fresh.run(f"""
        import collections, json, sys
        sys.modules["ttnn"] = None  # as if it were not installed
        sys.version_info = collections.namedtuple("Version", "major minor")(*{version})
        from tt_dynamo.devices import DeviceError, open_device
        try:
            open_device("n150")
        except DeviceError as error:
            print(json.dumps({{"error": str(error)}}))
    """)
    assert "ttnn is not installed" in found["error"]
    assert advice in found["error"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere; run as another user")
def test_a_cache_that_cannot_be_written_says_which_and_what_to_set(fresh: FreshProcess, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "Set TT_DYNAMO_CACHE" in refusal_with_cache(fresh, tmp_path / "cache")


def test_a_cache_below_a_file_says_which_and_what_to_set(fresh: FreshProcess, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Set TT_DYNAMO_CACHE" in refusal_with_cache(fresh, tmp_path / "file" / "cache")


def refusal_with_cache(fresh: FreshProcess, cache: Path) -> str:
    found = fresh.run(
        """
        import json
        from tt_dynamo.devices import DeviceError, open_device
        try:
            open_device("n150")
        except DeviceError as error:
            print(json.dumps({"error": str(error)}))
        """,
        TT_DYNAMO_CACHE=str(cache),
    )
    assert str(cache) in found["error"]
    return str(found["error"])


def test_an_unknown_board_is_refused_while_one_is_open(device: Device) -> None:
    with pytest.raises(DeviceError, match="unknown device 'n15'; did you mean 'n150'"):
        open_device("n15")


def test_what_belongs_to_a_device_is_made_once_for_each() -> None:
    one, other = (Device(None, BOARD, emulated=True, owned=False) for _ in range(2))
    kept = one.resource(list, "ab")
    assert kept == ["a", "b"] and one.resource(list, "cd") is kept
    assert other.resource(list, "cd") == ["c", "d"] and one.resource(dict) == {}
