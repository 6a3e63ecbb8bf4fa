"""A second start reads its weights from files: the same bits, and never those of another weight or of a bad file."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fresh_process import BOARD, FreshProcess
from torch import nn

import tt_dynamo
from tt_dynamo.ir.spec import Spec
from tt_dynamo.report.report import GraphReport
from tt_dynamo.runtime.folder import remove_least_recent
from tt_dynamo.runtime.transfer import Border
from tt_dynamo.runtime.weight_cache import WeightCache

pytestmark = pytest.mark.usefixtures("clean_dynamo")

SPEC = Spec((256, 256), "bfloat8_b", "TILE")
X = torch.randn(32, 256, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))


def started(module: nn.Module, folder: Path | str | None, **options: Any) -> tuple[torch.Tensor, tt_dynamo.GraphReport]:
    """What a model gives, compiled anew, with block floats for its weights; and its report."""
    torch._dynamo.reset()
    options = {"device": BOARD, "weight_dtype": "bfloat8_b", "weight_cache": folder, **options}
    with tt_dynamo.record() as reports, torch.no_grad():
        y = torch.compile(module, backend="ttnn", dynamic=False, options=options)(X)
    return y, reports[0]


def counts(report: tt_dynamo.GraphReport) -> tuple[int, int]:
    return report.weights_read, report.weights_written


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", ["bfloat8_b", "bfloat4_b"])
def test_a_second_start_reads_what_the_first_wrote_and_gives_the_same_bits(
    folder: Path, uploads: list[tuple[int, ...]], dtype: str
) -> None:
    without, report = started(model(), None, weight_dtype=dtype)
    assert counts(report) == (0, 0)
    first, report = started(model(), folder, weight_dtype=dtype)
    assert counts(report) == (0, 2) and not report.notes
    uploads.clear()
    second, report = started(model(), folder, weight_dtype=dtype)
    assert counts(report) == (2, 0) and not report.notes
    assert "2 weights read, 0 written" in str(report)
    assert (256, 256) not in uploads, "no weight was converted"
    assert torch.equal(first, without) and torch.equal(second, without)


def test_a_weight_that_changed_is_read_from_no_file_and_makes_none(folder: Path) -> None:
    module = model()
    compiled = torch.compile(
        module,
        backend="ttnn",
        dynamic=False,
        options={"device": BOARD, "weight_dtype": "bfloat8_b", "weight_cache": folder},
    )
    with torch.no_grad():
        compiled(X)
        before = files(folder)
        module[0].weight.mul_(-1)
        changed = compiled(X)
    assert files(folder) == before
    assert torch.equal(changed, started(copy.deepcopy(module), None)[0])
    _, report = started(copy.deepcopy(module), folder)
    assert counts(report) == (1, 1), "a changed weight is another one for the next start"


def test_weights_in_bfloat16_and_small_ones_make_no_files(folder: Path) -> None:
    _, report = started(model(), folder, weight_dtype="bfloat16")
    assert counts(report) == (0, 0) and not folder.exists()
    small = nn.Linear(256, 32)
    assert counts(started(small, folder)[1]) == (0, 0)


def test_a_dry_run_which_has_no_contents_makes_no_files(folder: Path) -> None:
    _, report = started(model(), folder, dry_run=True)
    assert counts(report) == (0, 0) and not folder.exists()


def test_convolutions_are_prepared_anew_on_the_emulated_device(folder: Path) -> None:
    torch.manual_seed(0)
    image, conv = torch.randn(1, 128, 8, 8), nn.Conv2d(128, 64, 3, padding=1)
    for _ in range(2):
        torch._dynamo.reset()
        options = {"device": BOARD, "weight_cache": folder}
        with tt_dynamo.record() as reports, torch.no_grad():
            y = torch.compile(conv, backend="ttnn", options=options)(image)
            torch.testing.assert_close(y, conv(image), rtol=0.02, atol=0.02)
        assert counts(reports[0]) == (0, 0) and not reports[0].fallbacks and not folder.exists()


# --- bad files ------------------------------------------------------------------------------------------------------


def in_the_middle(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1  # of a mantissa: TTNN would load it
    path.write_bytes(contents)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": in_the_middle,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "another's": lambda path: path.write_text("this is no tensor\n" * 100),
    "another name": lambda path: path.rename(path.with_name("model.tensorbin")),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_bad_file_is_ignored_with_a_note_and_written_anew(folder: Path, what: str, warnings_logged: Any) -> None:
    expected, _ = started(model(), folder)
    before = files(folder)
    DAMAGES[what](before[0])
    y, report = started(model(), folder)
    assert torch.equal(y, expected)
    (note,) = report.notes
    assert str(before[0].parent) in note and "damaged or not of this cache" in note
    assert any(note in message for message in warnings_logged())
    assert counts(report) == (1, 1) and files(folder) == before
    y, report = started(model(), folder)
    assert torch.equal(y, expected) and counts(report) == (2, 0)


def test_a_sound_file_of_another_weight_is_not_taken(folder: Path) -> None:
    expected, _ = started(model(), folder)
    one, other = files(folder)
    one.unlink()
    other.rename(one.parent / other.name)  # it carries its own digest in its name
    y, report = started(model(), folder)
    assert torch.equal(y, expected)
    assert len(report.notes) == 1 and counts(report) == (0, 2)


# --- bad folders ----------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_a_note_and_the_weights_go_up_converted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    expected, _ = started(model(), None)
    for folder in (tmp_path / "file", "/proc/weights"):
        y, report = started(model(), folder)
        assert torch.equal(y, expected) and counts(report) == (0, 0)
        assert f"{folder} cannot be written (" in report.notes[-1] and not report.fallbacks


START = f"""
import json, resource, sys, torch, tt_dynamo, tt_dynamo.options
torch.manual_seed(0)
linear = torch.nn.Linear(512, 512)
if LIMIT:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))  # what a full disk does to a file
tt_dynamo.options.DEFAULT_PRESET = "accuracy"
options = {{"device": {BOARD!r}, "weight_dtype": "bfloat8_b", "weight_cache": "../weights"}}
with tt_dynamo.record() as reports, torch.no_grad():
    y = torch.compile(linear, backend="ttnn", options=options)(torch.randn(32, 512))
