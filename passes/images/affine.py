"""Write the weight and bias of norms over channels as constants beside them, in the shape that broadcasts.

Before   y = batch_norm(x, w, b, mean, var)          y = group_norm(x, groups, w, b)
After    y = addcmul(b - mean * s, x, s)             y = addcmul(b, group_norm(x, groups), w)

with s = w * rsqrt(var + eps) in evaluation. What depends on parameters alone is computed once, on the host, and one
kernel scales and shifts. A batch norm in training without statistics that anything reads is a group norm of one channel
a group, once batch and channels are exchanged.
"""

from __future__ import annotations

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, insert, is_call, replace, shape_of
from tt_dynamo.passes.rewrite import argument

TRAINING = (aten._native_batch_norm_legit.no_stats, aten._native_batch_norm_legit_functional.default)


def split_norm_affine(graph: Graph, context: Context) -> int:
    """Rewrite every norm over channels; returns how many."""
    rewritten = 0
    for node in list(graph.nodes):
        with graph.inserting_before(node):
            if is_call(node, aten._native_batch_norm_legit_no_training.default):
                rewritten += _Norm(graph, node).evaluated()
            elif is_call(node, aten.native_group_norm.default, *TRAINING):
                rewritten += _Norm(graph, node).normalized()
            elif is_call(node, aten.group_norm.default) and any(x is not None for x in node.args[2:4]):
                rewritten += _split_group_norm(graph, node)
    if rewritten:
        dead_code(graph)
    return rewritten


def _split_group_norm(graph: Graph, node: Node) -> bool:
    norm, (x, groups) = _Norm(graph, node), node.args[:2]
    bare = norm._group_norm(x, groups, argument(node, 4, 1e-5))
    replace(node, norm._affine(bare, argument(node, 2), argument(node, 3)))
    return True


class _Norm:
    """A norm over channels of x [batch, channels, ...], and its results by position."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node
        self.x, self.weight, self.bias = node.args[:3]
        self.shape = shape_of(self.x)
        self.picks: dict[int, Node] = {user.args[1]: user for user in node.users if is_call(user, operator.getitem)}

    def emit(self, target, *args, **kwargs) -> Node:
        return insert(self.graph, target, args, kwargs, like=self.node)

    def evaluated(self) -> bool:
        """A batch norm by statistics that are given: the others of its results have no elements."""
        mean, variance, _, eps = self.node.args[3:7]
        if list(self.picks) != [0]:
            return False
        scale = self.emit(aten.rsqrt.default, self.emit(aten.add.Tensor, variance, eps))
        if self.weight is not None:
            scale = self.emit(aten.mul.Tensor, scale, self.weight)
        shift = self.emit(aten.neg.default, self.emit(aten.mul.Tensor, mean, scale))
        if self.bias is not None:
            shift = self.emit(aten.add.Tensor, self.bias, shift)
        return self._replace(self._affine(self.x, scale, shift))

    def normalized(self) -> bool:
        """A norm by the statistics of x itself: first without weight and bias, then with."""
        only_first = list(self.picks) == [0]
        if 0 not in self.picks or not (only_first or self.weight is not None or self.bias is not None):
            return False
        if only_first and is_call(self.node, aten.native_group_norm.default):
            groups, eps = self.node.args[6:8]
            y = self._group_norm(self.x, groups, eps)
        elif only_first and is_call(self.node, aten._native_batch_norm_legit.no_stats) and self.node.args[3]:
            y = self._by_channel(self.node.args[5])
        else:
            bare = self.emit(self.node.target, self.x, None, None, *self.node.args[3:])
            for pick in self.picks.values():
                if pick.args[1] != 0:
                    pick.replace_input_with(self.node, bare)
            y = self.emit(operator.getitem, bare, 0)
        return self._replace(self._affine(y, self.weight, self.bias))

    def _group_norm(self, x: Node, groups: int, eps: float) -> Node:
        return self.emit(aten.group_norm.default, x, groups, None, None, eps)

    def _by_channel(self, eps: float) -> Node:
        batch, channels, *spatial = self.shape
        if batch == 1:
            return self._group_norm(self.x, channels, eps)
        exchange = [1, 0, *range(2, len(self.shape))]
        x = self.emit(aten.permute.default, self.x, exchange)
        x = self.emit(aten.reshape.default, x, [1, channels, batch, *spatial])
        y = self.emit(aten.reshape.default, self._group_norm(x, channels, eps), [channels, batch, *spatial])
        return self.emit(aten.permute.default, y, exchange)

    def _affine(self, y: Node, scale: Node | None, shift: Node | None) -> Node:
        scale, shift = (constant and self._broadcastable(constant) for constant in (scale, shift))
        if scale is not None and shift is not None:
            return self.emit(aten.addcmul.default, shift, y, scale)
        if scale is not None:
            return self.emit(aten.mul.Tensor, y, scale)
        return y if shift is None else self.emit(aten.add.Tensor, y, shift)

    def _broadcastable(self, constant: Node) -> Node:
        """A constant [channels] as [channels, 1, ...], in x's dtype."""
        if dtype_of(constant) != dtype_of(self.x):
            constant = self.emit(aten._to_copy.default, constant, dtype=dtype_of(self.x))
        ones = [1] * (len(self.shape) - 2)
        return self.emit(aten.reshape.default, constant, [self.shape[1], *ones]) if ones else constant

    def _replace(self, y: Node) -> bool:
        replace(self.picks[0], y)
        return True
