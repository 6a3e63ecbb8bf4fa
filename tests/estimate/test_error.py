"""The error of the estimate stays within what the README says, and the check tells what it does not know."""

import csv
import json
import math
from importlib.resources import files
from pathlib import Path

import pytest

from tt_dynamo.estimate import check
from tt_dynamo.estimate.check import Point, by_family, error_of, points, uncalibrated
from tt_dynamo.estimate.chip import constants

# Reports whose rows no fit may see, so that the error on them says what to expect elsewhere.
NEVER_FITTED = ("bh_8xp150_deepseek", "wh_clip_encoder_2", "42593", "56976", "7717", "56898", "57161")


@pytest.fixture(scope="module")
def found() -> list[Point]:
    return points()


def test_operations_that_were_held_out_are_off_by_at_most_20_percent_on_average(found: list[Point]) -> None:
    error = error_of([point for point in found if point.split == "held out"])
    assert error.rows >= 75 and error.mean <= 0.20 and 0.9 <= error.bias <= 1.1


def test_published_models_are_off_by_at_most_12_percent_on_average(found: list[Point]) -> None:
    error = error_of([point for point in found if point.split == "model"])
    assert error.rows >= 34 and error.mean <= 0.12 and abs(error.worst) <= 0.25


def test_sources_are_held_out_whole() -> None:
    rows = list(csv.DictReader((files("tt_dynamo.estimate") / "measured/operations.csv").read_text().splitlines()))
    splits = {row["source"]: {other["split"] for other in rows if other["source"] == row["source"]} for row in rows}
    assert all(len(split) == 1 for split in splits.values())
    for part in NEVER_FITTED:
        assert {split for source, of in splits.items() for split in of if part in source} == {"held out"}


def test_variants_of_a_product_are_put_in_the_right_order(found: list[Point]) -> None:
    products = [point for point in found if "product" in point.family]
    ordered = error_of(products).ordered
    assert ordered is not None and ordered >= 0.95


def test_a_family_with_few_rows_held_out_is_uncalibrated(found: list[Point]) -> None:
    few = uncalibrated(found)
    assert "DRAM-sharded product" in few and "convolution" in few and "attention decode" not in few
    lines = [line for line in check.text().splitlines() if line.startswith("DRAM-sharded product")]
    assert len(lines) == 1 and lines[0].endswith("uncalibrated")


def test_the_errors_of_two_points_are_theirs() -> None:
    error = error_of([Point("fitted", "f", "a", 1.0, 2.0, "s"), Point("fitted", "f", "b", 2.0, 1.0, "s")])
    assert (error.rows, error.mean, error.median, error.worst) == (2, 0.75, 0.75, 1.0)
    assert error.bias == pytest.approx(1.0) and error.ordered == 0.0


def test_every_family_is_reported(found: list[Point]) -> None:
    text = check.text()
    for split in ("held out", "fitted"):
        assert all(family in text for family in by_family(found, split))


def test_the_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the demo extra draws the plot")
    check.plot(str(tmp_path / "plot.svg"))
    assert (tmp_path / "plot.svg").read_text().count("<svg") == 1


def test_constants_say_where_they_come_from() -> None:
    tables = json.loads((files("tt_dynamo.estimate") / "constants.json").read_text())
    assert tables.keys() == {"wormhole_b0", "blackhole"}
    assert tables["wormhole_b0"].keys() == tables["blackhole"].keys()
    for table in tables.values():
        assert all(row["source"] and math.isfinite(row["value"]) and row["value"] > 0 for row in table.values())
    assert constants("blackhole")["clock_ghz"] == 1.35
