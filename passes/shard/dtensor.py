"""What torch's DTensor knows of an operation on parts: its rules are asked, none of its tensors or groups is made."""

from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor._op_schema import OpSchema
from torch.fx import Node
from torch.utils._pytree import tree_map_only

from tt_dynamo.passes.shard.placement import Placement, Unruled
from tt_dynamo.passes.shard.walk import Walk


def knows(target: Any) -> bool:
    """Whether there is a rule; DTensor would otherwise try every way through a decomposition, which takes minutes."""
    propagator = DTensor._op_dispatcher.sharding_propagator
    tables = propagator.op_strategy_funcs, propagator.op_single_dim_strategy_funcs, propagator.op_to_rules
    return any(target in table for table in tables)


def rule(walk: Walk, node: Node) -> Node:
    """The call on parts as DTensor's rule for it says; values that it would leave as sums over chips are refused."""
    propagator = DTensor._op_dispatcher.sharding_propagator
    mesh = DeviceMesh("cpu", torch.arange(walk.mesh[0] * walk.mesh[1]).view(walk.mesh), _init_backend=False, _rank=0)

    def described(operand: Node) -> DTensorSpec:
        placements = tuple(Replicate() if d is None else Shard(d) for d in walk.cut[walk.known[operand]])
        value = operand.meta["val"]
        return DTensorSpec(mesh, placements, TensorMeta(value.shape, value.stride(), value.dtype))

    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), described)
    schema = OpSchema(node.target, args, kwargs, schema_info=propagator.op_to_schema_info.get(node.target))
    try:
        found = propagator.propagate_op_sharding_non_cached(schema)
    except (NotImplementedError, RuntimeError, AssertionError) as error:
        raise Unruled(str(error)) from error
    if found.use_val_from_redistribute_schema:
        raise Unruled("sizes of whole values among its arguments")
    wanted = (found.redistribute_schema if found.needs_redistribute else None) or schema
    order: list[Node] = []
    torch.fx.node.map_arg((node.args, node.kwargs), order.append)
    given = iter(order)

    def part(spec: DTensorSpec) -> Node:
        return walk.to(walk.known[next(given)], _placement(spec))

    args = tree_map_only(DTensorSpec, part, tuple(wanted.args_schema))
    kwargs = tree_map_only(DTensorSpec, part, dict(wanted.kwargs_schema))
    outputs: Any = found.output_spec
    cut: Any = [_placement(x) for x in outputs] if isinstance(outputs, (list, tuple)) else _placement(outputs)
    return walk.emit(node.target, args, kwargs, cut)


def _placement(spec: DTensorSpec) -> Placement:
    if any(type(placement) not in (Shard, Replicate) for placement in spec.placements):
        raise Unruled(f"a result that is {spec.placements}")
    return tuple(getattr(placement, "dim", None) for placement in spec.placements)
