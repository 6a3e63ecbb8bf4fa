"""The weights of a program: which nodes they are, how they are prepared, and how computed of a call's arguments.

Before   y = conv2d(x, prepare_conv_weights(w, ...))
After    y = conv2d(x, w)                          w: a weight that prepare_conv_weights made as it was uploaded

How a weight is laid out depends on the call that reads it, so a lowering makes both calls. A mask that attention reads
is prepared by filling its tile padding.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.compiler.codegen import call_text
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import aten, is_call, is_parameter, only_user
from tt_dynamo.ir.parts import Mesh
from tt_dynamo.ir.spec import Spec, Value, evaluate
from tt_dynamo.ir.uses import WeightUse
from tt_dynamo.passes.shard.varying import axes_of_constant

ATTENTIONS = (aten.scaled_dot_product_attention.default, operators.attention)
FOLDED = ("call_module", "get_attr")  # what was computed of parameters and literals
PREPARATIONS = ("ttnn.prepare_", "ttnn.experimental.prepare_", "ttnn.fill_implicit_tile_padding")
ON_DEVICE = "ttnn.to_device(ttnn.to_layout(weight, ttnn.TILE_LAYOUT), device)"


def is_weight(node: Node) -> bool:
    """Whether a node of a placed graph is a weight: where a constant goes up, or a folded one that the host reads."""
    if is_call(node, operators.to_device):
        return is_parameter(node.args[0]) or node.args[0].op in FOLDED
    return node.op in FOLDED and any(not is_call(user, operators.to_device) for user in node.users)


def prepare_weights(graph: Graph, values: dict[Node, Value], ttnn: Any, handle: Any) -> None:
    """Take preparations of weights out of a program, and weights that nothing reads. values: their stand-ins."""
    made: dict[tuple[Node, str], Node] = {}
    for node in [node for node in graph.nodes if meta.path.get(node, "").startswith(PREPARATIONS)]:
        (source,) = node.all_input_nodes
        if source not in meta.weight:
            continue
        on_host = source not in meta.spec
        given = meta.weight(source).spec
        is_each = given is not None and given.each
        call = call_text(node, {source: "weight" if on_host else ON_DEVICE})
        laid_out = only_user(node)
        if laid_out is not None and meta.path.get(laid_out, "") == "ttnn.to_layout":  # is part of how it is prepared
            call = call_text(laid_out, {node: call})
            laid_out.replace_all_uses_with(node, propagate_meta=False)
            graph.erase_node(laid_out)
        if (source, call) not in made:
            raw = values[source].tensor
            tensor = evaluate(call, ttnn, handle, raw) if on_host else raw  # which was filled in place
            spec = Spec(tuple(tensor.shape), tensor.dtype.name.lower(), tensor.layout.name, prepare=call, each=is_each)
            with graph.inserting_before(source):
                prepared = made[source, call] = graph.placeholder(source.name)
            meta.weight.set(prepared, WeightUse(meta.weight(source).node, spec))
            meta.spec.set(prepared, spec)
            values[prepared] = Value(prepared, tensor)
        node.replace_all_uses_with(made[source, call], propagate_meta=False)
        graph.erase_node(node)
    for node in graph.find_nodes(op="placeholder"):
        if node in meta.weight and not node.users:
            graph.erase_node(node)
            values.pop(node, None)


def bind_weights(uses: Iterable[WeightUse], placed: GraphModule, mesh: Mesh = ()) -> None:
    """Tell the weights of a program how they are computed from the arguments of a call of `placed`.

    mesh: of the device, whose chips may each have their own.
    """
    position = {node: index for index, node in enumerate(placed.graph.find_nodes(op="placeholder"))}
    for use in uses:
        use.positions = [position[node] for node in (use.node, *use.node.all_input_nodes) if node in position]
        if use.node.op == "placeholder":
            continue
        value: Any = getattr(placed, str(use.node.target))
        if use.node.op == "get_attr":
            use.evaluate, use.expression = (lambda value=value: value), _digest(value)
        else:
            parts = [name + module.code for name, module in value.named_modules() if isinstance(module, GraphModule)]
            parts += [name + _digest(buffer) for name, buffer in value.named_buffers()]
            use.evaluate, use.expression = value, "\n".join(parts)  # constants are made of constants, each a module
            use.mesh = mesh if axes_of_constant(value) else ()


def _digest(literal: torch.Tensor) -> str:
    contents = literal.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{literal.dtype} {tuple(literal.shape)} {hashlib.sha256(contents).hexdigest()}"
