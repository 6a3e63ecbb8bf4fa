"""Values by TTNN's own golden functions, which must not change what they are given."""

from collections.abc import Callable
from typing import Any

import torch

from tt_dynamo.devices.errors import EmulationError
from tt_dynamo.devices.ttnn_internals import golden_of, preparation_of

from .tensor import EmulatedTensor, replace


def by_golden(name: str, real: Any) -> Callable[..., Any]:
    """What gives the value of the operation `real` for arguments and keyword arguments, emulated tensors among them."""
    golden, prepare = golden_of(real), preparation_of(name, real)
    assert golden is not None
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
