"""Models of a few thousand parameters, and their graphs spread over a mesh and run on all chips in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from captured import Captured
from lockstep import run_on_all
from torch import nn
from torch.fx import GraphModule

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.parts import Placement, part_of, places
from tt_dynamo.passes.shard.shard import Parallel, shard

SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 8, "head_dim": 8, "vocab_size": 128, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip


class Logits(nn.Module):
    """A causal language model of transformers; with `length`, over a static cache of so many tokens."""

    def __init__(self, config: str, length: int | None = None, prompt: torch.Tensor | None = None, **sizes: Any):
        super().__init__()
        import transformers

        torch.manual_seed(0)
        self.model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**{**SMALL, **sizes}))
        self.model.eval()
        self.cache = transformers.StaticCache(config=self.model.config, max_cache_len=length) if length else None
        if prompt is not None:
            with torch.no_grad():
                self.model(prompt, past_key_values=self.cache, use_cache=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(ids, past_key_values=self.cache, use_cache=self.cache is not None).logits


class Calling(nn.Module):
    """A module called as a function says, whose result is a tensor."""

    def __init__(self, module: nn.Module, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.module, self.call = module.eval(), call

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.call(self.module, *inputs)


def spread(captured: Captured, mesh: tuple[int, int], **options: Any) -> tuple[GraphModule, list[str]]:
    """The graph of one chip, checked, and notes. `captured` keeps its own."""
    graph, notes = shard(captured.module, Parallel(mesh, **options))
    graph.lint()
    return GraphModule(captured.module, graph), notes


def collectives(module: GraphModule) -> dict[str, int]:
    """How often chips exchange something, by the name of the operator; cutting weights and inputs does not count."""
    found: dict[str, int] = {}
    for node in module.graph.nodes:
        if node.target in (operators.all_reduce, operators.all_gather):
            name = node.target.name().removeprefix("tt_dynamo::")
            found[name] = found.get(name, 0) + 1
    return found


def given_to_chips(module: GraphModule, arguments: list[Any], mesh: tuple[int, int]) -> list[list[Any]]:
    """What each chip has of whole values, for each input."""
    given = []
    for node, value in zip(module.graph.find_nodes(op="placeholder"), arguments, strict=True):
        cut: Placement = meta.placement.get(node, (None,) * len(mesh))
        whole = value if isinstance(value, torch.Tensor) else None
        given.append([value if whole is None else part_of(whole, cut, mesh, place).clone() for place in places(mesh)])
    return given


def outputs_of_chips(module: GraphModule, given: list[list[Any]], mesh: tuple[int, int]) -> list[Any]:
    """What each chip returns; what it writes into is among `given`."""
    with torch.no_grad():
        return run_on_all(module, given, mesh)


def differ(module: GraphModule, captured: Captured, mesh: tuple[int, int]) -> float:
    """By how much what any chip returns or leaves in an input differs from eager torch, of the largest value."""
    arguments = [a.clone() if isinstance(a, torch.Tensor) else a for a in captured.arguments]
    given = given_to_chips(module, captured.arguments, mesh)
    chips = outputs_of_chips(module, given, mesh)
    assert len(chips) == math.prod(mesh)
    with torch.no_grad():
        expected = captured.module(*arguments)
    placeholders = module.graph.find_nodes(op="placeholder")
    cuts = [meta.placement.get(node, (None,) * len(mesh)) for node in placeholders]
    pairs = [(chip[at], value) for at, value in enumerate(expected) for chip in chips]
    for parts, cut, value in zip(given, cuts, arguments, strict=True):
        if isinstance(value, torch.Tensor):
            pairs += [(part, part_of(value, cut, mesh, place)) for part, place in zip(parts, places(mesh), strict=True)]
    return max((_difference(got, value) for got, value in pairs if isinstance(value, torch.Tensor)), default=0.0)


def _difference(got: torch.Tensor, value: torch.Tensor) -> float:
    assert got.shape == value.shape
    largest = value.double().abs().max().item() if value.numel() else 0.0
    return (got.double() - value.double()).abs().max().item() / max(largest, 1e-9) if value.numel() else 0.0
