"""Mixtures of experts as products by the weights of several experts, of all tokens or of those that chose them.

Before   pairs of a token and one of its experts, [tokens k, width]: sorted by expert for `grouped_mm`, or in the order
         of tokens for products by weight[experts]; what a gate computes in between; y * routing, summed over k
After    few tokens     y = expert_linear(x, weight, bias, experts)     gate     y = expert_linear(y, ..., experts)
                        y = routing [tokens, 1, k] @ y [tokens, k, width]
         many tokens    y = expert_linear(x, weight, bias) [E, tokens, width]     gate     mix_experts(y, ..., routing)

Before   all tokens for every expert, times sigmoid(scores), -inf where it was not chosen; products, summed over experts
After    few tokens     the same as above, of x * sigmoid(scores) for the experts that were chosen

Few tokens choose fewer experts than there are: the weights of those alone are read. Otherwise every expert takes every
token, and the routing [tokens, E] is zero where a token did not choose it; so experts without tokens are right. A gate
may be any elementwise operations on the halves of a product, or on its even and odd columns: some columns of a product
are the product by these columns of the weight. Experts must be places that a ranking gave, as routers choose them.
Where anything else reads the pairs, they are left as they are.
"""

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, literal_value, shape_of
from tt_dynamo.passes import rewrite
from tt_dynamo.passes.normalize.rankings import places_below
from tt_dynamo.passes.rewrite import (
    ADD,
    ANY,
    MUL,
    VIEWS,
    Found,
    Pattern,
    Rules,
    argument,
    as_dtype,
    call,
    emit,
    variable,
)

x, rows, weight, experts, routing, y = map(variable, ("x", "rows", "weight", "experts", "routing", "y"))
PAIRS = call(VIEWS, experts, ANY)


def _index(of: Pattern, index: Pattern, target: Any = aten.index.Tensor, *values: Any) -> Pattern:
    """of[index], or of with values there."""

    def matches(given: Any, found: Found) -> Iterator[Found]:
        alone = isinstance(given, (list, tuple)) and len(given) == 1
        return index.matches(given[0], found) if alone else iter(())

    return call(target, of, Pattern(matches), *values)


def _copied(of: Pattern) -> Pattern:
    """A value, or a copy of it in an order of memory."""
    return of | call(aten.clone.default, of, memory_format=ANY)


