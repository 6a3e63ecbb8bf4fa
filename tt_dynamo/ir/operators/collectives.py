"""What chips of a mesh exchange. Each stands in the graph that every chip runs, on its own part of the values.

`axis` is a dimension of the mesh, 0 for its rows and 1 for its columns, `chips` how many lie along it. What one chip
gives depends on the others, so none has a definition in torch of one chip; `tests/passes/shard/lockstep.py` runs all
chips. A part alone is computed on the host, of weights, for the chip of `on_chip`.
"""

from typing import Any

import torch

from tt_dynamo.ir.operators.definition import library
from tt_dynamo.ir.parts import own_part

COLLECTIVES: set[Any] = set()


def _define(arguments: str, shape: Any) -> Any:
    name = shape.__name__
    library.define(f"{name}({arguments}) -> Tensor")
    torch.library.register_fake(f"tt_dynamo::{name}", shape, lib=library)
    operator = getattr(torch.ops.tt_dynamo, name).default
    COLLECTIVES.add(operator)
    return operator


def all_reduce(x, axis):
    """The sum of what the chips along an axis have."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def all_gather(x, dim, axis, chips):
    """What the chips along an axis have, one after another along a dimension."""
    shape = list(x.shape)
    shape[dim] *= chips
    return x.new_empty(shape)


def partition(x, dim, axis, chips):
    """The part of x that falls to a chip when its dimension, which `chips` divide, is cut along an axis."""
    shape = list(x.shape)
    shape[dim] //= chips
    return x.new_empty(shape)


def join(x, cut, mesh):
    """The whole of what the chips of a mesh have, as the host reads it: cut[axis] is its dimension, -1 for a copy."""
    shape = list(x.shape)
    for dim, chips in zip(cut, mesh, strict=True):
        shape[dim] *= chips if dim >= 0 else 1
    return x.new_empty(shape)


all_reduce = _define("Tensor x, int axis", all_reduce)
all_gather = _define("Tensor x, int dim, int axis, int chips", all_gather)
partition = _define("Tensor x, int dim, int axis, int chips", partition)
join = _define("Tensor x, int[] cut, int[] mesh", join)
library.impl("partition", own_part, "CPU")
