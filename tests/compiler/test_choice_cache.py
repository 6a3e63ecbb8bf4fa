"""What TTNN accepted is kept on disk: a second process does not search, and a bad file costs no more than a search."""

from __future__ import annotations

import gc
import json
import os
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fresh_process import BOARD, FreshProcess
from torch.fx import Graph

from tt_dynamo.compiler import choices as choices_module
from tt_dynamo.compiler.choices import Choices, choices_path
from tt_dynamo.compiler.recorder import Recorder
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.uses import Settings
from tt_dynamo.runtime import folder

CONFIG = SimpleNamespace(math_fidelity="HiFi4", fp32_dest_acc_en=True, packer_l1_acc=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "choices" / "board.jsonl"


class Asking:
    """A recorder with the choices in a file, as a process of its own has it; `asked` is what TTNN was asked."""

    def __init__(self, device: Any, path: Path, config: Any = CONFIG, grid: tuple[int, int] = (8, 8)) -> None:
        self.choices = Choices(path)
        settings = Settings(None, config, grid, device.handle, choices=self.choices)
        self.recorder = Recorder(device.namespace(dry_run=True), Graph(), settings)
        self.asked: list[Any] = []

    def choose(
        self, *candidates: Any, key: tuple[Any, ...] = ("slice", 1), largest: int = 64, words: str = "too large"
    ) -> Any:
        self.asked.clear()

        def call(candidate: Any) -> Any:
            self.asked.append(candidate)
            if candidate["size"] > largest:
                raise Refused(words)
            return candidate["size"]

        return self.recorder.choose(key, [{"size": candidate} for candidate in candidates], call)

    def sizes(self) -> list[int]:
        return [candidate["size"] for candidate in self.asked]


def test_a_second_process_asks_only_what_was_accepted(board_device: Any, path: Path) -> None:
    first, other = Asking(board_device, path), Asking(board_device, path.with_name("other.jsonl"))
    assert first.choose(256, 128, 64, 32) == 64 and first.sizes() == [256, 128, 64]
    second = Asking(board_device, path)
    assert second.choose(256, 128, 64, 32) == 64 and second.sizes() == [64]
    assert list(second.choices.values()) == [("size=64", 2)]
    assert other.choose(256, 128, 64, 32) == 64 and other.sizes() == [256, 128, 64], "another board's or version's file"


def test_of_what_ttnn_refused_whole_the_first_is_asked_for_its_words(board_device: Any, path: Path) -> None:
    for expected in ([256, 128], [256]):
        asking = Asking(board_device, path)
        with pytest.raises(Refused, match="too large"):
            asking.choose(256, 128)
        assert asking.sizes() == expected
    later = Asking(board_device, path)
    assert later.choose(256, 128, largest=256) == 256, "it is taken where TTNN takes it now"
    assert Asking(board_device, path).choose(256, 128, largest=256) == 256


def test_what_found_no_room_is_asked_whole_again(board_device: Any, path: Path) -> None:
    for _ in range(2):
        asking = Asking(board_device, path)
        with pytest.raises(Refused):
            asking.choose(256, 128, words="Out of Memory: Not enough space to allocate")
        assert asking.sizes() == [256, 128]


@pytest.mark.parametrize("what", ["key", "candidates", "precision", "grid"])
def test_another_question_is_asked_anew(board_device: Any, path: Path, what: str) -> None:
    Asking(board_device, path).choose(256, 64)
    config = SimpleNamespace(**{**vars(CONFIG), "fp32_dest_acc_en": what != "precision"})
    second = Asking(board_device, path, config, grid=(8, 7) if what == "grid" else (8, 8))
    sizes = (512, 256, 64) if what == "candidates" else (256, 64)
    second.choose(*sizes, key=("slice", 2 if what == "key" else 1))
    assert second.sizes() == [*sizes]


def test_what_ttnn_refuses_now_is_searched_for_and_kept(board_device: Any, path: Path) -> None:
    Asking(board_device, path).choose(128, 64, 32)
    second = Asking(board_device, path)
    assert second.choose(128, 64, 32, largest=32) == 32
    assert second.sizes() == [64, 128, 64, 32]
    third = Asking(board_device, path)
    assert third.choose(128, 64, 32, largest=32) == 32 and third.sizes() == [32]


def test_a_line_that_names_no_candidate_counts_for_nothing(board_device: Any, path: Path) -> None:
    Asking(board_device, path).choose(128, 64)
    path.write_text(path.read_text().replace("size=64", "size=65"))
    second = Asking(board_device, path)
    assert second.choose(128, 64) == 64 and second.sizes() == [128, 64]


def test_questions_without_a_text_are_of_this_process_only(board_device: Any, path: Path) -> None:
    first = Asking(board_device, path)
    first.choose(128, 64, key=("slice", len))
    first.choose(128, 64, key=("slice", len))
    assert first.sizes() == [64] and not path.exists()


# --- the file -------------------------------------------------------------------------------------------------------

DAMAGES = {
    "bytes": b"\xff\x00\xfe\n",
    "a torn line": b'["question", "cand',
    "another's": b"# some configuration\n",
    "another shape": b'["question", "candidate"]\n',
    "another type": b'["question", ["candidate"], 0]\n',
    "a number": b"7\n",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_lines_are_left_out_with_a_warning_and_the_others_kept(
    path: Path, what: str, warnings_logged: Any
) -> None:
    Choices(path)["question"] = "candidate", 3
    path.write_bytes(path.read_bytes() + DAMAGES[what])
    assert Choices(path) == {"question": ("candidate", 3)}
    (warning,) = warnings_logged()
    assert f"{path}: 1 of 2 lines are damaged" in warning
    assert Choices(path) == {"question": ("candidate", 3)} and not warnings_logged(), "the file is sound again"


def test_two_that_write_at_once_lose_nothing(path: Path) -> None:
    one, other = Choices(path), Choices(path)
    for number in range(50):
        one[f"one {number}"] = other[f"other {number}"] = "candidate", number
    both = Choices(path)
    assert both == {**one, **other} and len(both) == 100


def test_the_same_answer_is_written_once(path: Path) -> None:
    choices = Choices(path)
    for count in (1, 1, 2):
        choices["question"] = "candidate", count
    assert [json.loads(line)[2] for line in path.read_text().splitlines()] == [1, 2]
    assert Choices(path) == {"question": ("candidate", 2)}


def test_a_folder_that_cannot_be_written_is_warned_of_once(tmp_path: Path, warnings_logged: Any) -> None:
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file" / "board.jsonl", Path("/proc/tt_dynamo/board.jsonl")):
        choices = Choices(path)
        choices["one"], choices["two"] = ("candidate", 0), ("candidate", 1)
        (warning,) = warnings_logged()
        assert str(path) in warning and "is not kept for the next process" in warning
        assert choices == {"one": ("candidate", 0), "two": ("candidate", 1)}


def test_a_full_disk_is_warned_of_once(path: Path, warnings_logged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    choices, write = Choices(path), os.write
    monkeypatch.setattr(choices_module.os, "write", lambda file, data: write(file, data[:5]))
    choices["one"], choices["two"] = ("candidate", 0), ("candidate", 1)
    (warning,) = warnings_logged()
    assert "the disk is full" in warning and len(path.read_bytes()) == 5


def test_a_file_that_grew_too_long_keeps_what_was_chosen_last(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = Choices(path)
    for number in range(100):
        choices[f"question {number}"] = "candidate", number
    monkeypatch.setattr(choices_module, "LIMIT", path.stat().st_size - 1)
    kept = Choices(path)
    assert 30 < len(kept) < 60 and kept["question 99"] == ("candidate", 99)
    assert path.stat().st_size < choices_module.LIMIT * 0.6 and Choices(path) == kept


def test_files_of_the_folder_that_were_used_longest_ago_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, older = path.with_name("old.jsonl"), path.with_name("older.jsonl")
    for age, file in enumerate((path, old, older)):
        Choices(file)["question"] = "candidate", 0
        os.utime(file, (1000 - age, 1000 - age))
    monkeypatch.setattr(choices_module, "FOLDER_LIMIT", 2 * path.stat().st_size)
    assert Choices(path) and old.exists() and not older.exists()


def test_what_garbage_holds_of_l1_has_no_candidate_asked_again(
    board_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ttnn = board_device.namespace(dry_run=True)
    options = {"device": BOARD, "dry_run": True}
    layer = torch.nn.Linear(2048, 1024)
    searched: list[Any] = []
    search = Recorder._by_cost
    monkeypatch.setattr(Recorder, "_by_cost", lambda self, *given: searched.append(given) or search(self, *given))
    gc.collect()
    gc.disable()
    try:
        for _number in range(2):
            torch._dynamo.reset()
            with torch.no_grad():
                torch.compile(layer, backend="ttnn", options=options)(torch.zeros(256, 2048))
            assert len(searched) == 1, "the second graph asks what the first did"
            place = {"device": board_device.handle, "memory_config": ttnn.L1_MEMORY_CONFIG}
            cycle: list[Any] = [ttnn.empty((1024, 1024), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, **place)]
            cycle.append(cycle)
            del cycle
    finally:
        gc.enable()


def test_boards_and_versions_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(board: str = "n150", emulated: bool = True) -> str:
        return choices_path(SimpleNamespace(board=board, emulated=emulated)).name  # type: ignore[arg-type]

    names = [named(), named("p150"), named(emulated=False)]
    monkeypatch.setattr(choices_module, "version", lambda package: "0.82")
    names.append(named())
    monkeypatch.setattr(choices_module, "sources_digest", lambda: "changed")
    names.append(named())
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "changed", ["tt_dynamo/compiler/banks.py", "tt_dynamo/default.json", "tt_dynamo.lowering/memory.py"]
)
def test_whatever_changes_of_our_code_begins_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    for name in (
        "tt_dynamo/compiler/banks.py",
        "tt_dynamo/default.json",
        "tt_dynamo.lowering/memory.py",
        "tt_dynamo.passes/a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    def spec_of(package: str) -> ModuleSpec:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / package)]
        return spec

    monkeypatch.setattr(folder, "find_spec", spec_of)
    before = folder.sources_digest.__wrapped__()
    (tmp_path / changed).write_text("changed")
    assert folder.sources_digest.__wrapped__() != before


# --- processes ------------------------------------------------------------------------------------------------------

SEARCH = f"""
import json, torch, tt_dynamo
from tt_dynamo.compiler import recorder

asked, questions = [], []

def counted(search):
    def searching(candidates, call, *rest):
        questions.append(candidates)

        def asking(candidate):
            asked.append(candidate)
            return call(candidate)
        return search(candidates, asking, *rest)
    return searching

recorder.first_accepted = counted(recorder.first_accepted)
recorder.search_cheapest = counted(recorder.search_cheapest)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 7, 2, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1))
options = {{"device": {BOARD!r}, "dry_run": True, "preset": "accuracy"}}
with tt_dynamo.record() as reports, torch.no_grad():
    torch.compile(model, backend="ttnn", options=options)(torch.randn(2, 3, 512, 512))
choices = [(c.operation, c.candidate, c.refused) for c in reports[0].choices]
found = {{"asked": len(asked), "questions": len(questions), "choices": choices}}

costed, search = [], recorder.Recorder._by_cost
recorder.Recorder._by_cost = lambda self, *given: costed.append(given) or search(self, *given)
layer = torch.nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, activation="gelu").eval()
model = torch.nn.Sequential(layer, torch.nn.LayerNorm(768), torch.nn.Linear(768, 2048), torch.nn.RMSNorm(2048))
with torch.no_grad():
    torch.compile(model, backend="ttnn", dynamic=False, options=options)(torch.zeros(1, 2, 768))
print(json.dumps({{**found, "code": reports[0].code, "costed": len(costed)}}))
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a process searched that began without choices, and what the next one did."""
    process = FreshProcess(tmp_path_factory.mktemp("processes"))
    return [process.run(SEARCH) for _ in range(2)]


def test_a_second_process_searches_nothing_of_what_is_costed(processes: list[dict[str, Any]]) -> None:
    first, second = processes
    assert first["costed"] > 3 and second["costed"] == 0


def test_a_second_process_searches_nothing_and_has_the_same_program(processes: list[dict[str, Any]]) -> None:
    first, second = processes
    assert first["asked"] > first["questions"] > 0, "TTNN refused something"
    assert second["asked"] == second["questions"], "of every attempt what was chosen alone"
    assert (second["choices"], second["code"]) == (first["choices"], first["code"])
