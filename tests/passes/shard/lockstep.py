"""What every chip of a mesh computes, in torch on the host: the proof that a graph for one chip gives the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.parts import joined, on_chip, own_part, places


def ranks_along(mesh: Sequence[int], axis: int) -> list[list[int]]:
    """The chips of a mesh, numbered row by row, in groups that lie along an axis."""
    numbers = torch.arange(math.prod(mesh)).reshape(tuple(mesh))
    return [row.tolist() for row in numbers.movedim(axis, -1).reshape(-1, mesh[axis])]


def run_on_all(module: GraphModule, inputs: Sequence[Sequence[Any]], mesh: Sequence[int]) -> list[Any]:
    """The outputs of each chip. inputs: for each placeholder what each chip has."""
    chips, given = range(math.prod(mesh)), iter(inputs)
    env: dict[Node, list[Any]] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            env[node] = list(next(given))
        elif node.op == "get_attr":
            env[node] = [getattr(module, str(node.target)) for _ in chips]
        elif node.op == "output":
            return [torch.fx.node.map_arg(node.args[0], lambda n, chip=chip: env[n][chip]) for chip in chips]
        elif node.target in operators.COLLECTIVES:
            env[node] = _exchanged(node, env[node.args[0]], mesh)
        else:
            function = getattr(module, str(node.target)) if node.op == "call_module" else node.target
            env[node] = []
            for chip in chips:
                args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n, chip=chip: env[n][chip])
                env[node].append(function(*args, **kwargs))
    raise AssertionError("a graph ends in its output")


def _exchanged(node: Node, parts: Sequence[torch.Tensor], mesh: Sequence[int]) -> list[torch.Tensor]:
    if node.target is operators.partition:
        _, dim, axis, count = node.args
        found = []
        for x, place in zip(parts, places(mesh), strict=True):
            with on_chip(place):
                found.append(own_part(x, dim, axis, count))
        return found
    if node.target is operators.join:
        cut = tuple(None if dim < 0 else dim for dim in node.args[1])
        return [joined(parts, cut, mesh)] * len(parts)
    axis = node.args[1] if node.target is operators.all_reduce else node.args[2]
    results = list(parts)
    for group in ranks_along(mesh, axis):
        of_group = [parts[chip] for chip in group]
        if node.target is operators.all_reduce:
            together = torch.stack(of_group).sum(0)
        else:
            together = torch.cat(of_group, node.args[1])
        for chip in group:
            results[chip] = together
    return results
