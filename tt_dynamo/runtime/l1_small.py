"""Room in L1_SMALL, where TTNN keeps the tables of every convolution and pool whose program is in its cache.

Nothing leaves that cache by itself, so models that are gone fill the region as well as those that live.
"""

from collections.abc import Callable
from typing import TypeVar

from tt_dynamo.devices import Device
from tt_dynamo.ir.ttnn_internals import lacks_l1_small
from tt_dynamo.runtime.traces.traces import Traces

R = TypeVar("R")


def with_l1_small(device: Device, call: Callable[[], R]) -> R:
    """What `call` gives; where TTNN finds L1_SMALL full, it is made once more with an empty cache of programs."""
    try:
        return call()
    except Exception as error:
        if not lacks_l1_small(error):
            raise
    device.resource(Traces).clear_program_cache(device.handle)
    return call()
