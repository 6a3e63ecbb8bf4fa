"""Values that stay on the device between calls: inputs that the graph writes into, caches that it reads or makes.

Before   copy_(cache, to_host(new)), where new is made of to_device(cache)
After    state_write(cache, new), where new is made of state_read(cache); beside it a tensor that is no `DeviceTensor`
         gets on the host the rows that were written, or all of it

What must hold: the program reads such an input through that crossing alone, and `new` has its spec. A `DeviceTensor`
that is only read, as cross-attention reads the encoder's keys and values, is taken where it lies.
"""

import dataclasses
import operator
from collections.abc import Iterable

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, aten, insert, is_call, only_user
from tt_dynamo.ir.spec import Value, on_device
from tt_dynamo.ir.torch_internals import storage_of


def keep_states(graph: Graph, sides: Sides) -> None:
    """Have the inputs of a placed graph stay on the device where they can."""
    for write in list(graph.find_nodes(op="call_function", target=aten.copy_.default)):
        crossing = _crossing_of(write)
        if crossing is not None:
            _read_as_state(crossing, sides)
            _write_as_state(graph, write, sides)
    for node in graph.find_nodes(op="placeholder"):
        crossing = only_user(node) if meta.held.get(node, False) else None
        if is_call(crossing, operators.to_device) and meta.spec(crossing).memory != "HOST":
            _read_as_state(crossing, sides)


def keep_outputs(graph: Graph, dtype: str, keeps_all: bool) -> None:
    """Have outputs stay on the device: at `dtype` those that passes found to be caches, others where all are kept.

    What shares memory with another result or an input in eager torch, or leaves gaps in it, comes down.
    """
    output = graph.output_node()
    values, caches, eager = output.args[0], meta.kept.get(output, ()), meta.eager(output)
    memories = [storage_of(x) for x in (*eager, *_values_of_inputs(graph)) if isinstance(x, torch.Tensor)]
    for position, value in enumerate(values):
        crosses = is_call(value, operators.to_host) and meta.spec(value.args[0]).layout == "TILE"
        if not crosses or only_user(value) is not output or values.count(value) != 1:
            continue
        if position in caches:
            value.target, value.args = operators.keep, (value.args[0], dtype)
        elif keeps_all and memories.count(storage_of(eager[position])) == 1 and _is_dense(eager[position]):
            value.target, value.args = operators.keep, (value.args[0], meta.spec(value.args[0]).dtype)


def _values_of_inputs(graph: Graph) -> list[object]:
    return [node.meta.get("val") for node in graph.find_nodes(op="placeholder")]


def _is_dense(value: torch.Tensor) -> bool:
    """Whether a tensor fills all of its memory, each place once."""
    dense = 1
    for stride, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size > 1 and stride != dense:
            return False
        dense *= size
    return value.untyped_storage().nbytes() == value.numel() * value.itemsize


def shares_buffer(value: Value, others: Iterable[Value]) -> bool:
    """Whether a value lies in the buffer of another, at compile time; some of those have none yet."""
    tensors = [other.tensor for other in others if other.tensor is not None]
    return value.tensor.buffer_address() in [tensor.buffer_address() for tensor in tensors if on_device(tensor)]


def _crossing_of(write: Node) -> Node | None:
    """Where what `write` writes into goes up, if it may stay on the device instead."""
    target, down = write.args[:2]
    if target.op != "placeholder" or not is_call(down, operators.to_host):
        return None
    new = down.args[0]
    crossings = [user for user in target.users if is_call(user, operators.to_device)]
    if set(target.users) != {write, *crossings} or len(crossings) != 1:
        return None
    if any(is_call(user, operators.state_write) for user in new.users):  # another input ends as the same tensor
        return None
    spec, result = meta.spec(crossings[0]), meta.spec(new)
    if is_call(new.args[0] if is_call(new, operator.getitem) else new, *operators.CACHE_WRITES):
        result = dataclasses.replace(result, dtype=spec.dtype)  # in place, whichever dtype that has
    return crossings[0] if dataclasses.replace(spec, placement=()) == result else None


def _read_as_state(crossing: Node, sides: Sides) -> None:
    crossing.target, crossing.args = operators.state_read, crossing.args[:1]
    del sides[crossing]


def _write_as_state(graph: Graph, write: Node, sides: Sides) -> None:
    target, down = write.args[:2]
    with graph.inserting_before(write):
        graph.call_function(operators.state_write, (target, down.args[0]))
    if meta.held.get(target, False) or _write_rows_alone(graph, write, sides):
        graph.erase_node(write)
        if not down.users:
            graph.erase_node(down)


def _write_rows_alone(graph: Graph, write: Node, sides: Sides) -> bool:
    """Bring down the row that was written, where the rest of the cache is as it was."""
    target, down = write.args[:2]
    new, at = down.args[0], 0
    if is_call(new, operator.getitem):
        new, at = new.args
    if not is_call(new, operators.update_cache, operators.update_cache_decode, operators.update_caches_decode):
        return False
    (cache, values), positions = new.args[3 * at : 3 * at + 2], new.args[2]
    if not is_call(cache, operators.state_read) or not is_call(positions, operators.to_device):
        return False
    with graph.inserting_before(write):
        rows = insert(graph, operators.to_host, (values,), like=down)
        sides[rows] = "host"
        place = positions.args[0]
        if not is_call(new, operators.update_cache):
            rows = insert(graph, aten.permute.default, (rows, [1, 2, 0, 3]), like=down)
            place = insert(graph, aten.slice.Tensor, (place, 0, 0, 1), like=down)  # it is one for all users
        copied = graph.call_function(aten.index_copy_.default, (target, 2, place, rows))
    copied.meta.update(write.meta)
    return True
