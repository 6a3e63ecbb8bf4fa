"""What tells a compilation from all others: its graph, what is known of its values, options, device, code and versions.

Whatever the compiler reads is in the key, so a program is never found for another compilation. A graph with something
that has no text of its own (a Python function, a size that only a run knows) has no key, and is compiled each time.
"""

import dataclasses
import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate

from tt_dynamo.devices import Device
from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import function_name
from tt_dynamo.ir.torch_internals import is_fake, storage_of
from tt_dynamo.options import Options
from tt_dynamo.runtime.folder import sources_digest

PLAIN = (int, float, bool, str, complex, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
FACTS = (meta.parameter, meta.parameter_name, meta.name, meta.held)


class Unkeyable(Exception):
    """Something of a compilation has no text that tells it from others."""


def compilation_key(graph: Graph, device: Device, options: Options, ttnn: Any, others: Mapping[str, Any]) -> str:
    """The key of a compilation. others: what else it depends on. Raises Unkeyable."""
    text = "\n".join([circumstances(device, options, ttnn, others), graph_text(graph)])
    return hashlib.sha256(text.encode()).hexdigest()


def circumstances(device: Device, options: Options, ttnn: Any, others: Mapping[str, Any]) -> str:
    """What a compilation depends on beside its graph. Raises Unkeyable."""
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    del given["device"]
    given["chosen"] = sorted(options.chosen)
    handle = device.handle
    grid = handle.compute_with_storage_grid_size()
    l1 = ttnn.get_memory_view(handle, ttnn.BufferType.L1)
    board = device.description, grid.x, grid.y, handle.get_num_devices(), device.has_two_queues
    free = l1.total_bytes_per_bank, l1.total_bytes_free_per_bank, l1.largest_contiguous_bytes_free_per_bank
    stated = repr((given, dict(others), board, free))
    if " at 0x" in stated:  # an object's address, which another one may have
        raise Unkeyable("an option is an object without a text of its own")
    return "\n".join([stated, repr(versions())])


def versions() -> dict[str, str]:
    """Of all that compiles and runs a program, by names for people."""
    found = {name: version(name) for name in ("torch", "ttnn", "tt-dynamo")}
    return {**found, "tt-dynamo's files": sources_digest(), "Python": platform.python_version()}


def tunings_digest(path: Path) -> str:
    """What the tuner found, which the compiler reads; also of a file that is not there."""
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def graph_text(graph: Graph) -> str:
    """All that the compiler reads of a graph: a line a node. Raises Unkeyable."""
    described = value_text({})
    lines = []
    for node in graph.nodes:
        values = map_aggregate(node.meta.get("val"), described)
        if node.op == "output":
            values = map_aggregate(meta.eager(node), described)
        facts = [fact.get(node, None) for fact in FACTS]
        arguments = map_aggregate((node.args, node.kwargs), _plain)
        modules = [str(path) for path, *_ in (node.meta.get("nn_module_stack") or {}).values()]
        lines.append(repr((node.op, node.name, _target(node), arguments, values, facts, modules)))
    return "\n".join(lines)


def dynamo_key(inputs: Sequence[Any], device: Device, options: Options, ttnn: Any, others: Mapping[str, Any]) -> str:
    """What AOTAutogradCache, whose key has the graph of Dynamo, is to tell compilations of this backend apart by.

    Raises Unkeyable.
    """
    values = list(map(value_text({}), inputs))
    text = circumstances(device, options, ttnn, {**others, "inputs": values})
    return hashlib.sha256(text.encode()).hexdigest()


def value_text(memories: dict[int, int]) -> Callable[[Any], Any]:
    """A function that describes values, tensors by all but their contents. memories: the storages it has met."""

    def described(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return _plain(value)
        if value.layout != torch.strided or not all(type(n) is int for n in (*value.shape, *value.stride())):
            raise Unkeyable("a tensor is sparse or has sizes that only a run knows")
        memory = memories.setdefault(storage_of(value), len(memories))
        lies = value.stride(), value.storage_offset(), memory, value.untyped_storage().nbytes()
        return Text(repr((tuple(value.shape), *lies, value.dtype, value.device, value.requires_grad)))

    return described


class Text(str):
    """What stands for a node or a tensor; no string of the graph reads like it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{self}>"


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        return Text(value.name)
    if isinstance(value, torch._ops.OpOverload):
        return Text(value)
    if type(value) not in PLAIN:
        raise Unkeyable(f"{type(value).__name__} is no plain value")
    return value


def _target(node: Node) -> str:
    if node.op == "get_attr":
        value = getattr(node.graph.owning_module, str(node.target))
        if not isinstance(value, torch.Tensor) or is_fake(value):
            raise Unkeyable(f"{node.target} is no tensor with contents")
        return contents_digest(value)
    if node.op in ("placeholder", "output"):
        return node.op
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema)
    name = function_name(node.target)
    if node.op != "call_function" or not name.startswith("operator."):
        raise Unkeyable(f"{name} is no operator of torch")
    return name


def contents_digest(tensor: torch.Tensor) -> str:
    contents = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {hashlib.sha256(contents).hexdigest()}"
