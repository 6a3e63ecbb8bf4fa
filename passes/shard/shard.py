"""The graph that each chip of a mesh runs, of the graph of a whole model: first of all passes.

Along some axes of the mesh chips share the batch (data parallel), along the others the layers (tensor parallel). Every
pass after this one sees an ordinary graph, of local shapes, in which a few nodes exchange values with other chips.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping

import torch
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.ir import meta
from tt_dynamo.ir.errors import OptionError, require_one_of
from tt_dynamo.ir.graph import copy_graph, dead_code, is_parameter
from tt_dynamo.ir.parts import Mesh, Placement
from tt_dynamo.passes.shard.composites import whole_operators
from tt_dynamo.passes.shard.derived import derived_plan, heads_plan, without_sources
from tt_dynamo.passes.shard.packed import take_apart
from tt_dynamo.passes.shard.placement import Unruled, divides, is_cut
from tt_dynamo.passes.shard.plan import STYLES, parameter_placements, plan_of_classes
from tt_dynamo.passes.shard.walk import Walk, is_state

HEADS = 1  # the dimension of a cache that counts them


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How a graph is to be spread over a mesh of (rows, columns): the options of these names."""

    mesh: Mesh
    tensor_parallel: str | bool | tuple[tuple[str, str], ...] = "auto"
    data_parallel: int | None = None


def shard(module: GraphModule, parallel: Parallel) -> tuple[Graph, list[str]]:
    """The graph of one chip, and notes for the report. Raises OptionError where it cannot be spread as asked."""
    mesh, graph = parallel.mesh, module.graph
    whole_operators(graph)
    placements, notes = _spread(graph, parallel)
    by_layers = {axis for cut in placements.values() for axis, dim in enumerate(cut) if dim is not None}
    by_batch = {axis for n, cut in placements.items() if not is_parameter(n) for axis, d in enumerate(cut) if d == 0}
    for weight, parts in take_apart(graph, placements).items():
        cut = placements.pop(weight, None)
        placements.update({part: cut for part in parts if cut is not None and divides(_shape(part), cut, mesh)})
    for node in (n for n in graph.find_nodes(op="placeholder") if meta.held.get(n, False)):
        rows = placements.get(node, (None,) * len(mesh))
        cut = tuple(HEADS if axis in by_layers - by_batch else dim for axis, dim in enumerate(rows))
        if len(_shape(node)) == 4 and is_cut(cut) and divides(_shape(node), cut, mesh):
            placements[node] = cut
    batch, parts = _batch_of(graph)[0], math.prod(mesh[axis] for axis in by_batch)
    walk = Walk(module, mesh, batch if batch % parts else 0, by_batch)
    halved = [node for node, cut in placements.items() if is_parameter(node) and len(_shape(node)) == 3 and 1 in cut]
    try:
        local = walk.run(placements, halved)
    except Unruled as error:
        return copy_graph(graph)[0], [f"not spread over the chips, each computes the whole graph: {error}"]
    dead_code(local)
    return local, notes + [f"whole on every chip: {name}, {count} times" for name, count in walk.whole.items()]


