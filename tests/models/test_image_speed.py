"""How long compiling and emulating ResNet-50 takes, with an empty kernel cache and with a warm one.

Seconds of ours alone count: Dynamo and AOTAutograd are torch's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fresh_process import BOARD, FreshProcess

pytestmark = pytest.mark.slow

COMPILE_RESNET = f"""
    import json, statistics, sys, time
    sys.path[:0] = [{str(Path(__file__).parent)!r}]
    import torch, tt_dynamo
    from image_networks import NETWORKS, built, images

    network = NETWORKS["resnet50"]
    model, x = built(network), images(network, 1)
    with torch.no_grad(), tt_dynamo.record() as reports:
        compiled = torch.compile(model, backend="ttnn", options={{"device": {BOARD!r}}})
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


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same compilation in two processes, one after the other, with one cache that starts empty."""
    runner = FreshProcess(tmp_path_factory.mktemp("speed"))
    return [runner.run(COMPILE_RESNET) for _ in range(2)]


def test_our_stages_take_at_most_forty_seconds_with_an_empty_kernel_cache(processes: list[dict[str, Any]]) -> None:
    assert processes[0]["compile"] <= 40, processes[0]["stages"]


def test_our_stages_take_at_most_eight_seconds_with_a_warm_one(processes: list[dict[str, Any]]) -> None:
    assert processes[1]["compile"] <= 8, processes[1]["stages"]


def test_an_emulated_forward_takes_at_most_five_times_eager(processes: list[dict[str, Any]]) -> None:
    assert processes[1]["emulated"] <= 5 * processes[1]["eager"], processes[1]
