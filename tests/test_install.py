"""What an installed wheel holds: everything under our own name, found by torch without an import."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SOURCES = ("tt_dynamo", "passes", "lowering")

USE_IT = """
import pathlib, sys
import torch
assert "tt_dynamo" not in sys.modules
assert "ttnn" in torch._dynamo.list_backends()
compiled = torch.compile(torch.nn.Linear(32, 32), backend="ttnn", options={"fallback": "error"})
with torch.no_grad():
    assert compiled(torch.ones(2, 32)).shape == (2, 32)
import tt_dynamo, tt_dynamo.lowering, tt_dynamo.passes
here = pathlib.Path(sys.argv[1])
for module in (tt_dynamo, tt_dynamo.lowering, tt_dynamo.passes):
    assert here in pathlib.Path(module.__file__).parents, module.__file__
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, built from a copy so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.mark.slow
def test_nothing_of_ours_is_installed_under_a_common_name(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"tt_dynamo", metadata.name}
    assert (installed / "tt_dynamo" / "py.typed").exists()
    for name in ("passes", "lowering"):
        present = {path.name for path in (installed / "tt_dynamo" / name).glob("*.py")}
        assert present == {path.name for path in (REPOSITORY / name).glob("*.py")}


@pytest.mark.slow
def test_torch_finds_the_backend_of_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", USE_IT, str(installed)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=120)
