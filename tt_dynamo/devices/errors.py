"""What goes wrong with a device, by exception type."""


class DeviceError(RuntimeError):
    """A device can't be had or used: unknown board, no hardware, another board already open, a closed device …

    The message names what was asked for, what was found and what to do.
    """


class EmulationError(Exception):
    """The emulated device can't give a value: freed memory, or a golden function that fails or gives another shape.

    Not a RuntimeError, which is what TTNN raises for a call that it refuses: this one must never pass for that.
    """
