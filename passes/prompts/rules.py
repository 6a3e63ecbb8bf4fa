"""What keeps the rows of a prompt apart from the padding behind them: a rule for each operation.

A rule is given a call that reads rows, or has arguments that depend on the length, and their names. It raises
LengthDependent unless the call's first rows are those of the prompt alone, if need be of what it rewrites it to.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from tt_dynamo.ir.graph import aten, dtype_of, is_call, literal_value, shape_of
from tt_dynamo.passes.prompts.comparison import Prompt
from tt_dynamo.passes.rewrite import VIEWS, argument, arguments, emit

Rule = Callable[[Prompt, Node, frozenset[str]], None]
SHAPES = {"size", "shape"}


def _dims(x: Node, dims: Any) -> set[int]:
    """Dimensions of x from 0; all of them for None."""
    rank = len(shape_of(x))
    return set(range(rank)) if dims is None or dims == [] else {d % rank for d in tree_leaves(dims)}


def keep_rows(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    prompt.require(not differing, node, "computes with the length")


def _size(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    prompt.require(differing <= SHAPES, node, "computes with the length")


def _view(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    """Rows must stay in order: of each dimension that has them, as many sequences come before, or lie in it."""
    _size(prompt, node, differing)
    before, after = (
        [math.prod(shape_of(x)[: dim + 1]) // prompt.bucket for dim in sorted(prompt.rows[x])]
        for x in (node.args[0], node)
    )
    prompt.require(before == after, node, "mixes rows with other sizes")


def _in_order(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    """A row of the rows before it."""
    keep_rows(prompt, node, differing)
    prompt.require_apart(node)


def _count(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    prompt.require_apart(node)
    prompt.require(differing <= {"end"}, node, "does not count rows from the first one")


def _add_length(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    """Sums and products with the length read it from the input."""
    if differing:
        numbers = argument(node, 1), argument(prompt.other[node], 1)
        is_length = differing == {"other"} and numbers == (prompt.bucket, prompt.bucket - 1)
        prompt.require(is_length, node, "computes with the length")
        node.update_arg(1, prompt.length)


def _along(*names: str) -> Rule:
    """A rule for what mixes the dimensions that one of these arguments names, of all its operands."""

    def rule(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
        keep_rows(prompt, node, differing)
        given = arguments(node)
        dims = next((given[name] for name in names if name in given), None)
        operands = [x for x in node.all_input_nodes if shape_of(x)]
        mixed = any(_dims(x, dims) & prompt.rows[x] for x in operands)
        prompt.require(not mixed, node, "mixes rows")

    return rule


def _cat(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    parts = [x for x in node.args[0] if 0 not in shape_of(x)]
    if len(parts) > 1:
        _along("dim")(prompt, node, differing)
    keep_rows(prompt, node, differing)


def _norm(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    keep_rows(prompt, node, differing)
    x, shape = node.args[:2]
    mixed = _dims(x, list(range(-len(shape), 0))) & prompt.rows[x]
    weights = [operand for operand in node.all_input_nodes if operand is not x]
    prompt.require(not mixed and not any(prompt.rows[w] for w in weights), node, "mixes rows")


def _linear(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    keep_rows(prompt, node, differing)
    x, *weights = node.all_input_nodes
    prompt.require(not _dims(x, -1) & prompt.rows[x] and not any(prompt.rows[w] for w in weights), node, "mixes rows")


def _product(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    keep_rows(prompt, node, differing)
    a, b = node.args[-2:]
    mixed = _dims(a, -1) & prompt.rows[a] or _dims(b, -min(2, len(shape_of(b)))) & prompt.rows[b]
    prompt.require(not mixed, node, "mixes rows")


def _pad(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    keep_rows(prompt, node, differing)
    x, pads = node.args[:2]
    rank = len(shape_of(x))
    moved = {rank - 1 - at // 2 for at, count in enumerate(pads) if count}
    prompt.require(not moved & prompt.rows[x], node, "moves rows")


def _slice(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    prompt.require(differing <= {"start", "end"}, node, "depends on the length")
    x, dim, step = node.args[0], argument(node, 1, 0) % len(shape_of(node)), argument(node, 4, 1)
    (first, last), (other, its_last) = (_bounds(n, dim) for n in (node, prompt.other[node]))
    if dim in prompt.rows[x]:
        prompt.require_apart(node)
    if dim not in prompt.rows[x]:
        prompt.require(not differing or (dim in prompt.rows[node] and first == other), node, "depends on the length")
    elif dim in prompt.rows[node] or step != 1:
        prompt.require((first, step) == (0, 1), node, "takes other rows for another length")
    elif (first, last) == (other, its_last):
        prompt.fitted.shortest = max(prompt.fitted.shortest, last)
    else:
        prompt.require((first - other, last - its_last) == (1, 1), node, "takes other rows for another length")
        with prompt.graph.inserting_before(node):
            prompt.keep(node, prompt.from_end(node, x, dim, prompt.bucket - first, last - first))


def _bounds(node: Node, dim: int) -> tuple[int, int]:
    start, end, _ = slice(argument(node, 2), argument(node, 3)).indices(shape_of(node.args[0])[dim])
    return start, end


def _select(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    prompt.require(differing <= {"index"}, node, "depends on the length")
    x, dim, index = node.args
    size, dim = shape_of(x)[dim], dim % len(shape_of(x))
    if dim not in prompt.rows[x]:
        return keep_rows(prompt, node, differing)
    prompt.require_apart(node)
    first, other = index % size, prompt.other[node].args[2] % (size - 1)
    if first == other:
        prompt.fitted.shortest = max(prompt.fitted.shortest, first + 1)
        return None
    prompt.require(first - other == 1, node, "takes another row for another length")
    with prompt.graph.inserting_before(node):
        prompt.keep(node, emit(node, aten.select.int, prompt.from_end(node, x, dim, size - first, 1), dim, 0))


def _look_up(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    """Rows of a table by numbers: those of padding, which may lie outside of it, become 0."""
    _in_order(prompt, node, differing)
    table, indices = node.args[0], [x for x in tree_leaves(node.args[1:]) if isinstance(x, Node)]
    looked = None if is_call(node, aten.embedding.default) else node.args[1]
    if is_call(node, aten.index.Tensor):
        indexed = [(dim, index) for dim, index in enumerate(node.args[1]) if index is not None]
        looked = [dim for dim, index in indexed if not (dim in prompt.rows[table] and _counts_rows(prompt, index))]
    mixed = prompt.rows[table] & (_dims(table, looked) if looked != [] else set())
    prompt.require(not mixed, node, "takes rows by their numbers")
    for index in indices:
        prompt.require(dtype_of(index) != torch.bool, node, "takes rows by a mask")
        for dim in () if _is_given(index) else sorted(prompt.rows[index]):
            with prompt.graph.inserting_before(node):
                own = prompt.own(*(prompt.bucket if d == dim else 1 for d in range(len(shape_of(index)))))
                ones = emit(node, aten._to_copy.default, own, dtype=dtype_of(index))
                inside = emit(node, aten.mul.Tensor, index, ones)
            prompt.rows[inside] = prompt.rows[index]
            node.replace_input_with(index, inside)
            index = inside


def _counts_rows(prompt: Prompt, index: Node) -> bool:
    """Whether the number for each row is its own."""
    known, dims = literal_value(index), prompt.rows[index]
    if known is None or len(dims) != 1:
        return False
    dim = min(dims)
    counted = torch.arange(prompt.bucket).view([-1 if d == dim else 1 for d in range(known.dim())])
    return torch.equal(known, counted.expand(known.shape))


def _is_given(index: Node) -> bool:
    """Whether numbers are an input's, whose padding repeats the last of them."""
    while is_call(index, *VIEWS, *MOVES, aten.expand.default):
        index = index.args[0]
    return index.op == "placeholder"


