"""How parameters are cut for tensor parallelism, in the words of transformers' plans.

A plan names modules by patterns, "layers.*.self_attn.q_proj", and says of each how its weight is cut: "colwise" by what
it gives, "rowwise" by what it reads. Classes of transformers carry their plans (`derived.py` makes one where there is
none). Of another word, or where the sizes do not divide, a parameter stays whole, and a note says so.
"""

import fnmatch
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from torch.fx import Graph, Node

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import aten, is_call, is_parameter, path_in_model, shape_of
from tt_dynamo.passes.shard.experts import packed_dim
from tt_dynamo.passes.shard.placement import Placement
from tt_dynamo.passes.shard.rules import leading

COLWISE = ("colwise", "colwise_gather_output", "colwise_rep")
ROWWISE = ("rowwise", "rowwise_split_input", "rowwise_rep")
# What transformers says of parameters that every chip holds whole here.
WHOLE = (
    "replicate", "replicated_with_grad_allreduce", "embedding_rowwise", "mla_kv_a_proj", "sequence_parallel",
    "packed_colwise", "packed_rowwise", "moe_tp_experts", "grouped_gemm", "ep_router", "gather", "local",
)  # fmt: skip
_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
STYLES = (*COLWISE, *ROWWISE, *WHOLE)


def plan_of_classes(graph: Graph) -> dict[str, str]:
    """The plans that the classes of the graph's modules carry: patterns of whole names of modules, and their styles."""
    classes = dict(_modules(graph))
    deepest: dict[type, str] = {}
    found: dict[str, str] = {}
    for path, kind in classes.items():
        config = getattr(kind, "config_class", None)
        if isinstance(config, type) and len(path) >= len(deepest.get(config, "")):
            deepest[config] = path  # of a head and its model, the model, which the config's plan is of
    for path, kind in classes.items():
        own = getattr(kind, "_tp_plan", None)
        found.update(_under(path, own if isinstance(own, Mapping) else {}))
    for config, path in deepest.items():
        found.update(_under(path, getattr(config, "base_model_tp_plan", None) or {}))
    return found


def _under(path: str, plan: Mapping[str, str]) -> dict[str, str]:
    return {f"{path}.{pattern}" if path else pattern: style for pattern, style in plan.items()}


def _modules(graph: Graph) -> Iterator[tuple[str, type]]:
    """The path and class of each module that a node comes from."""
    for node in graph.nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            if isinstance(kind, type):
                yield path_in_model(path), kind


def parameter_placements(
    graph: Graph, plan: Mapping[str, str], mesh: tuple[int, ...], axes: Collection[int]
) -> tuple[dict[Node, Placement], Counter[str]]:
    """How the parameters of a graph are cut along axes of a mesh by a plan; how many stay whole, by the reason why."""
    found: dict[Node, Placement] = {}
    chips = math.prod(mesh[axis] for axis in axes)
    kept: Counter[str] = Counter()
    for node in filter(is_parameter, graph.find_nodes(op="placeholder")):
        name = meta.parameter_name.get(node, "")
        module, _, leaf = name.rpartition(".")
        style = style_of(plan, name) or style_of(plan, module)
        dim = _dimension(node, style, leaf)
        if dim is None and style in WHOLE and style not in ("replicate", "replicated_with_grad_allreduce"):
            kept[f"{style}: such parameters are whole on every chip"] += 1
        if dim is None:
            continue
        reason = _why_not(node, dim, chips)
        if reason:
            kept[reason] += 1
        else:
            found[node] = tuple(dim if at in axes else None for at in range(len(mesh)))
    return found, kept


def style_of(plan: Mapping[str, str], module: str) -> str | None:
    return next((style for pattern, style in plan.items() if fnmatch.fnmatchcase(module, pattern)), None)


def _dimension(parameter: Node, style: str | None, leaf: str) -> int | None:
    """Which dimension of a parameter is cut."""
    rank = len(shape_of(parameter))
    if rank == 3:  # of experts: [experts, out, in]
        return packed_dim(parameter) if style == "packed_colwise" else 2 if style in ROWWISE else None
    if style in COLWISE:
        return 0
    return 1 if style in ROWWISE and rank == 2 and leaf == "weight" else None


def _why_not(parameter: Node, dim: int, chips: int) -> str:
    """Why a parameter cannot be cut into as many parts: its size, or the heads that its layer gives."""
    size = shape_of(parameter)[dim]
    if len(shape_of(parameter)) == 3 and dim == 1 and size // 2 % chips:
        return f"{size // 2} columns of experts do not divide among {chips} chips"
    if size % chips:
        return f"{size} {'columns' if dim == 0 else 'rows'} do not divide among {chips} chips"
    layers = [user for user in parameter.users if is_call(user, aten.linear.default)] if dim == 0 else []
    for value in layers:  # and what is only another shape of it
        for view in (user for user in value.users if is_call(user, *_VIEWS)):
            heads = _heads_of(view, value)
            if heads is None:
                layers.append(view)
            elif heads % chips:
                return f"{heads} heads do not divide among {chips} chips"
    return ""


def _heads_of(view: Node, layer: Node) -> int | None:
    """Into how many heads a view divides what a layer gives; None where it divides nothing."""
    before, after = shape_of(layer), shape_of(view)
    if len(after) == 4 > len(before) and after[-1] == before[-1]:
        return 1 if after[-2] == 1 else None
    to = leading(before, after).get(len(before) - 1)
    return None if to is None or to == len(after) - 1 else after[to]
