"""Fits the constants of the estimate to the measured operations that are marked "fitted", and writes them back.

    python tests/estimate/fit_constants.py [--write]

Needs scipy. What is held out is never read. Each stage fits a few constants of one architecture to a few families, by
the mean absolute logarithm of estimated over measured. Few kernels of Wormhole other than products are measured outside
the sources held out: it gets Blackhole's constants, cycles times CYCLES and nanoseconds as they are.
"""

import argparse
import json
import math
import statistics
from importlib.resources import files

from scipy.optimize import minimize

from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.chip import constants
from tt_dynamo.estimate.measured_rows import Measured, measured_operations

# Between 1, as the vector engines take equal cycles, and 2, as Wormhole's NoC is half as wide.
CYCLES = 1.5
PRODUCTS = "matrix_cycles unpack_bytes_per_cycle sender_gbs send_ns product_write_gbs loop_ns"
STAGES = (
    ("wormhole_b0", "2D product", PRODUCTS),
    ("blackhole", "2D product", PRODUCTS),
    ("blackhole", "1D product, 2D product", "partial_sum_cycles"),
    ("blackhole", "1D product, minimal_matmul", "block_ns tall_read_gbs tall_write_factor product_start_ns"),
    ("blackhole", "batched product", "batch_ns"),
    ("blackhole", "2D product", PRODUCTS),
    (
        "blackhole",
        "elementwise, move",
        "stream_gbs stream_cycles stream_operand_cycles unary_cycles slow_unary_cycles binary_cycles broadcast_cycles "
        "start_cycles scalar_start_cycles start_in_shards_cycles place_cycles shard_copy_cycles row_place_cycles "
        "read_gbs write_gbs",
    ),
    ("blackhole", "layout", "layout_cycles padded_tile_cycles padded_row_cycles page_cycles row_gbs"),
    ("blackhole", "reshape", "reshape_row_cycles"),
    ("blackhole", "transpose", "gather_row_cycles"),
    ("blackhole", "convolution", "gather_pixels_cycles convolution_weights_gbs convolution_start_cycles"),
    ("blackhole", "pool", "pool_cycles"),
    ("blackhole", "group norm", "group_norm_cycles"),
    ("blackhole", "norm", "norm_cycles"),
    ("blackhole", "softmax", "softmax_start_cycles"),
    ("blackhole", "embedding", "lookup_ns"),
    ("blackhole", "attention", "attention_softmax_cycles attention_correction_cycles"),
    ("blackhole", "attention decode", "attention_in_a_corner attention_head_cycles"),
    ("wormhole_b0", "move", "read_gbs place_cycles"),
)
SAME = (
    "block_ns",
    "batch_ns",
    "lookup_ns",
    "attention_in_a_corner",
    "gather_pixels_cycles",
    "pool_cycles",
    "convolution_start_cycles",
)


def error(rows: list[Measured]) -> float:
    """Mean absolute logarithm of estimated over measured seconds."""
    return statistics.mean(abs(math.log(row.estimated_seconds() / row.seconds)) for row in rows)


def fit(architecture: str, rows: list[Measured], names: list[str]) -> None:
    """Set the constants of those names to what fits the rows best."""
    known = constants(architecture)
    before = [known[name] for name in names]

    def with_factors(logarithms: list[float]) -> float:
        known.update({name: old * math.exp(x) for name, old, x in zip(names, before, logarithms, strict=True)})
        return error(rows)

    start = [0.0] * len(names)
    simplex = [start, *([0.3 if at == moved else 0.0 for at in range(len(names))] for moved in range(len(names)))]
    options = {"initial_simplex": simplex, "maxfev": 250 * len(names), "xatol": 1e-3, "fatol": 1e-5}
    best = minimize(with_factors, start, method="Nelder-Mead", options=options)
    with_factors(best.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write constants.json")
    write = parser.parse_args().write
    path = files("tt_dynamo.estimate") / "constants.json"
    tables = json.loads(path.read_text())
    for architecture, of, names in STAGES:
        rows = [row for row in measured_operations() if row.split == "fitted" and row.architecture == architecture]
        rows = [row for row in rows if estimate(row.call, row.chip).family in of.split(", ")]
        before = error(rows)
        fit(architecture, rows, names.split())
        print(f"{architecture} {of}: {len(rows)} rows, {before:.3f} → {error(rows):.3f}")
    derive(tables)
    for architecture, table in tables.items():
        for name, row in table.items():
            row["value"] = float(f"{constants(architecture)[name]:.4g}")
    if write:
        path.write_text(json.dumps(tables, indent=1) + "\n")


def derive(tables: dict[str, dict[str, dict[str, object]]]) -> None:
    """Wormhole's constants from Blackhole's, where its table says "1.5 times"."""
    wormhole, blackhole = constants("wormhole_b0"), constants("blackhole")
    for name, row in tables["wormhole_b0"].items():
        if str(row["source"]).startswith(f"{CYCLES} times"):
            wormhole[name] = blackhole[name] * CYCLES
    for name in SAME:
        wormhole[name] = blackhole[name]


if __name__ == "__main__":
    main()
