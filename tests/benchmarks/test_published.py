"""Published times, each with its source, stand beside the estimate of the same call."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import published

    return published


def test_only_the_same_model_board_batch_and_length_is_comparable(published: ModuleType) -> None:
    (decode,) = published.published("llama-8b", "decode", "n150", 32, 128, None)
    assert decode["seconds"] == pytest.approx(1 / 22.3, rel=1e-3)
    assert "PERF.md" in decode["source"] and decode["weights"] == "experts"
    kinds = [one["measured"] for one in published.published("vit-base", "forward", "n150", 8, None, None)]
    assert kinds == ["end to end", "kernels"]
    for other in (("p150", 32, 128, None), ("n150", 8, 128, None), ("n150", 32, 129, None), ("n150", 32, 128, 2)):
        assert decode not in published.published("llama-8b", "decode", *other)


def test_every_row_is_of_a_case_and_has_a_source(published: ModuleType) -> None:
    import run

    with published.FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["case"] in run.ALL_CASES and row["board"] in BOARD_DESCRIPTIONS
        assert row["measured"] in ("kernels", "end to end") and "tt-metal" in row["source"]
        tokens = int(row["tokens"] or 0) or None
        found = published.published(row["case"], row["phase"], row["board"], int(row["batch"]), tokens, None)
        assert float(row["milliseconds"]) / 1e3 in [one["seconds"] for one in found]
        case = run.ALL_CASES[row["case"]]
        if row["case"] in run.CASES:
            assert tokens == case.tokens


def test_kernels_are_compared_with_kernels(published: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    import tables

    facts = {"weights": "bfloat8_b", "source": "a test"}
    result: dict[str, Any] = {
        "case": "vit-base",
        "device": "n150 (emulated)",
        "batch": 8,
        "tokens": None,
        "host_time": {"handwritten_estimated_kernel_seconds": 6e-3},
        "estimated_seconds": 12e-3,
        "estimated_kernel_seconds": 10e-3,
        "published": [
            {"seconds": 6e-3, "measured": "end to end", **facts},
            {"seconds": 4e-3, "measured": "kernels", **facts},
        ],
    }
    tables.print_estimates([result])
    printed = capsys.readouterr().out
    assert "estimate of the time on n150 (emulated), not measured" in printed
    row = next(line for line in printed.splitlines() if line.startswith("vit-base "))
    assert row.split() == ["vit-base", "forward", "8", "-", "12.00", "10.00", "6.00"]
    assert "published 6.00 ms (end to end, weights bfloat8_b; a test); the estimate of ours is 2.00 times" in printed
    assert "published 4.00 ms (kernels, weights bfloat8_b; a test); the estimate of ours is 2.50 times" in printed


def test_a_layer_stands_beside_that_of_experts(
    published: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import layers

    made = {
        "mine, batch 1": (lambda count, board, preset: 4e-6 * count + 1.0, lambda count, chip: 8e-6 * count + 2.0),
        "slow": (lambda count, board, preset: 9e-6 * count, lambda count, chip: 3e-6 * count),
    }
    monkeypatch.setattr(layers, "LAYERS", made)
    monkeypatch.setattr(layers, "NETWORKS", {"whole": (lambda board, preset: 6e-6, lambda chip: 3e-6)})
    monkeypatch.setattr("sys.argv", ["layers.py", "--device", "p150", "--presets", "balanced"])
    layers.main()
    text = capsys.readouterr().out
    assert "p150: estimates, nothing is measured" in text
    rows = [line.split() for line in text.splitlines() if "balanced" in line]
    assert [row[-3:] for row in rows] == [["4", "8", "0.50"], ["9", "3", "3.00"], ["6", "3", "2.00"]]
    monkeypatch.setattr("sys.argv", ["layers.py", "bart"])
    with pytest.raises(SystemExit):
        layers.main()
    assert "no layer begins with bart; there are: mine, batch 1; slow" in capsys.readouterr().err
