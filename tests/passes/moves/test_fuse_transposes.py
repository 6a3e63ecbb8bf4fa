"""Products transpose what they multiply, where nothing else reads it transposed."""

import pytest
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.moves.transposes import fuse_transposes
from tt_dynamo.passes.normalize.canonicalize import canonicalize


@pytest.mark.parametrize(
    ("model", "shapes", "options"),
    [
        (lambda a, b: a @ b.mT, [(2, 3, 5, 7), (2, 3, 4, 7)], (False, True)),
        (lambda a, b: a.mT @ b, [(3, 7, 5), (3, 7, 4)], (True, False)),
        (lambda a, b: a.mT @ b.mT, [(2, 7, 5), (2, 4, 7)], (True, True)),
    ],
)
def test_a_product_transposes(model, shapes, options):
    graph = capture(model, *(random(*shape) for shape in shapes))
    assert graph.apply(canonicalize, fuse_transposes) == 1
    assert graph.only(operators.product).args[2:] == options and not graph.calls(aten.permute.default)


@pytest.mark.parametrize(
    "model",
    [
        lambda a, b: (a @ b.mT, b.mT.sin()),  # read by others
        lambda a, b: a.permute(1, 0, 2, 3) @ b.permute(1, 0, 3, 2),  # with other dimensions
    ],
)
def test_other_products_stay(model):
    graph = capture(model, random(2, 3, 5, 7), random(2, 3, 4, 7))
    assert graph.apply(canonicalize, fuse_transposes) == 0
