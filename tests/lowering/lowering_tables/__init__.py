"""What every operation becomes: tables by family, of which lowering/coverage.md is the summary."""

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
)
from .row import Row

FAMILIES = (
    activations, comparison, data_movement, elementwise, host, images, indexing, norms, products, reduction, rotary,
    rounding, scans, sorting,
)  # fmt: skip
ROWS: list[Row] = [row for family in FAMILIES for row in family.ROWS]
CORE = [*core_elementwise.CORE, *core_others.CORE]
