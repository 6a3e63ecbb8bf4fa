"""Values sharded in L1 while a graph is traced, where convolutions leave their results.

A lowering that is not registered for sharded operands is given a copy in DRAM, made once for all such readers. Where
TTNN finds no room in L1, what lies there moves to DRAM, and its later readers find it there.
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
            if not self._is_sharded(node):
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
        others = [other for other in self._known if other not in operands]
        if takes_shards and any(map(self._is_sharded, operands)):
            with contextlib.suppress(Refused):
                return self._with_room(lambda: attempt(self._known.__getitem__), others)
        return self._with_room(lambda: attempt(self.interleaved), operands, others)

    def _with_room(self, attempt: Callable[[], Any], *leaving: list[Node]) -> Any:
        """What `attempt` gives, once enough of these groups has left L1."""
        while True:
            try:
                return attempt()
            except Refused as error:
                if not lacks_room(error) or not any(map(self._leave, leaving)):
                    raise

    def _leave(self, nodes: list[Node]) -> bool:
        """Move what of these lies in L1 to DRAM; False where nothing does."""
        sharded = list(filter(self._is_sharded, nodes))
        for node in sharded:
            self._known[node] = self.interleaved(node)
        return bool(sharded)

    def _is_sharded(self, node: Node) -> bool:
        return isinstance(self._known[node], Value) and is_sharded(self._known[node])
