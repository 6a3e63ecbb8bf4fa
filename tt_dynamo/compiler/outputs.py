"""What the caller gets lies in memory as eager torch's results do.

Before   output (to_host(y), to_host(y[0]))        eager torch gives a view of the first as the second
After    output shared([to_host(y), to_host(y[0])], bytes, layouts);   for one by itself restrided(x, shape, stride)

Passes change strides, and a view of a value may be computed on the device while the value comes down by itself. The
caller may write into what it gets: so nothing shares memory that eager torch keeps apart, neither weights nor constants
are given away, and what shares memory in eager torch shares it here, at the same strides.
"""

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.compiler.traced_weights import FOLDED
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import is_call
from tt_dynamo.ir.helpers import restrided, shared
from tt_dynamo.ir.torch_internals import storage_of


def arrange_outputs(graph: Graph) -> None:
    """Copy the results of a placed graph that lie otherwise than eager torch's; not those that stay on the device."""
    output = graph.output_node()
    found, eager = list(output.args[0]), meta.eager(output)
    groups: dict[int, list[int]] = {}  # the positions of the tensors that lie in one memory in eager torch
    for position, value in enumerate(found):
        if isinstance(value, Node) and _memory_of(value) and not is_call(value, operators.keep):
            groups.setdefault(storage_of(eager[position]), []).append(position)
    # memory of the graph → the memory that eager torch has for it; inputs are the caller's already
    owners = {memory: memory for memory in map(_memory_of, graph.find_nodes(op="placeholder")) if memory}
    for memory, positions in groups.items():
        values, wanted = [found[i] for i in positions], [eager[i] for i in positions]
        memories = [_memory_of(value) for value in values]
        is_eagers = len(set(memories)) == 1 and owners.setdefault(memories[0], memory) == memory
        lie_alike = all(v.meta["val"].stride() == w.stride() for v, w in zip(values, wanted, strict=True))
        if not is_eagers or not lie_alike or any(value.op in FOLDED for value in values):
            with graph.inserting_before(output):
                copies = _copies(graph, values, wanted)
            for position, copy in zip(positions, copies, strict=True):
                found[position] = copy
    output.args = (tuple(found),)


def _memory_of(node: Node) -> int:
    """Which memory a tensor lies in; 0 for what is no tensor, or a sparse one."""
    value = node.meta.get("val")
    return storage_of(value) if isinstance(value, torch.Tensor) else 0


def _copies(graph: Graph, values: list[Node], wanted: list[torch.Tensor]) -> list[Node]:
    """Nodes that copy values which are to lie in one memory as `wanted`."""
    layouts: list[Any] = [(list(w.shape), list(w.stride()), w.storage_offset()) for w in wanted]
    if len(values) == 1:
        return [graph.call_function(restrided, (values[0], *layouts[0][:2]), name="result")]
    memory = graph.call_function(shared, (values, wanted[0].untyped_storage().nbytes(), layouts), name="results")
    return [graph.call_function(operator.getitem, (memory, index)) for index in range(len(values))]
