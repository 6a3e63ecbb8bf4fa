"""Convolutional networks on P150, in one process of its own: a process can hold one board."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fresh_process import BOARD

pytestmark = pytest.mark.skipif(BOARD == "p150", reason="this is the run on P150")


def run_on_p150(selected: str, marked: str, seconds: int) -> None:
    file = Path(__file__).with_name("test_image_networks.py")
    arguments = ["-m", marked, "-k", selected, "-p", "no:cacheprovider", "-p", "no:logging", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=file.parents[2],
        env={**os.environ, "TT_DYNAMO_TEST_BOARD": "p150"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout


def test_a_small_unet_runs_whole_on_p150() -> None:
    run_on_p150("small_unet", "not slow", 280)


@pytest.mark.slow
def test_the_networks_run_whole_on_p150() -> None:
    run_on_p150("a_network_runs", "slow", 3000)
