"""What an operation gives, of fake tensors: computed once for operands of one shape.

Passes write the same operation in every layer, and torch's dispatch of fake tensors takes most of their time. So a mode
of fake tensors, which lives as long as its graph, remembers what operations gave; shape rules in Python stay off.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._dispatch.python import no_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.fx.node import map_aggregate

CPU = torch.device("cpu")
UNKNOWN = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output, torch.Tag.nondeterministic_seeded}


def fake_call(target: Any, args: Any, kwargs: Any, mode: FakeTensorMode) -> Any:
    """What `target` gives for these arguments, whose tensors are fake ones of `mode`."""
    tensors: list[torch.Tensor] = []
    map_aggregate((args, kwargs), lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None)
    if not tensors or "device" in kwargs or not (_is_simple(target) and all(map(_is_plain, tensors))):
        with mode, torch.no_grad():
            return target(*args, **kwargs)
    if _may_alias(target):  # a view shares the memory of its source, by which outputs are told
        with torch.no_grad(), no_python_dispatcher(), in_kernel_invocation_manager(mode):
            result = target(*args, **kwargs)
        return _each_tensor(result, lambda x: FakeTensor(mode, x, CPU))
    known = vars(mode).setdefault("tt_dynamo_results", {})
    # Of texts, in which 1, 1.0 and True differ, and so do 0.0 and -0.0.
    key = target, repr(_each_tensor((args, kwargs), lambda x: (x.shape, x.stride(), x.dtype)))
    if key not in known:
        with mode, torch.no_grad(), no_python_dispatcher():
            known[key] = target(*args, **kwargs)
    empty = functools.partial(torch.empty_strided, device="meta")
    return _each_tensor(known[key], lambda x: FakeTensor(mode, empty(x.shape, x.stride(), dtype=x.dtype), CPU))


def _each_tensor(values: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    return map_aggregate(values, lambda x: function(x) if isinstance(x, torch.Tensor) else x)


@functools.cache
def _is_simple(target: Any) -> bool:
    """Whether the answer is tensors and depends on shapes, strides and dtypes alone."""
    if not isinstance(target, torch._ops.OpOverload) or not UNKNOWN.isdisjoint(target.tags):
        return False
    schema = target._schema
    return not schema.is_mutable and all(str(one.type) in ("Tensor", "List[Tensor]") for one in schema.returns)


def _is_plain(x: torch.Tensor) -> bool:
    """Whether a tensor is fake and strided, and all of its sizes are numbers."""
    is_dense = type(x) is FakeTensor and x.device == CPU and x.layout == torch.strided
    return is_dense and all(type(size) is int for size in x.shape)


@functools.cache
def _may_alias(target: Any) -> bool:
    returns_view = any(returned.alias_info is not None for returned in target._schema.returns)
    return returns_view or target in (torch.ops.aten.reshape.default, torch.ops.aten.contiguous.default)
