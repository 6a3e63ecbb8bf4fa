"""The wkv of RWKV becomes one softmax over pairs of tokens; what only looks like one stays a loop."""

from __future__ import annotations

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.loops import wkv
from tt_dynamo.passes.loops.wkv import fuse_wkv

Tensor = torch.Tensor
TOKENS, CHANNELS = 11, 6


class Wkv(torch.nn.Module):
    """With a running maximum, as transformers spells it: outputs are written into a tensor one by one."""

    def __init__(self, before: float = 0.0, lag: float = 1.0) -> None:
        super().__init__()
        self.decay, self.bonus = (torch.nn.Parameter(random(CHANNELS)) for _ in range(2))
        self.before, self.lag = before, lag

    def forward(self, keys: Tensor, values: Tensor) -> Tensor:
        output = torch.zeros_like(keys)
        total = torch.zeros_like(keys[:, 0], dtype=torch.float32)
        weight, largest = torch.zeros_like(total) + self.before, torch.zeros_like(total) - 1e38 * (not self.before)
        decay = -torch.exp(self.decay)
        for token in range(keys.shape[1]):
            key, value = keys[:, token].float(), values[:, token]
            top = torch.maximum(largest, key + self.bonus)
            before, own = torch.exp(largest - top), torch.exp(key + self.bonus - top)
            output[:, token] = ((before * total + own * value) / (before * weight + own)).to(output.dtype)
            top = torch.maximum(largest + decay, key)
            before, own = torch.exp(largest + decay - top), torch.exp(key - top)
            total, weight, largest = before * total + own * value, self.lag * before * weight + own, top
        return output


class Plain(Wkv):
    """Without a maximum, of a decay that is given as a negative number; outputs are stacked."""

    def forward(self, keys: Tensor, values: Tensor) -> Tensor:
        total = weight = torch.zeros_like(keys[:, 0])
        outputs = []
        for token in range(keys.shape[1]):
            key, value = keys[:, token], values[:, token]
            own = torch.exp(self.bonus + key)
            outputs.append((total + own * value) / (weight + own))
            total = torch.exp(self.decay) * total + torch.exp(key) * value
            weight = torch.exp(self.decay) * weight + torch.exp(key)
        return torch.stack(outputs, 1)


class Swapped(Wkv):
    """Values come first."""

    def forward(self, keys: Tensor, values: Tensor) -> Tensor:
        return super().forward(values, keys)


def operands(dtype: torch.dtype = torch.float32, batch: int = 2) -> tuple[Tensor, Tensor]:
    return random(batch, TOKENS, CHANNELS).to(dtype), random(batch, TOKENS, CHANNELS).to(dtype)


@pytest.mark.parametrize(
    ("build", "dtype"),
    [(Wkv, torch.float32), (Wkv, torch.bfloat16), (Swapped, torch.float32), (Plain, torch.float32)],
)
def test_a_loop_becomes_one_operator(build: type[Wkv], dtype: torch.dtype) -> None:
    graph = capture(build(), *operands(dtype))
    assert graph.apply(fuse_wkv, exact=False) == 1
    assert graph.only(operators.wkv)
    assert not graph.calls(aten.maximum.default, aten.select.int)


def test_layers_that_read_alike_are_compared_once() -> None:
    first, second = Wkv(), Wkv()

    def forward(keys: Tensor, values: Tensor) -> Tensor:
        return second(first(keys, values).sin(), values)

    graph = capture(forward, *operands())
    assert graph.apply(fuse_wkv, exact=False) == 2
    assert len([key for key in graph.context.memory if "arithmetic" in key]) == 1


@pytest.mark.parametrize("given", [{"before": 0.5}, {"lag": 1.01}], ids=["a state before", "another weight"])
def test_what_computes_something_else_stays(given: dict[str, float]) -> None:
    graph = capture(Wkv(**given), *operands())
    before = graph.targets()
    assert graph.apply(fuse_wkv) == 0
    assert graph.targets() == before


def test_more_pairs_than_fit_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wkv, "MOST_PAIRS", 2 * TOKENS * TOKENS * CHANNELS - 1)
    assert capture(Wkv(), *operands()).apply(fuse_wkv) == 0
