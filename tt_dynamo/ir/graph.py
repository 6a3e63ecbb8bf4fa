"""The graph vocabulary that passes, lowerings and the compiler share.

FX is the only intermediate representation. `node.meta["val"]` is the fake tensor of a value; `ir/meta.py` has what else
is known of nodes. A constant is a value that depends on parameters and literals alone.
"""

import dataclasses
import math
import operator
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.fake import fake_call
from tt_dynamo.ir.spec import LARGEST
from tt_dynamo.ir.torch_internals import Run

aten = torch.ops.aten

# Folders whose frames in a stack trace are no code of a model: torch's and this package's.
_NOT_MODELS = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))


def find_fake_mode(nodes: Iterable[Node]) -> FakeTensorMode:
    """The mode of the nodes' fake tensors, or a new one where they have none."""
    values = (value for node in nodes for value in values_of(node))
    modes = (value.fake_mode for value in values if isinstance(value, torch._subclasses.FakeTensor))
    return next(modes, None) or FakeTensorMode()


def values_of(node: Node) -> list[torch.Tensor]:
    """The fake tensors that a node produces, in order."""
    value = node.meta.get("val")
    found = value if isinstance(value, (tuple, list)) else [value]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def shape_of(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def dtype_of(node: Node) -> torch.dtype:
    return node.meta["val"].dtype


def insert(graph: Graph, target: Callable[..., Any], args: tuple, kwargs: dict | None = None, *, like: Node) -> Node:
    """A new call_function node with its fake value, at the graph's insertion point; source facts copied from `like`."""
    node = graph.call_function(target, args, kwargs or {})
    _copy_source(like, node)
    node.meta["val"] = fake_result(node, like)
    return node


def _copy_source(old: Node, new: Node) -> None:
    for key in old.meta.keys() & {"nn_module_stack", "stack_trace", "from_node"} - new.meta.keys():
        new.meta[key] = old.meta[key]


def fake_result(node: Node, like: Node) -> Any:
    """What the node's operation gives on the fake values of its arguments, in their mode or that of `like`."""
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    if node.target is operator.getitem:
        return args[0][args[1]]
    return fake_call(node.target, args, kwargs, find_fake_mode((*node.all_input_nodes, like)))


def device_arguments(node: Node, value_of: Callable[[Node], Any]) -> Any:
    """The node's arguments and keywords for its lowering: values for nodes, and numbers that bfloat16 holds.

    A finite number beyond bfloat16's range becomes its largest: masks are filled with the smallest float32, and as an
    infinity it would turn rows that are masked whole into NaN.
    """

    def argument(value: Any) -> Any:
        if isinstance(value, Node):
            return value_of(value)
        if isinstance(value, float) and math.isfinite(value):
            return min(max(value, -LARGEST), LARGEST)
        return value

    return torch.fx.node.map_aggregate((node.args, node.kwargs), argument)


def update_values(nodes: Iterable[Node]) -> None:
    """Compute the fake values of nodes anew, in order; sizes that depend on values stay the same symbols."""
    for node in nodes:
        if not any(isinstance(size, torch.SymInt) for value in values_of(node) for size in value.shape):
            node.meta["val"] = fake_result(node, like=node)


def replace(old: Node, new: Node) -> None:
    """All users of `old` read `new`, in memory of its own where they need it; `old` goes if nothing else needs it."""
    if reads_too_late(old, new):
        with old.graph.inserting_before(old):
            new = insert(old.graph, aten.clone.default, (new,), like=old)
    old.replace_all_uses_with(new, propagate_meta=False)
    if not old.users:
        old.graph.erase_node(old)


def reads_too_late(old: Node, new: Node) -> bool:
    """Whether users of `old`, were they to read `new`, would see what the graph writes into an input meanwhile.

    That is so where `new` views the memory of an input, `old` does not, and a write or the caller, who read after that
    input is written, get `old` or a view of it.
    """
    if not old.graph.find_nodes(op="call_function", target=aten.copy_.default, sort=False):
        return False  # asked of every rewrite: a walk along views for each would be quadratic
    owner = _memory_owner(new)
    writes = [user for user in owner.users if mutates(user) and user.args[0] is owner]
    if not writes or _memory_owner(old) is owner:
        return False
    viewing = [old]
    for node in viewing:
        if any((user.op == "output" or mutates(user)) and not user < writes[0] for user in node.users):
            return True
        viewing += [user for user in node.users if _is_view(user)]
    return False


def _memory_owner(node: Node) -> Node:
    """The value whose memory `node` may view."""
    while _is_view(node):
        node = node.args[0]
    return node


def _is_view(node: Node) -> bool:
    """Whether a call may give a view of its first argument; picking one of several results counts as one."""
    if node.target is operator.getitem:
        return True
    is_pure = isinstance(node.target, torch._ops.OpOverload) and not mutates(node)
    return is_pure and any(result.alias_info is not None for result in node.target._schema.returns)


def only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def is_call(node: Any, *targets: Any) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def is_parameter(node: Node) -> bool:
    return node.op == "placeholder" and bool(node.meta.get("parameter"))


def is_random(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def mutates(node: Node) -> bool:
    """Whether a call may do more than give its results."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.is_mutable
    return isinstance(node.target, operators.HostCall)


def copy_graph(graph: Graph) -> tuple[Graph, dict[Node, Node]]:
    """A copy of a graph, and for each of its nodes the original."""
    copy = Graph(graph.owning_module)
    forward: dict[Node, Node] = {}
    copy.output(copy.graph_copy(graph, forward)).meta = dict(graph.output_node().meta)
    return copy, {new: old for old, new in forward.items()}


def copied(module: GraphModule) -> GraphModule:
    """The module of a graph once more, for another compilation."""
    return GraphModule(module, copy_graph(module.graph)[0])


def constant_nodes(graph: Graph) -> set[Node]:
    """The values that depend on parameters and literals alone, parameters included."""
    found: set[Node] = set()
    for node in graph.nodes:
        if is_parameter(node) or (_is_pure(node) and all(operand in found for operand in node.all_input_nodes)):
            found.add(node)
    return found


def _is_pure(node: Node) -> bool:
    """Whether what a node gives depends on its operands alone, and lies on no cores that the device's calls need."""
    is_effect = is_random(node) or mutates(node)
    called = node.op in ("call_function", "call_module") and not is_effect and node.target is not operators.by_user
    return called or node.op == "get_attr"


def needed_for(output: Node, is_known: Callable[[Node], bool] = lambda node: False) -> list[Node]:
    """What a node is computed from and the node itself, inputs first; not what is known nor what only that needs."""
    found: dict[Node, None] = {}
    stack = [output]
    while stack:
        missing = [n for n in stack[-1].all_input_nodes if n not in found and not is_known(n)]
        if missing:
            stack.extend(missing)
        else:
            found.setdefault(stack.pop())
    return list(found)


def is_made_of(node: Node, fact: meta.Fact[bool], is_root: Callable[[Node], bool]) -> bool:
    """Whether a value depends on such roots and literals alone: `fact`, which is noted on it and what it is made of."""
    for needed in needed_for(node, fact.__contains__):
        fact.set(needed, is_root(needed) or (_is_pure(needed) and all(map(fact, needed.all_input_nodes))))
    return fact(node)


def is_literal(node: Node) -> bool:
    """Whether a value depends on no input of the graph, and is the same on every chip."""
    for needed in needed_for(node, meta.literal.__contains__):
        if is_call(needed, *operators.COLLECTIVES):
            meta.literal.set(needed, False)
    return is_made_of(node, meta.literal, lambda root: False)


def literal_value(node: Node, limit: int = 1 << 24) -> torch.Tensor | None:
    """The tensor that a node gives that depends on literals alone, so that it may steer a rewrite; computed once.

    None where it is another node, no tensor, or has more than `limit` elements.
    """
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.numel() > limit:
        return None
    if not is_literal(node):
        return None
    run = Run(node.graph.owning_module, garbage_collect_values=False, graph=node.graph)
    with torch.no_grad():
        for needed in needed_for(node, meta.value.__contains__):
            run.env = {operand: meta.value(operand) for operand in needed.all_input_nodes}
            meta.value.set(needed, run.run_node(needed))
    return meta.value(node)


Sides = dict[Node, str]  # where each node runs: "device" or "host"


@dataclasses.dataclass(frozen=True)
class Assumption:
    """What a graph was compiled for: the integers that these placeholders hold are `value`, or all one where None."""

    placeholders: tuple[str, ...]
    value: int | None


@dataclasses.dataclass
class Context:
    """What a pass may know beside the graph: a memory of one compile, whether it may assume values, and what it did.

    cores: worker cores of the device, 0 where that is not known.
    """

    memory: dict[Any, Any] = dataclasses.field(default_factory=dict)
    assume: bool = True
    assumptions: list[Assumption] = dataclasses.field(default_factory=list)
    cores: int = 0


def dead_code(graph: Graph) -> None:
    """Erase what nothing reads; random operations count as read nowhere, mutations as read."""
    for node in reversed(graph.nodes):  # torch's own checks the whole graph as well
        if not node.users and node.op not in ("placeholder", "output") and not mutates(node):
            graph.erase_node(node)


def compute_nodes(graph: Graph) -> list[Node]:
    """The nodes that compute: calls, less the picking of one of several results."""
    return [n for n in graph.nodes if n.op == "call_function" and n.target is not operator.getitem]


def splice(node: Node, inner: GraphModule, operands: list[Any]) -> list[Node]:
    """Replace a call by the operations of a graph that computes it from `operands`; returns those."""
    graph, root = node.graph, node.graph.owning_module
    known = dict(zip(inner.graph.find_nodes(op="placeholder"), operands, strict=True))
    with graph.inserting_before(node):
        result = graph.graph_copy(inner.graph, known)
    parts = [new for new in known.values() if isinstance(new, Node) and new not in operands]
    for new in parts:
        _copy_source(node, new)
        if new.op == "get_attr":
            value = getattr(inner, str(new.target))
            new.target = f"{new.name}_of_{node.name}"
            setattr(root, new.target, value)
            if isinstance(value, torch.Tensor):
                new.meta["val"] = find_fake_mode(graph.nodes).from_tensor(value, static_shapes=True)
    if isinstance(result, (tuple, list)):
        for user in list(node.users):
            user.replace_all_uses_with(result[user.args[1]], propagate_meta=False)
            graph.erase_node(user)
    else:
        node.replace_all_uses_with(result, propagate_meta=False)
    graph.erase_node(node)
    return parts


def subgraph(output: Node, inputs: list[Node]) -> tuple[dict[str, Any], Graph]:
    """A graph that computes `output` from `inputs`, and its attributes; equal ones read alike: weights are known so."""
    graph = Graph()
    known: dict[Node, Node] = {}
    for index, node in enumerate(inputs):
        known[node] = graph.placeholder(f"p{index}")
        known[node].meta.update(node.meta)
    attributes: dict[str, Any] = {}
    for current in needed_for(output, known.__contains__):
        copy = known[current] = graph.node_copy(current, known.__getitem__)
        copy.name = f"v{len(known)}"
        if current.op in ("get_attr", "call_module"):
            copy.target = f"a{len(attributes)}"
            attributes[copy.target] = getattr(current.graph.owning_module, str(current.target))
    graph.output(known[output])
    return attributes, graph


def module_path(node: Node) -> str:
    """Where in the model a node comes from: "encoder.layer.0.attention", "" where torch does not say."""
    stack = node.meta.get("nn_module_stack") or {"": ("",)}
    return path_in_model([*stack.values()][-1][0])


def path_in_model(path: str) -> str:
    """What Dynamo calls a module, as its model names it."""
    # L['self']._modules['layers']._modules['0'].attention, of which L['self'] is the variable that holds the model
    names = [name for name in re.split(r"[\[\].']+", path) if name not in ("", "_modules")]
    return ".".join(names[2:] if names[:1] in (["L"], ["G"]) else names)


def parameters_of(operand: Node) -> list[Node]:
    """The parameter that an operand is, or those that it was folded from; on the host or gone up."""
    constant = operand.args[0] if is_call(operand, operators.to_device) else operand
    return [constant] if is_parameter(constant) else constant.all_input_nodes if constant.op == "call_module" else []


def parameter_modules(node: Node) -> list[str]:
    """The modules whose parameters a node reads: those of a linear and its activation are two."""
    parameters = [parameter for operand in node.all_input_nodes for parameter in parameters_of(operand)]
    names = [meta.parameter_name.get(parameter, "") for parameter in parameters]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names if name))