def _spread(graph: Graph, parallel: Parallel) -> tuple[dict[Node, Placement], list[str]]:
    """How parameters and inputs are cut, and notes."""
    mesh, data = parallel.mesh, parallel.data_parallel
    batch_axes = _axes_of(mesh, data or 1)
    if data is None and not any(map(is_parameter, graph.find_nodes(op="placeholder"))):
        return {}, []
    axes = [axis for axis, chips in enumerate(mesh) if chips > 1 and axis not in batch_axes]
    placements, notes = dict[Node, Placement](), list[str]()
    kept: Mapping[str, int] = {}
    if axes and parallel.tensor_parallel is not False:
        plan, origin = _plan(graph, parallel.tensor_parallel)
        placements, kept = parameter_placements(graph, plan, mesh, axes)
        for weight in without_sources(graph, placements):
            placements.pop(weight, None)
        chips = math.prod(mesh[axis] for axis in axes)
        if placements:
            notes.append(f"tensor_parallel: {len(placements)} parameters over {chips} chips, {origin}")
        elif parallel.tensor_parallel != "auto":
            raise OptionError(_fits_none(graph, plan, kept))
        notes += [f"tensor_parallel: {reason} ({count} parameters)" for reason, count in kept.items()]
    if data is None and axes and not placements and parallel.tensor_parallel == "auto":
        batch_axes = axes
    batch, inputs = _batch_of(graph)
    rows = math.prod(mesh[axis] for axis in batch_axes)
    if rows == 1:
        return placements, notes
    if inputs and (batch % rows == 0 or data is not None):
        cut = tuple(0 if axis in batch_axes else None for axis in range(len(mesh)))
        placements.update(dict.fromkeys(inputs, cut))
        filled = f", filled up with {-batch % rows} that are cut off again" if batch % rows else ""
        notes.append(f"data_parallel: a batch of {batch} over {rows} parts of the mesh{filled}")
    elif data is not None or not kept:
        what = f"a batch of {batch} does not divide by {rows}" if inputs else "no input has a batch"
        notes.append(f"data_parallel: {what}; all parts of the mesh compute the same")
    else:
        reasons = ", ".join(kept)
        raise OptionError(
            f"nothing of this model can be spread over {rows} chips: {reasons}, nor does a batch of {batch} divide. "
            "Give a batch that does, a mesh of fewer chips, a plan as tensor_parallel, or tensor_parallel=False to "
            "have all chips compute the same."
        )
    return placements, notes


def _axes_of(mesh: Mesh, parts: int) -> Collection[int]:
    """The axes of a mesh along which there are so many chips. Raises OptionError where there are none."""
    axes = [axis for axis, chips in enumerate(mesh) if chips > 1]
    choices = [chosen for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)]
    sizes = {math.prod(mesh[axis] for axis in chosen): chosen for chosen in choices}
    if parts not in sizes:
        shape = "x".join(map(str, mesh))
        possible = ", ".join(map(str, sorted(sizes)))
        raise OptionError(
            f"data_parallel is {parts}, and a mesh of {shape} chips has {possible} along its axes: open it in another "
            f"shape, as device='t3k:{parts}x…' does"
        )
    return sizes[parts]


def _plan(graph: Graph, given: str | bool | tuple[tuple[str, str], ...]) -> tuple[Mapping[str, str], str]:
    if isinstance(given, tuple):
        for _, style in given:
            require_one_of("style of tensor_parallel", style, STYLES)
        return dict(given), "by the plan given"
    if found := plan_of_classes(graph):
        return {**found, **heads_plan(graph)}, "by the plan of the model's class"
    return derived_plan(graph), "by a plan derived from its linear layers"


def _fits_none(graph: Graph, plan: Mapping[str, str], kept: Mapping[str, int]) -> str:
    names = [str(node.meta.get("parameter_name", "")) for node in graph.find_nodes(op="placeholder")]
    modules = sorted({name.rpartition(".")[0] for name in names if name.endswith(".weight")})
    why = ", ".join(kept) or f"its patterns are held against names of modules as {', '.join(modules[:3])}"
    return f"no parameter is cut by the plan given as tensor_parallel, {dict(plan)}: {why}"


def _shape(node: Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _batch_of(graph: Graph) -> tuple[int, list[Node]]:
    """The size of the batch, the first dimension of an input, and the inputs that have it."""
    inputs = [n for n in graph.find_nodes(op="placeholder") if not is_parameter(n) and len(_shape(n)) > 1]
    inputs = [n for n in inputs if meta.held.get(n, False) or not is_state(n)]  # others are the caller's to read
    given = next((n for n in inputs if not is_state(n)), next(iter(inputs), None))
    if given is None:
        return 1, []
    batch = _shape(given)[0]
    return batch, [node for node in inputs if _shape(node)[0] == batch]
