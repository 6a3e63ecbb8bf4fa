"""Means of rows are products with weights that pick the rows; other pools stay."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.pooled_rows import pool_rows
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def pooled(forward, batch=1):
    graph = capture(Module(forward=forward), random(batch, 9, 6))
    graph.apply(canonicalize, exact=False)
    return graph, graph.apply(pool_rows, exact=False)


def funnel(self, x):
    """The class token, and means of it with the first token, and of two tokens each."""
    x = torch.cat([x[:, :1], x[:, :-1]], 1)
    return F.avg_pool2d(x[:, None], (2, 1), stride=(2, 1), ceil_mode=True)[:, 0]


def padded(self, x):
    return F.avg_pool2d(F.pad(x, (0, 0, 1, 1)), (3, 1), stride=(2, 1), padding=(1, 0), count_include_pad=False)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("forward", [funnel, lambda self, x: padded(self, x[:, None])])
def test_means_of_rows_are_a_product(forward, batch):
    graph, changed = pooled(forward, batch)
    assert changed == 1 and graph.only(aten.matmul.default)
    assert not graph.calls(aten.avg_pool2d.default, aten.cat.default, aten.slice.Tensor)


def of_computed(self, x):
    return F.avg_pool2d(F.pad(x, (0, 0, 1, 0), value=1.0)[:, None], (2, 1))


@pytest.mark.parametrize(
    "forward", [of_computed, lambda self, x: F.avg_pool2d(x[:, None], 2), lambda self, x: F.avg_pool2d(x, (2, 1))]
)
def test_other_pools_stay(forward):
    graph, changed = pooled(forward, batch=3)
    assert changed == 0 and graph.only(aten.avg_pool2d.default)
