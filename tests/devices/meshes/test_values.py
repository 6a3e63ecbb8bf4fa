"""Values of the chips of a mesh: collectives, uploads, downloads and writes against torch, each mesh in a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fresh_process import FreshProcess

from tt_dynamo.devices.mock.toolchain import cache_root

# Runs every check of CHECKS on the mesh that is named, and prints what each of them raised.
CODE = """
import json, sys, traceback
import torch
from mesh_checks import CHECKS, Checked
from tt_dynamo.devices import open_device

checked = Checked(open_device({choice!r}))
found = {{}}
for check in CHECKS:
    try:
        check(checked)
        found[check.__name__] = ""
    except BaseException:
        found[check.__name__] = traceback.format_exc()[-1500:]
checked.device.close()
print(json.dumps(found))
"""


def names() -> list[str]:
    from mesh_checks import CHECKS

    return [check.__name__ for check in CHECKS]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the checks said on a mesh, all of them in one process."""
    found: dict[str, dict[str, Any]] = {}

    def run(choice: str) -> dict[str, Any]:
        if choice not in found:
            fresh = FreshProcess(
                tmp_path_factory.mktemp("values"), seconds=400
            )  # all checks, and kernels of eight chips
            code = CODE.format(choice=choice)
            found[choice] = fresh.run(code, TT_DYNAMO_CACHE=str(cache_root()), PYTHONPATH=str(Path(__file__).parent))
        return found[choice]

    return run


@pytest.mark.parametrize("choice", ["n300", "t3k", "t3k:2x4"])
@pytest.mark.parametrize("name", names())
def test_values_of_a_mesh(checked: Any, choice: str, name: str) -> None:
    assert checked(choice)[name] == ""