(report,) = reports
found = {{"read": report.weights_read, "written": report.weights_written, "notes": report.notes}}
print(json.dumps({{**found, "y": y.flatten().tolist()}}))
"""


def start_here(folder: Path) -> tuple[list[float], tt_dynamo.GraphReport]:
    """What START does, in this process and without a limit."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    linear = nn.Linear(512, 512)
    options = {"device": BOARD, "weight_dtype": "bfloat8_b", "weight_cache": folder}
    with tt_dynamo.record() as reports, torch.no_grad():
        y = torch.compile(linear, backend="ttnn", options=options)(torch.randn(32, 512))
    return y.flatten().tolist(), reports[0]


def test_a_full_disk_leaves_no_file_and_a_note(fresh_process: FreshProcess, folder: Path) -> None:
    full = fresh_process.run("LIMIT = 100_000\n" + START)
    assert full["read"] == full["written"] == 0
    assert "weights cannot be written (Failed to write" in full["notes"][0]
    assert not files(folder)
    assert start_here(folder)[0] == full["y"]


@pytest.mark.slow
def test_two_processes_fill_one_folder_at_once(fresh_process: FreshProcess, folder: Path) -> None:
    both = [fresh_process.start("LIMIT = 0\n" + START) for _ in range(2)]
    one, other = map(fresh_process.finish, both)
    y, report = start_here(folder)
    assert one["y"] == other["y"] == y
    assert not one["notes"] + other["notes"] + report.notes
    assert len(files(folder)) == 1 and counts(report) == (1, 0)


