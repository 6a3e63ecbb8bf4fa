"""What is known of a node before TTNN is asked: whether it may be asked, and what its lowering wants and gives."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import is_call, mutates, target_name, values_of
from tt_dynamo.ir.spec import DEVICE_DTYPES
from tt_dynamo.lowering import find as find_lowering
from tt_dynamo.lowering import operand_name
from tt_dynamo.lowering.on_host import IMPOSSIBLE

SMALL = 1 << 16  # elements


def impossible(node: Node) -> str:
    """Why a node cannot even be asked about on the device; empty where it can."""
    if find_lowering(node.target) is None:
        reason = node.target.reason if isinstance(node.target, operators.HostCall) else IMPOSSIBLE.get(node.target)
        return f"{target_name(node)} {reason or 'has no lowering to TTNN'}"
    if mutates(node):
        return f"{target_name(node)} writes into its operand"
    tensors = [v for n in (node, *node.all_input_nodes) for v in values_of(n)]
    for value in tensors:
        if value.dtype not in DEVICE_DTYPES:
            return f"TTNN has no {str(value.dtype).removeprefix('torch.')}"
        if not value.numel():
            return "a tensor with no elements has nothing to compute on the device"
        if value.device.type != "cpu":
            return f"a tensor on {value.device} belongs to another backend"
    return ""


class HostWork:
    """Which nodes of a graph are work for the host: found by one walk backward and one forward."""

    def __init__(self, graph: Graph) -> None:
        self._integer_math = _host_integer_math(graph)
        self._serving: set[Node] = set()
        for node in reversed(graph.nodes):
            if any(self._serves(user) for user in node.users):
                self._serving.add(node)

    def _serves(self, user: Node) -> bool:
        """Whether a reader of integers is other work of the graph or its counters, not what it was asked for."""
        if is_call(user, torch.ops.aten.copy_.default) and user.args[0].op == "placeholder":
            return True
        return user.op != "output" and (user not in self._integer_math or user in self._serving)

    def is_host_integer_math(self, node: Node) -> bool:
        """Whether a node is arithmetic of small integers that come from the host, as positions: they go up when needed.

        Floats on the way from integers to integers count as well, as where T5 puts distances into buckets by their
        logarithm: bfloat16 would round them into other buckets.
        """
        return node in self._integer_math

    def belongs_on_host(self, node: Node) -> bool:
        """Whether a node has no work for the device: checks of indices, Python numbers (some of which torch passes as
        float64 of rank 0), and what gives or reads no elements."""
        if node.target in operators.HOST or (node in self._integer_math and node in self._serving):
            return True
        if is_call(node, torch.ops.aten.copy_.default, torch.ops.aten.index_copy_.default):
            return node.args[0].op == "placeholder"  # what the caller finds in its tensor
        results, operands = values_of(node), [v for operand in node.all_input_nodes for v in values_of(operand)]
        tensors = results + operands
        is_number = all(not value.shape for value in tensors) and any(value.dtype == torch.float64 for value in tensors)
        reads_nothing = bool(operands) and not any(value.numel() for value in operands)
        return is_number or reads_nothing or not any(value.numel() for value in results)


def _host_integer_math(graph: Graph) -> set[Node]:
    ending = _ending_in_integers(graph)
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
            continue  # several results are no arithmetic, and a Python number never goes up
        operands = node.all_input_nodes
        if not all(n in found or n.op in ("placeholder", "get_attr", "call_module") for n in operands):
            continue
        values = {n: values_of(n) for n in (node, *operands)}
        if any(value.is_complex() or value.numel() > SMALL for group in values.values() for value in group):
            continue
        floats = [n for n, group in values.items() if any(value.is_floating_point() for value in group)]
        if all(n.op == "call_function" and n in ending for n in floats):
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


def is_read_on_host(node: Node) -> bool:
    """Whether every reader of a value is given it on the host, although that reader runs on the device."""
    readers = list(node.users)
    return bool(readers) and all(needs(user, node)[0] == "HOST" for user in readers)


def gives(node: Node) -> str:
    found = find_lowering(node.target)
    return found.layout_at(node) if found else "TILE"


def needs(node: Node, operand: Node) -> tuple[str, str | None]:
    found = find_lowering(node.target)
    if found is None:
        return "any", None
    arguments = [*enumerate(node.args), *node.kwargs.items()]
    key = next(key for key, value in arguments if operand in (value if isinstance(value, (list, tuple)) else [value]))
    need = found.need(key if isinstance(key, str) else operand_name(node.target, key))
    return need.layout_at(node), need.dtype
