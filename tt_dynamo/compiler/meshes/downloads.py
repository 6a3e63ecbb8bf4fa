"""How values that lie on the chips of a mesh come down as one."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import is_call
from tt_dynamo.ir.parts import Mesh, Placement, chips_read, together


def placement_of(node: Node, mesh: Mesh) -> Placement:
    """How what a node gives is cut over the mesh, as far as the host sees."""
    if is_call(node, operators.join):
        return tuple(None if dim < 0 else dim for dim in node.args[1])
    return (None,) * len(mesh)


def download_parts(
    graph: Graph, ttnn: Any, source: Node, placement: Placement, mesh: Mesh, to_torch: Callable[[Node], Node]
) -> Node:
    """What the chips of a mesh have of `source`, put together, or what one of them has where all have the same.

    to_torch: writes the call that reads one chip's tensor.
    """
    tensors = graph.call_function(ttnn.get_device_tensors, (source,), name="parts")
    meta.path.set(tensors, "ttnn.get_device_tensors")
    meta.spec.set(tensors, meta.spec(source))
    meta.alias.set(tensors, source)  # which lives until its parts were read
    read = [graph.call_function(operator.getitem, (tensors, chip)) for chip in chips_read(placement, mesh)]
    for part in read:
        meta.path.set(part, "getitem")
    parts = [to_torch(part) for part in read]
    cat = torch.ops.aten.cat.default
    return together(parts, placement, mesh, lambda group, dim: graph.call_function(cat, (group, dim)))
