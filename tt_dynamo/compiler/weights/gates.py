"""Compute a gated product in one kernel where TTNN takes it and the estimate says that it is faster.

Before   y = linear(x, gate, a, "silu") * linear(x, up, b)
After    y = gated_linear(x, columns of gate and up by turns, a and b by turns)

TTNN reads one weight, whose tiles of columns are gate, up, gate, up. Its kernel shares rows and columns of the result
among the cores as a product in two dimensions does, so it pays where there are many rows, or little of anything. A
prefill that takes it and a decode step that does not have weights of their own, of which the report says so.
"""

import contextlib
import math
from collections.abc import Callable, Sequence

from torch.fx import Graph, Node

from tt_dynamo.compiler.configs import Configs
from tt_dynamo.compiler.recorder import Recorder
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.graph import aten, dead_code, module_path, parameter_modules, replace, shape_of
from tt_dynamo.ir.spec import BITS, TILE, Blocks, Columns, Value, tiles
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering.language.gates import gated_linear
from tt_dynamo.lowering.matmul import linear
from tt_dynamo.lowering.memory import in_blocks, in_columns
from tt_dynamo.passes.rewrite import FLOATS, MUL, call, emit, is_constant, once, variable
from tt_dynamo.report.table import size_text

CONSTANTS = {name: variable(name, is_constant) for name in ("gate", "gate_bias", "up", "up_bias")}
X = variable("x")
PATTERN = call(
    MUL,
    once(call(operators.linear, X, CONSTANTS["gate"], CONSTANTS["gate_bias"], "silu")),
    once(call(operators.linear, X, CONSTANTS["up"], CONSTANTS["up_bias"])),
)


class Gates:
    """The gated products of one graph.

    settings_of: those of a node. weight_dtype: the TTNN dtype in which a product reads its weight.
    """

    def __init__(
        self,
        recorder: Recorder,
        configs: Configs,
        settings_of: Callable[[Node], Settings],
        weight_dtype: Callable[[Node, Node], str | None],
    ) -> None:
        self._recorder, self._configs = recorder, configs
        self._settings_of, self._weight_dtype = settings_of, weight_dtype
        self._bytes = 0
        self._in_shards = ["three in shards"]

    @property
    def notes(self) -> list[str]:
        """What the report says of weights that a decode step, which shares a prefill's, may not read."""
        if self._configs.phase != "prefill" or not self._bytes:
            return []
        return [f"{size_text(self._bytes)} of gates lie as one kernel reads them; a decode step may have its own"]

    def fuse(self, graph: Graph) -> int:
        """Fuse the gated products of a graph that are faster so; returns how many."""
        count = 0
        # What chips exchange lies interleaved, and so does what is added to that and read by a gate.
        exchanged = any(node.target in operators.COLLECTIVES for node in graph.nodes)
        self._in_shards = [] if exchanged else ["three in shards"]
        for node in [node for node in graph.nodes if node.op == "call_function" and node.target in MUL]:
            found = next(PATTERN.matches(node, {}), None)
            if found is not None and self._is_faster(node, **found):
                with graph.inserting_before(node):
                    replace(node, _packed(node, **found))
                count += 1
        dead_code(graph)
        return count

    def _is_faster(
        self, node: Node, x: Node, gate: Node, up: Node, gate_bias: Node | None, up_bias: Node | None
    ) -> bool:
        shapes = shape_of(gate), shape_of(up)
        dtypes = {self._weight_dtype(user, user.args[1]) for user in node.all_input_nodes}
        values = [value.meta["val"].dtype for value in (node, x, gate, up)]
        biases = gate_bias is None, up_bias is None
        if shapes[0] != shapes[1] or shapes[0][1] % TILE or len(dtypes) > 1 or not {*values} <= FLOATS:
            return False
        if len({*biases}) > 1 or not math.prod(shape_of(x)) or any(map(self._is_configured, node.all_input_nodes)):
            return False
        dtype = dtypes.pop() or "bfloat16"
        asked = shape_of(x), shapes[0], dtype, not biases[0]
        is_faster = faster(self._recorder, self._settings_of(node), *asked, ["three", *self._in_shards, "one"])
        self._bytes += int(is_faster * 2 * math.prod(shapes[0]) * BITS.get(dtype, 16) / 8)
        return is_faster

    def _is_configured(self, product: Node) -> bool:
        """Whether a config says how the product is computed."""
        self._configs.enter(module_path(product), product.name, parameter_modules(product))
        return bool(self._configs.find("ttnn.linear").keys() - {"weight_dtype"})


def _packed(node: Node, x: Node, gate: Node, up: Node, gate_bias: Node | None, up_bias: Node | None) -> Node:
    """The gated product of one weight."""

    def by_turns(one: Node, other: Node) -> Node:
        *rows, columns = shape_of(one)
        parts = [emit(node, aten.reshape.default, each, [*rows, columns // TILE, TILE]) for each in (one, other)]
        return emit(node, aten.reshape.default, emit(node, aten.stack.default, parts, -2), [*rows, 2 * columns])

    bias = None if gate_bias is None or up_bias is None else by_turns(gate_bias, up_bias)
    return emit(node, operators.gated_linear, x, by_turns(gate, up), bias)


def faster(
    recorder: Recorder,
    settings: Settings,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    dtype: str,
    has_bias: bool,
    candidates: Sequence[str],
) -> bool:
    """Whether TTNN takes a gated product of x in `shape` in one kernel, and is estimated to be faster so than in three.

    weight: shape of gate and of up, [in, out]. candidates: "three" kernels, "three in shards" of a stream in L1, "one".
    """
    graph = Graph()
    ttnn = recorder.into(graph)
    ttnn.settings = settings
    graph.placeholder("start")

    def empty(shape: tuple[int, ...], dtype: str, place: object = None) -> Value:
        where = {"device": ttnn.settings.device, "memory_config": place or ttnn.DRAM_MEMORY_CONFIG}
        made: Value = ttnn.empty(shape, dtype=getattr(ttnn, dtype), layout=ttnn.TILE_LAYOUT, **where)
        return made

    def product(shape: tuple[int, ...]) -> tuple[Value, Value | None]:
        return empty(shape, dtype), empty((1, shape[1]), "bfloat16") if has_bias else None

    def in_three(x: Value) -> None:
        gate, up = product(weight), product(weight)
        ttnn.multiply(linear(ttnn, x, *gate, "silu"), linear(ttnn, x, *up))

    def compute(candidate: str) -> str:
        ttnn.memory = None
        rows = (1, 1, math.prod(shape[:-1]), shape[-1])
        if candidate == "one":
            gated_linear(ttnn, empty(rows, "bfloat16"), *product((weight[0], 2 * weight[1])))
        elif candidate == "three":
            in_three(empty(rows, "bfloat16"))
        elif tiles(rows)[0] == 1:
            lies = Columns.over(ttnn.settings.grid_size, tiles(rows)[1])
            ttnn.memory = lies.of_width(weight[1])
            in_three(empty(rows, "bfloat16", in_columns(ttnn, lies)))
        else:
            ttnn.memory = Blocks.over(ttnn.settings.grid_size, (*rows[:-1], weight[1]))
            in_three(empty(rows, "bfloat16", in_blocks(ttnn, Blocks.over(ttnn.settings.grid_size, rows))))
        return candidate

    with contextlib.suppress(Refused):
        asked = "gated product", shape, weight, dtype, has_bias
        return bool(ttnn.choose(asked, candidates, compute, costed=True) == "one")
    return False
