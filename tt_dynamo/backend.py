"""The entry point that torch.compile finds as backend="ttnn"."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd
from torch.fx import GraphModule

from tt_dynamo.compiler import Compiler
from tt_dynamo.decompositions import decompositions
from tt_dynamo.devices import Device, open_device
from tt_dynamo.options import Options

log = logging.getLogger(__name__)

_names = itertools.count()


def ttnn(module: GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, **_: Any):
    """Compile a Dynamo graph for TTNN.

    Raises OptionError for an unknown option, DeviceError where the device cannot be opened, FallbackError where a node
    would run in eager torch and options["fallback"] is "error".
    """
    parsed = Options.parse(options)
    device = open_device(parsed.device)
    if any(isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) for value in example_inputs) or _symbolic(
        module
    ):
        from tt_dynamo.shapes import Specializations

        return Specializations(module, lambda graph, inputs: _compile(graph, inputs, device, parsed), parsed)
    return _compile(module, example_inputs, device, parsed)


def _symbolic(module: GraphModule) -> bool:
    for node in module.graph.find_nodes(op="placeholder"):
        value = node.meta.get("example_value")
        if isinstance(value, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in value.shape):
            return True
    return False


def _compile(module: GraphModule, inputs: Sequence[Any], device: Device, options: Options) -> Callable[..., Any]:
    names = [readable(node.name) for node in module.graph.find_nodes(op="placeholder")]

    def compiler(graph: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        mark_parameters(graph, names)
        return Compiler(graph, device, options, f"graph_{next(_names)}").compile()

    return aot_autograd(fw_compiler=compiler, decompositions=decompositions())(module, inputs)


def mark_parameters(graph: GraphModule, names: Sequence[str]) -> None:
    """Note on the placeholders which hold parameters or buffers, and what they are called in the model."""
    placeholders = graph.graph.find_nodes(op="placeholder")
    tracing = torch._guards.TracingContext.try_get()
    metadata = tracing.fw_metadata if tracing is not None else None
    forward = metadata is not None and len(placeholders) == len(names)
    static = set(metadata.static_input_indices or ()) if forward else set()
    taken: set[str] = set()
    for index, node in enumerate(placeholders):
        node.meta["parameter"] = index in static
        name = names[index] if forward else node.name
        node.meta["name"] = name if name not in taken else node.name
        taken.add(name)


def readable(name: str) -> str:
    """Dynamo's name of an input, as a person would name it: `encoder_layer_0_query_weight` for a parameter."""
    name = re.sub(r"^[lL]_+(self_+|kwargs_+|args_+|fn_+|stack0_+)*", "", name)
    name = re.sub(r"_*(modules|parameters|buffers)_+", "_", f"_{name}")
    return name.strip("_") or "input"
