"""Random numbers of a value's shape do not read the value."""

import torch
from captured import capture, random

import tt_dynamo
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.draws import draw_by_shape


def test_a_draw_reads_memory_of_its_own():
    graph = capture(lambda x: torch.bernoulli(torch.relu(x), p=0.5) * x, random(4, 32))
    assert draw_by_shape(graph.graph, graph.context) == 1
    (draw,) = graph.calls(aten.bernoulli.p)
    assert draw.args[0].target is aten.empty.memory_format


def test_a_draw_in_another_order_stays():
    graph = capture(lambda x: torch.bernoulli(torch.relu(x), p=0.5), random(4, 32).t())
    assert draw_by_shape(graph.graph, graph.context) == 0


def test_a_seed_draws_what_it_draws_in_eager_torch(clean_dynamo, board_device):
    def model(x):
        return torch.bernoulli(torch.relu(x)[0], p=0.5).unsqueeze(0).repeat(2, 1, 1)

    x = random(2, 4, 32)
    torch.manual_seed(1)
    eager = model(x)
    torch.manual_seed(1)
    with tt_dynamo.record() as reports:
        assert torch.equal(torch.compile(model, backend="ttnn")(x), eager)
    assert len(reports) == 1
