"""Imports between the folders run one way: each may import what its line names, and nothing else of ours."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ALLOWED = {
    "ir": set(),
    "devices": set(),
    "estimate": {"ir", "devices"},
    "report": {"ir"},
    "passes": {"ir"},
    "lowering": {"ir"},
    "configs": {"ir", "devices"},
    "options": {"ir", "passes", "devices", "configs"},
    "capture": {"ir", "options", "report"},
    "runtime": {"ir", "lowering", "devices", "report"},
    "tuner": {"ir", "report"},
    "artifacts": {"ir", "runtime", "report", "devices", "options"},
    "compiler": {
        "ir", "passes", "lowering", "runtime", "report", "devices", "estimate", "configs", "options", "tuner",
        "artifacts",
    },
}  # fmt: skip


def _files(room: str) -> list[Path]:
    folder = REPOSITORY / room if room in ("passes", "lowering") else REPOSITORY / "tt_dynamo" / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _imported(file: Path) -> set[str]:
    """The rooms of tt_dynamo that a file imports from."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("tt_dynamo.")}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_folder_imports_only_what_lies_below_it(room: str) -> None:
    wrong = {
        f"{file.relative_to(REPOSITORY)} → {other}"
        for file in _files(room)
        for other in _imported(file) - ALLOWED[room] - {room}
    }
    assert not wrong


def test_every_folder_has_its_line() -> None:
    folders = {path.name for path in (REPOSITORY / "tt_dynamo").iterdir() if (path / "__init__.py").exists()}
    assert folders | {"passes", "lowering"} == ALLOWED.keys() - {"options", "configs"}


def test_no_folder_has_more_than_20_files_and_no_file_more_than_400_lines() -> None:
    files = [
        file
        for top in ("tt_dynamo", "passes", "lowering", "tests", "benchmarks")
        for file in (REPOSITORY / top).rglob("*.py")
    ]
    per_folder: dict[Path, int] = {}
    for file in files:
        per_folder[file.parent] = per_folder.get(file.parent, 0) + 1
    assert not {str(folder.relative_to(REPOSITORY)): count for folder, count in per_folder.items() if count > 20}
    assert not {str(file.relative_to(REPOSITORY)) for file in files if len(file.read_text().splitlines()) > 400}
