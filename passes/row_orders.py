"""Windows one behind the other: rows stay in the order of one attention until the next one wants another.

Before   y = x + look_up(attention(look_up(norm(x), p)), p⁻¹);   z = y + mlp(norm(y));   look_up(norm(z), q)
After    x' = look_up(x, p);   y' = x' + attention(norm(x'));   z' = y' + mlp(norm(y'));   norm(look_up(z', q ∘ p))

A lookup that holds every row once is a permutation of rows. What works row by row takes the rows in any order, so a
permutation moves before a norm, behind the sum with what was permuted alike, and behind all that works row by row,
where fewer lookups are left: two permutations that meet are one, and one that undoes another is none.
"""

import math

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, literal_value, only_user, replace, shape_of
from tt_dynamo.passes.movement import numbered
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import emit, is_constant
from tt_dynamo.passes.rows import literal

NORMS = (aten.layer_norm.default, operators.rms_norm)
SUMS = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)
# What works row by row on rows of one operand or more; every other operand is one row, or a number.
ROW_WISE = (*NORMS, *SUMS, operators.linear, *(getattr(aten, name).default for name in (
    "gelu", "relu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "clone", "erf", "neg",
)))  # fmt: skip


def order_rows(graph: Graph, context: Context) -> int:
    """Move permutations of rows to where fewest are left; returns how many moved."""
    moved = 0
    for step in (_permute_before_norm, _permute_after_sum, _permute_after_region, _look_up_in_shape):
        for node in list(graph.nodes):
            moved += step(node) if node.users else 0
        dead_code(graph)
    if moved:
        canonicalize(graph, context)
    return moved


def _permutation(node: Node) -> torch.Tensor | None:
    """The rows of a lookup that holds each row of its operand once, in a line; None of any other node."""
    rows = literal_value(node.args[1]) if is_call(node, operators.look_up) else None
    if rows is None or rows.numel() != math.prod(shape_of(node.args[0])[:-1]):
        return None
    rows = rows.reshape(-1).long()
    return rows if torch.equal(rows.sort().values, torch.arange(rows.numel())) else None


def _inverse(rows: torch.Tensor) -> torch.Tensor:
    return torch.argsort(rows)


def _is_reshaped_rows(node: Node) -> bool:
    """Whether a node is its operand with the same rows in other leading dimensions."""
    return is_call(node, aten.reshape.default) and shape_of(node)[-1:] == shape_of(node.args[0])[-1:]


def _base(node: Node) -> Node:
    """The value whose rows `node` has in other leading dimensions."""
    while _is_reshaped_rows(node):
        node = node.args[0]
    return node


def _lookup_of(x: Node, rows: torch.Tensor) -> Node | None:
    """A lookup of those rows of x that the graph holds."""
    for value in (alike := [_base(x)]):
        alike += [user for user in value.users if _is_reshaped_rows(user)]
        for user in value.users:
            found = _permutation(user)
            if found is not None and user.args[0] is value and torch.equal(found, rows):
                return user
    return None


def _permute_before_norm(node: Node) -> int:
    """look_up(norm(x), p) → norm(look_up(x, p)) where something else reads x: its sum with what comes back."""
    if _permutation(node) is None:
        return 0
    x = _base(node.args[0])
    if not is_call(x, *NORMS) or not _is_over_rows(x) or len(x.args[0].users) < 2:
        return 0
    if any(only_user(value) is None for value in _path(node.args[0], x)):
        return 0
    with node.graph.inserting_before(node):
        moved = emit(node, operators.look_up, x.args[0], node.args[1])
        replace(node, emit(x, x.target, moved, *x.args[1:], **x.kwargs))
    return 1


def _path(node: Node, base: Node) -> list[Node]:
    """From `node` up to the value whose rows it has, which is the last."""
    path = [node]
    while path[-1] is not base:
        path.append(path[-1].args[0])
    return path


def _is_over_rows(node: Node) -> bool:
    """Whether a norm is of each row alone."""
    return node.target is not aten.layer_norm.default or len(node.args[1]) == 1


def _permute_after_sum(node: Node) -> int:
    """x + look_up(y, p⁻¹) → look_up(look_up(x, p) + y, p⁻¹) where the graph holds look_up(x, p); a norm between too."""
    if not is_call(node, aten.add.Tensor) or node.kwargs or not all(isinstance(x, Node) for x in node.args):
        return 0
    for x, other in (node.args, node.args[::-1]):
        tail = _base(other)
        norm = tail if is_call(tail, *NORMS) and _is_over_rows(tail) else None
        found = _base(norm.args[0]) if norm else tail
        rows = _permutation(found)
        if rows is None or shape_of(x) != shape_of(node):
            continue
        path = [*_path(other, tail), *(_path(norm.args[0], found) if norm else ())]
        before = _lookup_of(x, _inverse(rows))
        if before is None or not before < node or any(only_user(value) is None for value in path):
            continue
        with node.graph.inserting_before(node):
            y = found.args[0]
            y = emit(norm, norm.target, y, *norm.args[1:], **norm.kwargs) if norm else y
            known = emit(node, aten.reshape.default, before, list(shape_of(y)))
            total = emit(node, operators.look_up, emit(node, aten.add.Tensor, known, y), found.args[1])
            replace(node, emit(node, aten.reshape.default, total, list(shape_of(node))))
        return 1
    return 0


def _permute_after_region(node: Node) -> int:
    """A permutation behind all that works row by row on what it gives, where fewer lookups are left."""
    rows = _permutation(node)
    return int(rows is not None and _Region(node, rows).reorder())