def _attention(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    """Queries of the prompt read none of the padding: they cannot where it is causal, else a mask says so."""
    _in_order(prompt, node, differing)
    given = arguments(node)
    query, key, value, mask, is_causal = (given[n] for n in ("query", "key", "value", "attn_mask", "is_causal"))
    rank = len(shape_of(query))
    rows = {x: prompt.rows[x] - {rank - 2} for x in (query, key, value)}
    prompt.require(not any(rows.values()) and not given["dropout_p"], node, "mixes rows")
    has = [rank - 2 in prompt.rows[x] for x in (query, key, value)]
    is_whole = has[1] == has[2] and (has[0] or not (is_causal and has[1]))
    prompt.require(is_whole, node, "has rows of keys or values alone")
    if not has[1] or is_causal or (mask is not None and has[0] and _looks_back(prompt, mask)):
        return
    given["attn_mask"] = prompt.mask(node, mask, has[0])
    schema = [each for each in node.target._schema.arguments if each.name in given]
    node.args = tuple(given[each.name] for each in schema if not each.kwarg_only)
    node.kwargs = {each.name: given[each.name] for each in schema if each.kwarg_only}


def _looks_back(prompt: Prompt, mask: Node) -> bool:
    """Whether a mask is known to let each row read rows up to its own place only."""
    reach = prompt.masks.reach(mask, (prompt.bucket, prompt.bucket))
    return reach is not None and reach.position is None and bool((reach.last <= torch.arange(prompt.bucket)).all())


def _write(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    """A prompt that begins at the first row of a cache leaves there what there was behind its own rows."""
    _in_order(prompt, node, differing)
    cache, dim, index, values = node.args
    rank = len(shape_of(cache))
    whole = not prompt.rows[cache] and prompt.rows[values] == {dim % rank}
    counts = [x for x in (index, *index.all_input_nodes) if is_call(x, aten.arange.default)]
    start = [x for x in index.all_input_nodes if x not in counts]
    is_counted = len(counts) == 1 and (index in counts or (is_call(index, aten.add.Tensor) and not index.kwargs))
    prompt.require(whole and is_counted and all(x.op == "placeholder" for x in start), node, "writes rows anywhere")
    prompt.fitted.starts.update((x.name, None) for x in start)
    with prompt.graph.inserting_before(node):
        own = prompt.own(*(prompt.bucket if d == dim % rank else 1 for d in range(rank)))
        if is_call(cache, aten.zeros.default):
            values = emit(node, aten.where.ScalarOther, own, values, 0.0)
        else:
            old = emit(node, aten.index_select.default, cache, dim, index)
            values = emit(node, aten.where.self, own, values, old)
    prompt.rows[values] = prompt.rows[node.args[3]]
    node.update_arg(3, values)


def _mutate(prompt: Prompt, node: Node, differing: frozenset[str]) -> None:
    prompt.require(not differing and not prompt.rows[node.args[0]], node, "writes rows into an input")


def _rules(rule: Rule, names: str) -> dict[Any, Rule]:
    """A rule for all overloads of these operations."""
    packets = (getattr(aten, name) for name in names.split())
    return {getattr(packet, overload): rule for packet in packets for overload in packet.overloads()}


MOVES = _rules(keep_rows, "permute transpose unsqueeze squeeze t alias detach clone _to_copy")

RULES: dict[Any, Rule] = {
    **MOVES,
    **_rules(keep_rows, "copy stack lift_fresh_copy zeros_like ones_like full_like"),
    **_rules(_in_order, "cumsum cumprod logcumsumexp tril triu"),
    **dict.fromkeys((aten.where.Scalar, aten.where.ScalarOther, aten.where.ScalarSelf, operator.getitem), keep_rows),
    **_rules(_size, "expand zeros ones full new_zeros new_ones new_full"),
    **dict.fromkeys(VIEWS, _view),
    **_rules(_count, "arange"),
    **_rules(_along("dim"), "mean sum amax amin var std prod any all softmax log_softmax _softmax _log_softmax argmax"),
    **_rules(_along("dim"), "argmin topk sort logsumexp split split_with_sizes unbind linalg_vector_norm glu"),
    **_rules(_along("dims"), "flip roll"),
    **_rules(_cat, "cat"),
    **_rules(_norm, "layer_norm rms_norm native_layer_norm"),
    **_rules(_linear, "linear"),
    **_rules(_product, "matmul bmm mm addmm baddbmm"),
    **_rules(_pad, "constant_pad_nd"),
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor), _add_length),
    **dict.fromkeys((aten.embedding.default, aten.index.Tensor, aten.index_select.default), _look_up),
    aten.scaled_dot_product_attention.default: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten.index_copy.default: _write,
    aten.copy_.default: _mutate,
}
