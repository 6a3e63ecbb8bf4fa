"""What devices read of TTNN that TTNN promises nobody: how its operations tell names, functions and goldens.

`tests/devices/test_ttnn_internals.py` names what an upgrade broke.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

_Prepare = Callable[[Any, Any], tuple[Any, Any]]


def operation_name(function: Any) -> str | None:
    """ "ttnn.transformer.concatenate_heads"; None for a function of TTNN that is no operation."""
    return getattr(function, "python_fully_qualified_name", None)


def function_of(operation: Any) -> Any:
    """What an operation's wrapper calls; anything else itself."""
    from ttnn.decorators import FastOperation

    return operation.function if isinstance(operation, FastOperation) else operation


def wants_every_call() -> bool:
    """Whether TTNN's wrappers do more than call: `FastOperation._requires_slow_runtime`."""
    from ttnn import CONFIG

    return bool(not CONFIG.enable_fast_runtime_mode or CONFIG.enable_comparison_mode or CONFIG.enable_logging)


def golden_of(operation: Any) -> Callable[..., Any] | None:
    """The golden function of an operation, which takes torch tensors."""
    return getattr(operation, "golden_function", None)


def writes_to_inputs(operation: Any) -> bool:
    """Whether the golden function stands for an operation that writes to its arguments."""
    return bool(getattr(golden_of(operation), "_ttnn_mutates_global_inputs", False))


def preparation_of(name: str, operation: Any) -> _Prepare | None:
    """What makes the arguments of the golden function from those of the operation, emulated tensors in their places.

    TTNN's own renames arguments and notes dtypes. For some it reads TTNN tensors, which emulated ones aren't; for gelu
    in fast mode, where the device is only close to it, the golden would then give None.
    """
    return _PREPARE.get(name, operation.preprocess_golden_function_inputs)


def golden_of_activation(activation: Any) -> Callable[..., Any]:
    """The golden function of a fused activation: a name, a ttnn.UnaryOpType or a ttnn.UnaryWithParam."""
    import ttnn
    from ttnn.operations.activations import get_golden_function_for_activation

    kind = getattr(activation, "op_type", activation)
    if getattr(kind, "name", "") in _UNNAMED:
        return ttnn.get_golden_function(getattr(ttnn, kind.name.lower()))  # type: ignore[no-any-return]
    return get_golden_function_for_activation(activation)  # type: ignore[no-any-return]


def _prepare_typecast(args: Any, kwargs: Any) -> tuple[Any, Any]:
    import ttnn

    tensor = args[0] if args else kwargs["input_tensor"]
    # Of the architecture, the golden asks only whether it is Quasar.
    facts = {"_ttnn_input_dtype": tensor.dtype, "_ttnn_is_host": False, "_ttnn_arch_name": "wormhole_b0"}
    named = (kwargs.get("dtype"), kwargs.get("output_dtype"))
    dtypes = [argument for argument in (*args, *named) if isinstance(argument, ttnn.DataType)]
    if dtypes[-1] in (ttnn.bfloat8_b, ttnn.bfloat4_b):
        facts["output_dtype"] = ttnn.float32  # the result is packed anyway, in less time than the golden takes
    return args, {**kwargs, **facts}


def placements_of(mapper: Any, mesh_shape: Sequence[int]) -> tuple[list[int | None], list[int]]:
    """Along which axes of a mesh a mapper divides which dimension, None where it replicates; chips along each axis.

    mesh_shape: of the mesh. A mapper that counts its chips in another way tells so only where it is printed.
    """
    if not hasattr(mapper, "config"):
        return [None], [1]  # ReplicateTensorToMesh
    config = mapper.config()
    shape = re.search(r"mesh_shape_override=MeshShape\(\[([\d, ]+)\]\)", str(config))
    dims = [getattr(placement, "dim", None) for placement in config.placements]
    counts = [int(size) for size in shape[1].split(",")] if shape is not None else list(mesh_shape)
    if len(dims) != len(counts):
        raise NotImplementedError(f"{config} does not say what to do along each axis of a mesh of {counts}")
    return dims, counts


# Activations that TTNN's table of golden functions leaves out, though it has their operations'.
_UNNAMED = {"ABS", "EXP", "LOG1P", "NEG"}

_PREPARE: dict[str, _Prepare | None] = {
    "ttnn.typecast": _prepare_typecast,
    "ttnn.pad": None,
    "ttnn.gelu": None,
}
