"""Fake values that lie in memory as eager torch's results do.

Where operands do not lie plainly, torch's Python references and decompositions may give other strides than kernels.
Torch itself is asked: one call of the operation, on ones.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import compute_required_storage_length, make_contiguous_strides_for
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves, tree_map_only

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import aten, copied, find_fake_mode, update_values, values_of
from tt_dynamo.ir.torch_internals import without_modes

LIMIT = 1 << 24  # elements of memory that an operand spans; larger ones are not worth the memory
# Besides what is pointwise.
OTHERS = {
    aten.roll.default, aten.native_batch_norm.default, aten._native_batch_norm_legit_functional.default,
    aten._native_batch_norm_legit_no_training.default, aten.addr.default, aten.channel_shuffle.default,
    aten.log_sigmoid_forward.default,
}  # fmt: skip


def as_eager_gives(module: GraphModule) -> GraphModule:
    """Note on a graph that came from AOTAutograd what eager torch gives; returns a copy.

    Passes may change strides and what shares memory, and the caller is to get eager's.
    """
    output = module.graph.output_node()
    if output not in meta.eager:
        correct_strides(module.graph)
        meta.eager.set(output, [v.meta.get("val") if isinstance(v, Node) else v for v in output.args[0]])
    return copied(module)


def correct_strides(graph: Graph) -> None:
    """Give every node's fake values eager's strides."""
    corrected: set[Node] = set()
    for node in graph.nodes:
        if not corrected.isdisjoint(node.all_input_nodes) and node.op == "call_function":
            update_values([node])
            corrected.add(node)
        values, strides = values_of(node), None
        if lies_as_computed(node.target) and all(map(_can_be_made, values)):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
            strides = _eager_strides(node.target, args, kwargs)
        if strides is not None and strides != [value.stride() for value in values]:
            with find_fake_mode(graph.nodes):
                made = [
                    torch.empty_strided(value.shape, stride, dtype=value.dtype)
                    for value, stride in zip(values, strides, strict=True)
                ]
            node.meta["val"] = made[0] if isinstance(node.meta["val"], Tensor) else tuple(made)
            corrected.add(node)


def lies_as_computed(target: Any) -> bool:
    """Whether how results lie in memory is for an operation's kernel to decide."""
    tags = target.tags if isinstance(target, torch._ops.OpOverload) else ()
    return (torch.Tag.pointwise in tags or target in OTHERS) and torch.Tag.nondeterministic_seeded not in tags


def laid_out(decomposition: Callable[..., Any], target: Any) -> Callable[..., Any]:
    """The decomposition of `target` with a result that has eager's strides."""

    @functools.wraps(decomposition)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = decomposition(*args, **kwargs)
        strides = _eager_strides(target, args, kwargs) if _can_be_made(result) else None
        if strides is None or strides == [result.stride()]:
            return result
        order = sorted(range(result.ndim), key=lambda d: -strides[0][d])
        return result.permute(order).contiguous().permute([order.index(d) for d in range(result.ndim)])

    return call


def _eager_strides(target: Any, args: Any, kwargs: Any) -> list[tuple[int, ...]] | None:
    """The strides of what `target` gives; None where operands lie plainly, so that results do too."""
    operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    are_plain = all(x.stride() == make_contiguous_strides_for(x.shape) for x in operands)
    if are_plain or not all(map(_can_be_made, operands)):
        return None
    with without_modes(), torch.no_grad():
        args, kwargs = tree_map_only(Tensor, _ones, (args, kwargs))
        return [result.stride() for result in tree_leaves(target(*args, **kwargs)) if isinstance(result, Tensor)]


def _can_be_made(x: Tensor) -> bool:
    known = not any(isinstance(size, torch.SymInt) for size in x.shape)
    return known and x.layout == torch.strided and x.device.type == "cpu" and max(extent_of(x), x.numel()) <= LIMIT


def shares_memory(x: Tensor) -> bool:
    """Whether elements of x may lie in one place, as those of windows do; not those of a stride of 0.

    What torch writes into a clone of such a tensor, which lies as it does, shows in all of them; before that it makes
    what has a stride of 0 contiguous.
    """
    dims = sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1)
    reached, shared = 0, False
    for stride, size in dims:
        if stride == 0:
            return False
        shared |= stride <= reached
        reached += (size - 1) * stride
    return shared


def extent_of(x: Tensor) -> int:
    """Elements of memory from the first to the last of x."""
    return compute_required_storage_length(x.shape, x.stride(), 0)


def _ones(x: Tensor) -> Tensor:
    return torch.ones(extent_of(x), dtype=x.dtype).as_strided(x.shape, x.stride())
