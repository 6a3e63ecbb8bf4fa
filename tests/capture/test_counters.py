"""Python numbers that a graph only counts with become tensors, and what is written into tensors stays."""

import torch

import tt_dynamo


class Counter:
    """A cache that counts its tokens in Python, as transformers' sliding caches do."""

    def __init__(self, contents):
        self.contents, self.seen = contents, 0

    def step(self, x):
        full, length = self.seen >= 4, len(self.contents)
        first = max(self.seen - length + 1, 0)
        positions = torch.arange(length) + first
        if full:
            rolled = self.contents.roll(-1, 0)
            rolled[torch.tensor([-1])] = x
            self.contents.copy_(rolled)
        self.seen += 1
        return self.contents * positions[:, None]


def run(compile_):
    counter = Counter(torch.arange(8.0).reshape(4, 2))
    step = compile_(lambda x: counter.step(x))
    return [step(torch.full((1, 2), float(i))).clone() for i in range(9)], counter


def test_a_number_that_only_counts_makes_no_program_of_its_own():
    torch._dynamo.reset()
    expected, eager = run(lambda function: function)
    with tt_dynamo.record() as reports:
        got, counter = run(lambda function: torch.compile(function, backend="ttnn"))
    assert counter.seen == eager.seen
    assert torch.equal(counter.contents, eager.contents)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0.01)
    assert len(reports) == 3  # a constant at first; then a number before the cache is full, and one from then on
