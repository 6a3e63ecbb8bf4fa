"""The emulated namespace: TTNN's operations on its mock device, with values.

A call through the namespace makes the real TTNN call on the mock's tensors, so that validity, shape, dtype, layout,
memory and errors are TTNN's own; and it computes the values by TTNN's golden function, or by a reference of ours where
that one is missing or wrong, rounded to the dtype of the real result.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch

from tt_dynamo.devices.errors import EmulationError
from tt_dynamo.devices.ttnn_internals import golden_of, operation_name, writes_to_inputs

from .goldens import by_golden
from .numerics import as_held, converted, round_to, to_torch_dtype
from .references import REFERENCES, Opaque
from .tensor import Buffer, EmulatedTensor, Memory, replace
from .writes import WRITES

# Operations that write to an argument, besides those of `writes` and those whose names or goldens say so.
_WRITING = {
    "ttnn.copy_host_to_device_tensor_partial", "ttnn.experimental.slice_write", "ttnn.update_cache", "ttnn.plus_one",
    "ttnn.experimental.indexed_fused_update_cache", "ttnn.scale_causal_mask_hw_dims_softmax_in_place",
    "ttnn.scale_mask_softmax_in_place", "ttnn.softmax_in_place",
}  # fmt: skip
# Arguments that an operation writes its result to.
_OUTPUTS = {
    "output_tensor", "optional_output_tensor", "preallocated_output", "output_tensors", "out", "output", "out_tensor",
    "padded_output",
}  # fmt: skip


class Namespace:
    """A TTNN module as programs see it on the emulated device; see the module docstring.

    Attributes are resolved at first use and kept. What is no operation (enums, configs, types) is TTNN's own.
    """

    def __init__(self, module: ModuleType, ttnn: ModuleType, name: str = "ttnn"):
        self.__module, self.__ttnn, self.__name = module, ttnn, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        resolved = self.__resolve(name)
        setattr(self, name, resolved)
        return resolved

    def __resolve(self, name: str) -> Any:
        real = getattr(self.__module, name)
        if isinstance(real, ModuleType):
            ours = real.__name__.split(".")[0] == "ttnn"
            return Namespace(real, self.__ttnn, f"{self.__name}.{name}") if ours else real
        if real is self.__ttnn.Tensor:
            return EmulatedTensor
        qualified = operation_name(real)
        if qualified is None and golden_of(real) is not None:
            qualified = f"{self.__name}.{name}"  # composed in Python of several operations
        if qualified in _CROSSING:
            return _CROSSING[qualified](self.__ttnn, real)
        if qualified is not None or f"{self.__name}.{name}" in REFERENCES:
            return _operation(self.__ttnn, qualified or f"{self.__name}.{name}", real)
        return _function(self.__ttnn, real) if callable(real) and not isinstance(real, type) else real

    def __dir__(self) -> Iterable[str]:
        return dir(self.__module)

    def __repr__(self) -> str:
        return f"<emulated {self.__name}>"


_namespace: Namespace | None = None
_memory = Memory()


def emulated_namespace(ttnn: ModuleType) -> Namespace:
    """The emulated counterpart of the module `ttnn`: one per process, as TTNN has one cluster per process."""
    global _namespace
    if _namespace is None:
        _namespace = Namespace(ttnn, ttnn)
    return _namespace


def device_closed() -> None:
    """Whatever was on the emulated device is gone: reading it raises from now on."""
    global _memory
    _memory.lost = True
    _memory = Memory()


def _operation(ttnn: ModuleType, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """The emulated counterpart of one TTNN operation."""
    named_so = name.endswith("_") and not name.endswith("__")
    finish: _Finish
    if name in WRITES:
        finish = _by_writes(ttnn, WRITES[name])
    elif named_so or name in _WRITING or writes_to_inputs(real):
        return _refuse(f"{name} writes to its argument, which the emulated device does not support")
    elif name not in REFERENCES and golden_of(real) is None:
        return _refuse(f"{name} has no golden function in TTNN and no reference of ours, so it gives no values here")
    else:
        finish = _by_values(ttnn, name, real)

    def call(*args: Any, **kwargs: Any) -> Any:
        for output in kwargs.keys() & _OUTPUTS:
            if kwargs[output] is not None:
                raise NotImplementedError(f"{name} with {output}= is not supported on the emulated device")
        inputs: list[EmulatedTensor] = []
        real_args = [replace(argument, _real, inputs) for argument in args]
        real_kwargs = {key: replace(argument, _real, inputs) for key, argument in kwargs.items()}
        for tensor in inputs:
            tensor.check_readable()  # before TTNN reads it in silence
        result = real(*real_args, **real_kwargs)
        # Values are normal tensors also when the caller is in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            emulated = finish(args, kwargs, result, inputs)
        for tensor in inputs:
            if not tensor.tensor.is_allocated():
                tensor.buffer.freed_by = name
        return emulated

    call.__name__ = call.__qualname__ = name
    call.__doc__ = real.__doc__
    return call


def _refuse(message: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(message)

    return call


def _real(tensor: EmulatedTensor) -> Any:
    return tensor.tensor


def _value(tensor: EmulatedTensor) -> torch.Tensor:
    return tensor._value


# What gives the results of a call their values: its arguments, what the real call returned, the tensors among them.
_Finish = Callable[[Any, dict[str, Any], Any, list[EmulatedTensor]], Any]


def _by_values(ttnn: ModuleType, name: str, real: Callable[..., Any]) -> _Finish:
    """Values of the results, by a reference of ours or TTNN's golden function."""
    ours = REFERENCES.get(name)
    values_of = by_golden(name, real) if ours is None else None
    moves = ours is not None and ours.moves

    def finish(args: Any, kwargs: dict[str, Any], result: Any, inputs: list[EmulatedTensor]) -> Any:
        if ours is not None:
            named = {key: replace(argument, _value) for key, argument in kwargs.items()}
            if ours.takes_result:
                named["result"] = result
            value = ours.compute(*[replace(argument, _value) for argument in args], **named)
        else:
            assert values_of is not None
            value = values_of(args, kwargs)
        emulated = _pair(ttnn, name, result, value, inputs, moves)
        if name in _PADDING:
            for tensor in emulated if isinstance(emulated, (list, tuple)) else (emulated,):
                tensor.padding = _PADDING[name](tensor, inputs[0], args, kwargs)
        return emulated

    return finish


