"""What goes wrong with a device, as one exception type that names the cause and the way out."""


class DeviceError(RuntimeError):
    """A device can't be had or used: unknown board, no hardware, another board already open, a closed device …

    The message names what was asked for, what was found and what to do.
    """
