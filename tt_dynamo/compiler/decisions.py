"""What was decided about each node of a graph, and why: the only memory of what TTNN said. The report prints it.

Every attempt places and lowers a copy of the graph. Decisions are about the nodes of the graph itself, the originals.

The option `weight_dtype` says of parameters in which dtype they go up as weights: constant second operands of products.
One that is merged of several (queries, keys and values) is as wide as the widest of them is to be. A table that is tied
to the last projection stays in bfloat16 and the projection has a copy of its own.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch.fx import Graph, Node

from tt_dynamo.compiler.configs import Configs
from tt_dynamo.compiler.decompose import decompose
from tt_dynamo.compiler.eligible import HostWork
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.graph import aten, copy_graph, dtype_of, is_call, module_path, mutates, parameters_of, shape_of
from tt_dynamo.options import WEIGHT_DTYPES, Options, matching
from tt_dynamo.report.report import Decomposed, Fallback, GraphReport

log = logging.getLogger("tt_dynamo.lowering")

CONVOLUTIONS = (operators.conv2d, operators.conv_transpose2d)
# Where each product has its weight. Its first operand is the activation, whose dtype is that of the result.
WEIGHT_OPERANDS = {
    **dict.fromkeys((operators.linear, operators.gated_linear, aten.matmul.default, aten.bmm.default), 1),
    **dict.fromkeys((operators.expert_linear, operators.mix_experts), 1),
    **dict.fromkeys((operators.linear_parts, operators.linear_addcmul, operators.transposed_matmul), 1),
    **dict.fromkeys((aten.addmm.default, aten.baddbmm.default), 2),
    **dict.fromkeys(CONVOLUTIONS, 1),
}
OPERATIONS = {
    operators.linear: "ttnn.linear",
    operators.transposed_matmul: "ttnn.linear",
    operators.linear_parts: "ttnn.experimental.minimal_matmul_split",
    operators.linear_addcmul: "ttnn.experimental.dit_minimal_matmul_addcmul_fused",
    operators.gated_linear: "ttnn.experimental.minimal_matmul",
    operators.conv2d: "ttnn.conv2d",
    operators.conv_transpose2d: "ttnn.conv_transpose2d",
}

BYTES = (torch.int8, torch.uint8)
WIDEST = WEIGHT_DTYPES[0]


class Decisions:
    """Those about one graph, by original node.

    outcomes: that a node runs in eager torch, or that its parts took its place; placement decides about others.
    configs: those of the option, once the graph's phase is known.
    weights: the dtype in which a product reads its weight, and why that is not the one that was asked for, or "".
    interleaved: the products that TTNN refused with a weight sharded over the DRAM banks.
    times_refused: in how many attempts TTNN refused the places in L1 that were assigned.
    refused_dtypes: why TTNN refused the block floats that were assigned to a node's result, or to what it reads.
    """

    def __init__(self, options: Options) -> None:
        self.configs: Configs | None = None
        self.outcomes: dict[Node, Fallback | Decomposed] = {}
        self.weights: dict[Node, tuple[str, str]] = {}
        self._stored: dict[Node, torch.dtype] = {}  # products, and in which integers their weight is stored
        self.times_refused: Counter[Node] = Counter()
        self.refused_dtypes: dict[Node, str] = {}
        self.interleaved: set[Node] = set()
        self._options = options
        self._original: dict[Node, Node] = {}

    def copied(self, graph: Graph) -> Graph:
        """A copy of the graph for the next attempt."""
        copy, self._original = copy_graph(graph)
        return copy

    def move_to_host(self, node: Node, kind: str, reason: str) -> None:
        """Have a node of the graph, or of its last copy, run in eager torch."""
        original = self._original.get(node, node)
        self.outcomes[original] = Fallback.of(original, kind, reason)

    def is_on_host(self, node: Node) -> bool:
        """Whether a node of the last copy was moved to the host."""
        return self._original[node] in self.outcomes

    def reason_of(self, node: Node) -> str:
        """Why a node of the last copy was moved to the host, in TTNN's words where it refused it."""
        outcome = self.outcomes.get(self._original.get(node, node))
        return outcome.reason if outcome is not None else "it is work of the host"

    def weight_dtype(self, product: Node, operand: Node) -> str | None:
        """The dtype in which `product` reads `operand`; None where that is not its weight."""
        sources = parameters_of(operand)
        if is_call(product, *CONVOLUTIONS):  # its own weight, not those of a norm that was folded into it
            sources = [source for source in sources if len(shape_of(source)) > 2]
        if not sources or not is_weight_of(product, operand):
            return None
        also = module_path(product) if len(sources) == 1 else ""  # the last projection, of a table that is tied to it
        names = [meta.parameter_name.get(source, "") or source.name for source in sources]
        operation = OPERATIONS.get(product.target, "ttnn.matmul")
        at = module_path(product), operation, product.name
        wanted = {}
        for name in names:
            configured = self.configs.weight_dtype((name, name.rpartition(".")[0], also), *at) if self.configs else None
            named = (name, name.rpartition(".")[0], also)
            wanted[name] = configured or matching(named, self._options.weight_dtype, WIDEST)
        dtype = min(wanted.values(), key=WEIGHT_DTYPES.index)
        merged = f"its merged weight is {dtype}, the widest of {', '.join(map(' '.join, wanted.items()))}"
        note = merged if len(set(wanted.values())) > 1 else ""
        original = self._original.get(product, product)
        stored = [dtype_of(source) for source in sources if dtype_of(source) in BYTES]
        self._stored.update(dict.fromkeys([original], stored[0]) if stored else {})
        return self.weights.setdefault(original, (dtype, note))[0]

    def learn(
        self,
        refused: Mapping[Node, tuple[str, str]],
        wants_block_sharding: Sequence[Node],
        left_l1: Sequence[Node] = (),
        refused_dtypes: Mapping[Node, str] = {},
    ) -> bool:
        """Decide by what TTNN said of the last copy; whether that asks for another attempt.

        What was assigned a block float or a place in L1 in vain goes without, and all are asked again; of convolutions
        the weight goes first. Else a refused node gets its weight in bfloat16, else is decomposed if it is fused, else
        goes to the host. Where none was refused, values become block-sharded that a reader had to shard anew.
        """
        found = {self._original[node]: reason for node, reason in refused_dtypes.items() if node in self._original}
        narrow = {node: reason for node, reason in found.items() if not self._may_widen_weight(node)}
        if narrow.keys() - self.refused_dtypes.keys():
            self.refused_dtypes.update(narrow)
            return True
        left = {self._original[node] for node in left_l1 if node in self._original}
        self.times_refused.update(left)
        if left:
            return True
        for node, (kind, reason) in refused.items():
            if node not in self._original:
                raise FallbackError(f"{node.name}: {reason}")
            if any(x in meta.spec and meta.spec(x).banks for x in node.all_input_nodes):
                self.interleaved.add(self._original[node])
            else:
                self._refuse(self._original[node], kind, reason)
        if refused:
            return True
        wanted = [self._original[node] for node in wants_block_sharding if operators.can_be_block_sharded(node)]
        changed = [node for node in wanted if not node.kwargs.get("block_sharded")]
        for node in changed:
            node.update_kwarg("block_sharded", True)
        return bool(changed)

    def _may_widen_weight(self, node: Node) -> bool:
        """Whether it is a convolution whose weight is a block float, which TTNN cannot always lay out."""
        return is_call(node, *CONVOLUTIONS) and self.weights.get(node, (WIDEST, ""))[0] != WIDEST

    def reads_interleaved(self, node: Node) -> bool:
        """Whether a product of the last copy reads its weight interleaved, since TTNN refused it over the banks."""
        return self._original.get(node, node) in self.interleaved

    def times_l1_refused(self, node: Node) -> int:
        """In how many attempts a node of the last copy could not read or write where in L1 values were assigned."""
        return self.times_refused[self._original[node]] if node in self._original else 0

    def refuses_dtype(self, node: Node) -> bool:
        """Whether TTNN refused block floats to a node of the last copy."""
        return self._original.get(node) in self.refused_dtypes

    def _refuse(self, node: Node, kind: str, reason: str) -> None:
        log.debug("%s is %s: %s", node.name, kind, reason)
        dtype, _ = self.weights.get(node, (WIDEST, ""))
        if dtype != WIDEST:
            self.weights[node] = WIDEST, f"its weight is bfloat16, TTNN refused a block float: {reason}"
        elif node.target in operators.FUSED or node.target in operators.BY_PARTS:
            self.outcomes[node] = Decomposed(node.name, str(node.target), reason, module_path(node))
            for part in decompose(node):
                if part.target in operators.WHOLE:  # the same by its name in ATen: refused by the same words
                    self.move_to_host(part, kind, reason)
        else:
            self.move_to_host(node, kind, reason)

    def fill_report(self, report: GraphReport, graph: Graph) -> None:
        """Note fallbacks, decomposed operations and the weights' notes. graph: the originals'."""
        host_work = HostWork(graph)
        for node in graph.nodes:
            outcome, is_needed = self.outcomes.get(node), node.users or mutates(node)
            if isinstance(outcome, Fallback) and is_needed and not host_work.belongs_on_host(node):
                report.fallbacks.append(outcome)
        report.decomposed += [found for found in self.outcomes.values() if isinstance(found, Decomposed)]
        notes = {node: note for node, (_, note) in self.weights.items() if note and node not in self.outcomes}
        report.notes += [f"{node.name}: {note}" for node, note in notes.items()]
        report.notes += self._notes_of_integers()
        about = "activations around it are bfloat16, TTNN refused a block float"
        report.notes += [f"{node.name}: {about}: {reason}" for node, reason in self.refused_dtypes.items()]

    def _notes_of_integers(self) -> list[str]:
        """How many weights that are stored as integers and scales, as quantized ones are, went up in which dtype."""
        quantized = self._stored.keys() - self.outcomes.keys()
        found = Counter((str(self._stored[node]), self.weights[node][0]) for node in quantized)
        narrow = f', weight_dtype="{WIDEST}" keeps what that holds of them'
        return [
            f"weights of {count} products are stored as {stored.removeprefix('torch.')} with scales: "
            f"they go up as {dtype}{narrow if dtype != WIDEST else ''}"
            for (stored, dtype), count in sorted(found.items())
        ]


def is_weight_of(product: Node, operand: Node) -> bool:
    """Whether `product` reads it as its weight alone."""
    position = WEIGHT_OPERANDS.get(product.target, 0)
    return position > 0 and product.args[position] is operand and operand not in product.args[:position]
