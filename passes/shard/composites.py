"""Layers and attentions as one operator where AOTAutograd took them apart, as it does beside tensors on the device.

Before   addmm(b, x, t(w))    mm(x, t(w))    _scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
After    linear(x, w, b)      linear(x, w)   scaled_dot_product_attention(q, k, v)
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import aten, dead_code, insert, is_call, replace

_FLASH = aten._scaled_dot_product_flash_attention_for_cpu.default


def whole_operators(graph: Graph) -> int:
    """Rewrite them; returns how many."""
    found = 0
    for node in list(graph.nodes):
        made = _attention(node) or _layer(node)
        if made is not None:
            target, args, kwargs = made
            with graph.inserting_before(node):
                replace(node, insert(graph, target, args, kwargs, like=node))
            found += 1
    dead_code(graph)
    return found


def _layer(node: Node) -> tuple | None:
    """The layer that a product of matrices is, with a bias of as many numbers as it has columns."""
    if not is_call(node, aten.mm.default, aten.addmm.default) or node.kwargs:
        return None
    *bias, x, turned = node.args
    if not is_call(turned, aten.t.default, aten.permute.default, aten.transpose.int):
        return None
    if bias and tuple(bias[0].meta["val"].shape) != tuple(node.meta["val"].shape[1:]):
        return None
    return aten.linear.default, (x, turned.args[0], *bias), {}


def _attention(node: Node) -> tuple | None:
    """An attention, of which this node picks the result."""
    if not is_call(node, operator.getitem) or node.args[1] != 0 or not is_call(node.args[0], _FLASH):
        return None
    call = node.args[0]
    if set(call.users) != {node}:
        return None
    q, k, v, *rest = call.args
    dropout, is_causal = (rest[at] if len(rest) > at else default for at, default in enumerate((0.0, False)))
    mask, scale = call.kwargs.get("attn_mask"), call.kwargs.get("scale")
    return (
        aten.scaled_dot_product_attention.default,
        (q, k, v, mask, dropout, is_causal),
        {"scale": scale, "enable_gqa": True},
    )
