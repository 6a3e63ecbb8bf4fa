"""Write, of a graph of whole values, the graph that every chip of a mesh runs on its own parts of them.

Before   y = linear(x, w)                            w is to be cut by its columns, dimension 1, along axis 1
After    y = all_reduce(linear(x, partition(w, 1, 1, 8)), 1)

Node by node: a rule says how the operands of an operation have to be cut and how its results are then, what lies
otherwise is gathered or cut, and the operation runs on the parts. What no rule is known for is computed whole on every
chip. Results that are sums over chips are summed where they arise.
"""

import logging
import operator
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import aten, constant_nodes, insert, is_call, mutates, needed_for, shape_of
from tt_dynamo.passes.shard.experts import is_linear
from tt_dynamo.passes.shard.placement import Placement, Unruled, divides, is_cut, local_shape, pieces, replicated
from tt_dynamo.passes.shard.rules import rule_of

log = logging.getLogger(__name__)

# What makes the same number everywhere.
_EVEN = (aten.zeros.default, aten.ones.default, aten.full.default)


class Walk:
    """The graph for one chip, as it is written.

    mesh: rows and columns. batch: of the inputs, where it does not divide among the chips along `batch_axes`: it is
    filled up with zeros, and what is put together again is cut; 0 where it does. cut: how the values of that graph are
    cut; of a call with several results a list. whole: how often an operation was computed whole on every chip although
    operands were cut. packed: values whose cut dimension has two halves, each of them cut. due: sums over the chips
    along these axes that are yet to be taken.
    """

    def __init__(
        self, module: GraphModule, mesh: Sequence[int], batch: int = 0, batch_axes: Collection[int] = ()
    ) -> None:
        self.batch, self._batch_axes = batch, batch_axes
        self.module, self.mesh, self.graph = module, tuple(mesh), Graph(module)
        self.cut: dict[Node, Any] = {}
        self.known: dict[Node, Node] = {}
        self._raw: dict[Node, Node] = {}
        self.whole: Counter[str] = Counter()
        self.packed: set[Node] = set()
        self.due: dict[Node, list[int]] = {}
        self._sizes: dict[Node, tuple[int, ...]] = {}  # of whole values whose parts are filled up
        self._made_of: dict[Node, Node] = {}
        self._moved: dict[tuple[Node, Placement], Node] = {}
        self._like: Node = next(iter(module.graph.nodes))

    def run(self, placements: Mapping[Node, Placement], halved: Collection[Node] = ()) -> Graph:
        """Write the graph, whose outputs are whole; placements: of placeholders and what is made of them.

        halved: the parameters whose cut dimension has two halves, each of which is cut.
        """
        self._halved = halved
        constants = constant_nodes(self.module.graph)
        for node in self.module.graph.nodes:
            self._like = node
            if node.op == "placeholder":
                self.known[node] = self._placeholder(node, placements.get(node, replicated(self.mesh)))
            elif node.op == "output":
                made_of_weights = {x for x in node.args[0] if x in constants}
                results = [
                    self._uncut(x) if x in made_of_weights else self._whole(self.known[x]) if isinstance(x, Node) else x
                    for x in node.args[0]
                ]
                self.graph.output(tuple(results)).meta = dict(node.meta)
                return self.graph
            else:
                made = self._call(node)
                self.known[node] = self.to(made, placements[node]) if node in placements else made
        raise AssertionError("a graph ends in its output")

    def _placeholder(self, node: Node, placement: Placement) -> Node:
        made = self._raw[node] = self.graph.node_copy(node)
        value = node.meta.get("val")
        self.cut[made] = replicated(self.mesh)
        if not is_cut(placement) or not self._divides(value.shape, placement):
            return made
        if node in self._halved:
            return self._cut_halves(made, placement)
        if not meta.held.get(node, False):
            return self.to(made, placement)
        with value.fake_mode:
            made.meta["val"] = torch.empty(local_shape(value.shape, placement, self.mesh), dtype=value.dtype)
        meta.placement.set(made, placement)
        self.cut[made] = placement
        return made

    def _whole(self, node: Node) -> Node:
        """An output, whose parts the host puts together where it is cut."""
        if node in self.due:
            node = self._summed(node)
        cut = self.cut[node]
        if not is_cut(cut):
            return node
        made = self.emit(operators.join, (node, [-1 if d is None else d for d in cut], list(self.mesh)), {}, cut)
        for dim in {dim for dim in cut if dim is not None}:
            made = self._without_filling(made, dim, cut, self._sizes.get(node))
        return made

    def _uncut(self, node: Node) -> Node:
        """A value that is made of parameters and literals alone, as the caller gets it: of whole ones."""
        for needed in needed_for(node, self._raw.__contains__) if node not in self._raw else ():
            self._raw[needed] = self.graph.node_copy(needed, self._raw.__getitem__)
        return self._raw[node]

    def _divides(self, shape: Sequence[int], cut: Placement) -> bool:
        """Whether a value can be cut so: in equal parts, or as the batch, which is filled up."""
        by_others = [None if axis in self._batch_axes else dim for axis, dim in enumerate(cut)]
        batch = self.batch if self.batch not in (shape[dim] for dim in by_others if dim is not None) else 0
        return divides(shape, cut, self.mesh, batch)

    def _call(self, node: Node) -> Node:
        if node.op == "get_attr":
            made = self.graph.node_copy(node)
            self.cut[made] = replicated(self.mesh)
            return made
        if node.target is operator.getitem:
            source, at = self.known[node.args[0]], node.args[1]
            found = self.cut[source]
            return self.emit(operator.getitem, (source, at), {}, found[at] if isinstance(found, list) else found)
        for operand in node.all_input_nodes:
            if self.known[operand] in self.due and not self._may_wait(node, operand):
                self.known[operand] = self._summed(self.known[operand])
        operands = [self.known[operand] for operand in node.all_input_nodes]
        made = self._call_on(node, operands)
        due = [axis for operand in operands for axis in self.due.get(operand, ())]
        if due:
            self.due[made] = due
        return made

    def _may_wait(self, node: Node, operand: Node) -> bool:
        """Whether a sum over chips that an operand is due may be taken behind a call: no other is cut or due so."""
        others = [self.known[other] for other in node.all_input_nodes if other is not operand]
        axes = self.due[self.known[operand]]
        apart = any(other in self.due or any(self.cut[other][axis] is not None for axis in axes) for other in others)
        return is_linear(node, operand) and not apart

    def _summed(self, node: Node) -> Node:
        """A sum that was due, once."""
        key = node, ("due",)
        if key not in self._moved:
            self._moved[key] = self.sum(node, self.due[node])
        return self._moved[key]

    def _call_on(self, node: Node, operands: Sequence[Node]) -> Node:
        if not any(is_cut(self.cut[operand]) for operand in operands):
            return self._copy(node, self.known.__getitem__)
        rule = rule_of(node)
        if rule is not None:
            last = len(self.graph.nodes)
            try:
                made = rule(self, node)
                if self._fits(node, made):
                    if self.batch and isinstance(node.meta["val"], torch.Tensor):
                        self._sizes[made] = shape_of(node)
                    return made
            except (Unruled, RuntimeError) as error:  # torch's of shapes that do not go together
                log.debug("%s is computed whole: %s", node.name, error)
            self._erase_from(last)
        if mutates(node):
            raise Unruled(f"{node.target} writes to what is cut")
        self.whole[str(node.target)] += 1
        return self._copy(node, lambda operand: self.to(self.known[operand], replicated(self.mesh)))

    def _copy(self, node: Node, operand: Any) -> Node:
        made = self.graph.node_copy(node, operand)
        self.cut[made] = replicated(self.mesh)
        return made

    def _erase_from(self, count: int) -> None:
        for node in reversed(list(self.graph.nodes)[count:]):
            self._moved = {key: value for key, value in self._moved.items() if value is not node}
            self.graph.erase_node(node)

    def _fits(self, node: Node, made: Node) -> bool:
        """Whether the shapes on a chip are those of parts of the whole values."""
        whole, cuts, parts = node.meta.get("val"), self.cut[made], made.meta.get("val")
        if not isinstance(whole, (list, tuple)):
            whole, cuts, parts = [whole], [cuts], [parts]
        elif not isinstance(cuts, list):
            cuts = [cuts] * len(whole)
        return len(whole) == len(parts) and all(
            self._divides(value.shape, cut) and tuple(part.shape) == local_shape(value.shape, cut, self.mesh)
            for value, cut, part in zip(whole, cuts, parts, strict=True)
            if isinstance(value, torch.Tensor)
        )

    def emit(self, target: Any, args: tuple, kwargs: Mapping[str, Any], cut: Any) -> Node:
        """A call on parts, whose results are cut so."""
        made = insert(self.graph, target, args, dict(kwargs), like=self._like)
        self.cut[made] = cut
        return made

    def to(self, node: Node, placement: Placement) -> Node:
        """A value cut in another way: gathered along those axes where its cut differs, then cut."""
        while self.cut[node] != placement and node in self._made_of:  # back to what it was cut of
            source = self._made_of[node]
            if not all(a is None or a == b for a, b in zip(self.cut[source], placement, strict=True)):
                break
            node = source
        key = node, placement
        if key not in self._moved:
            self._moved[key] = self._move(node, placement)
        return self._moved[key]

    def _cut_halves(self, node: Node, placement: Placement) -> Node:
        """A parameter of which each chip has a part of both halves of the cut dimension."""
        dim = next(dim for dim in placement if dim is not None)
        size, parts = shape_of(node)[dim], []
        for start, end in ((0, size // 2), (size // 2, size)):
            half = self.emit(aten.slice.Tensor, (node, dim, start, end), {}, self.cut[node])
            parts.append(self.to(half, placement))
        made = self.emit(aten.cat.default, (parts, dim), {}, placement)
        self.packed.add(made)
        self._made_of[made] = node
        return made

    def _move(self, node: Node, placement: Placement) -> Node:
        if node in self.packed:
            raise Unruled("halves that are cut each are not in order")
        value, given = node, self.cut[node]
        kept = _kept_axes(given, placement)
        for axis in reversed(range(len(self.mesh))):
            dim = given[axis]
            if dim is not None and axis not in kept:
                given = (*given[:axis], None, *given[axis + 1 :])
                value = self.emit(operators.all_gather, (value, dim, axis, self.mesh[axis]), {}, given)
                if dim not in given:
                    value = self._without_filling(value, dim, given, self._sizes.get(node))
        sizes = shape_of(value)
        for axis, dim in enumerate(placement):
            if dim is not None and axis not in kept:
                source = value
                if self.batch and sizes[dim] == self.batch and dim not in given and self._divides(sizes, placement):
                    value = self._filled(value, dim, pieces(placement, self.mesh, dim))
                if shape_of(value)[dim] % self.mesh[axis]:
                    raise Unruled(f"{shape_of(value)[dim]} rows do not divide among {self.mesh[axis]} chips")
                given = (*given[:axis], dim, *given[axis + 1 :])
                value = self._part(value, dim, axis, given)
                self._made_of[value] = source
        if self.batch and is_cut(placement):
            self._sizes.setdefault(value, self._sizes.get(node, sizes))
        return value

    def _filled(self, value: Node, dim: int, parts: int) -> Node:
        """A value whose dimension, of the size of the batch, has zeros behind it so that it divides."""
        missing = -self.batch % parts
        widths = [0, 0] * (len(shape_of(value)) - 1 - dim) + [0, missing]
        return self.emit(aten.constant_pad_nd.default, (value, widths), {}, self.cut[value]) if missing else value

    def _without_filling(self, value: Node, dim: int, cut: Placement, sizes: tuple[int, ...] | None) -> Node:
        """A whole dimension without what it was filled up with; sizes: of the whole value, None where none was."""
        if sizes is None or sizes[dim] == shape_of(value)[dim]:
            return value
        return self.emit(aten.slice.Tensor, (value, dim, 0, sizes[dim]), {}, cut)

    def _part(self, value: Node, dim: int, axis: int, cut: Placement) -> Node:
        if is_call(value, *_EVEN):  # a chip makes its part itself
            sizes = list(shape_of(value))
            sizes[dim] //= self.mesh[axis]
            return self.emit(value.target, (sizes, *value.args[1:]), value.kwargs, cut)
        return self.emit(operators.partition, (value, dim, axis, self.mesh[axis]), {}, cut)

    def sum(self, node: Node, axes: Sequence[int]) -> Node:
        """The sum of parts over the chips along some axes."""
        for axis in axes:
            node = self.emit(operators.all_reduce, (node, axis), {}, self.cut[node])
        return node


def is_state(node: Node) -> bool:
    """Whether an input may stay on the device between calls, cut as it is."""
    return bool(meta.held.get(node, False)) or any(is_call(user, aten.copy_.default) for user in node.users)


def _kept_axes(before: Placement, after: Placement) -> set[int]:
    """The axes whose cuts stay where they are. Of several along one dimension each cuts the parts of the one before."""
    kept: set[int] = set()
    for dim in {dim for dim in before if dim is not None}:
        old, new = ([axis for axis, cut in enumerate(cuts) if cut == dim] for cuts in (before, after))
        for one, other in zip(old, new, strict=False):
            if one != other:
                break
            kept.add(one)
    return kept
