"""The emulated namespace: TTNN's operations on its mock device, with values.

A call through the namespace makes the real TTNN call on the mock's tensors, so that validity, shape, dtype, layout,
memory and errors are TTNN's own; and it computes the values by TTNN's golden function, or by a reference of ours where
that one is missing or wrong, rounded to the dtype of the real result.

What must hold: a value never changes once computed, however many tensors share it; a value has the logical shape of its
tensor; a value of freed memory can't be read.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch

from .numerics import as_held, round_to, to_torch_dtype
from .references import REFERENCES, Reference


class EmulationError(RuntimeError):
    """The emulated device can't give a value: freed memory, no golden function, or a golden of another shape."""


class Buffer:
    """Memory that one or more tensors view, and whether TTNN was told to free it."""

    __slots__ = ("freed_by",)

    def __init__(self) -> None:
        self.freed_by: str | None = None


class EmulatedTensor:
    """A tensor of the mock device and the value it would hold.

    tensor: the ttnn.Tensor. value: torch.Tensor of the same logical shape, float32 (elements that the device dtype can
    represent) or int64 for integer dtypes; reading it raises EmulationError when the memory was freed.
    """

    __slots__ = ("tensor", "_value", "_buffer", "__weakref__")

    def __init__(self, tensor: Any, value: torch.Tensor, buffer: Buffer):
        self.tensor = tensor
        self._value = value
        self._buffer = buffer

    @property
    def value(self) -> torch.Tensor:
        if self._buffer.freed_by is not None:
            raise EmulationError(
                f"read of freed memory: a tensor of shape {tuple(self.tensor.shape)} shares its buffer with one that "
                f"{self._buffer.freed_by} freed"
            )
        return self._value

    shape = property(lambda self: self.tensor.shape)
    padded_shape = property(lambda self: self.tensor.padded_shape)
    dtype = property(lambda self: self.tensor.dtype)
    layout = property(lambda self: self.tensor.layout)

    def __getattr__(self, name: str) -> Any:
        # Whatever else TTNN tensors answer about themselves: memory_config(), device(), buffer_address(), spec …
        return getattr(self.tensor, name)

    def __getitem__(self, index: Any) -> Any:
        import ttnn

        result = self.tensor[index]
        return _wrap(ttnn, "ttnn.Tensor.__getitem__", result, self.value[index], [self], exact=True)

    def __repr__(self) -> str:
        return f"EmulatedTensor({tuple(self.shape)}, {self.dtype}, {self.layout}, {self.memory_config()})"


def _binary_operator(name: str, swapped: bool = False) -> Callable[[EmulatedTensor, Any], Any]:
    def apply(self: EmulatedTensor, other: Any) -> Any:
        import ttnn

        operation = getattr(emulated_namespace(ttnn), name)
        return operation(other, self) if swapped else operation(self, other)

    return apply


