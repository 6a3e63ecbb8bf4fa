"""What is known of a node before TTNN is asked: whether it may be asked, and what its lowering wants and gives.

Small arithmetic of integers stays on the host by choice, which is no fallback, and so does that of positions in
float32, as timesteps of diffusion: in bfloat16, position 1001 is 1000 and 0.9999 is 1. What turns on such digits is
computed on the host, and only its result goes up: angles and exponents, comparisons, integers that are made of floats.
Integers that are made of them, as positions in a grid, stay with them. What a network computes is rounded before, and
stays on the device.
"""

from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import (
    aten,
    constant_nodes,
    is_call,
    is_parameter,
    is_random,
    mutates,
    shape_of,
    target_name,
    values_of,
)
from tt_dynamo.ir.spec import DEVICE_DTYPES, Spec
from tt_dynamo.lowering import find as find_lowering
from tt_dynamo.lowering import operand_name
from tt_dynamo.lowering.on_host import reason_on_host
from tt_dynamo.passes.place.place import MOVES
from tt_dynamo.runtime.transfer import INT32

SMALL = 1 << 16  # elements of what integer arithmetic gives and reads
LARGEST = 1 << 20  # elements of a value: what is larger is no table of positions
COORDINATES = 4  # a product over more than these is a layer of a network
FLOATS = (torch.float32, torch.float16, torch.float64)
PRODUCTS = frozenset({aten.mm.default, aten.bmm.default, aten.matmul.default, operators.linear})
SCALINGS = PRODUCTS | {
    *(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar),
    *(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.pow.Tensor_Scalar),
}
ARITHMETIC = SCALINGS | MOVES | {aten.neg.default, aten.abs.default, aten.sqrt.default, aten.log.default}
# Whose results turn on digits that bfloat16 has not, by all their overloads: periodic or steep ones, and steps.
SENSITIVE = frozenset(
    {aten.sin, aten.cos, aten.tan, aten.exp, aten.exp2, aten.expm1, aten.bucketize, aten.searchsorted}
)
STEPS = frozenset({aten.floor, aten.ceil, aten.round, aten.trunc})
SENSITIVE |= STEPS | {aten.frac, aten.fmod, aten.remainder}
# Writes into what the caller holds. The last is `parameter.data = …`, which not every release of torch has.
_WRITES = aten.copy_, aten.index_copy_, getattr(aten, "shallow_copy_data_", None)
INTO_INPUTS = tuple(packet.default for packet in _WRITES if packet is not None)
COMPARISONS = frozenset({aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge})


def impossible(node: Node) -> str:
    """Why a node cannot even be asked about on the device; empty where it can."""
    if find_lowering(node.target) is None:
        is_host_call = isinstance(node.target, operators.HostCall)
        reason = node.target.reason if is_host_call else reason_on_host(node.target)
        return f"{target_name(node)} {reason or 'has no lowering to TTNN'}"
    if mutates(node):
        return f"{target_name(node)} writes into its operand"
    for value in (v for n in (node, *node.all_input_nodes) for v in values_of(n)):
        if value.dtype not in DEVICE_DTYPES:
            return f"TTNN has no {str(value.dtype).removeprefix('torch.')}"
        if not value.numel():
            return "a tensor with no elements has nothing to compute on the device"
        if value.device.type != "cpu":
            return f"a tensor on {value.device} belongs to another backend"
    return ""


def gives(node: Node) -> str:
    """The layout of a node's results."""
    found = find_lowering(node.target)
    return found.layout_at(node) if found else "TILE"


def needs(node: Node, operand: Node) -> tuple[str, str | None]:
    """The layout and dtype in which a node needs an operand."""
    found = find_lowering(node.target)
    if found is None:
        return "any", None
    arguments = [*enumerate(node.args), *node.kwargs.items()]
    key = next(key for key, value in arguments if operand in (value if isinstance(value, (list, tuple)) else [value]))
    need = found.need(key if isinstance(key, str) else operand_name(node.target, key))
    return need.layout_at(node), need.dtype


