"""Places that the device found are looked up where they are; others keep eager's check."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.passes.normalize.lookups import index_to_embedding
from tt_dynamo.passes.normalize.moves import normalize_moves

CHECKS = (operators.bounded, operators.index_numbers)


def read(model, *inputs):
    graph = capture(lambda *values: torch.relu(model(*(torch.relu(x) for x in values))), *inputs)
    graph.apply(normalize_moves)
    graph.apply(index_to_embedding)
    return graph


FOUND = {
    "embedding by argmax": lambda x, t: F.embedding(x.argmax(-1), t),
    "embedding by argmin": lambda x, t: F.embedding(x.argmin(-1), t),
    "embedding by max": lambda x, t: F.embedding(x.max(-1)[1].view(-1), t),
    "embedding by the largest of all": lambda x, t: F.embedding(x[0, 0].argmax(), t),
    "embedding by parts of topk": lambda x, t: F.embedding(x.topk(4, -1)[1][..., 1:].transpose(0, 1), t),
    "embedding by a cast": lambda x, t: F.embedding(x.argmax(-1).to(torch.int32), t),
    "index": lambda x, t: t[x.argmax(-1)],
    "index of the only rows": lambda x, t: t[None, :, None][:, x.argmax(-1)],
    "index_select": lambda x, t: t.index_select(0, x[0].argmax(-1)),
    "gather by topk": lambda x, t: x.gather(-1, x.topk(4, -1)[1]),
    "gather by sort": lambda x, t: x.gather(1, x.sort(1)[1]),
    "more rows than places": lambda x, t: torch.cat([t, t])[x.argmax(-1)],
}
UNKNOWN = {
    "fewer rows than places": lambda x, t: t[:-1][x.argmax(-1)],
    "places that were counted on": lambda x, t: t[x.argmax(-1) - 1],
    "a number of all elements": lambda x, t: x.gather(-1, x.argmax().expand(2, 3, 1)),
    "rows of batches": lambda x, t: torch.stack([t, t])[:, x.argmax(-1)],
    "ranked integers": lambda x, t: t[(x > 1).to(torch.int64).argmax(-1)],
}


def sample():
    generator = torch.Generator().manual_seed(0)
    x = torch.stack([torch.randperm(10, generator=generator) for _ in range(6)]).view(2, 3, 10) / 4
    return x, random(10, 4)


@pytest.mark.parametrize("name", FOUND)
def test_places_among_as_many_are_not_checked(name):
    graph = read(FOUND[name], *sample())
    assert len(graph.calls(operators.found)) == 1 and not graph.calls(*CHECKS)


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_indices_are_checked(name):
    graph = read(UNKNOWN[name], *sample())
    assert graph.calls(*CHECKS) and not graph.calls(operators.found)


def test_an_embedding_by_other_ids_stays_as_it_is():
    graph = read(lambda x, t: F.embedding(x.argmax(-1), t[:5]), sample()[0] * 0, sample()[1])
    assert not graph.calls(operators.found)
