"""How long compiling and emulating take: models whole, with an empty kernel cache and with a warm one.

Seconds of ours alone count: Dynamo and AOTAutograd are torch's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fresh_process import BOARD, FreshProcess

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Limits:
    """build: code that sets `model` and `x`. cold, warm: seconds of compiling. times: of eager torch's forward."""

    build: str
    cold: float
    warm: float
    times: float


LIMITS = {
    "ViT-base": Limits(
        """
from encoders import ENCODERS
encoder = ENCODERS["vit-base"]
model, (x,) = encoder.build(12).eval(), encoder.inputs(1).values()
""",
        cold=10,
        warm=3,
        times=3,
    ),
    "ResNet-50": Limits(
        """
from image_networks import NETWORKS, built, images
model, x = built(NETWORKS["resnet50"]), images(NETWORKS["resnet50"], 1)
""",
        cold=40,
        warm=8,
        times=5,
    ),
}
COMPILE = """
import json, statistics, sys, time
sys.path[:0] = [{folder!r}]
import torch, tt_dynamo
torch.manual_seed(0)
{build}
with torch.no_grad(), tt_dynamo.record() as reports:
    compiled = torch.compile(model, backend="ttnn", options={{"device": {board!r}, "preset": "accuracy"}})
    compiled(x)
    seconds = {{"eager": [], "emulated": []}}
    for _ in range(5):
        for name, call in (("eager", model), ("emulated", compiled)):
            started = time.perf_counter()
            call(x)
            seconds[name].append(time.perf_counter() - started)
(report,) = reports
assert report.fallbacks == []
print(json.dumps({{
    "stages": report.seconds, "compile": sum(report.seconds.values()),
    **{{name: statistics.median(times) for name, times in seconds.items()}},
}}))
"""


@pytest.fixture(scope="module", params=LIMITS)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Limits, list[dict[str, Any]]]:
    """The same compilation in two processes, one after the other, with one cache that starts empty."""
    limits = LIMITS[request.param]
    code = COMPILE.format(folder=str(Path(__file__).parent), build=limits.build, board=BOARD)
    runner = FreshProcess(tmp_path_factory.mktemp("speed"))
    return limits, [runner.run(code) for _ in range(2)]


def test_our_stages_are_done_in_time_with_an_empty_kernel_cache(measured) -> None:
    limits, (cold, _) = measured
    assert cold["compile"] <= limits.cold, cold["stages"]


def test_our_stages_are_done_in_time_with_a_warm_one(measured) -> None:
    limits, (_, warm) = measured
    assert warm["compile"] <= limits.warm, warm["stages"]


def test_an_emulated_forward_takes_at_most_so_many_times_as_long_as_eager(measured) -> None:
    limits, (_, warm) = measured
    assert warm["emulated"] <= limits.times * warm["eager"], warm
