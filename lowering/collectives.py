"""What chips of a mesh exchange: one call of TTNN each, along an axis of the mesh.

Values are rank 4 on the way: reduce_scatter, of which all_reduce is made, was wrong on a mesh that saw other ranks
before (`workarounds.py`).
"""

from tt_dynamo.ir import operators
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

RANK = 4


def _padded(ttnn: TTNN, x: Tensor) -> Tensor:
    shape = tuple(x.shape)
    return ttnn.reshape(x, [*[1] * (RANK - len(shape)), *shape]) if len(shape) < RANK else x


@lower(operators.all_reduce)
def all_reduce(ttnn: TTNN, x: Tensor, axis: int) -> Tensor:
    """The sum of what the chips along an axis have, each rank 4."""
    result = ttnn.all_reduce(_padded(ttnn, x), cluster_axis=axis)
    return ttnn.reshape(result, list(x.shape)) if len(x.shape) < RANK else result


@lower(operators.all_gather, x=Need("any"), gives="any")
def all_gather(ttnn: TTNN, x: Tensor, dim: int, axis: int, chips: int) -> Tensor:
    """What the chips along an axis have, one after another."""
    missing, shape = max(RANK - len(x.shape), 0), list(x.shape)
    result = ttnn.all_gather(_padded(ttnn, x), dim=dim + missing, cluster_axis=axis)
    shape[dim] *= chips
    return ttnn.reshape(result, shape) if missing else result


@lower(operators.partition, x=Need("any"), gives="any")
def partition(ttnn: TTNN, x: Tensor, dim: int, axis: int, chips: int) -> Tensor:
    """The part of a chip of what all of them have."""
    missing, shape = max(RANK - len(x.shape), 0), list(x.shape)
    result = ttnn.mesh_partition(_padded(ttnn, x), dim=dim + missing, cluster_axis=axis)
    shape[dim] //= chips
    return ttnn.reshape(result, shape) if missing else result


@lower(operators.join, x=Need("any"), gives="any")
def join(ttnn: TTNN, x: Tensor, cut: list[int], mesh: list[int]) -> Tensor:
    """The parts, which the host puts together as they come down."""
    return x
