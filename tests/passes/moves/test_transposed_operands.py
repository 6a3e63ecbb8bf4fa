"""Products read transposed operands and write transposed results, so that no permute is left around them."""

import pytest
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.epilogues import fuse_linear_activation
from tt_dynamo.passes.moves.transposed_operands import transpose_operands
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant


def transposed(forward, *shapes, members=()):
    """The graph of a function of values of these shapes after the pass, and how many permutes are left."""
    graph = capture(Module(*members, forward=forward), *(random(*shape) for shape in shapes))
    graph.apply(canonicalize, fuse_linear_activation, exact=False)
    graph.apply(transpose_operands, exact=False)
    permutes = graph.graph.find_nodes(op="call_function", target=aten.permute.default)
    return graph, sum(not is_constant(permute) for permute in permutes)


def scores(self, q, k):
    return q @ k.mT


def states(self, k, v):
    return k.mT @ v


def both(self, a, b):
    return a.mT @ b.mT


@pytest.mark.parametrize(
    ("forward", "other", "flags"),
    [(scores, (2, 3, 6, 4), (False, True)), (states, (2, 3, 5, 7), (True, False)), (both, (2, 3, 6, 5), (True, True))],
)
def test_a_product_reads_its_operands_transposed(forward, other, flags):
    graph, left = transposed(forward, (2, 3, 5, 4), other)
    assert left == 0 and graph.only(operators.transposed_matmul).args[2:4] == flags


def mixed(self, x):
    return x + self.p1(F.gelu(self.p0(x.mT))).mT


def test_tokens_of_one_sequence_are_mixed_without_a_move():
    graph, left = transposed(mixed, (1, 5, 12), members=[nn.Linear(5, 8), nn.Linear(8, 5)])
    assert left == 0 and len(graph.calls(operators.transposed_matmul)) == 2


def gated(self, u, v):
    return u * self.p0(v.mT).mT


def test_a_linear_between_two_transposes_multiplies_from_the_left():
    graph, left = transposed(gated, (1, 5, 12), (1, 5, 12), members=[nn.Linear(5, 5)])
    assert left == 0 and graph.only(aten.matmul.default)


def test_results_of_several_sequences_are_moved():
    graph, left = transposed(mixed, (2, 5, 12), members=[nn.Linear(5, 8), nn.Linear(8, 5)])
    assert left == 1 and len(graph.calls(operators.transposed_matmul)) == 1


def read_twice(self, q, k):
    turned = k.mT
    return q @ turned, turned


def heads_last(self, x, y):
    return x @ y.permute(0, 2, 3, 1)


@pytest.mark.parametrize(("forward", "shape"), [(read_twice, (2, 3, 6, 4)), (heads_last, (2, 6, 3, 4))])
def test_other_permutes_stay(forward, shape):
    graph, left = transposed(forward, (2, 3, 5, 4), shape)
    assert left == 1 and not graph.calls(operators.transposed_matmul)