def _by_writes(ttnn: ModuleType, write: Callable[..., tuple[Any, torch.Tensor]]) -> _Finish:
    """Write to the first tensor; the result is a tensor of the same buffer."""

    def finish(args: Any, kwargs: dict[str, Any], result: Any, inputs: list[EmulatedTensor]) -> Any:
        named = {key: replace(argument, _value) for key, argument in kwargs.items()}
        target, source = inputs[:2]
        index, value = write(*[replace(argument, _value) for argument in args], **named, padding=source.padding)
        target.write(index, round_to(ttnn, value, target.dtype))
        return EmulatedTensor(result, target._value, target.buffer)

    return finish


def _same_padding(_result: EmulatedTensor, source: EmulatedTensor, *_: Any) -> float | None:
    return source.padding


def _zero_padding(_result: EmulatedTensor, source: EmulatedTensor, *_: Any) -> float | None:
    """Zero stays zero; anything else becomes something that is not known."""
    return 0.0 if source.padding == 0.0 else None


def _sliced_padding(result: EmulatedTensor, source: EmulatedTensor, *_: Any) -> float | None:
    """Slices of leading dimensions alone are copies of whole tiles."""
    return source.padding if tuple(result.shape)[-2:] == tuple(source.shape)[-2:] else None


def _filled_padding(_result: EmulatedTensor, _source: EmulatedTensor, args: Any, kwargs: dict[str, Any]) -> float:
    return float(kwargs["fill_value"] if "fill_value" in kwargs else args[1])


