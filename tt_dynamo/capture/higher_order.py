"""Higher-order operators: torch traces through those that it can; in ATen graphs every other becomes a plain call.

Before   y = invoke_subgraph(subgraph_0, "subgraph_0", x);   z = cond(p, true_graph_0, false_graph_0, (y,))
After    the operations of subgraph_0 on x;                  z = HostCall(cond, ...)(p, y)

What reads a number that only a run knows, as a loop's count, becomes such a call as well. Afterwards every value has
its fake value, no value is a graph, and ATen operations read tensors alone: passes, placement and tracing know these
calls as any operation without a lowering.
"""

import operator
from typing import Any

import torch
from torch._C import DispatchKey
from torch._higher_order_ops.associative_scan import associative_scan_op
from torch._higher_order_ops.flex_attention import flex_attention
from torch._higher_order_ops.hints_wrap import hints_wrapper
from torch._higher_order_ops.invoke_subgraph import invoke_subgraph
from torch._higher_order_ops.strict_mode import strict_mode_op
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from tt_dynamo.ir.graph import values_of
from tt_dynamo.ir.operators import HostCall

# Whose body, the first argument, runs once; the others are its operands, beside a name or hints.
INLINED = (invoke_subgraph, hints_wrapper, strict_mode_op)
# What torch itself computes by operations on tensors, and by which function.
DENSE: dict[Any, Any] = {
    target: target.py_kernels[DispatchKey.CompositeExplicitAutograd] for target in (associative_scan_op, flex_attention)
}


def trace_through(module: GraphModule) -> None:
    """Have AOTAutograd trace, in a Dynamo graph, the operations of what is `INLINED` or `DENSE`."""
    functions = {**dict.fromkeys(INLINED, _run_body), **DENSE}
    for part in filter(lambda part: isinstance(part, GraphModule), module.modules()):
        for node in [node for node in part.graph.nodes if node.target in functions]:
            node.target = functions[node.target]
            part.recompile()


def _run_body(body: GraphModule, *operands: Any, **hints: Any) -> Any:
    return Interpreter(body).run(*(operand for operand in tree_leaves(operands) if not isinstance(operand, str)))


def regularize(module: GraphModule, prefix: str = "") -> None:
    """Make calls of the host of an ATen graph's higher-order operators; `prefix` begins the names of their bodies."""
    for node in module.graph.nodes:
        node.meta.setdefault("val", None)  # of what only raises
    irregular = [node for node in module.graph.nodes if _is_irregular(node)]
    for node in irregular:
        _make_host_call(node, prefix)
    for node in module.graph.find_nodes(op="get_attr"):
        if _body(node) is not None and not node.users:
            module.graph.erase_node(node)
    if irregular:
        module.recompile()


def _is_irregular(node: Node) -> bool:
    """Whether a call is of a higher-order operator, or reads a number that only a run knows."""
    if isinstance(node.target, HigherOrderOperator):
        return True
    is_call = node.op == "call_function" and node.target is not operator.getitem
    return is_call and any(n.op == "call_function" and not values_of(n) for n in node.all_input_nodes)


def _body(node: Node) -> GraphModule | None:
    value = getattr(node.graph.owning_module, str(node.target)) if node.op == "get_attr" else None
    return value if isinstance(value, GraphModule) else None


def _make_host_call(node: Node, prefix: str) -> None:
    operands = [n for n in node.all_input_nodes if _body(n) is None]
    bodies: list[GraphModule] = []

    def argument(operand: Node) -> Any:
        body = _body(operand)
        if body is None:
            return HostCall.Operand(operands.index(operand))
        if "name" not in body.meta:
            body.meta["name"] = f"{prefix}{node.name}_{len(bodies)}"
            bodies.append(body)
        return body

    given, named = torch.fx.node.map_arg((node.args, node.kwargs), argument)
    functions = [str(x) for x in tree_leaves(given) if isinstance(x, OpOverload)]
    reason = f"calls {', '.join(functions) or 'functions of the model'}: these run in eager torch"
    if not isinstance(node.target, HigherOrderOperator):
        reason = "reads a number that only a run knows"
    node.target = HostCall(node.target, given, named, reason)
    node.args, node.kwargs = tuple(operands), {}
    for body in bodies:
        regularize(body, f"{body.meta['name']}_")
