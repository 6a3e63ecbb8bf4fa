"""The wkv of RWKV, which models compute token by token with a running maximum, as one softmax over pairs of tokens.

Before   y[t] = (sum over s < t of exp((t - 1 - s) w + k[s]) v[s] + exp(u + k[t]) v[t]) / (the same without v)
After    y = wkv(k, v, gaps);   gaps[t, s] = (t - 1 - s) w where s < t, u where s = t, -inf where s > t

w is -exp(decay), or the decay as it is. How a model keeps its exponentials finite doesn't matter: both ways must give
the same on made-up numbers. Prompts of more pairs than fit stay loops.
Source: Peng et al. 2023, https://arxiv.org/abs/2305.13048
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, needed_for, replace, shape_of
from tt_dynamo.passes.loops.arithmetic import computes, inputs_of
from tt_dynamo.passes.loops.recurrences import outputs_of
from tt_dynamo.passes.loops.stacked import part_of
from tt_dynamo.passes.rewrite import as_dtype, emit, is_constant

MOST_PAIRS = 1 << 24  # of tokens, in all channels: 64 MiB of float32


def fuse_wkv(graph: Graph, context: Context) -> int:
    """Fuse every wkv; returns how many."""
    count = 0
    for root in list(graph.nodes):
        found = _find(root, context)
        if found is None:
            continue
        (keys, values, decay, first), way = found
        with graph.inserting_before(root):
            call = functools.partial(emit, root)
            numbers = (as_dtype(node, torch.float32, root) for node in (decay, first))
            gaps = way.gaps(call, *numbers, device=root.meta["val"].device)
            replace(root, as_dtype(call(operators.wkv, keys, values, gaps), dtype_of(root), root))
        count += 1
    dead_code(graph)
    return count


@dataclasses.dataclass(frozen=True)
class _Way:
    """What wkv computes: hashable, as part of a key."""

    tokens: int
    is_logarithm: bool  # of the decay

    def __call__(self, keys: Any, values: Any, decay: Any, first: Any) -> torch.Tensor:
        gaps = self.gaps(lambda target, *args, **kwargs: target(*args, **kwargs), decay, first)
        return operators.wkv(keys, values, gaps)

    def gaps(self, call: Callable[..., Any], decay: Any, first: Any, **device: Any) -> Any:
        """[channels, tokens, tokens], of decay and first of as many numbers as channels."""
        if self.is_logarithm:
            decay = call(aten.neg.default, call(aten.exp.default, decay))
        decay, first = (call(aten.reshape.default, x, [-1, 1, 1]) for x in (decay, first))
        tokens = call(aten.arange.default, self.tokens, dtype=torch.float32, **device)
        before = call(aten.reshape.default, call(aten.sub.Tensor, tokens, 1.0), [-1, 1])
        steps = call(aten.sub.Tensor, before, tokens)
        never = call(aten.full.default, [], -math.inf, **device)
        later = call(aten.where.self, call(aten.eq.Scalar, steps, -1.0), first, never)
        return call(aten.where.self, call(aten.ge.Scalar, steps, 0.0), call(aten.mul.Tensor, steps, decay), later)


def _find(root: Node, context: Context) -> tuple[list[Node], _Way] | None:
    """Keys, values, decay and what the token itself adds, where a value joins the wkv of each token."""
    outputs = outputs_of(root)
    if outputs is None:
        return None
    parts, dim, _ = outputs
    shape = shape_of(root)
    if dim != 1 or len(shape) != 3 or math.prod(shape) * shape[1] > MOST_PAIRS:
        return None
    rows = _rows(parts[0], shape)
    read = inputs_of(root, rows)
    numbers = sorted((node for node in read if node not in rows), key=_is_logarithm, reverse=True)
    if len(rows) != 2 or len(numbers) != 2 or not all(map(is_constant, numbers)):
        return None
    if any(math.prod(shape_of(node)) != shape[2] for node in numbers):
        return None
    for kept, given in itertools.product(itertools.permutations(rows), itertools.permutations(numbers)):
        way = _Way(shape[1], _is_logarithm(given[0]))
        if computes(root, [*kept, *given], way, context):
            return [*kept, *given], way
    return None


def _rows(first: Node, shape: tuple[int, ...]) -> list[Node]:
    """What of all tokens the output of the first one reads."""
    needed = needed_for(first, lambda node: part_of(node) is not None)
    parts = (part_of(operand) for node in needed for operand in node.all_input_nodes)
    return list(dict.fromkeys(part[0] for part in parts if part and shape_of(part[0]) == shape))


def _is_logarithm(decay: Node) -> bool:
    exponentials = [user for user in decay.users if is_call(user, aten.exp.default)]
    return any(is_call(user, aten.neg.default) for node in exponentials for user in node.users)
