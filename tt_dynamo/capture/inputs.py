"""Inputs of graphs: which of them are parameters, what a person calls them, and where their memory is."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from tt_dynamo.ir.torch_internals import PlainAOTInput, SubclassGetAttrAOTInput, is_fake, is_static_input


@dataclasses.dataclass(frozen=True)
class GraphInput:
    """An input of a Dynamo graph: what it is called, whether it is a parameter or buffer, and its name in the model."""

    name: str
    parameter: bool
    parameter_name: str = ""
    held: bool = False  # a DeviceTensor
    pointer: int = 0  # its address


def described_input(placeholder: Node, device_tensor: type) -> GraphInput:
    """What Dynamo says of an input of its graph; `device_tensor`: the class of those that live on a device."""
    is_parameter = is_static_input(placeholder)
    source = getattr(placeholder, "_dynamo_source", None)
    held = isinstance(placeholder.meta.get("example_value"), device_tensor)
    return GraphInput(readable(placeholder.name), is_parameter, parameter_name(source.name) if source else "", held)


def source_of(placeholder: Node) -> tuple[int, list[str]] | None:
    """Which input of the Dynamo graph a placeholder of an ATen graph is: its position, and where that input is a tensor
    subclass, which AOTAutograd takes apart, the attributes that lead to it. None for what AOTAutograd adds.
    """
    described = placeholder.meta.get("desc")
    attributes: list[str] = []
    while isinstance(described, SubclassGetAttrAOTInput):
        attributes.insert(0, described.attr)
        described = described.base
    return (described.idx, attributes) if isinstance(described, PlainAOTInput) else None


def part_of(given: Sequence[GraphInput], inputs: Sequence[Any], position: int, attributes: Sequence[str]) -> GraphInput:
    """The tensor that `attributes` lead to from an input of the Dynamo graph."""
    source, tensor = given[position], functools.reduce(getattr, attributes, inputs[position])
    name = source.name if source.held else "_".join([source.name, *attributes])
    pointer = tensor.data_ptr() if isinstance(tensor, torch.Tensor) and not is_fake(tensor) else 0
    return dataclasses.replace(source, name=name, pointer=pointer)


def describe_inputs(graph: GraphModule, described: dict[str, GraphInput]) -> None:
    """Note on the placeholders of an ATen graph, by their names, which input of the Dynamo graph each is.

    `described` then has what a graph of gradients may call them by, which reads what the forward graph saved.
    """
    # Dynamo marks static caches as it does buffers of the model.
    written = {node.args[0] for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default)}
    taken: set[str] = set()
    for node in graph.graph.find_nodes(op="placeholder"):
        source = described.get(node.name, GraphInput(node.name, False))
        name = source.name if source.name not in taken else node.name
        parameter = source.parameter and node not in written
        node.meta.update({**vars(source), "name": name, "parameter": parameter})
        described[node.name] = GraphInput(name, parameter, source.parameter_name)
        taken.add(source.name)


def readable(name: str) -> str:
    """Dynamo's name of an input, as a person would name it: `encoder_layer_0_query_weight` for a parameter."""
    name = re.sub(r"^[lL]_+(self_+|kwargs_+|args_+|fn_+|stack0_+)*", "", name)
    name = re.sub(r"_*(modules|parameters|buffers)_+", "_", f"_{name}")
    return name.strip("_") or "input"


def parameter_name(source: str) -> str:
    """The name in the model of what Dynamo calls `L['self']._modules['layers']._modules['0']._parameters['weight']`."""
    return ".".join(re.findall(r"\._(?:modules|parameters|buffers)\['([^']+)'\]", source))
