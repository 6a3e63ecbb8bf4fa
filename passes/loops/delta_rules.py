"""Linear attention by the gated delta rule, which models compute in chunks by a hundred operations, as one of them.

Before   a triangular system of each chunk of keys, decays and betas; a loop over the chunks that carries a state
After    y, state = gated_delta_rule_and_state(query, key, value, g, beta, state);   y = permute(y, heads last)

How a model spells it doesn't matter: what stands between the operands and the results must give the same on made-up
numbers. Keys are as wide as values: TTNN's kernel takes that for granted.
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, is_literal, needed_for, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.loops.arithmetic import MOVES, SCALE, computes, inputs_of, results_of
from tt_dynamo.passes.rewrite import VIEWS, as_dtype, emit

MOST_STATES = 4  # values of a state's shape behind the last chunk


@dataclasses.dataclass(frozen=True)
class DeltaRule:
    """Operands of one: query and key [batch, tokens, key_heads, head_dim], value [batch, tokens, heads, head_dim],
    g and beta [batch, tokens, heads], state [batch, heads, head_dim, head_dim] or None; and what is computed of them.
    """

    operands: tuple[Node, ...]
    output: Node
    last_state: Node | None = None

    def computes(self, result: Node, context: Context) -> bool:
        """Whether `result`, of the output's shape or the state's, is that of this rule."""
        tokens = shape_of(self.operands[3])[1]
        scales = [SCALE] * len(self.operands)
        scales[3] *= tokens**-0.5  # of g: sums of all tokens neither vanish nor overflow as exponents
        return computes(result, self.operands, _Way(result is self.output), context, scales)


def fuse_delta_rules(graph: Graph, context: Context) -> int:
    """Fuse every gated delta rule; returns how many."""
    count = 0
    for sums in graph.find_nodes(op="call_function", target=aten.cumsum.default):
        found = _find(sums, context) if sums.users and not is_literal(sums) else None
        if found is not None:
            with graph.inserting_before(min(filter(None, (found.output, found.last_state)))):
                _write(found)
            dead_code(graph)
            count += 1
    return count


def _find(sums: Node, context: Context) -> DeltaRule | None:
    """The delta rule with these sums of decays."""
    g = _summands(sums)
    if g is None:
        return None
    results = results_of(g)
    for output in reversed(results):
        if len(shape_of(output)) == 4 and shape_of(output)[:3] == shape_of(g):
            for rule in _rules(output, g, {*results}):
                if rule.computes(output, context):
                    return _with_state(rule, results, context)
    return None


def _summands(sums: Node) -> Node | None:
    """The first value [batch, tokens, heads] of which the operand of the sums is a move, or a padded one."""
    node, found = sums.args[0], None
    while isinstance(node, Node):
        found = node if len(shape_of(node)) == 3 else found
        node = node.args[0] if is_call(node, *MOVES, aten.constant_pad_nd.default) else None
    return found


def _rules(output: Node, g: Node, results: set[Node]) -> Iterator[DeltaRule]:
    """The roles that what is read may have, by shapes."""
    batch, tokens, heads = shape_of(g)
    rows = (batch, tokens)
    heads_apart = [
        node
        for node in output.graph.nodes
        if is_call(node, *VIEWS) and node not in results and len(shape_of(node)) == 4 and shape_of(node)[:2] == rows
        and len(shape_of(node.args[0])) == 3
    ]  # fmt: skip
    read = [node for node in inputs_of(output, [g, *heads_apart]) if node is not g]
    betas = [node for node in read if shape_of(node) == shape_of(g)]
    states = [node for node in read if shape_of(node) == (batch, heads, *2 * shape_of(output)[-1:])]
    rest = [node for node in read if node not in (*betas, *states)]
    if len(betas) != 1 or len(states) > 1 or len(rest) != 3 or any(len(shape_of(node)) != 4 for node in rest):
        return
    for query, key, value in itertools.permutations(rest):
        whole = shape_of(query)[:2] == rows and shape_of(query)[3] == shape_of(value)[3]
        alike = shape_of(query) == shape_of(key) and shape_of(value) == shape_of(output)
        if whole and alike and heads % shape_of(query)[2] == 0:
            yield DeltaRule((query, key, value, g, betas[0], *states), output)


def _with_state(rule: DeltaRule, results: list[Node], context: Context) -> DeltaRule | None:
    """The rule with its last state, where something reads one; None where that is not found."""
    known = {*needed_for(rule.output), *results_of(rule.output)}
    others = [node for node in results if node.users and node not in known]
    if not others:
        return rule
    batch, _, heads, head_dim = shape_of(rule.output)
    states = [node for node in others if shape_of(node) == (batch, heads, head_dim, head_dim)]
    found = [node for node in states[::-1][:MOST_STATES] if rule.computes(node, context)]
    is_late = found and any(found[0] < operand for operand in rule.operands)
    return dataclasses.replace(rule, last_state=found[0]) if found and not is_late else None


@dataclasses.dataclass(frozen=True)
class _Way:
    """What a delta rule computes: hashable, as part of a key."""

    outputs: bool

    def __call__(self, query: Any, key: Any, value: Any, *rest: Any) -> torch.Tensor:
        operands = (*(x.flatten(2) for x in (query, key, value)), *rest, *[None] * (3 - len(rest)))
        output, state = operators.gated_delta_rule_and_state(*operands, *_constants(query))
        return output.transpose(1, 2) if self.outputs else state


def _constants(x: torch.Tensor) -> list[torch.Tensor]:
    return [x.new_zeros(1)] * 4  # they change no value


def _write(rule: DeltaRule) -> None:
    at, (query, key, value, g, beta, *state) = rule.output, rule.operands
    flat = [emit(at, aten.reshape.default, x, [*shape_of(x)[:2], -1]) for x in (query, key, value)]
    operands = (*flat, g, beta, *(state or [None]), *_tiles(at))
    if rule.last_state is None:
        output, last = emit(at, operators.gated_delta_rule, *operands), None
    else:
        both = emit(at, operators.gated_delta_rule_and_state, *operands)
        output, last = (emit(at, operator.getitem, both, index) for index in (0, 1))
        last = as_dtype(last, dtype_of(rule.last_state), at)
    output = emit(at, aten.permute.default, as_dtype(output, dtype_of(at), at), [0, 2, 1, 3])
    replace(at, emit(at, aten.clone.default, output, memory_format=torch.contiguous_format))
    if rule.last_state is not None and last is not None:
        replace(rule.last_state, last)


def _tiles(at: Node) -> list[Node]:
    """Constants of TTNN's kernel: 1, the lower triangle and ones; of each 32 columns a quadrant: the first, the last,
    and the one below the first.
    """
    half, options = TILE // 2, {"dtype": torch.float32, "device": at.meta["val"].device}
    eye = emit(at, aten.reshape.default, emit(at, aten.eye.default, TILE, **options), [1, 1, TILE, TILE])
    ones = emit(at, aten.full.default, [1, 1, TILE, TILE], 1.0, **options)
    quadrant = emit(at, aten.full.default, [1, 1, half, half], 1.0, **options)
    sides = [0, half, 0, half], [half, 0, half, 0], [0, half, half, 0]
    masks = emit(at, aten.cat.default, [emit(at, aten.constant_pad_nd.default, quadrant, side) for side in sides], -1)
    return [eye, emit(at, aten.tril.default, ones), ones, masks]
