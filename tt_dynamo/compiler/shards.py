"""Values sharded in L1 while a graph is traced: interleaved for what takes no shards, and moved out where L1 is full.

Convolutions and what flows between them leave their results in L1. A lowering that is not registered for sharded
operands is given a copy in DRAM, made once for all such readers. Where TTNN finds no room in L1, what lies there and is
not read by the call itself moves to DRAM, and its later readers find it there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from torch.fx import Node

from tt_dynamo.compiler.recorder import Recorder
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.spec import Value
from tt_dynamo.ir.ttnn_internals import lacks_room
from tt_dynamo.lowering.memory import interleaved, is_sharded


class Shards:
    """The sharded values among those that a trace knows."""

    def __init__(self, recorder: Recorder, known: dict[Node, Any]) -> None:
        self._recorder, self._known = recorder, known
        self._copies: dict[Node, Value] = {}

    def interleaved(self, node: Node) -> Any:
        """The value of a node, in DRAM where it is sharded."""
        if node not in self._copies:
            value = self._known[node]
            if not self.is_sharded(node):
                return value
            self._copies[node] = interleaved(self._recorder, value)
        return self._copies[node]

    def forget(self, node: Node) -> None:
        """Drop a value that nothing reads any more, which frees its tensors as the program will."""
        self._known.pop(node, None)
        self._copies.pop(node, None)

    def lower(self, node: Node, takes_shards: bool, attempt: Callable[[Callable[[Node], Any]], Any]) -> Any:
        """What `attempt` makes of a node's operands: as they lie, else with more room in L1, else interleaved.

        Interleaved operands leave L1 before anything else does, which costs nothing but their other readers' shards.
        attempt: raises Refused where TTNN does, having written nothing down. Raises its last refusal.
        """
        operands = node.all_input_nodes
        as_they_lie = self._known.__getitem__
        if takes_shards and any(map(self.is_sharded, operands)):
            try:
                return attempt(as_they_lie)
            except Refused as error:
                full = lacks_room(error)
            with contextlib.suppress(Refused):
                if full and self._leave(self._others(operands)):
                    return attempt(as_they_lie)
        while True:
            try:
                return attempt(self.interleaved)
            except Refused as error:
                if not lacks_room(error) or not (self._leave(operands) or self._leave(self._others(operands))):
                    raise

    def is_sharded(self, node: Node) -> bool:
        return isinstance(self._known[node], Value) and is_sharded(self._known[node])

    def _others(self, operands: list[Node]) -> list[Node]:
        return [node for node in self._known if node not in operands]

    def _leave(self, nodes: list[Node]) -> bool:
        """Move what of these lies in L1 to DRAM; False where nothing does."""
        sharded = [node for node in nodes if self.is_sharded(node)]
        for node in sharded:
            self._known[node] = self.interleaved(node)
        return bool(sharded)
