"""A product with a vector, and a sum with it, as one kernel.

Before   y = x + branch * gate               y = norm(x) * scale + shift
After    y = addcmul(x, branch, gate)        y = addcmul(shift, norm(x), scale)

Diffusion transformers scale and shift their norms, and gate what a block adds to its stream, by vectors of each image
(adaLN-Zero). Vectors that are the same for all rows have gone into norms before.
Source: Peebles & Xie 2023, https://arxiv.org/abs/2212.09748
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes.rewrite import FLOATS, Rules, call, emit, once, variable

RULES = Rules()


def fuse_gates(graph: Graph, context: Context) -> int:
    """Fuse every such sum; returns how many."""
    return RULES.apply(graph)


def _gate(node: Node, x: Node, branch: Node, gate: Node) -> Node | None:
    if len({dtype_of(value) for value in (node, x, branch, gate)} & FLOATS) != 1:
        return None
    if not shape_of(node) == shape_of(branch) != shape_of(gate):
        return None  # of equal shapes none is a vector
    return emit(node, aten.addcmul.default, x, branch, gate)


RULES.add(
    "gate",
    call(aten.add.Tensor, variable("x"), once(call(aten.mul.Tensor, variable("branch"), variable("gate")))),
    _gate,
)
