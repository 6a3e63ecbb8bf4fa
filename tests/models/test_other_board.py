"""The encoders on P150, in one process of its own: a process can hold one board."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fresh_process import BOARD

SELECTED = "gives_eager_s_values and (minilm-8 or bert-base-1 or vit-base-1 or siglip-base-1)"


@pytest.mark.skipif(BOARD == "p150", reason="this is the run on P150")
def test_the_encoders_run_whole_on_p150() -> None:
    file = Path(__file__).with_name("test_encoders.py")
    arguments = ["-m", "not slow", "-k", SELECTED, "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=file.parent.parent.parent,
        env={**os.environ, "TT_DYNAMO_TEST_BOARD": "p150"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout
