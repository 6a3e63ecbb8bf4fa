"""Tensors of a mesh with a value for each chip: how they go up, are taken apart, and come down."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from types import ModuleType
from typing import Any

import torch

from tt_dynamo.devices.meshes import shape_of
from tt_dynamo.devices.ttnn_internals import placements_of

from .chips import PerChip, Value, at, combinations, count_of, parts_of, per_chip, shared
from .collectives import Mesh
from .references import HOW
from .tensor import Buffer, EmulatedTensor, replace


def chips_of(tensor: Any) -> int:
    """On how many chips a tensor of TTNN lies, or for how many it is on the host."""
    if tensor.device() is None:
        return math.prod(tensor.host_buffer().shape())
    return len(tensor.device_coords())


def distributed(
    tensor: torch.Tensor, mapper: Any, result: Any, convert: Callable[[torch.Tensor], torch.Tensor]
) -> Value:
    """The value of `result`, which TTNN made of a tensor by a mapper, each distinct part converted by itself."""
    dims, counts = placements_of(mapper, mesh_shape_of(result))
    if all(dim is None for dim in dims):
        return convert(tensor)
    parts: list[torch.Tensor] = [tensor]
    for dim, count in zip(dims, counts, strict=True):
        if dim is None:
            parts = [part for part in parts for _ in range(count)]
            continue
        if any(part.shape[dim] % count for part in parts):
            raise NotImplementedError(f"{tuple(tensor.shape)} does not divide over {count} chips along {dim}")
        parts = [piece for part in parts for piece in part.chunk(count, dim)]
    made: dict[int, torch.Tensor] = {}
    for part in parts:
        if id(part) not in made:
            made[id(part)] = convert(part)
    return shared([made[id(part)] for part in parts])


def mesh_shape_of(tensor: Any) -> Any:
    """The shape of the mesh that a tensor of TTNN lies on, or that it is for on the host."""
    device = tensor.device()
    return tensor.host_buffer().shape() if device is None else device.shape


def part_shape(shape: Sequence[int], mapper: Any, mesh_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape that each chip gets."""
    sizes = list(shape)
    for dim, count in zip(*placements_of(mapper, mesh_shape), strict=True):
        if dim is not None:
            sizes[dim] //= count
    return tuple(sizes)


def from_host_shards(ttnn: ModuleType, tensors: Sequence[EmulatedTensor], mesh_shape: Any) -> EmulatedTensor:
    """`ttnn.from_host_shards`: one tensor of the host a chip."""
    real = ttnn.from_host_shards([tensor.tensor for tensor in tensors], mesh_shape)
    paddings = {tensor.padding for tensor in tensors}
    padding = paddings.pop() if len(paddings) == 1 else None
    return EmulatedTensor(real, shared([_single(tensor) for tensor in tensors]), Buffer(on_device=False), padding)


def _single(tensor: EmulatedTensor) -> torch.Tensor:
    value = tensor.value
    if isinstance(value, PerChip):
        raise TypeError("a shard of ttnn.from_host_shards is for one chip, not for several")
    return value


def get_device_tensors(ttnn: ModuleType, tensor: EmulatedTensor) -> list[EmulatedTensor]:
    """`ttnn.get_device_tensors`: one tensor a chip."""
    tensor.check_readable()
    return [ChipTensor(real, tensor, chip) for chip, real in enumerate(ttnn.get_device_tensors(tensor.tensor))]


class ChipTensor(EmulatedTensor):
    """What one chip has of a tensor: read with it, and never written to by itself."""

    __slots__ = ("_chip", "_whole")

    def __init__(self, real: Any, whole: EmulatedTensor, chip: int) -> None:
        super().__init__(real, torch.empty(0), whole.buffer, whole.padding)
        self._whole, self._chip = whole, chip

    @property
    def _value(self) -> torch.Tensor:
        return at(self._whole._value, self._chip)

    def write(self, index: Any, value: Value) -> None:
        raise NotImplementedError("one chip's part of a tensor can't be written to on the emulated device")


def composed(ttnn: ModuleType, tensor: EmulatedTensor, composer: Any) -> torch.Tensor:
    """What `ttnn.to_torch` gives of a tensor of several chips, which TTNN itself puts together on the host.

    Raises RuntimeError as TTNN does without a composer.
    """
    chips, value = chips_of(tensor.tensor), tensor.value
    made: dict[int, Any] = {}
    for part in parts_of(value, chips):
        if id(part) not in made:
            held = part if part.dtype.is_floating_point else part.to(torch.int32)
            made[id(part)] = ttnn.from_torch(held.contiguous(), layout=ttnn.ROW_MAJOR_LAYOUT)
    shards = [made[id(part)] for part in parts_of(value, chips)]
    whole = ttnn.from_host_shards(shards, mesh_shape_of(tensor.tensor))
    result: torch.Tensor = ttnn.to_torch(whole, mesh_composer=composer)
    return result if result.dtype.is_floating_point else result.to(torch.int64)


def by_collective(ttnn: ModuleType, compute: Callable[..., Any]) -> Callable[..., Any]:
    """What gives a collective's results their values."""
    named = signature(compute).parameters

    def values(args: Any, kwargs: Any, results: Any, inputs: list[EmulatedTensor]) -> Any:
        shape = shape_of(inputs[0].device())
        chips = shape[0] * shape[1]
        given = {name: argument for name, argument in kwargs.items() if name in named or name not in HOW}
        given = {name: argument for name, argument in given.items() if name not in _SENT_BY}
        args, given = replace((args, given), lambda tensor: parts_of(tensor._value, chips))
        found = compute(Mesh(ttnn, shape, results), *args, **given)
        return [per_chip(parts) for parts in found] if isinstance(results, (list, tuple)) else per_chip(found)

    return values


# How a collective sends, which changes no value.
_SENT_BY = {
    "num_links", "topology", "subdevice_id", "sub_core_grids", "chunks_per_sync", "num_workers_per_link",
    "num_buffers_per_channel", "use_l1_small_for_semaphores", "intermediate_memory_config",
}  # fmt: skip


def on_each(
    args: Any, kwargs: Any, inputs: list[EmulatedTensor], make: Callable[[Any, Any, list[EmulatedTensor]], Any]
) -> Any:
    """The results that `make` gives for what each chip holds, once for chips that hold the same in all inputs."""
    values = [tensor._value for tensor in inputs]
    groups = combinations(values, count_of(values))
    made: list[Any] = [None] * sum(map(len, groups))
    for group in groups:
        own = {id(tensor): tensor.of_chip(group[0]) for tensor in inputs}

        def part(tensor: EmulatedTensor, own: dict[int, EmulatedTensor] = own) -> EmulatedTensor:
            return own[id(tensor)]

        own_args, own_kwargs = replace((args, kwargs), part)
        result = make(own_args, own_kwargs, [own[id(tensor)] for tensor in inputs])
        for chip in group:
            made[chip] = result
    return _together(made)


def _together(results: list[Any]) -> Any:
    first = results[0]
    if isinstance(first, (list, tuple)):
        return type(first)([_together(list(parts)) for parts in zip(*results, strict=True)])
    if not isinstance(first, EmulatedTensor):
        return first
    value = per_chip([result._own for result in results])
    return EmulatedTensor(first.tensor, value, first.buffer, first.padding)


def differ(inputs: Sequence[EmulatedTensor]) -> bool:
    """Whether chips hold other values of one of the tensors."""
    for tensor in inputs:  # noqa: SIM110  at each call of an operation
        if type(tensor._own) is PerChip or type(tensor.buffer.contents) is PerChip:
            return True
    return False


def mesh_functions(ttnn: ModuleType) -> dict[Any, Any]:
    """What stands in the emulated namespace for functions of TTNN that only meshes need, by these."""
    return {
        ttnn.from_host_shards: partial(from_host_shards, ttnn),
        ttnn.get_device_tensors: partial(get_device_tensors, ttnn),
    }
