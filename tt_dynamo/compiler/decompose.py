"""Replace a fused operation by the ATen operations of its torch implementation, where TTNN refuses it as a whole."""

from typing import Any

import torch
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, find_fake_mode, insert, is_random, replace, shape_of, splice
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def decompose(node: Node) -> list[Node]:
    """Replace a fused operation by its parts, and return those."""
    if node.target is operators.attention and len(node.args) < 7:
        return _without_merging(node)
    operands = list(node.all_input_nodes)

    def call(*values: torch.Tensor) -> Any:
        known = dict(zip(operands, values, strict=True))
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
        return operators.BY_PARTS.get(node.target, node.target.decompose)(*args, **kwargs)

    with find_fake_mode(node.graph.nodes):
        inner = make_fx(call)(*(n.meta["val"] for n in operands))
    if node.target is not operators.linear:  # which would be made of its parts again
        canonicalize(inner.graph, Context())
    return [part for part in splice(node, inner, operands) if not _replace_by_twin(part)]


def _without_merging(node: Node) -> list[Node]:
    """Attention that leaves its heads to be merged by another call."""
    *operands, scale = node.args
    query, key, value, mask, is_causal = operands
    grouped = {"enable_gqa": True} if shape_of(query)[1] != shape_of(key)[1] else {}
    sdpa = torch.ops.aten.scaled_dot_product_attention.default
    with node.graph.inserting_before(node):
        args = (query, key, value, mask, 0.0, is_causal)
        heads = insert(node.graph, sdpa, args, {"scale": scale, **grouped}, like=node)
        merged = insert(node.graph, operators.merge_heads, (heads,), like=node)
    replace(node, merged)
    return [heads, merged]


def _replace_by_twin(part: Node) -> bool:
    """Have an equal node before it take a part's place: layers read one mask, moved in one way."""
    for twin in part.all_input_nodes[0].users if part.all_input_nodes and not is_random(part) else ():
        if twin < part and (twin.target, twin.args, twin.kwargs) == (part.target, part.args, part.kwargs):
            part.replace_all_uses_with(twin, propagate_meta=False)
            part.graph.erase_node(part)
            return True
    return False
