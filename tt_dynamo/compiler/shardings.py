"""How convolutions are sharded: in the first way that TTNN accepts, or each as it is estimated to take the least time.

The estimate of a convolution does not see what reads it. A pool may find no room in the shards that are best for the
convolution, a concatenation may have to move them, and the next convolution may shard its image anew. So a program is
lowered in both ways, the first accepted first, and the estimate of the whole decides.
"""

from collections.abc import Iterable

from torch.fx import Graph, GraphModule, Node

from tt_dynamo.estimate.chip import Chip
from tt_dynamo.ir import meta
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering.choose import CLOSE


def total(nodes: Iterable[Node], chip: Chip) -> tuple[float, int]:
    """Estimated seconds of the kernels of a program's nodes with the gaps between them, and how many are launched."""
    costs = [cost for node in nodes if node in meta.cost and (cost := meta.cost(node)).seconds]
    launches = sum(cost.launches for cost in costs)
    return sum(cost.seconds for cost in costs) + launches * float(chip.launch_gap_seconds), launches


class Shardings:
    """Whether the next attempt to lower the graph of `module` has the shardings of convolutions compared."""

    def __init__(self, settings: Settings, module: GraphModule) -> None:
        self.are_compared = False
        self._may_compare, self._chip, self._module = settings.searches, settings.chip, module
        self._first = 0.0, 0
        self._block_sharded: list[Node] = []

    def ask_for_another(self, program: Graph) -> bool:
        """Whether another attempt is to be made after this program, of an attempt that left nothing else to decide.

        What was compared is kept where it is estimated to take less time; where it launches more kernels, only if the
        estimates differ by so much that they say something. Convolutions that take less than that are not compared.
        """
        found = total(program.nodes, self._chip)
        if self.are_compared:
            (seconds, launches), (first_seconds, first_launches) = found, self._first
            is_kept = seconds * (CLOSE if launches > first_launches else 1.0) < first_seconds
            return not is_kept and found != self._first and self.give_up()
        convolutions = [node for node in program.nodes if meta.path.get(node, "") == "ttnn.conv2d"]
        if self._may_compare and total(convolutions, self._chip)[0] > found[0] * (1 - 1 / CLOSE):
            self.are_compared, self._first, self._block_sharded = True, found, self._all_block_sharded()
        return self.are_compared

    def give_up(self) -> bool:
        """Have the first accepted ways taken from now on; whether the last attempt compared."""
        if not self.are_compared:
            return False
        for node in self._all_block_sharded():
            if node not in self._block_sharded:
                node.update_kwarg("block_sharded", False)
        self.are_compared = self._may_compare = False
        return True

    def _all_block_sharded(self) -> list[Node]:
        return [node for node in self._module.graph.nodes if node.kwargs.get("block_sharded")]
