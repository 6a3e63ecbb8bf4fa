"""What every operation becomes: tables by family, of which lowering/coverage.md is the summary."""

from dataclasses import replace

from . import (
    activations,
    comparison,
    core_elementwise,
    core_others,
    data_movement,
    elementwise,
    host,
    images,
    indexing,
    norms,
    products,
    reduction,
    rotary,
    rounding,
    scans,
    sorting,
    volumes,
)
from .row import Row

FAMILIES = (
    activations, comparison, data_movement, elementwise, host, images, indexing, norms, products, reduction, rotary,
    rounding, scans, sorting, volumes,
)  # fmt: skip
# Functions that hold tensors, and what the backend keeps whole before AOTAutograd takes it apart, need Dynamo; all
# others are compiled without it, in half the time.
DYNAMO = (images, norms, products, volumes)
ROWS: list[Row] = [replace(row, dynamo=row.dynamo or family in DYNAMO) for family in FAMILIES for row in family.ROWS]
CORE = [*core_elementwise.CORE, *core_others.CORE]