def is_read_on_host(node: Node) -> bool:
    """Whether every reader of a value is given it on the host, although that reader runs on the device."""
    return bool(node.users) and all(needs(user, node)[0] == "HOST" for user in node.users)


class HostWork:
    """Which nodes of a graph are work for the host.

    integer_math: arithmetic of small integers that come from the host. Floats on the way from integers to integers
    count as well, and constants beside them: T5 puts distances into buckets by their logarithm, LongT5 counts blocks in
    fractions of one, and bfloat16 would round them into others.
    positions: floats that are computed where they are exact, see `float_position_math`; they count as well.
    """

    def __init__(self, graph: Graph) -> None:
        self.positions = float_position_math(graph)
        self.integer_math = _host_integer_math(graph, self.positions)
        self._serving: set[Node] = set()
        for node in reversed(graph.nodes):
            if any(self._serves(user) for user in node.users):
                self._serving.add(node)

    def _serves(self, user: Node) -> bool:
        """Whether a reader of integers is other work of the graph or its counters, not what it was asked for."""
        if is_call(user, aten.copy_.default) and user.args[0].op == "placeholder":
            return True
        return user.op != "output" and (user not in self.integer_math or user in self._serving)

    def belongs_on_host(self, node: Node) -> bool:
        """Whether it is host work by plan: no fallback.

        It checks indices, draws random numbers that the graph reads, is a Python number (as torch passes one: in
        float64), or has no elements.
        """
        if node.target in operators.HOST or (node in self.integer_math and node in self._serving):
            return True
        if is_random(node) and all(is_call(x, aten.empty.memory_format) for x in node.all_input_nodes):
            return any(user.op != "output" for user in node.users)  # torch's generator is on the host
        if is_call(node, *INTO_INPUTS):
            return node.args[0].op == "placeholder"  # what the caller finds in its tensor
        results, operands = values_of(node), [v for operand in node.all_input_nodes for v in values_of(operand)]
        tensors = results + operands
        is_number = all(not value.shape for value in tensors) and any(value.dtype == torch.float64 for value in tensors)
        reads_nothing = bool(operands) and not any(value.numel() for value in operands)
        return is_number or reads_nothing or not any(value.numel() for value in results)


def _host_integer_math(graph: Graph, positions: set[Node]) -> set[Node]:
    ending = _ending_in_integers(graph) | positions
    found = set(positions)
    for node in graph.nodes:
        if node.op != "call_function" or not values_of(node):
            continue  # a Python number never goes up
        has_floats = any(value.is_floating_point() for value in values_of(node))
        if has_floats and not isinstance(node.meta["val"], torch.Tensor) and find_lowering(node.target) is not None:
            continue  # several results are no arithmetic, unless the host alone has them, as running extremes
        operands = node.all_input_nodes
        if not all(n in found or n.op in ("placeholder", "get_attr", "call_module") for n in operands):
            continue
        values = [(n, value) for n in (node, *operands) for value in values_of(n)]
        is_small = not any(value.is_complex() or value.numel() > SMALL for _, value in values)
        floats = [n for n, value in values if value.is_floating_point()]
        if is_small and all(n.op == "call_module" or (n.op == "call_function" and n in ending) for n in floats):
            found.add(node)
    return found


def _ending_in_integers(graph: Graph) -> set[Node]:
    """The values of which all that is computed is integers in the end, or comparisons."""
    ending: set[Node] = set()

    def ends(user: Node) -> bool:
        results = values_of(user)
        if user.op != "call_function" or not results or any(result.numel() > SMALL for result in results):
            return False
        return user in ending or not any(result.is_floating_point() for result in results)

    for node in reversed(graph.nodes):
        if all(map(ends, node.users)):
            ending.add(node)
    return ending