def _look_up_in_shape(node: Node) -> int:
    """reshape(look_up(x, rows)) → look_up(x, reshape(rows))"""
    found = node.args[0] if _is_reshaped_rows(node) else node
    if found is node or not is_call(found, operators.look_up) or only_user(found) is None:
        return 0
    rows = literal_value(found.args[1])
    if rows is None:
        return 0
    with node.graph.inserting_before(node):
        replace(node, _looked_up(node, found.args[0], rows.reshape(shape_of(node)[:-1])))
    return 1


def _looked_up(node: Node, x: Node, rows: torch.Tensor) -> Node:
    """Rows of x, as a reshape where they are all of it in order."""
    if rows.numel() == math.prod(shape_of(x)[:-1]) and torch.equal(rows.reshape(-1), torch.arange(rows.numel())):
        return emit(node, aten.reshape.default, x, [*rows.shape, shape_of(x)[-1]])
    return emit(node, operators.look_up, x, literal(node, rows))


class _Region:
    """What works row by row on the rows of a lookup, and on what becomes of those."""

    def __init__(self, lookup: Node, rows: torch.Tensor) -> None:
        self.lookup, self.rows, self.before = lookup, rows, _inverse(rows)
        self.inside: dict[Node, None] = {lookup: None}
        self.entering: dict[Node, None] = {}
        self.count = rows.numel()
        users = dict.fromkeys(lookup.users)
        while users:
            node = min(users)
            users.pop(node)
            if node not in self.inside and (entering := self._entering(node)) is not None:
                self.inside[node] = None
                self.entering.update(dict.fromkeys(entering))
                users.update(dict.fromkeys(node.users))

    def _entering(self, node: Node) -> list[Node] | None:
        """The operands that hold rows and are not inside; None of what does not work row by row."""
        if _is_reshaped_rows(node):
            return []
        if not is_call(node, *ROW_WISE) or (is_call(node, *NORMS) and not _is_over_rows(node)):
            return None
        operands = node.args if is_call(node, *SUMS) else node.args[:1]
        rest = [x for x in node.all_input_nodes if x not in operands]
        shape = shape_of(node)
        if math.prod(shape[:-1]) != self.count or any(x in self.inside for x in rest):
            return None
        entering = []
        for x in operands:
            if not isinstance(x, Node) or x in self.inside or math.prod(shape_of(x)[:-1]) == 1:
                continue
            if shape_of(x)[:-1] != shape[:-1]:
                return None
            entering.append(x)
        return entering

    def _leaving(self) -> list[tuple[Node, list[Node]]]:
        """The values inside that something outside reads, and what reads them."""
        outside = [(x, [user for user in x.users if user not in self.inside]) for x in self.inside]
        return [(x, users) for x, users in outside if users]

    def _seen(self, user: Node) -> torch.Tensor | None:
        """Which of the new rows a lookup outside reads, in a line."""
        rows = literal_value(user.args[1]) if is_call(user, operators.look_up) else None
        return None if rows is None else self.rows[rows.reshape(-1).long()]

    def reorder(self) -> bool:
        """Let the region work on rows as they are before the lookup, where fewer lookups are left."""
        fewer = -1
        for x in self.entering:
            fewer += not is_constant(x) and _lookup_of(x, self.before) is None and not self._meets(x)
        for _, users in self._leaving():
            fewer += any(self._seen(user) is None for user in users)
            fewer -= sum(self._is_identity(user) for user in users)
        if fewer >= 0:
            return False
        self._rewrite()
        dead_code(self.lookup.graph)  # what nothing reads any more is no lookup that another region may share
        return True

    def _meets(self, x: Node) -> bool:
        """Whether a value is itself a lookup that nothing else reads."""
        return _permutation(_base(x)) is not None and all(only_user(v) is not None for v in _path(x, _base(x)))

    def _is_identity(self, user: Node) -> bool:
        seen = self._seen(user)
        return seen is not None and torch.equal(seen, numbered(seen.shape, seen.dtype))

    def _rewrite(self) -> None:
        leading = shape_of(self.lookup.args[0])[:-1]
        new = {self.lookup: self.lookup.args[0]}
        leaving = self._leaving()
        for node in self.inside:
            if node is self.lookup:
                continue
            if _is_reshaped_rows(node):
                new[node] = new[node.args[0]]
                continue
            with node.graph.inserting_before(node):
                operands = {x: self._entered(node, x, leading) for x in node.all_input_nodes if x in self.entering}
                args = map_arg(node.args, lambda x: new.get(x, operands.get(x, x)))  # noqa: B023
                new[node] = emit(node, node.target, *args, **node.kwargs)
        for x, users in leaving:
            self._let_out(x, new[x], users)

    def _entered(self, node: Node, x: Node, leading: tuple[int, ...]) -> Node:
        """An operand from outside in the order of the rows inside."""
        shape = [*leading, shape_of(x)[-1]]
        found, base = _lookup_of(x, self.before), _base(x)
        if found is not None and found < node:
            return emit(node, aten.reshape.default, found, shape)
        own = _permutation(base)
        if own is not None and self._meets(x):
            return _looked_up(node, base.args[0], own[self.before].reshape(leading))
        return _looked_up(node, x, self.before.reshape(leading))

    def _let_out(self, x: Node, new: Node, users: list[Node]) -> None:
        """Values outside read the old order; lookups read what they wanted of the new one."""
        old = None
        for user in users:
            seen = self._seen(user)
            with user.graph.inserting_before(user):
                if seen is not None:
                    shape = shape_of(user.args[1])
                    replace(user, _looked_up(user, new, seen.reshape(shape)))
                    continue
            if old is None:
                with x.graph.inserting_before(max(x, new).next):
                    old = _looked_up(x, new, self.rows.reshape(shape_of(x)[:-1]))
            user.replace_input_with(x, old)
