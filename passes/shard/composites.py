"""Layers and attentions as one operator where AOTAutograd took them apart, as it does beside tensors on the device.

Before   addmm(b, x, t(w))    mm(x, t(w))    _scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
After    linear(x, w, b)      linear(x, w)   scaled_dot_product_attention(q, k, v)
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import aten, dead_code, insert, is_call, replace, shape_of
from tt_dynamo.passes.normalize.canonicalize import only_result

_FLASH = aten._scaled_dot_product_flash_attention_for_cpu.default


def whole_operators(graph: Graph) -> int:
    """Rewrite them; returns how many."""
    found = 0
    for node in list(graph.nodes):
        is_attention = is_call(node, operator.getitem) and is_call(node.args[0], _FLASH)
        with graph.inserting_before(node):
            made = only_result(node) if is_attention else _layer(node)
        if made is not None:
            replace(node, made)
            found += 1
    dead_code(graph)
    return found


def _layer(node: Node) -> Node | None:
    """The layer that a product of matrices is, with a bias of as many numbers as it has columns."""
    if not is_call(node, aten.mm.default, aten.addmm.default) or node.kwargs:
        return None
    *bias, x, turned = node.args
    if not is_call(turned, aten.t.default, aten.permute.default, aten.transpose.int):
        return None
    if bias and shape_of(bias[0]) != shape_of(node)[1:]:
        return None
    return insert(node.graph, aten.linear.default, (x, turned.args[0], *bias), like=node)
