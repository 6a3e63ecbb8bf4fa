"""Gated delta rules in chunks become one operation; what only looks like one stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import capture, random
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.loops.delta_rules import fuse_delta_rules

Tensor = torch.Tensor
HEADS, HEAD_DIM = 4, 8


def rule(
    key_heads: int = HEADS, with_state: bool = False, normalize: bool = True, dtype: torch.dtype = torch.float32
) -> Callable[..., tuple[Tensor, ...]]:
    """As transformers' layers call it, of operands as projections give them."""

    def forward(query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, *state: Tensor) -> tuple:
        query, key = (x.to(dtype).unflatten(-1, (key_heads, HEAD_DIM)) for x in (query, key))
        output, last = torch_chunk_gated_delta_rule(
            query, key, value.to(dtype).unflatten(-1, (HEADS, -1)), -g.exp() / 8, beta.sigmoid(), chunk_size=16,
            initial_state=state[0] if state else None, output_final_state=with_state,
            use_qk_l2norm_in_kernel=normalize,
        )  # fmt: skip
        output = output.flatten(2).relu()
        return (output, last) if with_state else (output,)

    return forward


def operands(tokens: int, key_heads: int = HEADS, value_dim: int = HEAD_DIM, batch: int = 2) -> tuple[Tensor, ...]:
    widths = (key_heads * HEAD_DIM, key_heads * HEAD_DIM, HEADS * value_dim, HEADS, HEADS)
    return tuple(random(batch, tokens, width) for width in widths)


STATE = random(2, HEADS, HEAD_DIM, HEAD_DIM)
CASES = {
    "whole chunks": (rule(), operands(48)),
    "as many tokens as heads": (rule(), operands(HEADS)),
    "padded, shared keys": (rule(2), operands(21, 2)),
    "last state": (rule(with_state=True), operands(33)),
    "both states": (rule(2, with_state=True), (*operands(33, 2), STATE)),
    "bfloat16": (rule(dtype=torch.bfloat16), operands(20)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_gated_delta_rule_is_one_operation(case: str) -> None:
    function, inputs = CASES[case]
    graph = capture(function, *inputs)
    assert graph.apply(fuse_delta_rules, exact=False) == 1
    assert graph.only(operators.gated_delta_rule_and_state if "state" in case else operators.gated_delta_rule)
    assert not graph.calls(aten.matmul.default, aten.cumsum.default)


@pytest.mark.parametrize(
    ("function", "inputs"), [(rule(normalize=False), operands(20)), (rule(), operands(20, value_dim=6))],
    ids=["keys of any length", "values narrower than keys"],
)  # fmt: skip
def test_what_ttnn_computes_otherwise_stays(function: Callable[..., tuple], inputs: tuple[Tensor, ...]) -> None:
    graph = capture(function, *inputs)
    before = graph.targets()
    assert graph.apply(fuse_delta_rules) == 0
    assert graph.targets() == before
