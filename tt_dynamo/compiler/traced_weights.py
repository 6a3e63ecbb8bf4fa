"""The weights of a graph while it is traced: allocated, without contents.

All at first, as a call of the program finds them. Where they do not fit, each for the first node that reads it, and
freed again where that is refused: what runs on the host needs no weights on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.graph import aten, is_call, is_parameter
from tt_dynamo.ir.spec import Spec, Value
from tt_dynamo.ir.ttnn_internals import ttnn_reason
from tt_dynamo.ir.uses import WeightUse

Find = Callable[[Spec, list[int]], Any]

ATTENTIONS = (aten.scaled_dot_product_attention.default, operators.attention)


class TracedWeights:
    """Makes the placeholders of weights in the program's `graph`, and their tensors.

    find: the tensor of that spec, of the parameters at these addresses, if it lies on the device.
    """

    def __init__(self, graph: Graph, find: Find, empty: Callable[[Spec], Any]) -> None:
        self.uses: list[WeightUse] = []
        self._graph, self._find, self._empty = graph, find, empty
        self._made: dict[Node, tuple[WeightUse, Spec, Value]] = {}  # by crossing
        self._read: set[Node] = set()  # crossings that an accepted node reads

    def add(self, crossing: Node, constant: Node, spec: Spec | None) -> Value | Node:
        """The weight that crosses there, without a tensor; or where spec is None the placeholder of a torch tensor."""
        placeholder = self._graph.placeholder(constant.meta.get("name", constant.name))
        placeholder.meta["weight"] = True
        use = WeightUse(constant, spec)
        self.uses.append(use)
        if spec is None:
            placeholder.meta["val"] = constant.meta.get("val")
            return placeholder
        if spec.memory != "HOST":
            placeholder.meta["ttnn"] = spec
        value = Value(placeholder, None)
        self._made[crossing] = use, spec, value
        return value

    def allocate_all(self) -> None:
        """Give all weights their tensors, or none where they do not fit."""
        try:
            self.allocate(self._made)
        except (MemoryError, Refused):
            self._free(self._made)

    def allocate(self, crossings: Iterable[Node]) -> None:
        """Give the weights among these their tensors. Raises Refused as TTNN does, MemoryError where DRAM is full."""
        for crossing in crossings:
            if crossing not in self._made or self._made[crossing][0].tensor is not None:
                continue
            use, spec, value = self._made[crossing]
            pointers = [n.meta.get("pointer", 0) for n in (use.node, *use.node.all_input_nodes) if is_parameter(n)]
            is_mask = any(is_call(user, *ATTENTIONS) for user in crossing.users)  # whose padding is filled in place
            try:
                use.tensor = value.tensor = (not is_mask and self._find(spec, pointers)) or self._empty(spec)
            except RuntimeError as error:
                raise Refused(f"weight of {spec.shape}: {ttnn_reason(error)}") from None

    def settle(self, reader: Node, refused: bool) -> None:
        """Keep the weights of an accepted node; free those that refused ones alone have read."""
        if refused:
            self._free(set(reader.all_input_nodes) - self._read)
        else:
            self._read.update(reader.all_input_nodes)

    def _free(self, crossings: Iterable[Node]) -> None:
        for crossing in self._made.keys() & set(crossings):
            use, _, value = self._made[crossing]
            use.tensor = value.tensor = None


def bind_weights(uses: Iterable[WeightUse], placed: GraphModule) -> None:
    """Tell the weights of a program how they are computed from the arguments of a call of `placed`."""
    position = {node: index for index, node in enumerate(placed.graph.find_nodes(op="placeholder"))}
    for use in uses:
        use.positions = [position[node] for node in (use.node, *use.node.all_input_nodes) if node in position]
        if use.node.op == "placeholder":
            continue
        value: Any = getattr(placed, str(use.node.target))
        if use.node.op == "get_attr":
            use.evaluate, use.expression = (lambda value=value: value), _digest(value)
        else:
            buffers = "".join(name + _digest(buffer) for name, buffer in value.named_buffers())
            use.evaluate, use.expression = value, value.code + buffers


def _digest(literal: torch.Tensor) -> str:
    contents = literal.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{literal.dtype} {tuple(literal.shape)} {hashlib.sha256(contents).hexdigest()}"
