"""Encoders and convolutional networks on P150, in a process of their own: a process can hold one board."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fresh_process import BOARD

pytestmark = pytest.mark.skipif(BOARD == "p150", reason="this is the run on P150")

FILES = [str(Path(__file__).with_name(name)) for name in ("test_encoders.py", "test_image_networks.py")]


def run_on_p150(selected: str, marked: str, seconds: int) -> None:
    arguments = ["-m", marked, "-k", selected, "-p", "no:cacheprovider", "-p", "no:logging", *FILES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TT_DYNAMO_TEST_BOARD": "p150"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_encoders_and_a_small_unet_run_whole_on_p150() -> None:
    run_on_p150("gives_eager_s_values and (minilm-8 or vit-base-1) or small_unet", "not slow", 280)


@pytest.mark.slow
def test_other_encoders_and_the_networks_run_whole_on_p150() -> None:
    others = "an_encoder_runs_whole and (bert-base-1 or siglip-base-1)"
    run_on_p150(f"{others} or a_network_runs", "slow or not slow", 3000)
