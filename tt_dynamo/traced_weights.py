"""The weights of a graph while it is traced: allocated, without contents.

All at first, as a call of the program finds them. Where they do not fit, each for the first node that reads it, and
freed again where that is refused: what runs on the host needs no weights on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.compiler.recorder import Value
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused, ttnn_reason
from tt_dynamo.ir.graph import aten, is_call, is_parameter
from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.uses import WeightUse

ATTENTIONS = (aten.scaled_dot_product_attention.default, operators.attention)


class TracedWeights:
    """Makes the placeholders of weights, and their tensors.

    graph: the program's. find: the tensor of that spec, of the parameters at these addresses, if it lies on the device.
    """

    def __init__(self, graph: Graph, find: Callable[[Spec, list[int]], Any], empty: Callable[[Spec], Any]) -> None:
        self.uses: list[WeightUse] = []
        self._graph, self._find, self._empty = graph, find, empty
        self._values: dict[Node, tuple[WeightUse, Spec, Value]] = {}  # by crossing
        self._read: set[Node] = set()  # the crossings that an accepted node reads

    def add_host(self, constant: Node) -> Node:
        """The placeholder of a constant that the program reads as a tensor of torch."""
        placeholder = self._placeholder(constant)
        placeholder.meta["val"] = constant.meta.get("val")
        self.uses.append(WeightUse(constant, None))
        return placeholder

    def add(self, crossing: Node, constant: Node, spec: Spec) -> Value:
        """The weight that crosses there, which has no tensor yet."""
        placeholder = self._placeholder(constant)
        if spec.memory != "HOST":
            placeholder.meta["ttnn"] = spec
        self.uses.append(WeightUse(constant, spec))
        self._values[crossing] = self.uses[-1], spec, Value(placeholder, None)
        return self._values[crossing][2]

    def allocate_all(self) -> None:
        """Give all weights their tensors, or none where they do not fit."""
        try:
            for crossing in self._values:
                self._allocate(crossing)
        except (MemoryError, Refused):
            for use, _, value in self._values.values():
                use.tensor = value.tensor = None

    def allocate(self, reader: Node) -> None:
        """Give the weights that a node reads their tensors. Raises MemoryError where the DRAM is full."""
        for crossing in reader.all_input_nodes:
            if crossing in self._values and self._values[crossing][0].tensor is None:
                self._allocate(crossing)

    def settle(self, reader: Node, refused: bool) -> None:
        """Keep the weights of an accepted node; free those that refused ones alone have read."""
        for crossing in reader.all_input_nodes:
            if not refused:
                self._read.add(crossing)
            elif crossing in self._values and crossing not in self._read:
                use, _, value = self._values[crossing]
                use.tensor = value.tensor = None

    def _allocate(self, crossing: Node) -> None:
        use, spec, value = self._values[crossing]
        pointers = [n.meta.get("pointer", 0) for n in (use.node, *use.node.all_input_nodes) if is_parameter(n)]
        is_mask = any(is_call(user, *ATTENTIONS) for user in crossing.users)  # whose padding is filled in place
        try:
            use.tensor = value.tensor = (not is_mask and self._find(spec, pointers)) or self._empty(spec)
        except RuntimeError as error:
            raise Refused(f"weight of {spec.shape}: {ttnn_reason(error)}") from None

    def _placeholder(self, constant: Node) -> Node:
        placeholder = self._graph.placeholder(constant.meta.get("name", constant.name))
        placeholder.meta["weight"] = True
        return placeholder
