"""What is known of a node before TTNN is asked: whether it may be asked, and what its lowering wants and gives."""

from __future__ import annotations

import torch
from torch.fx import Node

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
        return f"{target_name(node)} {IMPOSSIBLE.get(node.target) or 'has no lowering to TTNN'}"
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


def is_at_home_on_host(node: Node) -> bool:
    """Whether a node has no work for the device: checks of indices, Python numbers (which torch passes as float64 of
    rank 0), and what gives or reads no elements."""
    if node.target in operators.HOST or (counts(node) and _serves(node)):
        return True
    if is_call(node, torch.ops.aten.copy_.default, torch.ops.aten.index_copy_.default):
        return node.args[0].op == "placeholder"  # what the caller finds in its tensor
    results, operands = values_of(node), [v for operand in node.all_input_nodes for v in values_of(operand)]
    tensors = results + operands
    is_number = all(not value.shape for value in tensors) and any(value.dtype == torch.float64 for value in tensors)
    return is_number or any(part and not any(v.numel() for v in part) for part in (results, operands))


def _serves(node: Node) -> bool:
    """Whether counted integers are for other work of the graph or for its counters, not what it was asked for."""
    for user in node.users:
        if is_call(user, torch.ops.aten.copy_.default) and user.args[0].op == "placeholder":
            return True
        if user.op != "output" and (not counts(user) or _serves(user)):
            return True
    return False


def counts(node: Node) -> bool:
    """Whether a node is arithmetic of small integers that come from the host, as positions: they go up when needed.

    Floats on the way from integers to integers count as well, as where T5 puts distances into buckets by their
    logarithm: bfloat16 would round them into other buckets.
    """
    if isinstance(node.meta.get("val"), (tuple, list)):
        return False  # several results are no arithmetic
    values = [value for operand in (node, *node.all_input_nodes) for value in values_of(operand)]
    if any(value.is_complex() or value.numel() > SMALL for value in values):
        return False
    if not all(n.op in ("placeholder", "get_attr", "call_module") or counts(n) for n in node.all_input_nodes):
        return False
    floats = [n for n in (node, *node.all_input_nodes) if any(v.is_floating_point() for v in values_of(n))]
    return all(n.op == "call_function" and _ends_in_integers(n) for n in floats)


def _ends_in_integers(value: Node) -> bool:
    """Whether all that is computed from a float is integers in the end, or comparisons."""
    pending, seen = [value], {value}
    while pending:
        for user in pending.pop().users:
            results = values_of(user)
            if user.op != "call_function" or not results or any(result.numel() > SMALL for result in results):
                return False
            if any(result.is_floating_point() for result in results) and user not in seen:
                seen.add(user)
                pending.append(user)
    return True


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
    for position, argument in enumerate(node.args):
        if argument is operand or (isinstance(argument, (list, tuple)) and operand in argument):
            need = found.need(operand_name(node.target, position))
            return need.layout_at(node), need.dtype
    name = next(key for key, argument in node.kwargs.items() if argument is operand)
    need = found.need(name)
    return need.layout_at(node), need.dtype
