"""State spaces in chunks become a few products; what only looks like one stays."""

from __future__ import annotations

import pytest
import torch
from captured import Module, capture, random
from torch.nn import functional as F

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.loops import state_spaces
from tt_dynamo.passes.loops.state_spaces import fuse_state_spaces

Tensor = torch.Tensor
HEADS, HEAD_DIM, SIZE = 4, 3, 5


def segment_sum(x: Tensor) -> Tensor:
    size = x.shape[-1]
    before, seen = (torch.ones(size, size, dtype=torch.bool).tril(diagonal) for diagonal in (-1, 0))
    sums = x[..., None].expand(*x.shape, size).masked_fill(~before, 0).cumsum(-2)
    return sums.masked_fill(~seen, -torch.inf)


class Chunked(torch.nn.Module):
    """As transformers spells Mamba-2, by einsums over chunks."""

    def __init__(self, groups: int, chunk: int, power: float = 1.0) -> None:
        super().__init__()
        self.groups, self.chunk, self.power = groups, chunk, power
        self.rates, self.skip = (torch.nn.Parameter(random(HEADS)) for _ in range(2))

    def forward(self, x: Tensor, steps: Tensor, b: Tensor, c: Tensor) -> Tensor:
        batch, tokens, _ = steps.shape
        x, dt = x.view(batch, tokens, HEADS, HEAD_DIM), F.softplus(steps)
        b, c = (
            part.view(batch, tokens, self.groups, SIZE).repeat_interleave(HEADS // self.groups, 2) for part in (b, c)
        )
        pad = -tokens % self.chunk
        rest = self.skip[:, None] * x
        terms, rates = x * dt[..., None], -self.rates.exp() * dt
        terms, b, c = (F.pad(part, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, self.chunk)) for part in (terms, b, c))
        rates = F.pad(rates, (0, 0, 0, pad)).view(batch, -1, self.chunk, HEADS).permute(0, 3, 1, 2)
        sums = rates.cumsum(-1)
        scores = torch.einsum("bclhn,bcshn->bclsh", c, b) * segment_sum(rates).exp().permute(0, 2, 3, 4, 1)
        y = torch.einsum("bclsh,bcshp->bclhp", scores, terms)
        to_end = (sums[..., -1:] - sums).exp().permute(0, 2, 3, 1)[..., None]
        states = torch.einsum("bclhn,bclhp->bchpn", b * to_end, terms)
        states = torch.cat([torch.zeros_like(states[:, :1]), states], 1)
        decays = segment_sum(F.pad(sums[..., -1], (1, 0))).exp().transpose(1, 3)
        states = torch.einsum("bzch,bzhpn->bchpn", decays, states)[:, :-1]
        read = torch.einsum("bclhn,bchpn->bclhp", c, states) * (self.power * sums).exp().permute(0, 2, 3, 1)[..., None]
        return ((y + read).reshape(batch, -1, HEADS, HEAD_DIM)[:, :tokens] + rest).reshape(batch, tokens, -1)


class Attention(torch.nn.Module):
    """Linear attention by one matrix of decays a head, without chunks or a term for the token itself."""

    groups = HEADS

    def forward(self, x: Tensor, steps: Tensor, b: Tensor, c: Tensor) -> Tensor:
        batch, tokens, _ = steps.shape
        dt = F.softplus(steps)
        sums = (dt * -torch.arange(1, HEADS + 1.0)).cumsum(1)
        between = sums[:, :, None] - sums[:, None]
        seen = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        decays = between.masked_fill(~seen[..., None], -torch.inf).exp()
        x, b, c = (part.view(batch, tokens, HEADS, -1) for part in (x, b, c))
        scores = torch.einsum("bthn,bshn->btsh", c, b) * decays * dt[:, None]
        return torch.einsum("btsh,bshp->bthp", scores, x)


def operands(tokens: int, groups: int, batch: int = 2) -> tuple[Tensor, ...]:
    widths = (HEADS * HEAD_DIM, HEADS, groups * SIZE, groups * SIZE)
    return tuple(random(batch, tokens, width) / 4 for width in widths)


CASES = {
    "one chunk": (lambda: Chunked(1, 16), 16),
    "padded": (lambda: Chunked(2, 16), 21),
    "as many groups as heads": (lambda: Chunked(HEADS, 8), 24),
    "without chunks": (Attention, 12),
}


@pytest.mark.parametrize("rows", [256, 32])
@pytest.mark.parametrize("case", CASES)
def test_a_state_space_becomes_a_few_products(case: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_spaces, "CHUNK", rows)
    build, tokens = CASES[case]
    tokens = tokens if rows == 256 else tokens + 40  # more than one chunk
    model = build()
    graph = capture(model, *operands(tokens, model.groups))
    assert graph.apply(fuse_state_spaces, exact=False) == 1
    assert graph.only(operators.segment_decays)
    assert len(graph.calls(aten.matmul.default)) == (2 if rows == 256 else 4)
    assert not graph.calls(aten.cumsum.default)


def test_operands_in_bfloat16_are_cast_as_the_model_casts_them() -> None:
    def forward(self: torch.nn.Module, *inputs: Tensor) -> Tensor:
        return self.p0(*(part.float() for part in inputs))

    graph = capture(Module(Attention(), forward=forward), *(part.bfloat16() for part in operands(12, HEADS)))
    assert graph.apply(fuse_state_spaces, exact=False) == 1


def test_what_computes_something_else_stays() -> None:
    graph = capture(Chunked(1, 8, power=1.01), *operands(24, 1))
    before = graph.targets()
    assert graph.apply(fuse_state_spaces) == 0
    assert graph.targets() == before


@pytest.mark.parametrize("terms", [lambda x: x * 0.5, lambda x: x * x], ids=["of a multiple", "of squares"])
def test_sums_along_tokens_that_are_no_state_space_stay(terms) -> None:
    graph = capture(lambda x: terms(x).cumsum(1).exp(), random(2, 12, HEADS))
    assert graph.apply(fuse_state_spaces) == 0
