"""From one TTNN call, as a program makes it, to what it costs on a chip.

What must hold: an operation without a formula gets a default by its bytes, and no call raises: an estimate may be off,
a compilation must not fail for it.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tt_dynamo.estimate import kernels
from tt_dynamo.estimate.chip import NOTHING, Chip, Cost
from tt_dynamo.estimate.operations import OPERATIONS
from tt_dynamo.estimate.tensor import Call, describe

log = logging.getLogger(__name__)


def estimate(call: Call, chip: Chip) -> Cost:
    """What a described call costs."""
    return OPERATIONS.get(call.name, kernels.unknown)(call, chip)


def estimate_call(path: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, chip: Chip) -> Cost:
    """What a call of TTNN costs, made with these arguments and with this result.

    path: "ttnn.linear". args, kwargs: as given, tensors of TTNN among them. A result that lies in the buffer of an
    operand, and was not written there, is a view and costs nothing.
    """
    try:
        formula = OPERATIONS.get(path, kernels.unknown)
        if formula is kernels.nothing:
            return NOTHING
        operands = _tensors((*args, *kwargs.values()))
        results = _tensors((result,))
        if formula in VIEWS and operands and results and _is_view(operands[0], results[0]):
            return NOTHING
        inputs = [describe(tensor) for tensor in operands]
        outputs = [describe(tensor) for tensor in results] or inputs[:1]
        return formula(Call(path, inputs, outputs, kwargs), chip) if outputs else NOTHING
    except Exception as error:
        log.warning("%s could not be estimated: %s: %s", path, type(error).__name__, error)
        return Cost(0.0, "unknown", 0.0, "unknown")


VIEWS = {kernels.reshape, kernels.place, kernels.change_layout, kernels.copy, kernels.transpose}


def _tensors(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, (tuple, list)):
            found += _tensors(value)
        elif hasattr(value, "memory_config") and hasattr(value, "layout"):
            found.append(value)
    return found


def _is_view(operand: Any, result: Any) -> bool:
    if operand.device() is None or result.device() is None:
        return False
    same_place = operand.memory_config().buffer_type == result.memory_config().buffer_type
    return bool(same_place and operand.buffer_address() == result.buffer_address())