# What the tile padding of the results holds, where that is known.
_PADDING: dict[str, Callable[..., float | None]] = {
    "ttnn.fill_implicit_tile_padding": _filled_padding,
    "ttnn.slice": _sliced_padding,
    "ttnn.to_memory_config": _same_padding,
    "ttnn.typecast": _zero_padding,
    "ttnn.experimental.nlp_create_qkv_heads": _same_padding,
    "ttnn.experimental.rotary_embedding_hf": _zero_padding,
}


# --- results --------------------------------------------------------------------------------------------------------


def _pair(ttnn: ModuleType, name: str, result: Any, value: Any, inputs: list[EmulatedTensor], moves: bool) -> Any:
    """The results of the real call, each tensor with its value."""
    if isinstance(result, (list, tuple)) and not all(isinstance(item, int) for item in result):
        if not isinstance(value, (list, tuple)) or len(value) != len(result):
            raise EmulationError(f"{name} gives {len(result)} results on the device, but not by its reference")
        parts = zip(result, value, strict=True)
        return type(result)([_pair(ttnn, name, r, v, inputs, moves) for r, v in parts])
    if not isinstance(result, ttnn.Tensor):
        return result
    base = _viewed(result, inputs)
    buffer = Buffer(None if result.device() is None else _memory) if base is None else base.buffer
    if isinstance(value, Opaque):
        return EmulatedTensor(result, _apart(value.value, inputs), buffer)
    if not isinstance(value, torch.Tensor):
        raise EmulationError(f"the reference of {name} gives no tensor but {type(value).__name__}")
    if tuple(value.shape) != tuple(result.shape):
        raise EmulationError(
            f"{name} gives the shape {tuple(result.shape)} on the device, but {tuple(value.shape)} by its reference"
        )
    value = as_held(value)
    # Elements that only move stay representable, except in block floats, where neighbours share an exponent.
    if not (moves and result.dtype in (ttnn.bfloat16, ttnn.float32) and all(t.dtype == result.dtype for t in inputs)):
        value = round_to(ttnn, value, result.dtype)
    if base is not None and not moves and not _same(value, base._value):
        raise EmulationError(f"{name} put its result where its input was; ask for inplace=False, or for another memory")
    return EmulatedTensor(result, _apart(value, inputs) if base is None else value, buffer)


def _apart(value: torch.Tensor, inputs: list[EmulatedTensor]) -> torch.Tensor:
    """`value` where no later write to a buffer of the inputs reaches it."""
    return value.clone() if any(tensor.buffer.holds(value) for tensor in inputs) else value


