"""Models without data: copies of models on torch's meta device, and their graphs as graphs of the host.

A tensor on the meta device has no contents, so a model there of any size takes no memory, and Dynamo traces it as it
is. Its graphs name the device, which has no kernels in ATen and is no place that a value crosses from: before they are
compiled, every tensor in them becomes a fake one of the host and every mention of the device "cpu".
"""

import io
import pickle
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from tt_dynamo.ir import meta
from tt_dynamo.ir.torch_internals import tracing_mode

META, HOST = torch.device("meta"), torch.device("cpu")


def without_data(*objects: Any) -> tuple[Any, ...]:
    """Copies of models and inputs with every tensor, and every mention of a device, on the meta device.

    What is shared stays shared; no contents are copied. Raises what `pickle` raises for what cannot be copied.
    """
    kept: dict[int, tuple[Any, Any]] = {}

    def note(value: Any) -> int | None:
        """What stands for a tensor, a device or code, which alone is not written."""
        if isinstance(value, torch.Tensor):
            kept.setdefault(id(value), (_without_contents(value), value))  # the original too: another may take its id
        elif isinstance(value, (torch.device, type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
            kept[id(value)] = (META if isinstance(value, torch.device) else value, value)
        return id(value) if id(value) in kept else None

    written = io.BytesIO()
    writer = pickle.Pickler(written)
    writer.persistent_id = note  # type: ignore[method-assign]
    writer.dump(objects)
    reader = pickle.Unpickler(io.BytesIO(written.getvalue()))
    reader.persistent_load = lambda key: kept[key][0]  # type: ignore[method-assign]
    return reader.load()


def _without_contents(tensor: torch.Tensor) -> torch.Tensor:
    moved = _like(tensor, META)
    if isinstance(tensor, torch.nn.Parameter):
        moved = torch.nn.Parameter(moved.detach(), tensor.requires_grad)
    vars(moved).update(vars(tensor))  # what Dynamo was told of it
    return moved


def _like(value: Any, device: torch.device) -> Any:
    """A tensor of the same shape, strides and dtype on a device; what is no tensor is itself."""
    if not isinstance(value, torch.Tensor):
        return value
    made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
    return made.requires_grad_(value.requires_grad)


def on_host(module: GraphModule, inputs: Sequence[Any]) -> list[Any]:
    """Turn a Dynamo graph of the meta device into one of the host; returns fake inputs for it."""
    mode = tracing_mode()

    def moved(value: Any) -> Any:
        if isinstance(value, torch.device):
            return HOST if value.type == META.type else value
        return HOST.type if isinstance(value, str) and value == META.type else value

    def faked(value: Any) -> Any:
        with mode:
            return _like(value, HOST)

    for node in module.graph.nodes:
        node.args, node.kwargs = tree_map(moved, (node.args, node.kwargs))
        if "example_value" in node.meta:
            node.meta["example_value"] = tree_map(faked, node.meta["example_value"])
    module._apply(lambda tensor: torch.zeros_like(tensor, device=HOST) if tensor.is_meta else tensor)
    module.recompile()
    return list(map(faked, inputs))


def shapes_alone(graph: GraphModule) -> Any:
    """Stands for the program of an ATen graph where there is no data: results of its shapes on the meta device."""
    results = meta.eager(graph.graph.output_node())

    def call(args: list[Any]) -> list[Any]:
        args.clear()
        return tree_map(lambda value: _like(value, META), results)

    return call