def source_line(node: Node) -> str:
    """The line of the model's code that it comes from: "model.py:84 in forward: x = y", "" where torch does not say."""
    frames = re.findall(r'File "(.+)", line (\d+), in (.+)(?:\n {4}(.*))?', node.meta.get("stack_trace") or "")
    theirs = [frame for frame in frames if not frame[0].startswith(_NOT_MODELS)]
    if not theirs:
        return ""
    file, number, function, text = theirs[-1]
    return f"{Path(file).name}:{number} in {function}" + (f": {text}" if text else "")


def target_name(node: Node) -> str:
    """`ttnn.linear`, `torch.ops.aten.add.Tensor`, `checked`: how a call is written."""
    if "path" in node.meta:
        return node.meta["path"]
    if operators.is_written(node.target):
        return str(operators.FUNCTIONS[node.target].__name__)
    return function_name(node.target.function if isinstance(node.target, operators.HostCall) else node.target)


def function_name(function: Any) -> str:
    """How a program names a function of torch: `torch.ops.aten.add.Tensor`, `operator.add`."""
    if isinstance(function, torch._ops.OpOverload):
        return f"torch.ops.{function}"
    if isinstance(function, torch._ops.HigherOrderOperator):
        return f"torch.ops.higher_order.{function.name()}"
    name = getattr(function, "__name__", str(function))
    module = next((module for module in (operator, torch) if getattr(module, name, None) is function), None)
    return f"{module.__name__.strip('_')}.{name}" if module else name
