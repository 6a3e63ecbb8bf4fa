"""Published measurements of single operations, as calls that the formulas take.

`measured/operations.csv`: one a line, with its source. A tensor is "shape dtype layout memory sharding cores". What is
held out was given to no fit, and whole sources are: rows of one report share board, clock and method. `banks` are those
of DRAM where the formula counts them and the board was no N150 or P150.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from tt_dynamo.devices.boards import BOARDS
from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.chip import Chip, chip_of
from tt_dynamo.estimate.tensor import Call, Tensor

ARCHITECTURE_BOARD = {"wormhole_b0": "n150", "blackhole": "p150"}
assert set(ARCHITECTURE_BOARD.values()) <= set(BOARDS)


@dataclass(frozen=True)
class Measured:
    """One measured operation. split: "fitted" or "held out". seconds: measured.

    in_loop: whether those are of a loop of calls: the host's work and the gap between kernels are in them, too.
    """

    id: str
    split: str
    architecture: str
    grid: tuple[int, int]
    clock: float
    banks: int | None
    call: Call
    seconds: float
    in_loop: bool
    source: str

    @property
    def chip(self) -> Chip:
        return chip_of(ARCHITECTURE_BOARD[self.architecture], self.grid, self.clock, self.banks)

    def estimated_seconds(self) -> float:
        chip = self.chip
        return estimate(self.call, chip).seconds + (chip.k.loop_ns * 1e-9 if self.in_loop else 0.0)


def measured_operations() -> list[Measured]:
    """All rows of `measured/operations.csv`."""
    return list(_rows((files(__package__) / "measured" / "operations.csv").read_text(encoding="utf-8")))


def _rows(text: str) -> Iterator[Measured]:
    for row in csv.DictReader(text.splitlines()):
        inputs, outputs = (tuple(map(_tensor, row[side].split("; "))) for side in ("inputs", "outputs"))
        call = Call(row["operation"], inputs, outputs, _options(row["options"]))
        grid, clock = _grid(row["grid"]), float(row["clock_ghz"])
        place = row["split"], row["architecture"], (grid.x, grid.y), clock, int(row["banks"] or 0) or None
        seconds, in_loop = float(row["microseconds"]) * 1e-6, row["in_loop"] == "yes"
        yield Measured(row["id"], *place, call, seconds, in_loop, row["source"])


def _tensor(text: str) -> Tensor:
    shape, dtype, layout, memory, sharding, cores = text.split()
    return Tensor(tuple(map(int, shape.split("x"))), dtype, layout, memory, sharding, int(cores))


def _grid(text: str) -> SimpleNamespace:
    x, y = map(int, text.split("x"))
    return SimpleNamespace(x=x, y=y)


def _options(text: str) -> dict[str, Any]:
    """What the formulas read of TTNN's configurations, by the same names."""
    given = dict(pair.split("=") for pair in text.split())
    options: dict[str, Any] = {}
    if "fidelity" in given:
        fields: dict[str, Any] = {"math_fidelity": given["fidelity"], "fp32_dest_acc_en": False}
        fields["packer_l1_acc"] = given.get("l1_accumulation") != "no"
        options["compute_kernel_config"] = SimpleNamespace(**fields)
    if "core_grid" in given:
        options["core_grid"] = _grid(given["core_grid"])
    if "kernel_size" in given:
        size = _grid(given["kernel_size"])
        options["kernel_size"] = size.x, size.y
    if "causal" in given:
        options["is_causal"] = given["causal"] == "True"
    program: dict[str, Any] = {}
    if "program" in given:
        program["kind"] = given["program"]
    if "block" in given:
        program["in0_block_w"] = int(given["block"])
    if "grid" in given:
        program["compute_with_storage_grid_size"] = _grid(given["grid"])
    if "q_chunk" in given:
        program |= {f"{side}_chunk_size": int(given[f"{side}_chunk"]) for side in "qk"}
    if program:
        options["program_config"] = SimpleNamespace(**program)
    return options