def _mixed(weighted: Pattern) -> Pattern:
    return call(aten.sum.dim_IntList, call(VIEWS, weighted, ANY), [1])


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How pairs are written: where tokens become pairs, products of pairs, rows of a table by expert, and the end."""

    entering: Pattern
    products: Pattern
    chosen: Pattern
    end: Pattern


def _sorted() -> Spelling:
    """Pairs in the order of their experts."""
    ranked = call(aten.sort.default, PAIRS)
    in_order, order = (call(operator.getitem, ranked, place) for place in (0, 1))
    k = variable("k", rewrite.is_number)
    token = call(aten.floor_divide.default, order, k) | call(aten.div.Tensor_mode, order, k, rounding_mode="floor")
    counted = call(aten._to_copy.default, in_order, dtype=ANY)
    counts = call(aten.histc.default, counted, variable("count", rewrite.is_number), 0, ANY)
    groups = call(aten.cumsum.default, counts, 0, dtype=ANY)
    back = _index(variable("empty"), order, aten.index_put.default, variable("line"))
    weights = call(aten.unsqueeze.default, _index(call(VIEWS, routing, ANY), order), -1)

    def by_name(value: Any, found: Found) -> Iterator[Found]:  # the operator is there once transformers is imported
        is_named = isinstance(value, Node) and str(value.target) == "transformers.grouped_mm_fallback.default"
        return call(value.target, rows, weight, groups).matches(value, found) if is_named else iter(())

    products = call(aten._grouped_mm.default, rows, weight, groups) | Pattern(by_name)
    end = _mixed(_index(call(MUL, y, weights), back))
    return Spelling(_index(x, token), products, _index(weight, in_order), end)


def _in_order_of_tokens() -> Spelling:
    """Pairs as their tokens come, the weights of each at hand."""
    repeated = call(aten.expand.default, call(aten.unsqueeze.default, x, 1), ANY)
    chosen, transposed = _index(weight, PAIRS), _index(variable("transposed"), PAIRS)
    before = call(aten.squeeze.dim, call(aten.bmm.default, transposed, call(aten.unsqueeze.default, rows, -1)), -1)
    after = call(aten.squeeze.dim, call(aten.bmm.default, call(aten.unsqueeze.default, rows, 1), chosen), 1)
    weights = call(aten.unsqueeze.default, call(VIEWS, routing, ANY), -1)
    entering = call(VIEWS, _copied(repeated), ANY)
    return Spelling(entering, before | after, chosen, _mixed(call(MUL, y, weights)))


def _scored() -> Spelling:
    """All tokens for each expert [E, tokens, width], times their scores: zero where they chose others (Llama 4)."""
    lowest = call(aten.full_like.default, ANY, float("-inf"), pin_memory=ANY)
    scores = call(aten.sigmoid.default, call(aten.scatter.src, lowest, 1, experts, routing))
    by_expert = call(VIEWS, _copied(call(aten.transpose.int, scores, 0, 1)), ANY)
    entering = call(
        VIEWS, call(MUL, call(aten.repeat.default, x, variable("repeats", rewrite.is_anything)), by_expert), ANY
    )
    products, nothing = call(aten.bmm.default, rows, weight), Pattern(lambda value, found: iter(()))
    end = call(aten.sum.dim_IntList, call(VIEWS, call(VIEWS, y, ANY), ANY), [0])
    return Spelling(entering, products, nothing, end)


SPELLINGS = (_sorted(), _in_order_of_tokens())
SCORED = _scored()
RULES = Rules()


def fuse_experts(graph: Graph, context: Context) -> int:
    """Rewrite every mixture that is spelled so; returns how many."""
    return RULES.apply(graph)


@RULES.on(aten.sum.dim_IntList)
def _mixture(node: Node) -> Node | None:
    for spelling in SPELLINGS:
        for found in spelling.end.matches(node, {}):
            mixed = _Mixture(node, spelling, found).mix()
            if mixed is not None:
                return as_dtype(mixed, dtype_of(node), node)
    return None


@RULES.on(aten.sum.dim_IntList)
def _scored_mixture(node: Node) -> Node | None:
    for found in SCORED.end.matches(node, {}):
        return _ScoredMixture(node, SCORED, found).mix()
    return None


class _Mixture:
    """One mixture that ends in `node`, and what its pairs become: [n, rows, width] for n experts."""

    def __init__(self, node: Node, spelling: Spelling, found: Found) -> None:
        self.node, self.spelling, self.found = node, spelling, found
        self.pairs = shape_of(node.args[0])
        self.known: dict[Node, Node | None] = {}
        self.numbers: tuple[Node, ...] = ()  # of the chosen experts, and what TTNN asks for beside them

    def mix(self) -> Node | None:
        first = self._first_product()
        if first is None or not self._choose(first):
            return None
        tokens, k, width = self.pairs
        y, routing = self._converted(self.found["y"]), self.found["routing"]
        if y is None or shape_of(routing) != (tokens, k):
            return None
        if self.numbers:
            weights = as_dtype(self._emit(aten.reshape.default, routing, [tokens, 1, k]), dtype_of(y), self.node)
            mixed = self._emit(aten.matmul.default, weights, self._emit(aten.reshape.default, y, [tokens, k, width]))
            return self._emit(aten.reshape.default, mixed, [tokens, width])
        if not is_call(y, operators.expert_linear) or len(shape_of(y.args[0])) == 2:
            return None
        like = {"dtype": dtype_of(routing), "device": routing.meta["val"].device}
        empty = self._emit(aten.full.default, [tokens, self.experts], 0.0, **like)
        table = self._emit(operators.scatter_ranked, empty, 1, self.found["experts"], routing)
        return self._emit(operators.mix_experts, *y.args[:3], table)

    def _emit(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return emit(self.node, target, *args, **kwargs)

    def _first_product(self) -> Found | None:
        """What the last of the products matches."""
        line = self.found.get("line")
        count = self.pairs[0] * self.pairs[1] if len(self.pairs) == 3 else 0
        if line is not None and not _counts_to(line, count):
            return None
        reached = [self.found["y"]]
        for node in reached:
            for found in self.spelling.products.matches(node, {}):
                return found
            reached += [n for n in node.all_input_nodes if n not in reached and shape_of(n)[:1] == (count,)]
        return None

    def _choose(self, product: Found) -> bool:
        """Note the experts and whether tokens are few; False where they are no places that a ranking gave."""
        tokens, k, _ = self.pairs
        chosen = product["experts"]
        self.experts = shape_of(product.get("weight") or product["transposed"])[0]
        below = places_below(chosen).get(1)
        if shape_of(chosen) != (tokens, k) or below is None or below > self.experts:
            return False
        if product.get("count", self.experts) != self.experts:
            return False
        self.found = {**self.found, "experts": chosen}
        if tokens * k < self.experts:
            like = {"dtype": torch.float32, "device": chosen.meta["val"].device}
            sparsity = self._emit(aten.full.default, [self.experts], 1.0, **like)
            self.numbers = self._emit(operators.expert_numbers, chosen), sparsity
        return True

    def _converted(self, node: Node) -> Node | None:
        """What a value of pairs becomes; None where that is not known."""
        if node not in self.known:
            self.known[node] = self._convert(node)
        return self.known[node]

    def _convert(self, node: Node) -> Node | None:
        tokens, k, _ = self.pairs
        bound = {"experts": self.found["experts"]}
        for found in self.spelling.entering.matches(node, bound):
            if found.get("k", k) == k and shape_of(found["x"])[0] == tokens and len(shape_of(found["x"])) == 2:
                return self._enter(found["x"])
        for found in self.spelling.products.matches(node, bound):
            return self._multiply(found)
        for found in call(ADD, y, self.spelling.chosen).matches(node, bound):
            return self._add_bias(self._converted(found["y"]), found["weight"])
        if is_call(node, aten.squeeze.dim) and is_call(node.args[0], aten.unsqueeze.default):
            inner, outer = node.args[0], node.args[1]
            return self._converted(inner.args[0]) if outer % 3 == inner.args[1] % 3 else None
        columns = _columns(node)
        if columns is not None:
            return self._take(self._converted(columns[0]), columns[1:])
        return self._compute(node)

    def _enter(self, tokens: Node) -> Node:
        """Every expert reads all tokens; few tokens, each of several, are read once for each of their experts."""
        count, k, _ = self.pairs
        if not self.numbers or count == 1:
            return tokens
        width = shape_of(tokens)[1]
        repeated = self._emit(aten.expand.default, self._emit(aten.unsqueeze.default, tokens, 1), [count, k, width])
        return self._emit(aten.reshape.default, repeated, [count * k, 1, width])

    def _multiply(self, product: Found) -> Node | None:
        x, transposed = self._converted(product["rows"]), product.get("transposed")
        if x is None:
            return None
        weight = product["weight"] if transposed is None else self._emit(aten.permute.default, transposed, [0, 2, 1])
        return self._linear(x, weight) if shape_of(weight)[0] == self.experts else None

    def _linear(self, x: Node, weight: Node, bias: Node | None = None) -> Node:
        return self._emit(operators.expert_linear, x, weight, bias, *(self.numbers or (None, None)))

    def _add_bias(self, product: Node | None, table: Node) -> Node | None:
        if product is None or not is_call(product, operators.expert_linear) or len(shape_of(table)) != 2:
            return None
        x, weight, bias, *_ = product.args
        if bias is not None:
            return None
        return self._linear(x, weight, self._emit(aten.reshape.default, table, [self.experts, 1, shape_of(table)[1]]))

    def _take(self, product: Node | None, columns: tuple[int, ...]) -> Node | None:
        """Some columns of a product, by those of its weight and bias."""
        if product is None or not is_call(product, operators.expert_linear):
            return None
        x, *operands = product.args[:3]
        weight, bias = (value and self._emit(aten.slice.Tensor, value, 2, *columns) for value in operands)
        return self._linear(x, weight, bias)

    def _compute(self, node: Node) -> Node | None:
        """The same of other operands, element by element."""
        is_alike = isinstance(node.target, torch._ops.OpOverload) and (
            torch.Tag.pointwise in node.target.tags or node.target is aten._to_copy.default
        )
        operands = {operand: self._converted(operand) for operand in node.all_input_nodes} if is_alike else {}
        if not operands or any(new is None for new in operands.values()):
            return None
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), operands.__getitem__)
        return self._emit(node.target, *args, **kwargs)


class _ScoredMixture(_Mixture):
    """One that scores tokens before their experts; the rows of score zero, of experts not chosen, come out as zero."""

    def mix(self) -> Node | None:
        for last in self.spelling.products.matches(self.found["y"], {}):
            entered = self._entered(last["rows"], shape_of(last["weight"])[0]) if _is_gated(last["rows"]) else None
            if entered is None:
                return None
            self.found = {**self.found, **entered}
            tokens, k = shape_of(entered["experts"])
            self.pairs = (tokens, k, shape_of(self.node)[-1])
            is_few = self._choose({**entered, "weight": last["weight"]}) and self.numbers
            mixed = self._converted(self.found["y"]) if is_few else None
            return mixed and self._emit(
                aten.sum.dim_IntList, self._emit(aten.reshape.default, mixed, [*self.pairs]), [1]
            )
        return None

    def _entered(self, gated: Node, count: int) -> Found | None:
        """What the tokens of the mixture match where they become those of its experts."""
        tokens = shape_of(self.node)[0]
        reached = [gated]
        for node in reached:
            for found in self.spelling.entering.matches(node, {}):
                is_whole = shape_of(found["x"])[0] == tokens and list(found["repeats"]) == [count, 1]
                return found if is_whole and shape_of(found["experts"]) == shape_of(found["routing"]) else None
            reached += [n for n in node.all_input_nodes if n not in reached and n.op == "call_function"]
        return None

    def _enter(self, tokens: Node) -> Node:
        count, k, _ = self.pairs
        scores = self._emit(aten.sigmoid.default, self.found["routing"])
        scored = self._emit(
            MUL[0], self._emit(aten.unsqueeze.default, tokens, 1), self._emit(aten.unsqueeze.default, scores, 2)
        )
        return self._emit(aten.reshape.default, scored, [count * k, 1, shape_of(tokens)[1]])


def _is_gated(rows: Node) -> bool:
    """Whether rows are a product of something and columns of a product, and so zero where these are."""
    parts = [_columns(operand) for operand in rows.all_input_nodes] if is_call(rows, aten.mul.Tensor) else []
    return any(part is not None and is_call(part[0], aten.bmm.default) for part in parts)


def _counts_to(line: Node, count: int) -> bool:
    known = literal_value(line)
    return known is not None and known.tolist() == [*range(count)]


def _columns(node: Node) -> tuple[Any, ...] | None:
    """x, start, end and step of a node that is some columns of x."""
    if is_call(node, aten.slice.Tensor) and _is_last(argument(node, 1, 0), node.args[0]):
        x, end, width = node.args[0], argument(node, 3, None), shape_of(node.args[0])[-1]
        return x, argument(node, 2, None) or 0, width if end is None else min(end, width), argument(node, 4, 1)
    if is_call(node, operator.getitem) and is_call(node.args[0], aten.split.Tensor):
        x, size = node.args[0].args[:2]
        is_last = _is_last(argument(node.args[0], 2, 0), x)
        return (x, node.args[1] * size, (node.args[1] + 1) * size, 1) if is_last else None
    return None


def _is_last(dim: int, x: Node) -> bool:
    return dim in (-1, len(shape_of(x)) - 1)
