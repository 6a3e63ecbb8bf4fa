"""Bags of embeddings are lookups and sums of them, with eager's values and errors."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.embedding_bags import BAGS, embedding_bags_to_lookups

IDS, OFFSETS = torch.tensor([3, 0, 9, 9, 1, 2, 7, 5]), torch.tensor([0, 3, 3, 5])


def looked_up(model, *inputs):
    with torch.no_grad():
        graph = capture(lambda *values: torch.relu(model(*values)), *inputs)
        graph.apply(embedding_bags_to_lookups, exact=False)
    return graph


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_one_size_are_reduced(mode):
    graph = looked_up(lambda i, t: F.embedding_bag(i, t, mode=mode), IDS.view(4, 2), random(10, 4))
    assert graph.calls(aten.embedding.default) and not graph.calls(*BAGS, operators.bag_weights)


def test_each_row_may_have_a_weight():
    def model(i, t, w):
        return F.embedding_bag(i, t, mode="sum", per_sample_weights=w)

    graph = looked_up(model, IDS.view(4, 2), random(10, 4), random(4, 2))
    assert graph.calls(aten.mul.Tensor) and not graph.calls(*BAGS, operators.bag_weights)


@pytest.mark.parametrize(
    "bag",
    [
        lambda i, t, o: F.embedding_bag(i, t, o, mode="sum"),
        lambda i, t, o: F.embedding_bag(i, t, o),
        lambda i, t, o: F.embedding_bag(i, t, o, padding_idx=9),
        lambda i, t, o: F.embedding_bag(i, t, o, mode="sum", padding_idx=0),
        lambda i, t, o: F.embedding_bag(i.view(4, 2), t, padding_idx=9) + o[:, None],
    ],
)
def test_other_bags_are_a_product(bag):
    graph = looked_up(bag, IDS, random(10, 4), OFFSETS)
    assert len(graph.calls(operators.bag_weights)) == len(graph.calls(aten.mm.default)) == 1
    assert not graph.calls(*BAGS)


def test_largest_elements_of_unknown_bags_stay_as_they_are():
    graph = capture(lambda i, t, o: F.embedding_bag(i, t, o, mode="max"), IDS, random(10, 4), OFFSETS)
    assert embedding_bags_to_lookups(graph.graph, graph.context) == 0


def test_what_training_keeps_stays_as_it_is():
    graph = capture(lambda i, t, o: aten._embedding_bag.default(t, i, o)[:2], IDS, random(10, 4), OFFSETS)
    assert embedding_bags_to_lookups(graph.graph, graph.context) == 0


@pytest.mark.parametrize(
    ("ids", "offsets", "words"),
    [(IDS, OFFSETS + 1, "offsets"), (IDS, OFFSETS * 3, "offsets"), (IDS + 5, OFFSETS, "valid range|index")],
)
def test_what_eager_torch_refuses_is_refused(ids, offsets, words):
    def model(i, t, o):
        return F.embedding_bag(i, t, o) * 1

    with torch.no_grad(), pytest.raises((RuntimeError, IndexError), match=words):
        model(ids, random(10, 4), offsets)
    with torch.no_grad(), pytest.raises((RuntimeError, IndexError), match=words):
        torch.compile(model, backend="ttnn")(ids, random(10, 4), offsets)
