"""Inputs whose contents stay on the device between calls: those that a graph writes into, and caches that it reads.

Before   copy_(cache, to_host(new)), where new is made of to_device(cache)
After    the program takes `cache` on the device and leaves `new` there; a `DeviceTensor` gets nothing on the host,
         any other tensor the rows that were written, or all of it

What must hold: the program reads such an input through that crossing alone, and `new` has its spec. A `DeviceTensor`
that is only read, as cross-attention reads keys and values of the encoder, is taken where it lies as well.
"""

from __future__ import annotations

import dataclasses

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Sides, aten, insert, is_call, only_user
from tt_dynamo.ir.uses import StateUse


def find_states(graph: Graph, sides: Sides) -> list[StateUse]:
    """The inputs of a placed graph that stay on the device; marks the nodes that tracing leaves out for them."""
    states = []
    for write in list(graph.find_nodes(op="call_function", target=aten.copy_.default)):
        state = _state(write)
        if state is None:
            continue
        states.append(state)
        state.crossing.meta["state"] = state
        down = write.args[1]
        down.meta["result_of"] = state
        if state.held:
            write.meta["left_out"] = True
            down.meta["left_out"] = only_user(down) is write
        else:
            _write_rows_alone(graph, write, sides)
    written = {state.node for state in states}
    for node in graph.find_nodes(op="placeholder"):
        crossing = only_user(node) if node.meta.get("held") and node not in written else None
        if crossing is not None and is_call(crossing, operators.to_device) and crossing.meta["ttnn"].memory != "HOST":
            crossing.meta["state"] = StateUse(node, crossing, crossing.meta["ttnn"], held=True, written=False)
            states.append(crossing.meta["state"])
    return states


def keep_outputs(graph: Graph, dtype: str) -> None:
    """Mark the outputs that stay on the device, at `dtype`, of those that passes found to be caches."""
    output = graph.output_node()
    values = output.args[0]
    for position in output.meta.get("kept", ()):
        value = values[position]
        crosses = is_call(value, operators.to_host) and value.args[0].meta["ttnn"].layout == "TILE"
        if crosses and only_user(value) is output and values.count(value) == 1:
            value.meta["kept_at"], value.meta["kept_as"] = position, dtype


def _state(write: Node) -> StateUse | None:
    target, down = write.args[:2]
    if target.op != "placeholder" or not is_call(down, operators.to_host) or "result_of" in down.meta:
        return None
    crossings = [user for user in target.users if is_call(user, operators.to_device)]
    new, others = down.args[0], set(target.users) - {write, *crossings}
    if len(crossings) != 1 or others:
        return None
    spec, result = crossings[0].meta["ttnn"], new.meta["ttnn"]
    if is_call(new, *operators.CACHE_WRITES):
        result = dataclasses.replace(result, dtype=spec.dtype)  # in place, whichever dtype that has
    return StateUse(target, crossings[0], spec, bool(target.meta.get("held"))) if spec == result else None


def _write_rows_alone(graph: Graph, write: Node, sides: Sides) -> None:
    """Bring down the row that was written, where the rest of the cache is as it was."""
    target, down = write.args[:2]
    new = down.args[0]
    if not is_call(new, operators.update_cache, operators.update_cache_decode):
        return
    cache, values, positions = new.args
    if not is_call(cache, operators.to_device) or not is_call(positions, operators.to_device):
        return
    with graph.inserting_before(write):
        rows = insert(graph, operators.to_host, (values,), like=down)
        sides[rows] = "host"
        place = positions.args[0]
        if is_call(new, operators.update_cache_decode):
            rows = insert(graph, aten.permute.default, (rows, [1, 2, 0, 3]), like=down)
            place = insert(graph, aten.slice.Tensor, (place, 0, 0, 1), like=down)  # it is one for all users
        copied = graph.call_function(aten.index_copy_.default, (target, 2, place, rows))
    copied.meta.update(write.meta)
    down.meta["left_out"] = only_user(down) is write
    write.meta["left_out"] = True
