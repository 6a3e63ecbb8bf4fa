"""What of a graph depends on the length of a prompt, found by comparison with the graph of one that is a row shorter.

A dimension that is a row shorter there has the prompt's rows; a number that is another one depends on their count.
"""

import dataclasses
import itertools
import math
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from tt_dynamo.ir.errors import LengthDependent
from tt_dynamo.ir.graph import aten, dtype_of, module_path, target_name
from tt_dynamo.passes.attention.masks import Masks
from tt_dynamo.passes.rewrite import arguments, as_dtype, emit


@dataclasses.dataclass
class Fitted:
    """What else a prompt needs: at least `shortest` rows, and 0 in the placeholders `starts`."""

    shortest: int = 1
    starts: dict[str, None] = dataclasses.field(default_factory=dict)


class Prompt:
    """The rows of a prompt in each value of a graph of `bucket` rows, of which the first `length` are the prompt's."""

    def __init__(self, graph: Graph, shorter: Graph, length: Node) -> None:
        """shorter: the same graph for a prompt of one row less. length: a placeholder, int64 []"""
        self.graph, self.length, self.bucket = graph, length, 0
        pairs = list(itertools.zip_longest((node for node in graph.nodes if node is not length), shorter.nodes))
        if any(a is None or b is None or (a.op, _called(a)) != (b.op, _called(b)) for a, b in pairs):
            raise LengthDependent("it is another graph for another length")
        self.other: dict[Node, Node] = dict(pairs)
        self.flattened: set[Node] = set()  # values with rows of several sequences in one dimension, one after another
        self.rows = {node: self._rows(node) for node in self.other}
        self.differing = {node: self._differing(node) for node in self.other}
        self.fitted, self.masks = Fitted(), Masks(graph)
        self.forced: dict[tuple[Node | None, bool], Node] = {}  # masks of attention that keep the prompt from padding
        self._own: Node | None = None

    def refusal(self, node: Node, reason: str) -> LengthDependent:
        path = module_path(node)
        return LengthDependent(f"{node.name} ({target_name(node)}{f' of {path}' if path else ''}) {reason}")

    def require(self, condition: bool, node: Node, reason: str) -> None:
        if not condition:
            raise self.refusal(node, reason)

    def _rows(self, node: Node) -> frozenset[int]:
        """The dimensions of a value that have the prompt's rows."""
        found = set()
        values, others = (tree_leaves(n.meta.get("val")) for n in (node, self.other[node]))
        for value, other in zip(values, others, strict=True):
            if not isinstance(value, torch.Tensor):
                continue
            self.require((value.dim(), value.dtype) == (other.dim(), other.dtype), node, "depends on the length")
            for dim, (size, less) in enumerate(zip(value.shape, other.shape, strict=True)):
                if size != less:
                    self.bucket = self.bucket or size
                    times = size // self.bucket
                    is_whole = (size, less) == (times * self.bucket, times * (self.bucket - 1))
                    self.require(is_whole, node, "mixes rows with other sizes")
                    if times > 1:
                        self.flattened.add(node)
                    found.add(dim)
        return frozenset(found)

    def _differing(self, node: Node) -> frozenset[str]:
        """The names of arguments with numbers that depend on the length."""
        if node.op == "get_attr":
            self.require(_is_equal(node, self.other[node]), node, "is another constant for another length")
        if node.op != "call_function":
            return frozenset()
        given, others = (arguments(n) for n in (node, self.other[node]))
        found = set()
        for name, value in given.items():
            mine, theirs = tree_leaves(value), tree_leaves(others[name])
            operands, its = ([x for x in leaves if isinstance(x, Node)] for leaves in (mine, theirs))
            same = len(mine) == len(theirs) and [self.other[x] for x in operands] == its
            self.require(same, node, "is another call for another length")
            if any(not isinstance(a, Node) and a != b for a, b in zip(mine, theirs, strict=True)):
                found.add(name)
        return frozenset(found)

    def require_apart(self, node: Node) -> None:
        """Refuse a call that knows rows by their places where several sequences share a dimension."""
        shared = any(x in self.flattened for x in (node, *node.all_input_nodes))
        self.require(not shared, node, "knows rows of several sequences by their places")

    def keep(self, node: Node, new: Node) -> None:
        """Have `new` in a node's place."""
        self.rows[new] = self.rows[node]
        node.replace_all_uses_with(new, propagate_meta=False)
        self.graph.erase_node(node)

    def own(self, *shape: int) -> Node:
        """Which rows are the prompt's, bool, in this shape, at the graph's insertion point."""
        if self._own is None:
            first = next(node for node in self.graph.nodes if node.op != "placeholder")
            with self.graph.inserting_before(first):
                places = emit(self.length, aten.arange.default, self.bucket)
                self._own = emit(self.length, aten.lt.Tensor, places, self.length)
        return emit(self.length, aten.view.default, self._own, list(shape))

    def from_end(self, node: Node, x: Node, dim: int, first: int, count: int) -> Node:
        """`count` rows of x, the first of which is `first` rows before the end of the prompt."""
        self.fitted.shortest = max(self.fitted.shortest, first)
        places = emit(self.length, aten.arange.start, -first, count - first)
        return emit(node, aten.index_select.default, x, dim, emit(self.length, aten.add.Tensor, places, self.length))

    def mask(self, node: Node, mask: Node | None, by_query: bool) -> Node:
        """A mask of attention that keeps rows of the prompt from padding.

        by_query: it has rows of queries. Those of padding may read padding: one that reads nothing would be NaN, which
        later layers would spread.
        """
        if (mask, by_query) not in self.forced:
            with self.graph.inserting_before(node):
                self.forced[mask, by_query] = made = self._mask(node, mask, by_query)
            self.rows[made] = frozenset()
        return self.forced[mask, by_query]

    def _mask(self, node: Node, mask: Node | None, by_query: bool) -> Node:
        own = self.own(1, 1, 1, self.bucket)
        if mask is None:
            return as_dtype(emit(node, aten.where.Scalar, own, 0.0, -math.inf), dtype_of(node.args[0]), node)
        if by_query:
            padding = emit(node, aten.logical_not.default, self.own(1, 1, self.bucket, 1))
            own = emit(node, aten.logical_or.default, own, padding)
        if dtype_of(mask) == torch.bool:
            return emit(node, aten.bitwise_and.Tensor, mask, own)
        return emit(node, aten.where.ScalarOther, own, mask, -math.inf)


def _called(node: Node) -> Any:
    return node.target if node.op == "call_function" else None


def _is_equal(node: Node, other: Node) -> bool:
    """Whether two attributes of graphs are the same constant."""
    values = [getattr(n.graph.owning_module, str(n.target)) for n in (node, other)]
    return all(isinstance(value, torch.Tensor) for value in values) and torch.equal(*values)
