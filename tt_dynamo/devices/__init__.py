"""Open a device and give out its TTNN namespace: hardware, or emulated on TTNN's mock cluster.

A device never knows what a model is. Importing this package imports neither TTNN nor torch and changes nothing.
"""

from .boards import BOARDS
from .clusters import CHOICES
from .device import Device, open_device, open_devices
from .errors import DeviceError, EmulationError

__all__ = ["BOARDS", "CHOICES", "Device", "DeviceError", "EmulationError", "open_device", "open_devices"]