def _same(value: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both hold the same elements, as far as the smaller one goes: a pad within the tile only fills it up."""
    if value.ndim == other.ndim and value.numel() != other.numel():
        common = tuple(slice(min(sizes)) for sizes in zip(value.shape, other.shape, strict=True))
        value, other = value[common], other[common]
    value, other = value.reshape(-1), other.reshape(-1)
    return value.numel() == other.numel() and torch.allclose(value, other, rtol=0, atol=0, equal_nan=True)


def _viewed(tensor: Any, inputs: list[EmulatedTensor]) -> EmulatedTensor | None:
    """The input that `tensor` shares its buffer with."""
    identity = tensor.buffer_unique_id()  # None on the host and for freed memory
    if identity is None:
        return None
    return next((candidate for candidate in inputs if candidate.tensor.buffer_unique_id() == identity), None)


def _function(ttnn: ModuleType, real: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function of TTNN. It may make a tensor on the host from what is no tensor, as masks and constants."""

    def call(*args: Any, **kwargs: Any) -> Any:
        inputs: list[EmulatedTensor] = []
        real_args = [replace(argument, _real, inputs) for argument in args]
        result = real(*real_args, **{key: replace(argument, _real, inputs) for key, argument in kwargs.items()})
        if not isinstance(result, ttnn.Tensor):
            return result
        if inputs or result.device() is not None:
            raise NotImplementedError(f"{getattr(real, '__name__', real)} gives a tensor whose value is not known here")
        return EmulatedTensor(result, as_held(result.to_torch()), Buffer())

    return call


# --- between torch and the device, and freeing ----------------------------------------------------------------------

# From this many elements on, TTNN's layout of contents that the mock then drops takes most of the time.
_LARGE = 1 << 16


def _from_torch(ttnn: ModuleType, real: Callable[..., Any]) -> Callable[..., Any]:
    def from_torch(tensor: torch.Tensor | None, dtype: Any = None, **options: Any) -> Any:
        """`ttnn.from_torch`. Floats but float64, integers and booleans; raises TypeError for the others."""
        if tensor is None:
            return None
        if not isinstance(tensor, torch.Tensor) or tensor.dtype == torch.float64 or tensor.dtype.is_complex:
            kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise TypeError(f"ttnn.from_torch takes no {kind}; convert it to a torch tensor of float32 or an integer")
        mapper, device = options.get("mesh_mapper"), options.get("device")
        if mapper is not None and device is not None and device.get_num_devices() > 1:
            raise NotImplementedError("values on a mesh of several emulated devices are not supported")
        with torch.inference_mode(False), torch.no_grad():
            result = _allocate(ttnn, tensor, dtype, options)
            if result is None:
                result = real(tensor.detach(), dtype=dtype, **options)
            value = converted(ttnn, tensor.detach(), result.dtype)
            if options.get("col_tilize"):
                raise NotImplementedError("from_torch with col_tilize= is not supported on the emulated device")
            if value.data_ptr() == tensor.data_ptr():
                value = value.clone()  # the device's copy doesn't follow later writes to the torch tensor
        uploaded = EmulatedTensor(result, value, Buffer(None if result.device() is None else _memory))
        uploaded.padding = options.get("pad_value", 0.0)
        return uploaded

    return from_torch


def _allocate(ttnn: ModuleType, tensor: torch.Tensor, dtype: Any, options: dict[str, Any]) -> Any:
    """What from_torch gives on the mock, where contents count for nothing; None where it is not that simple."""
    device, plain = options.get("device"), options.keys() <= {"layout", "device", "memory_config"}
    if tensor.numel() < _LARGE or device is None or dtype is None or not plain:
        return None
    block_float = dtype in (ttnn.bfloat8_b, ttnn.bfloat4_b)
    layout = options.get("layout") or (ttnn.TILE_LAYOUT if block_float else ttnn.ROW_MAJOR_LAYOUT)
    memory_config = options.get("memory_config") or ttnn.DRAM_MEMORY_CONFIG
    try:
        return ttnn.allocate_tensor_on_device(ttnn.Shape(tuple(tensor.shape)), dtype, layout, device, memory_config)
    except RuntimeError:
        return None  # from_torch says it in its own words


def _to_torch(ttnn: ModuleType, real: Callable[..., Any]) -> Callable[..., Any]:
    def to_torch(tensor: EmulatedTensor, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
        """`ttnn.to_torch`: a new torch tensor in the dtype that TTNN gives (float32 for block floats), or `dtype`."""
        with torch.inference_mode(False), torch.no_grad():
            if tensor.value.shape != tuple(tensor.shape):
                raise EmulationError("the contents of prepared weights are laid out for TTNN's kernels alone")
            result = to_torch_dtype(tensor.value, tensor.dtype)
        result = result if dtype is None else result.to(dtype)
        return result.reshape(-1).reshape(result.shape)  # as TTNN gives it: contiguous also in dimensions of size 1

    return to_torch


def _deallocate(ttnn: ModuleType, real: Callable[..., Any]) -> Callable[..., Any]:
    def deallocate(tensor: EmulatedTensor, force: bool = True) -> None:
        """`ttnn.deallocate`. The value of every tensor that shares the buffer can't be read any more."""
        real(tensor.tensor, force=force)
        if not tensor.tensor.is_allocated():
            tensor.buffer.freed_by = "ttnn.deallocate"

    return deallocate


_CROSSING: dict[str | None, Callable[[ModuleType, Callable[..., Any]], Callable[..., Any]]] = {
    "ttnn.from_torch": _from_torch,
    "ttnn.to_torch": _to_torch,
    "ttnn.deallocate": _deallocate,
}