def float_position_math(graph: Graph) -> set[Node]:
    """The nodes that are computed from inputs and constants alone, up to where digits count that bfloat16 has not."""
    constants = constant_nodes(graph)
    scaled: dict[Node, bool] = {}  # what is computed from inputs, and whether it was scaled since
    found: set[Node] = set()
    for node in graph.nodes:
        varying = [n for n in node.all_input_nodes if n not in constants]
        if not _is_small(node) or not all(n in scaled for n in varying):
            continue
        if node.op == "placeholder" and not is_parameter(node):
            scaled[node] = False
        elif varying:
            is_scaled = any(scaled[n] for n in varying)
            is_layer = node.target in PRODUCTS and values_of(node.args[0])[0].shape[-1] > COORDINATES
            if _is_sensitive(node, is_scaled) or (is_scaled and _is_fraction(node, found)):
                found.add(node)
            elif is_layer or not (node.target in ARITHMETIC or _is_integer(node)):
                continue
            elif any(operand in found and _is_double(operand) for operand in varying):
                found.add(node)  # the rest of a table in float64, which the device has not
            scaled[node] = is_scaled or node in found or node.target in SCALINGS
    for node in reversed(scaled):
        if any(user in found for user in node.users):
            found.add(node)
    return found


def _is_small(node: Node) -> bool:
    values = values_of(node)
    kinds = (*FLOATS, torch.int64, torch.int32, torch.bool)
    return len(values) == 1 and values[0].numel() <= LARGEST and values[0].dtype in kinds


def _is_integer(node: Node) -> bool:
    """Whether it makes integers of integers."""
    return not any(value.is_floating_point() for n in (node, *node.all_input_nodes) for value in values_of(n))


def _is_double(node: Node) -> bool:
    return any(value.dtype == torch.float64 for value in values_of(node))


def _is_fraction(node: Node, found: set[Node]) -> bool:
    """Whether it is a position less the place next to it, of which bfloat16 would leave no digits."""

    def is_step(value: Node) -> bool:
        while is_call(value, *MOVES) and value.args and isinstance(value.args[0], Node):
            value = value.args[0]
        return value in found and getattr(value.target, "overloadpacket", None) in STEPS

    return is_call(node, aten.sub.Tensor) and any(map(is_step, node.all_input_nodes))


def _is_sensitive(node: Node, is_scaled: bool) -> bool:
    """Whether digits of the operand count that bfloat16 has not."""
    if not any(value.dtype in FLOATS for operand in node.all_input_nodes for value in values_of(operand)):
        return False
    operation = getattr(node.target, "overloadpacket", None)
    if operation in COMPARISONS:
        number = node.args[1]
        return is_scaled or (isinstance(number, float) and float(torch.tensor(number).bfloat16()) != number)
    if operation is aten._to_copy and not node.meta["val"].dtype.is_floating_point:
        return is_scaled or node.meta["val"].dtype != torch.bool
    return is_scaled and (operation in SENSITIVE or node.target is aten.pow.Scalar)


def has_block_floats(node: Node) -> bool:
    """Whether a node was assigned block floats as its result, or reads such."""
    return any(x in meta.dtype for x in (node, *node.all_input_nodes))


def check_results(node: Node, result: Any) -> None:
    """A lowering whose result has another shape than eager torch's, or integers for floats, is refused."""
    for value, got in zip(values_of(node), result if isinstance(result, tuple) else [result], strict=True):
        if got is not None and tuple(got.shape) != tuple(value.shape):
            raise Unsupported(f"TTNN gives the shape {tuple(got.shape)}, eager torch {tuple(value.shape)}")
        if got is not None and ("INT" in got.dtype.name) != (DEVICE_DTYPES.get(value.dtype) == "int32"):
            raise Unsupported(f"TTNN gives {got.dtype.name.lower()}, eager torch {value.dtype}")


def bounds(node: Node, spec: Spec) -> tuple[int, int]:
    """What integers may cross: those of 32 bits, or the rows of the tables and caches that they pick from."""
    if spec.dtype == "int32":
        lengths = [shape_of(user.args[0])[2] for user in node.users if is_call(user, *operators.CACHE_WRITES)]
        return (0, min(lengths)) if lengths else INT32
    rows = [shape_of(user.args[0])[0] for user in node.users if is_call(user, torch.ops.aten.embedding.default)]
    return 0, min(rows, default=INT32[1])
