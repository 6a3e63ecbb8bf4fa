"""Models over several chips: values, launches and what crosses, each mesh in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checks_on_meshes import CHECKS
from fresh_process import FreshProcess

from tt_dynamo.devices.mock.toolchain import cache_root

# Runs checks on the mesh that is named, and prints what each of them raised.
CODE = """
import json, traceback, warnings
warnings.filterwarnings("ignore")
from checks_on_meshes import CHECKS, Mesh

found = {{}}
for name in {names!r}:
    try:
        CHECKS[name](Mesh({choice!r}))
        found[name] = ""
    except BaseException:
        found[name] = traceback.format_exc()[-2000:]
print(json.dumps(found))
"""
FOLDERS = [Path(__file__).parent, Path(__file__).parents[2], Path(__file__).parents[1] / "language"]
QUICK = {
    "n300": [
        "few steps of Llama", "weights that change", "programs that are kept", "a dumped program runs",
        "a batch that does not divide", "an operation that TTNN has not", "batches of vit", "a mesh that is closed",
    ],
    "t3k:2x4": ["both at once"],
    "t3k": ["few steps of Llama", "fewer heads of keys than chips", "bert"],
}  # fmt: skip
DECODERS = [name for name in CHECKS if name.endswith("Config")]
LONG = {
    "n300": [*DECODERS, "trained model", "bert", "vit", "t5", "whisper", "batches of resnet", "batches of swin"],
    "t3k": [
        *DECODERS,
        "traces",
        "trained model",
        "vit",
        "t5",
        "whisper",
        *(name for name in CHECKS if name.startswith("batches")),
    ],
    "p150x4": [*DECODERS, "batches of resnet", "batches of ssd"],
    "t3k:2x4": ["batches of resnet", "batches of vit"],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What checks said on a mesh, all of them in one process."""
    found: dict[Any, dict[str, str]] = {}

    def run(choice: str, names: list[str]) -> dict[str, str]:
        key = choice, tuple(names)
        if key not in found:
            fresh = FreshProcess(tmp_path_factory.mktemp("meshes"), seconds=60 + 90 * len(names))
            path = ":".join(map(str, FOLDERS))
            code = CODE.format(choice=choice, names=names)
            found[key] = fresh.run(code, TT_DYNAMO_CACHE=str(cache_root()), PYTHONPATH=path)
        return found[key]

    return run


@pytest.mark.parametrize(("choice", "name"), [(choice, name) for choice, names in QUICK.items() for name in names])
def test_on_a_mesh(said: Any, choice: str, name: str) -> None:
    assert said(choice, QUICK[choice])[name] == ""


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "name"), [(choice, name) for choice, names in LONG.items() for name in names])
def test_on_a_mesh_in_full(said: Any, choice: str, name: str) -> None:
    assert said(choice, LONG[choice])[name] == ""
