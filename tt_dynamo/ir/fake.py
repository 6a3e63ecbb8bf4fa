"""What an operation gives, of fake tensors: computed once for operands of one shape.

Passes write the same operation in every layer, and torch's dispatch of fake tensors takes most of their time. So a mode
of fake tensors, which lives as long as its graph, remembers what operations gave.
"""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._pytree import tree_leaves, tree_map_only

CPU = torch.device("cpu")
UNKNOWN = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output, torch.Tag.nondeterministic_seeded}


def fake_call(target: Any, args: Any, kwargs: Any, mode: FakeTensorMode) -> Any:
    """What `target` gives for these arguments, whose tensors are fake ones of `mode`."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    if not tensors or "device" in kwargs or not _is_simple(target, tensors):
        with mode, torch.no_grad():
            return target(*args, **kwargs)
    if _may_alias(target):  # a view shares the memory of its source, by which outputs are told
        with torch.no_grad(), in_kernel_invocation_manager(mode):
            result = target(*args, **kwargs)
        return tree_map_only(torch.Tensor, lambda x: FakeTensor(mode, x, CPU), result)
    known = vars(mode).setdefault("tt_dynamo_results", {})
    # Of texts, in which 1, 1.0 and True differ, and so do 0.0 and -0.0.
    key = target, repr(tree_map_only(torch.Tensor, lambda x: (x.shape, x.stride(), x.dtype), (args, kwargs)))
    if key not in known:
        with mode, torch.no_grad():
            known[key] = target(*args, **kwargs)

    def fresh(x: torch.Tensor) -> torch.Tensor:
        return FakeTensor(mode, torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta"), CPU)

    return tree_map_only(torch.Tensor, fresh, known[key])


def _is_simple(target: Any, tensors: list[torch.Tensor]) -> bool:
    """Whether the answer is tensors and depends on shapes, strides and dtypes alone, all of which are numbers."""
    if not isinstance(target, torch._ops.OpOverload) or not UNKNOWN.isdisjoint(target.tags):
        return False
    schema = target._schema
    if schema.is_mutable or any(str(returned.type) not in ("Tensor", "List[Tensor]") for returned in schema.returns):
        return False
    plain = (type(x) is FakeTensor and x.device == CPU and x.layout == torch.strided for x in tensors)
    return all(plain) and all(type(size) is int for x in tensors for size in x.shape)


def _may_alias(target: Any) -> bool:
    returns_view = any(returned.alias_info is not None for returned in target._schema.returns)
    return returns_view or target in (torch.ops.aten.reshape.default, torch.ops.aten.contiguous.default)
