"""TTNN's module without reads from its mock device, which nobody answers.

TTNN queues each read for a thread that waits for the device. On its mock cluster there is none: after some 8,000 reads
the queue is full, and the next one blocks its process for good.
"""

from typing import Any

import torch

from ..over import Over


class WithoutReads(Over):
    """The module `ttnn`, whose `to_torch` reads a tensor of the host in the place of one of the mock device.

    That takes the host as long, and nobody misses the contents, which are undefined on the mock.
    """

    def to_torch(self, tensor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`ttnn.to_torch`."""
        device = tensor.device()
        if device is not None:
            chips = len(tensor.device_coords())
            tensor = self._under.allocate_tensor_on_host(tensor.spec, device)
            if chips == 1:  # also where it is what one chip of a mesh has: `ttnn.get_device_tensors`
                tensor = self._under.get_device_tensors(tensor)[0]
        result: torch.Tensor = self._under.to_torch(tensor, *args, **kwargs)
        return result