for _operator, _name in {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide"}.items():
    setattr(EmulatedTensor, f"__{_operator}__", _binary_operator(_name))
    setattr(EmulatedTensor, f"__r{_operator}__", _binary_operator(_name, swapped=True))


class Namespace:
    """A TTNN module as programs see it on the emulated device; see the module docstring.

    Attributes are resolved at first use and kept.
    """

    def __init__(self, module: ModuleType, ttnn: ModuleType):
        self._module = module
        self._ttnn = ttnn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        resolved = self._resolve(name)
        setattr(self, name, resolved)
        return resolved

    def _resolve(self, name: str) -> Any:
        real = getattr(self._module, name)
        if isinstance(real, ModuleType):
            return Namespace(real, self._ttnn) if real.__name__.split(".")[0] == "ttnn" else real
        if real is self._ttnn.Tensor:
            return EmulatedTensor
        qualified = getattr(real, "python_fully_qualified_name", None)
        if qualified is not None:
            return SPECIAL[qualified](self._ttnn, real) if qualified in SPECIAL else operation(self._ttnn, real)
        if callable(real) and not isinstance(real, type):
            return _function(self._ttnn, real)
        return real

    def __dir__(self) -> Iterable[str]:
        return dir(self._module)

    def __repr__(self) -> str:
        return f"<emulated {self._module.__name__}>"


_namespace: Namespace | None = None


def emulated_namespace(ttnn: ModuleType) -> Namespace:
    """The emulated counterpart of the module `ttnn`: one per process, as TTNN has one cluster per process."""
    global _namespace
    if _namespace is None:
        _namespace = Namespace(ttnn, ttnn)
    return _namespace


# --- arguments ------------------------------------------------------------------------------------------------------


def replace(argument: Any, tensor: Callable[[EmulatedTensor], Any]) -> Any:
    """`argument` with every emulated tensor in it, also in lists and tuples, replaced."""
    if isinstance(argument, EmulatedTensor):
        return tensor(argument)
    if type(argument) in (list, tuple):
        return type(argument)([replace(item, tensor) for item in argument])
    return argument


def _replace_all(args: Any, kwargs: Any, tensor: Callable[[EmulatedTensor], Any]) -> tuple[list[Any], dict[str, Any]]:
    return [replace(a, tensor) for a in args], {k: replace(v, tensor) for k, v in kwargs.items()}


def _tensors_in(args: Any, kwargs: Any) -> list[EmulatedTensor]:
    found: list[EmulatedTensor] = []
    _replace_all(args, kwargs, found.append)
    return found


def _real(tensor: EmulatedTensor) -> Any:
    return tensor.tensor


def _value(tensor: EmulatedTensor) -> torch.Tensor:
    return tensor.value


# --- results --------------------------------------------------------------------------------------------------------


def _buffer_id(tensor: Any) -> int | None:
    return tensor.buffer_unique_id() if tensor.is_allocated() and tensor.device() is not None else None


def _buffer_for(tensor: Any, inputs: list[EmulatedTensor]) -> Buffer:
    """The input's buffer where the result is a view of it, else a new one."""
    identity = _buffer_id(tensor)
    if identity is not None:
        for candidate in inputs:
            if _buffer_id(candidate.tensor) == identity:
                return candidate._buffer
    return Buffer()


def _wrap(ttnn: ModuleType, name: str, result: Any, value: Any, inputs: list[EmulatedTensor], exact: bool) -> Any:
    """Pair the real results of a call with their values."""
    if isinstance(result, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(result):
            raise EmulationError(f"{name} returned {len(result)} results but its reference gives another number")
        pairs = zip(result, value, strict=True)
        return type(result)([_wrap(ttnn, name, r, v, inputs, exact) for r, v in pairs])
    if not isinstance(result, ttnn.Tensor):
        return result
    if not isinstance(value, torch.Tensor):
        raise EmulationError(f"the reference of {name} gives no value for its result, but {type(value).__name__}")
    shape = tuple(result.shape)
    if tuple(value.shape) != shape:
        raise EmulationError(f"{name} has the shape {shape} on the device but {tuple(value.shape)} by its reference")
    value = as_held(value)
    # Moving elements keeps them representable, except in the block floats, where neighbours share an exponent.
    if not (exact and result.dtype in (ttnn.bfloat16, ttnn.float32) and all(t.dtype == result.dtype for t in inputs)):
        value = round_to(ttnn, value, result.dtype)
    return EmulatedTensor(result, value, _buffer_for(result, inputs))


# --- operations -----------------------------------------------------------------------------------------------------

# Goldens that were seen to write to an input, by operation and form of the call.
_writes_inputs: dict[tuple[str, int, tuple[str, ...]], bool] = {}


def operation(ttnn: ModuleType, real: Any) -> Callable[..., Any]:
    """The emulated counterpart of one TTNN operation."""
    name = real.python_fully_qualified_name
    if name.rsplit(".", 1)[-1].endswith("_") and not name.endswith("__") or name in IN_PLACE:
        return _refuse(f"{name} writes to its input, which the emulated device does not support yet")
    ours = REFERENCES.get(name)
    if ours is None and real.golden_function is None:
        return _refuse(f"{name} has no golden function in TTNN and no reference of ours: no values on this device")
    evaluate = _by_reference(ours) if ours is not None else _by_golden(real)
    exact = ours is not None and ours.moves

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("output_tensor") is not None or kwargs.get("optional_output_tensor") is not None:
            raise NotImplementedError(f"{name} into a given output tensor is not supported on the emulated device")
        inputs = _tensors_in(args, kwargs)
        for tensor in inputs:
            tensor.value  # noqa: B018  raises for freed memory before TTNN reads it in silence
        real_args, real_kwargs = _replace_all(args, kwargs, _real)
        result = real(*real_args, **real_kwargs)
        return _wrap(ttnn, name, result, evaluate(args, kwargs, result), inputs, exact)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = real.__doc__
    return call


def _refuse(message: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(message)

    return call


def _by_reference(ours: Reference) -> Callable[..., Any]:
    def evaluate(args: Any, kwargs: Any, result: Any) -> Any:
        values, named = _replace_all(args, kwargs, _value)
        if ours.takes_result:
            named["result"] = result
        return ours.compute(*values, **named)

    return evaluate


def _by_golden(real: Any) -> Callable[..., Any]:
    name, golden = real.python_fully_qualified_name, real.golden_function

    def evaluate(args: Any, kwargs: Any, result: Any) -> Any:
        prepare = real.preprocess_golden_function_inputs
        if prepare is not None:
            # Renames arguments and notes dtypes; it leaves emulated tensors as they are, for they aren't TTNN's.
            args, kwargs = prepare(args, kwargs)
        form = (name, len(args), tuple(kwargs))
        # The first call of each form runs on copies, and shows whether the golden writes to its inputs.
        copy = _writes_inputs.get(form, True)
        given: list[torch.Tensor] = []

        def take(tensor: EmulatedTensor) -> torch.Tensor:
            given.append(tensor.value.clone() if copy else tensor.value)
            return given[-1]

        values, named = _replace_all(args, kwargs, take)
        versions = [t._version for t in given]
        value = golden(*values, **named)
        written = any(t._version != v for t, v in zip(given, versions, strict=True))
        if not copy and written:
            raise EmulationError(f"the golden function of {name} wrote to its input, which it had not done before")
        _writes_inputs.setdefault(form, written)
        return value

    return evaluate


def _function(ttnn: ModuleType, real: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function of TTNN on emulated tensors: fine as long as it makes no tensor."""

    def call(*args: Any, **kwargs: Any) -> Any:
        real_args, real_kwargs = _replace_all(args, kwargs, _real)
        result = real(*real_args, **real_kwargs)
        if isinstance(result, ttnn.Tensor):
            raise NotImplementedError(f"{getattr(real, '__name__', real)} makes a tensor of unknown value")
        return result

    return call


# --- operations that cross between torch and the device, or free ---------------------------------------------------

# Beyond this many elements, laying out a tensor of zeros on the host for the mock to drop takes longer than the rest.
_LARGE = 1 << 16
_PLAIN = {"dtype", "layout", "device", "memory_config"}


def _from_torch(ttnn: ModuleType, real: Any) -> Callable[..., Any]:
    def from_torch(tensor: torch.Tensor | None, dtype: Any = None, **options: Any) -> Any:
        if tensor is None:
            return None
        if tensor.dtype == torch.float64 or tensor.dtype.is_complex:
            raise TypeError(f"TTNN has no {tensor.dtype} and would end the process; convert the tensor first")
        tensor = tensor.detach()
        large = tensor.numel() > _LARGE and options.get("device") is not None and options.keys() <= _PLAIN
        if large and dtype is not None:
            # The mock drops the contents, so allocating is enough; shape, dtype, layout and memory come out the same.
            result = ttnn.allocate_tensor_on_device(
                ttnn.Shape(tuple(tensor.shape)), dtype, options.get("layout") or ttnn.ROW_MAJOR_LAYOUT,
                options["device"], options.get("memory_config") or ttnn.DRAM_MEMORY_CONFIG,
            )  # fmt: skip
        else:
            result = real(tensor, dtype=dtype, **options)
        value = round_to(ttnn, as_held(tensor), result.dtype)
        if value.data_ptr() == tensor.data_ptr():
            value = value.clone()  # the device's copy doesn't follow later writes to the torch tensor
        return EmulatedTensor(result, value, Buffer())

    return from_torch


def _to_torch(ttnn: ModuleType, real: Any) -> Callable[..., Any]:
    def to_torch(tensor: EmulatedTensor, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
        if not tensor.tensor.is_allocated():
            real(tensor.tensor)  # raises TTNN's error
        result = to_torch_dtype(tensor.value, tensor.dtype)
        return result if dtype is None else result.to(dtype)

    return to_torch


def _deallocate(ttnn: ModuleType, real: Any) -> Callable[..., Any]:
    def deallocate(tensor: EmulatedTensor, force: bool = True) -> None:
        real(tensor.tensor, force=force)
        if not tensor.tensor.is_allocated():
            tensor._buffer.freed_by = "ttnn.deallocate"

    return deallocate


SPECIAL: dict[str, Callable[[ModuleType, Any], Callable[..., Any]]] = {
    "ttnn.from_torch": _from_torch,
    "ttnn.to_torch": _to_torch,
    "ttnn.deallocate": _deallocate,
}

IN_PLACE = {
    "ttnn.fill_cache", "ttnn.update_cache", "ttnn.copy", "ttnn.plus_one", "ttnn.copy_host_to_device_tensor",
    "ttnn.softmax_in_place", "ttnn.scale_mask_softmax_in_place", "ttnn.scale_causal_mask_hw_dims_softmax_in_place",
    "ttnn.experimental.paged_update_cache", "ttnn.experimental.paged_fill_cache", "ttnn.uniform",
    "ttnn.experimental.paged_fused_update_cache", "ttnn.experimental.slice_write", "ttnn.indexed_fill",
}  # fmt: skip
