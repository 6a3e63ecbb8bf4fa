"""The emulated namespace: TTNN's operations on its mock device, with values.

A call through the namespace makes the real TTNN call on the mock's tensors, so that validity, shape, dtype, layout,
memory and errors are TTNN's own. Then the results get their values: by a reference of ours, else by TTNN's golden
function, rounded to the dtype of the real result.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial, reduce
from inspect import signature
from types import ModuleType
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from tt_dynamo.devices.errors import EmulationError
from tt_dynamo.devices.ttnn_internals import golden_of, operation_name, preparation_of, writes_to_inputs

from . import experts, references_products, references_recurrences, references_volumes  # noqa: F401 (register)
from .activations import activate, activate_operands, split_scales
from .chips import PerChip, Value, at, combinations, count_of, parts_of
from .collectives import COLLECTIVES
from .fidelity import engine_of
from .meshes import by_collective, chips_of, composed, differ, distributed, mesh_functions, on_each, part_shape
from .numerics import TORCH_DTYPES, as_held, converted, round_to
from .references import HOW, REFERENCES
from .tensor import Buffer, EmulatedTensor, replace, shares_storage
from .writes import WRITES

# What ends the names of operations that write to an argument, besides those whose goldens say so.
_WRITING = ("_", "_in_place", "update_cache", "slice_write", "plus_one")
# Arguments that an operation writes its result to.
_OUTPUTS = {
    "output_tensor", "optional_output_tensor", "preallocated_output", "output_tensors", "out", "output", "out_tensor",
    "padded_output",
}  # fmt: skip
_FREE = "ttnn.deallocate"
# What gives values rounded already, and fills tiles up with zeros.
_AS_MADE = ("ttnn.from_torch", "ttnn.load_tensor")
# What begins the names of those that lay weights out for TTNN's kernels; the value kept is that of the original ones.
_PREPARE = "ttnn.prepare_conv"


class Namespace:
    """A TTNN module as programs see it on the emulated device; see the module docstring.

    Attributes are resolved at first use and kept. What is no operation (enums, configs, types) is TTNN's own.
    """

    def __init__(self, module: ModuleType, ttnn: ModuleType, name: str = "ttnn"):
        self.__module, self.__ttnn, self.__name = module, ttnn, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        resolved = self.__resolve(getattr(self.__module, name), f"{self.__name}.{name}")
        setattr(self, name, resolved)
        return resolved

    def __resolve(self, real: Any, path: str) -> Any:
        if isinstance(real, ModuleType) and real.__name__.split(".")[0] == "ttnn":
            return Namespace(real, self.__ttnn, path)
        if real is self.__ttnn.Tensor:
            return EmulatedTensor
        if real is self.__ttnn.to_torch:
            return partial(_to_torch, self.__ttnn)
        if real is self.__ttnn.copy_host_to_device_tensor:
            return partial(_copy_up, real)
        if real is self.__ttnn.dump_tensor:
            return partial(_dump, self.__ttnn)
        if not callable(real) or isinstance(real, type):
            return real
        if (of_mesh := mesh_functions(self.__ttnn).get(real)) is not None:
            return of_mesh
        return _operation(self.__ttnn, operation_name(real) or path, real)

    def __dir__(self) -> Iterable[str]:
        return dir(self.__module)


@cache
def emulated_namespace(ttnn: ModuleType) -> Namespace:
    """The emulated counterpart of the module `ttnn`: one per process, as TTNN has one cluster per process."""
    return Namespace(ttnn, ttnn)


# What gives the results of a call their values: its arguments, what the real call returned, the tensors among them.
_Values = Callable[[Any, Any, Any, list[EmulatedTensor]], Any]


def _operation(ttnn: ModuleType, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """The emulated counterpart of one TTNN operation or function."""
    values: _Values = partial(_made_on_host, name)
    invoke, refusal = real, ""
    if name == "ttnn.from_torch":
        invoke, values = partial(_upload, ttnn, real), partial(_uploaded, ttnn)
    elif name in COLLECTIVES:
        values = by_collective(ttnn, COLLECTIVES[name])
    elif name in WRITES:
        values = partial(_written, ttnn, WRITES[name])
    elif name.endswith(_WRITING) or writes_to_inputs(real):
        refusal = f"{name} writes to its argument, which the emulated device does not support"
    elif name.startswith(_PREPARE):
        values = _kept
    elif name in REFERENCES:
        values = _by_reference(REFERENCES[name])
    elif golden_of(real) is not None:
        values = _by_golden(name, real)
    elif operation_name(real) is not None and name != _FREE:
        refusal = f"{name} has no golden function in TTNN and no reference of ours, so it gives no values here"

    def call(*args: Any, **kwargs: Any) -> Any:
        if refusal:
            raise NotImplementedError(refusal)
        for output in kwargs.keys() & _OUTPUTS:
            if kwargs[output] is not None:
                raise NotImplementedError(f"{name} with {output}= is not supported on the emulated device")
        inputs: list[EmulatedTensor] = []

        def take(tensor: EmulatedTensor) -> Any:
            if name != _FREE:
                tensor.check_readable()  # before TTNN reads it in silence
            inputs.append(tensor)
            return tensor.tensor

        real_args, real_kwargs = replace((args, kwargs), take)
        # Values are normal tensors also when the caller is in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            results = invoke(*real_args, **real_kwargs)
            if any(isinstance(leaf, ttnn.Tensor) for leaf in tree_leaves(results)):
                padding = partial(_padding, name, args, kwargs, inputs)

                def paired(args: Any, kwargs: Any, inputs: list[EmulatedTensor]) -> Any:
                    return _pair(ttnn, name, results, values(args, kwargs, results, inputs), inputs, padding)

                of_all = name in COLLECTIVES or name in WRITES or not differ(inputs)
                results = paired(args, kwargs, inputs) if of_all else on_each(args, kwargs, inputs, paired)
        for tensor in inputs:
            tensor.note_freed(name)
        return results

    call.__name__ = call.__qualname__ = name
    call.__doc__ = real.__doc__
    return call


def _values_of(arguments: Any) -> Any:
    return replace(arguments, lambda tensor: tensor._value)


def _by_reference(compute: Callable[..., Any]) -> _Values:
    named = signature(compute).parameters

    def values(args: Any, kwargs: Any, results: Any, inputs: list[EmulatedTensor]) -> Any:
        given = {name: argument for name, argument in kwargs.items() if name in named or name not in HOW}
        if "result" in named:
            given["result"] = results
        if "engine" in named:
            config = kwargs.get("compute_kernel_config", kwargs.get("compute_config"))
            wide = any(tensor.dtype.name == "FLOAT32" for tensor in (*tree_leaves(results), *inputs))
            given["engine"] = engine_of(config, kwargs.get("program_config"), wide)
        args, given = _values_of((args, given))
        return compute(*args, **given)

    return values


def _by_golden(name: str, real: Any) -> _Values:
    golden, prepare = golden_of(real), preparation_of(name, real)
    assert golden is not None

    def values(args: Any, kwargs: Any, _: Any, inputs: list[EmulatedTensor]) -> Any:
        before = [_version(tensor) for tensor in inputs]
        try:
            args, kwargs = _values_of(prepare(args, kwargs) if prepare is not None else (args, kwargs))
            args, kwargs = activate_operands(args, kwargs)
            kwargs, fused = split_scales(kwargs)
            value = reduce(activate, fused, golden(*args, **kwargs))
        except Exception as error:
            raise EmulationError(f"TTNN's golden function of {name} failed: {error}") from error
        if before != [_version(tensor) for tensor in inputs]:
            raise EmulationError(f"TTNN's golden function of {name} wrote to its inputs; it needs a reference of ours")
        return value

    return values


def _version(tensor: EmulatedTensor) -> int:
    return at(tensor._value, 0)._version


def _written(ttnn: ModuleType, write: Callable[..., Any], args: Any, kwargs: Any, results: Any, inputs: Any) -> Any:
    """Write to the first tensor; the result is a tensor of the same buffer. Of two results, to the third as well."""
    if isinstance(results, tuple):
        return [_written(ttnn, write, args[at : at + 2], kwargs, None, inputs[at : at + 2]) for at in (0, 2)]
    target, source = inputs[:2]

    def written(args: Any, kwargs: Any) -> tuple[Any, torch.Tensor]:
        index, value = write(*args, **kwargs, padding=source.padding)
        return index, round_to(ttnn, value, target.dtype)

    given: list[EmulatedTensor] = []
    replace((args, kwargs), given.append)
    if not differ(given):
        target.write(*written(*_values_of((args, kwargs))))
        return target.value
    held = [tensor._value for tensor in given]
    writes: list[Any] = [None] * count_of(held)
    for group in combinations(held, len(writes)):
        write_of_group = written(*replace((args, kwargs), lambda tensor: at(tensor._value, group[0])))  # noqa: B023
        for chip in group:
            writes[chip] = write_of_group
    target.write_each(writes)
    return target.value


def _kept(_: Any, __: Any, ___: Any, inputs: list[EmulatedTensor]) -> Value:
    return inputs[0]._value


def _made_on_host(name: str, _: Any, __: Any, result: Any, inputs: list[EmulatedTensor]) -> torch.Tensor:
    """A plain function of TTNN may make a tensor on the host from what is no tensor, as masks and constants."""
    if inputs or result.device() is not None:
        raise NotImplementedError(f"{name} gives a tensor whose value is not known here")
    return result.to_torch()


def _pair(ttnn: ModuleType, name: str, result: Any, value: Any, inputs: list[EmulatedTensor], padding: Any) -> Any:
    """The results of the real call, each tensor with its value."""
    if isinstance(result, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(result):
            raise EmulationError(f"{name} gives {len(result)} results on the device, but not by its reference")
        return type(result)([_pair(ttnn, name, *both, inputs, padding) for both in zip(result, value, strict=True)])
    if not isinstance(result, ttnn.Tensor):
        return result
    if not isinstance(value, (torch.Tensor, PerChip)):
        raise EmulationError(f"the reference of {name} gives no tensor but {type(value).__name__}")
    if not name.startswith(_PREPARE):
        value = _rounded(ttnn, name, value, result, inputs)
    identity = result.buffer_unique_id()  # None on the host and for freed memory
    shared = [x for x in inputs if identity is not None and x.tensor.buffer_unique_id() == identity]
    if shared and not _same(value, shared[0]._value):
        raise EmulationError(f"{name} put its result where its input was; ask for inplace=False, or for another memory")
    if not shared and any(tensor.buffer.holds(value) for tensor in inputs):
        value = value.clone()  # no later write to an input reaches it
    buffer = shared[0].buffer if shared else Buffer(on_device=result.device() is not None)
    return EmulatedTensor(result, value, buffer, padding(result))


def _rounded(ttnn: ModuleType, name: str, value: Value, result: Any, inputs: list[EmulatedTensor]) -> Any:
    """`value` as the result holds it, rounded at most once."""
    if tuple(value.shape) != tuple(result.shape):
        raise EmulationError(
            f"{name} gives the shape {tuple(result.shape)} on the device, but {tuple(value.shape)} by its reference"
        )
    if isinstance(value, PerChip):
        unchanged = any(value is tensor._value and tensor.dtype == result.dtype for tensor in inputs)
        return value if unchanged else value.map(lambda part: _rounded(ttnn, name, part, result, []))
    value, block_float = as_held(value), result.dtype in (ttnn.bfloat8_b, ttnn.bfloat4_b)
    for tensor in inputs:
        # Elements that only move stay representable, except in block floats, where neighbours share an exponent.
        moved = value is tensor._value or (not block_float and shares_storage(value, tensor._value))
        if moved and tensor.dtype == result.dtype:
            return value
    return value if name in _AS_MADE else round_to(ttnn, value, result.dtype, result.device() is None)


def _same(value: Value, other: Value) -> bool:
    """Whether both hold the same elements, as far as the smaller one goes: a pad within the tile only fills it up."""
    if isinstance(value, PerChip) or isinstance(other, PerChip):
        chips = count_of([value, other])
        return value is other or all(map(_same, parts_of(value, chips), parts_of(other, chips)))
    if value.ndim == other.ndim and value.numel() != other.numel():
        common = tuple(slice(min(sizes)) for sizes in zip(value.shape, other.shape, strict=True))
        value, other = value[common], other[common]
    value, other = value.reshape(-1), other.reshape(-1)
    same_memory = (value.data_ptr(), value.stride()) == (other.data_ptr(), other.stride())
    same_size = value.numel() == other.numel()
    return same_size and (same_memory or torch.allclose(value, other, rtol=0, atol=0, equal_nan=True))


def _padding(name: str, args: Any, kwargs: Any, inputs: list[EmulatedTensor], result: Any) -> float | None:
    """What the tile padding of a result holds, None where that is not known."""
    if name in _AS_MADE:
        return kwargs.get("pad_value", 0.0)
    if name == "ttnn.fill_implicit_tile_padding":
        return float(kwargs["fill_value"] if "fill_value" in kwargs else args[1])
    whole_tiles = name == "ttnn.slice" and tuple(result.shape)[-2:] == tuple(inputs[0].shape)[-2:]
    if whole_tiles or name in ("ttnn.to_memory_config", "ttnn.experimental.nlp_create_qkv_heads"):
        return inputs[0].padding
    if name in ("ttnn.typecast", "ttnn.experimental.rotary_embedding_hf") and inputs[0].padding == 0.0:
        return 0.0  # anything else becomes something that is not known
    return None


# From this many elements on, TTNN's layout of contents that the mock then drops takes most of the time.
_LARGE = 1 << 16
# Options of from_torch with which that is left out.
_SIMPLE = {"layout", "device", "memory_config", "mesh_mapper"}


def _upload(ttnn: ModuleType, real: Any, tensor: torch.Tensor, dtype: Any = None, **options: Any) -> Any:
    """`ttnn.from_torch`. Floats but float64, integers and booleans; raises TypeError for the others."""
    if not isinstance(tensor, torch.Tensor) or tensor.dtype == torch.float64 or tensor.dtype.is_complex:
        kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"ttnn.from_torch takes no {kind}; convert it to a torch tensor of float32 or an integer")
    device = options.get("device")
    if options.get("col_tilize"):
        raise NotImplementedError("from_torch with col_tilize= is not supported on the emulated device")
    simple = tensor.numel() >= _LARGE and dtype is not None and options.keys() <= _SIMPLE
    if simple and device is not None:
        tiles = dtype in (ttnn.bfloat8_b, ttnn.bfloat4_b)
        layout = options.get("layout") or (ttnn.TILE_LAYOUT if tiles else ttnn.ROW_MAJOR_LAYOUT)
        memory_config = options.get("memory_config") or ttnn.DRAM_MEMORY_CONFIG
        mapper, shape = options.get("mesh_mapper"), tuple(tensor.shape)
        shape = shape if mapper is None else part_shape(shape, mapper, device.shape)
        with suppress(RuntimeError):  # from_torch says it in its own words
            return ttnn.allocate_tensor_on_device(ttnn.Shape(shape), dtype, layout, device, memory_config)
    return real(tensor.detach(), dtype=dtype, **options)


def _uploaded(ttnn: ModuleType, args: Any, kwargs: Any, result: Any, _: Any) -> Value:
    tensor = (args[0] if args else kwargs["tensor"]).detach()

    def convert(part: torch.Tensor) -> torch.Tensor:
        value = converted(ttnn, part, result.dtype)
        # The device's copy doesn't follow later writes to the torch tensor.
        return value.clone() if value.data_ptr() == part.data_ptr() else value

    mapper = kwargs.get("mesh_mapper")
    return convert(tensor) if mapper is None else distributed(tensor, mapper, result, convert)


def _copy_up(real: Any, host: EmulatedTensor, device: EmulatedTensor, **options: Any) -> None:
    """`ttnn.copy_host_to_device_tensor`: every tensor of the buffer sees the new contents."""
    device.check_readable()
    real(host.tensor, device.tensor, **options)
    device.write(..., host.value)
    device.padding = host.padding


def _to_torch(
    ttnn: ModuleType,
    tensor: EmulatedTensor,
    dtype: torch.dtype | None = None,
    *,
    mesh_composer: Any = None,
    **_: Any,
) -> torch.Tensor:
    """`ttnn.to_torch`: a new torch tensor in the dtype that TTNN gives (float32 for block floats), or `dtype`."""
    with torch.inference_mode(False), torch.no_grad():
        value = tensor.value
        if value.shape != tuple(tensor.shape):
            raise EmulationError("the contents of prepared weights are laid out for TTNN's kernels alone")
        if mesh_composer is not None or chips_of(tensor.tensor) > 1:
            value = composed(ttnn, tensor, mesh_composer)
        result = at(value, 0).to(TORCH_DTYPES[tensor.dtype.name], copy=True)
    result = result if dtype is None else result.to(dtype)
    return result.reshape(-1).reshape(result.shape)  # as TTNN gives it: contiguous also in dimensions of size 1


def _dump(ttnn: ModuleType, file_name: Any, tensor: EmulatedTensor) -> None:
    """`ttnn.dump_tensor`: the file is made of the value, since the mock's memory has no contents."""
    if tensor.padding != 0.0 or tensor.value.shape != tuple(tensor.shape):
        raise NotImplementedError("ttnn.dump_tensor takes tensors as they went up: not prepared, nor padded otherwise")
    ttnn.dump_tensor(file_name, ttnn.from_torch(_to_torch(ttnn, tensor), spec=tensor.spec))
