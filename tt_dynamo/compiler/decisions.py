"""What was decided about each node of a graph, and why: the only memory of what TTNN said. The report prints it.

Every attempt places and lowers a copy of the graph. Decisions are about the nodes of the graph itself, the originals,
and last from one attempt to the next.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch.fx import Graph, Node

from tt_dynamo.compiler.decompose import decompose
from tt_dynamo.compiler.eligible import HostWork
from tt_dynamo.compiler.weight_dtypes import WIDEST, choose_weight_dtype
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.graph import module_path, mutates
from tt_dynamo.options import Options
from tt_dynamo.report.report import Decomposed, Fallback, GraphReport

log = logging.getLogger("tt_dynamo.lowering")


@dataclasses.dataclass
class Decision:
    """About one node.

    side: "host" where the device cannot run it, "" where placement decides. decomposed: its parts took its place. kind,
    reason: of either, as in a `Fallback`. weight_dtype: of the weight that it reads, None where it reads none.
    weight_note: why that is not the dtype that was asked for. block_sharded: a reader needs its result so.
    """

    side: str = ""
    decomposed: bool = False
    kind: str = ""
    reason: str = ""
    weight_dtype: str | None = None
    weight_note: str = ""
    block_sharded: bool = False


class Decisions(defaultdict[Node, Decision]):
    """Those about one graph, by original node."""

    def __init__(self, options: Options) -> None:
        super().__init__(Decision)
        self._options = options

    def move_to_host(self, original: Node, kind: str, reason: str) -> None:
        """Have a node run in eager torch."""
        decision = self[original]
        decision.side, decision.kind, decision.reason = "host", kind, reason

    def weight_dtype(self, product: Node, operand: Node, original: Node) -> str | None:
        """The dtype in which `product` reads `operand`; None where that is not its weight, or nothing was chosen."""
        chosen = choose_weight_dtype(product, operand, self._options)
        if chosen is None:
            return None
        decision = self[original]
        if decision.weight_dtype is None:
            decision.weight_dtype, decision.weight_note = chosen
        return decision.weight_dtype

    def apply_refusals(self, refused: Mapping[Node, tuple[str, str]], original: Mapping[Node, Node]) -> None:
        """Of every refused node: its weight becomes bfloat16, a fused one is decomposed, another goes to the host."""
        for node, (kind, reason) in refused.items():
            if node not in original:
                raise FallbackError(f"{node.name}: {reason}")
            node = original[node]
            decision = self[node]
            log.debug("%s is %s: %s", node.name, kind, reason)
            if decision.weight_dtype not in (None, WIDEST):
                decision.weight_dtype = WIDEST
                decision.weight_note = f"its weight is bfloat16, TTNN refused a block float: {reason}"
            elif node.target in operators.FUSED or node.target in operators.BY_PARTS:
                decision.decomposed, decision.kind, decision.reason = True, kind, reason
                for part in decompose(node):
                    if part.target in operators.WHOLE:  # the same by its name in ATen: refused by the same words
                        self.move_to_host(part, kind, reason)
            else:
                self.move_to_host(node, kind, reason)

    def request_block_sharding(self, wanted: Sequence[Node], original: Mapping[Node, Node]) -> bool:
        """Have values block-sharded that a reader had to shard anew; whether there is one that was not yet."""
        found = [self[original[node]] for node in wanted if operators.can_be_block_sharded(node)]
        changed = [decision for decision in found if not decision.block_sharded]
        for decision in changed:
            decision.block_sharded = True
        return bool(changed)

    def fill_report(self, report: GraphReport, graph: Graph) -> None:
        """Note fallbacks, decomposed operations and the weights' notes. graph: the originals'."""
        host_work = HostWork(graph)
        for node, decision in self.items():
            if decision.decomposed:
                report.decomposed.append(Decomposed(node.name, str(node.target), decision.reason, module_path(node)))
            elif decision.side:
                if (node.users or mutates(node)) and not host_work.belongs_on_host(node):
                    report.fallbacks.append(Fallback.of(node, decision.kind, decision.reason))
            elif decision.weight_note:
                report.notes.append(f"{node.name}: {decision.weight_note}")
