"""Transposes of what a product multiplies are options of the product.

Before   scores = matmul(q, permute(k, [0, 1, 3, 2]))
After    scores = product(q, k, False, True)

TTNN transposes tiles as it reads them. Only where nothing else reads the transposed value.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace
from tt_dynamo.passes.rewrite import emit, is_constant

PRODUCTS = (aten.matmul.default, aten.bmm.default)


def fuse_transposes(graph: Graph, context: Context) -> int:
    """Have products transpose their operands; returns how many products."""
    fused = 0
    for node in graph.nodes:
        if not is_call(node, *PRODUCTS):
            continue
        turned = [_is_transposed(x) and only_user(x) is node for x in node.args]
        if any(turned):
            operands = (x.args[0] if is_turned else x for x, is_turned in zip(node.args, turned, strict=True))
            with graph.inserting_before(node):
                replace(node, emit(node, operators.product, *operands, *turned))
            fused += 1
    dead_code(graph)
    return fused


def _is_transposed(x: Node) -> bool:
    """Whether the last two dimensions of a value are exchanged, and no others; those of constants are so once."""
    if not is_call(x, aten.permute.default) or is_constant(x):
        return False
    *leading, second, last = (dim % len(x.args[1]) for dim in x.args[1])
    return [*leading, last, second] == sorted(x.args[1]) and last < second
