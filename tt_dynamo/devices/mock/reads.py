"""TTNN's module without reads from its mock device, which nobody answers.

TTNN queues each read for a thread that waits for the device. On its mock cluster there is none: after some 8,000 reads
the queue is full, and the next one blocks its process for good.
"""

from types import ModuleType
from typing import Any

import torch


class WithoutReads(ModuleType):
    """The module `ttnn`, whose `to_torch` reads a tensor of the host in the place of one of the mock device.

    That takes the host as long, and nobody misses the contents, which are undefined on the mock.
    """

    def __init__(self, ttnn: ModuleType) -> None:
        super().__init__("ttnn")
        self.__ttnn = ttnn

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__ttnn, name)
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        return dir(self.__ttnn)

    def to_torch(self, tensor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`ttnn.to_torch`."""
        device = tensor.device()
        if device is not None:
            tensor = self.__ttnn.allocate_tensor_on_host(tensor.spec, device)
        result: torch.Tensor = self.__ttnn.to_torch(tensor, *args, **kwargs)
        return result