# --- the limit ------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_files_go_where_a_folder_has_more_bytes_than_allowed(
    board_device: Any, folder: Path
) -> None:
    first, second, third = (torch.full((256, 256), float(number)) for number in (1, 2, 3))
    lifted(board_device, folder, first)
    (file,) = files(folder)
    limit = 2 * file.stat().st_size
    lifted(board_device, folder, second, limit=limit)
    for age, path in enumerate([file, *(path for path in files(folder) if path != file)]):
        os.utime(path, (1000 + age, 1000 + age))
    assert counts(lifted(board_device, folder, first)) == (1, 0), "which is used now, after the second"
    assert counts(lifted(board_device, folder, third, limit=limit)) == (0, 1)
    assert len(files(folder)) == 2
    assert counts(lifted(board_device, folder, first)) == counts(lifted(board_device, folder, third)) == (1, 0)
    assert counts(lifted(board_device, folder, second)) == (0, 1)


def test_a_file_that_another_process_removed_meanwhile_is_no_error(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"12345")
    gone = [tmp_path / "gone", Path("/proc/version")]
    assert remove_least_recent([*gone, kept], 4) == 0 and not kept.exists()


# --- keys -----------------------------------------------------------------------------------------------------------


def lifted(device: Any, folder: Path, tensor: torch.Tensor, spec: Spec = SPEC, limit: int = 1 << 30) -> GraphReport:
    report = GraphReport("graph", "a board")
    border = Border(device, device.namespace(), dry_run=False, cache=WeightCache(folder, report, limit))
    assert border.up_first(tensor, spec).shape == spec.shape
    return report


@pytest.mark.parametrize("other", ["contents", "dtype", "transposed", "shape", "target"])
def test_what_differs_in_anything_has_a_file_of_its_own(board_device: Any, folder: Path, other: str) -> None:
    w = torch.arange(256.0).repeat(256, 1)
    assert counts(lifted(board_device, folder, w)) == (0, 1)
    assert counts(lifted(board_device, folder, w.clone())) == (1, 0)
    tensor = {
        "contents": w.index_fill(0, torch.tensor([255]), 7.0),
        "dtype": w.bfloat16(),
        "transposed": w.t(),
        "shape": w.reshape(512, 128),
    }.get(other, w)
    dtype = "bfloat4_b" if other == "target" else "bfloat8_b"
    assert counts(lifted(board_device, folder, tensor, Spec(tuple(tensor.shape), dtype, "TILE"))) == (0, 1)


def test_another_version_or_board_converts_for_itself(
    board_device: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = torch.ones(256, 256)
    lifted(board_device, folder, w)
    monkeypatch.setattr("tt_dynamo.runtime.weight_cache.version", lambda name: "next")
    assert counts(lifted(board_device, folder, w)) == (0, 1)
    monkeypatch.setattr(board_device, "cluster", "another")
    assert counts(lifted(board_device, folder, w)) == (0, 1)


def test_a_prepared_weight_of_hardware_is_loaded_as_it_was_prepared(board_device: Any, folder: Path) -> None:
    ttnn = board_device.namespace(dry_run=True)
    hardware = SimpleNamespace(emulated=False, handle=board_device.handle, description=board_device.board)
    prepare = "ttnn.typecast(ttnn.to_layout(ttnn.to_device(weight, device), ttnn.TILE_LAYOUT), ttnn.bfloat8_b)"
    spec = dataclasses.replace(SPEC, dtype="bfloat16", prepare=prepare)
    found = []
    for expected in ((0, 1), (1, 0)):
        report = GraphReport("graph", "a board")
        border = Border(hardware, ttnn, dry_run=False, cache=WeightCache(folder, report, 1 << 30))  # type: ignore[arg-type]
        found.append(border.up_first(torch.ones(256, 256), spec))
        assert counts(report) == expected and not report.notes
    assert found[0].spec == found[1].spec and found[1].dtype == ttnn.bfloat8_b and found[1].device() is not None
