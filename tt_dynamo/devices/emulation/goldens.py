"""Values by TTNN's own golden functions, which must not change what they are given."""

from collections.abc import Callable
from typing import Any

import torch

from tt_dynamo.devices.errors import EmulationError

from .tensor import EmulatedTensor, replace


def _prepare_typecast(args: Any, kwargs: Any) -> tuple[Any, Any]:
    import ttnn

    tensor = args[0] if args else kwargs["input_tensor"]
    facts = {"_ttnn_input_dtype": tensor.dtype, "_ttnn_is_host": False, "_ttnn_arch_name": "wormhole_b0"}
    named = (kwargs.get("dtype"), kwargs.get("output_dtype"))
    dtypes = [argument for argument in (*args, *named) if isinstance(argument, ttnn.DataType)]
    if dtypes[-1] in (ttnn.bfloat8_b, ttnn.bfloat4_b):
        facts["output_dtype"] = ttnn.float32  # the result is packed anyway, in less time than the golden takes
    return args, {**kwargs, **facts}


# TTNN prepares the arguments of these goldens from TTNN tensors (contents, place), which emulated tensors aren't.
_PREPARE: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "ttnn.typecast": _prepare_typecast,
    "ttnn.pad": lambda args, kwargs: (args, kwargs),
}


def by_golden(name: str, real: Any) -> Callable[..., Any]:
    """What gives the value of the operation `real` for arguments and keyword arguments, emulated tensors among them."""
    # TTNN's own preparation renames arguments and notes dtypes; it leaves emulated tensors in their places.
    golden, prepare = real.golden_function, _PREPARE.get(name, real.preprocess_golden_function_inputs)
    # Whether the golden writes to its inputs, by form of the call. The first call of each form runs on copies to see.
    writes: dict[Any, bool] = {}

    def values_of(args: Any, kwargs: Any) -> Any:
        form = (len(args), *kwargs)
        copies = writes.get(form, True)
        given: list[torch.Tensor] = []

        def take(tensor: EmulatedTensor) -> torch.Tensor:
            given.append(tensor._value.clone() if copies else tensor._value)
            return given[-1]

        try:
            if prepare is not None:
                args, kwargs = prepare(args, kwargs)
            arguments = [replace(argument, take) for argument in args]
            named = {key: replace(argument, take) for key, argument in kwargs.items()}
            versions = [tensor._version for tensor in given]
            value = golden(*arguments, **named)
        except Exception as error:
            raise EmulationError(f"TTNN's golden function of {name} failed: {error}") from error
        wrote = any(tensor._version != version for tensor, version in zip(given, versions, strict=True))
        if wrote and not copies:
            raise EmulationError(f"TTNN's golden function of {name} wrote to its inputs, as it had not done before")
        writes.setdefault(form, wrote)
        return value

    return values_of
