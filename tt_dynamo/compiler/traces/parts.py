"""Split a program around its device part, which a trace can hold.

Before   c = a.bfloat16();  x = from_torch(c);  y = relu(x);  b = a + 1;  z = to_torch(y);  return z * b
After    prepare: c = a.bfloat16(), b = a + 1     upload: x = from_torch(c)
         run: y = relu(x)                         download: z = to_torch(y), return z * b

What must hold: `run` calls TTNN alone, on what `upload` brings up, on literals, states and weights; `prepare` calls
torch alone. Nothing that `run` computes comes down and goes up again. Writes to the caller's tensors are part of
`download`, in their order.
"""

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import is_random, mutates

VIEWS = ("ttnn.reshape", "ttnn.unsqueeze", "ttnn.squeeze", "ttnn.view")


class Untraceable(Exception):
    """No trace can hold a program, and why."""


@dataclasses.dataclass
class Parts:
    """The functions of a program, by their names, and which of the program's arguments each takes, by position.

    prepare gives what goes up, then values of the host that `download` reads. upload takes the former and gives tensors
    that `run` reads. constants gives the literals that `run` reads. run takes uploads, constants and its arguments;
    download the results of `run`, the values and its arguments. goes_up: what each upload is made of, as the position
    of a result of `prepare`. late: which results of `run` are the caller's as they are, by position.
    """

    functions: dict[str, Graph]
    reads: dict[str, list[int]]
    goes_up: list[int]
    late: list[int]


def split(graph: Graph, makes_caches: bool = False) -> Parts:
    """The parts of a program, whose deallocations are not inserted yet. Raises Untraceable.

    makes_caches: whether results that end on the device are to stay there; others come down before the next replay.
    """
    for node in graph.find_nodes(op="placeholder"):
        if node in meta.state and meta.state(node).result is not None:
            raise Untraceable(f"{node.name} lies elsewhere after each call")
    if any("mesh_mapper" in node.kwargs for node in graph.nodes if _is_upload(node)):
        raise Untraceable("an input goes up in parts, one for each chip of a mesh")
    side = _sides(graph)
    names = ("prepare", "upload", "constants", "run")
    parts = {part: [node for node in graph.nodes if side.get(node) == part] for part in names}
    uploads = parts["upload"]
    sources = list(dict.fromkeys(node.all_input_nodes[0] for node in uploads))
    results = list(dict.fromkeys(n.args[0] for n in graph.nodes if meta.path.get(n, "") == "ttnn.to_torch"))
    after = [node for node in graph.nodes if side.get(node) == "download"]
    needed = dict.fromkeys(operand for node in (*after, graph.output_node()) for operand in node.all_input_nodes)
    kept = [node for node in needed if side[node] in ("run", "constants", "device") and node not in results]
    if kept and (makes_caches or any(side[node] != "run" for node in kept)):
        raise Untraceable("a result stays on the device, for which each call allocates memory")
    results += kept
    values = [node for node in needed if side[node] == "prepare"]
    output = graph.output_node().args[0]
    made = {
        "prepare": (parts["prepare"], [], (*sources, *values)),
        "upload": (uploads, sources, tuple(uploads)),
        "constants": (parts["constants"], [], tuple(parts["constants"])),
        "run": (parts["run"], [*uploads, *parts["constants"]], tuple(results)),
        "download": (after, [*results, *values], output),
    }
    order = {node: at for at, node in enumerate(graph.find_nodes(op="placeholder"))}
    functions, reads = {}, {}
    for name, (nodes, given, output) in made.items():
        outputs = [node for node in output if isinstance(node, Node)]
        wanted = {operand for node in nodes for operand in node.all_input_nodes} | set(outputs)
        read = sorted((wanted & order.keys()) - set(given), key=order.__getitem__)
        functions[name] = _function(graph, [*given, *read], nodes, output)
        reads[name] = [order[node] for node in read]
    goes_up = [sources.index(node.all_input_nodes[0]) for node in uploads]
    return Parts(functions, reads, goes_up, [results.index(node) for node in kept])


def _is_upload(node: Node) -> bool:
    return meta.path.get(node, "") == "ttnn.from_torch"


def _sides(graph: Graph) -> dict[Node, str]:
    """Which part each node belongs to; placeholders are "device" or "host". Raises Untraceable."""
    side: dict[Node, str] = {}
    for node in graph.nodes:
        sides = {side[operand] for operand in node.all_input_nodes if not _is_upload(operand)}
        on_device = any(_is_upload(o) or side[o] in ("run", "constants", "device") for o in node.all_input_nodes)
        path = meta.path.get(node, "")
        if node.op == "placeholder":
            side[node] = "device" if node in meta.spec else "host"
        elif node.op == "output":
            continue
        elif path == "ttnn.to_torch":
            side[node] = "download"
        elif _is_upload(node):
            if "download" in sides:
                raise Untraceable(f"{_named(node)} goes up, which the host computes of what the device computed")
            if node.kwargs.get("device") is None:
                raise Untraceable(f"{_named(node)} is laid out on the host by the operation that reads it")
            if not node.all_input_nodes:
                raise Untraceable(f"{_named(node)} goes up, which is no value of the program")
            side[node] = "upload"
        elif path.startswith("ttnn.") or (on_device and node.target is operator.getitem):
            if sides & {"host", "prepare", "download"}:
                raise Untraceable(f"{node.name} ({path}) reads a value of the host")
            side[node] = "constants" if _is_literal(node) else "run"
        elif on_device:
            raise Untraceable(f"{node.name} runs on the host between operations of the device")
        else:
            side[node] = "download" if mutates(node) or "download" in sides else "prepare"
    if len({side[node] for node in graph.nodes if is_random(node)}) > 1:
        raise Untraceable("the host draws random numbers before and after the device computes")
    return side


def _named(node: Node) -> str:
    return meta.label.get(node, node.name)


def _is_literal(node: Node) -> bool:
    """Whether a call makes a tensor of nothing, in DRAM, that nobody writes to: it can be made once."""
    in_dram = node in meta.spec and meta.spec(node).memory == "DRAM"
    views = [node]
    for view in views:
        views += [user for user in view.users if meta.alias.get(user, None) is view]
    only_views = all(meta.path.get(view, "") in VIEWS for view in views[1:])
    return in_dram and not node.all_input_nodes and only_views


def _function(graph: Graph, given: Sequence[Node], nodes: Iterable[Node], output: Any) -> Graph:
    made = Graph(graph.owning_module)
    copies: dict[Node, Node] = {}
    for node in given:
        copies[node] = made.placeholder(node.name)
        copies[node].meta = {key: node.meta[key] for key in node.meta.keys() & {"ttnn", "val"}}
        meta.path.set(copies[node], "")
    for node in nodes:
        copy = copies[node] = made.node_copy(node, copies.__getitem__)
        if meta.alias.get(node, None) is not None:
            meta.alias.set(copy, copies.get(meta.alias(node)))  # type: ignore[arg-type]
    made.output(tuple(copies[value] if isinstance(value, Node) else value for value in output))
    return made
