"""Values across the border of a device: torch tensors up, device tensors down."""

import dataclasses
from typing import Any

import torch

from tt_dynamo.devices import Device
from tt_dynamo.devices.queues import Reading
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.helpers import as_bfloat16, checked
from tt_dynamo.ir.parts import Placement, chips_read, together
from tt_dynamo.ir.spec import Spec
from tt_dynamo.report.report import GraphReport
from tt_dynamo.runtime.traces.traces import Traces
from tt_dynamo.runtime.weight_cache import WeightCache

INT32 = (-(1 << 31), 1 << 31)
UPLOADABLE = (torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.int32, torch.int64)


@dataclasses.dataclass(frozen=True)
class Border:
    """Where the values of a program cross. Those of a dry run have no contents and serve no other program.

    cache: of weights on disk, where the user wants one.
    """

    device: Device
    namespace: Any
    dry_run: bool = False
    cache: WeightCache | None = None

    def up(self, tensor: torch.Tensor | list[torch.Tensor], spec: Spec, to_device: bool = True) -> Any:
        """A device tensor with the values of `tensor` at `spec`; one of TTNN's on the host where not `to_device`.

        Of a list every chip of a mesh gets its own. Raises Unsupported for a dtype that TTNN has no way to take (it
        ends the process on float64), IndexError for integers that the device's 32 bits cannot hold.
        """
        handle = self.device.handle if to_device else None
        if isinstance(tensor, list):
            return spec.upload(self.namespace, handle, [self._castable(part, spec) for part in tensor])
        return spec.upload(self.namespace, handle, self._castable(tensor, spec))

    def _castable(self, tensor: torch.Tensor, spec: Spec) -> torch.Tensor:
        """What TTNN casts to the dtype of `spec`."""
        if tensor.dtype not in UPLOADABLE:
            raise Unsupported(f"TTNN takes no {tensor.dtype}")
        if spec.dtype in ("int32", "uint32"):
            tensor = checked(tensor, 0 if spec.dtype == "uint32" else INT32[0], INT32[1])
        elif tensor.dtype == torch.float32 and spec.dtype == "bfloat16":
            tensor = as_bfloat16(tensor)  # many times faster than from_torch does it
        return tensor.detach()

    def up_first(self, tensor: torch.Tensor | list[torch.Tensor], spec: Spec) -> Any:
        """A weight that was not on the device before; one that changed since is not worth a file."""
        if self.cache is None or isinstance(tensor, list):
            return self.up(tensor, spec)
        return self.cache.up(self, tensor, spec)

    def renew(self, old: Any, tensor: torch.Tensor | list[torch.Tensor], spec: Spec) -> bool:
        """Write `tensor` over a device tensor at `spec` which traces read; False where there are none, or it cannot be.

        What is on the device is not to be trusted where it raises.
        """
        is_moved = spec.prepare or spec.banks or spec.memory == "HOST" or self.device.chips > 1
        if old is None or is_moved or not self.traces.captured:
            return False
        host = self.up(tensor, spec, to_device=False)
        self.namespace.copy_host_to_device_tensor(host, old)
        return True

    @property
    def traces(self) -> Traces:
        return self.device.resource(Traces)

    def down(self, tensor: Any, dtype: torch.dtype, placement: Placement = ()) -> torch.Tensor:
        """A torch tensor of `dtype` with the values of a device tensor, or of one on its way.

        placement: how it is cut over a mesh; () where every chip has all of it, of which one is read.
        """
        if isinstance(tensor, Reading):
            tensor = tensor.wait()
        if self.device.chips > 1:
            mesh, parts = self.device.shape, self.namespace.get_device_tensors(tensor)
            placement = placement or (None,) * len(mesh)
            read = [self.namespace.to_torch(parts[chip], dtype=dtype) for chip in chips_read(placement, mesh)]
            return together(read, placement, mesh, torch.cat)
        return self.namespace.to_torch(tensor, dtype=dtype)


def border_of(device: Device, report: GraphReport, dry_run: bool, weight_cache: Any, limit: int) -> Border:
    """The border of a program. weight_cache: a folder or None; a dry run has no contents to keep. limit: its bytes."""
    folder = None if dry_run else weight_cache
    weights = None if folder is None else WeightCache(folder, report, limit)
    return Border(device, device.namespace(dry_run), dry_run, weights)
