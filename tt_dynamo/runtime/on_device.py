"""What eager torch asks of a tensor whose contents are on a device, answered there: which element is the largest.

`generate(do_sample=False)` takes `logits[:, -1].to(float32, copy=True)` and then the `argmax` of each row. Where the
logits stayed on the device, views and that cast wait there, and 4 bytes of each sequence come down. Everything else
that torch computes fetches the logits.

Of equal elements, which are common in bfloat16, the first is taken, and NaN is the largest, as in torch: see the
lowering of `argmax`.
"""

from typing import Any

import torch

from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering import find as find_lowering
from tt_dynamo.runtime.transfer import Border


def shows_all_of(view: torch.Tensor, owner: torch.Tensor) -> bool:
    """Whether a view has the elements of its owner, in their order, and rows of the same length."""
    same_rows = view.shape[-1:] == owner.shape[-1:] and view.numel() == owner.numel() > 0
    return same_rows and view.is_contiguous() and owner.is_contiguous()


def cast_is_exact(device_dtype: str, dtype: torch.dtype, options: dict[str, Any]) -> bool:
    """Whether `_to_copy` with `options` gives what the device holds, as it would come down in float32."""
    device, target = options.get("device"), options.get("dtype")
    is_plain = options.keys() <= {"dtype", "device"} and (device is None or torch.device(device).type == "cpu")
    holds_all = dtype == torch.float32 or (dtype == torch.bfloat16 and device_dtype == "bfloat16")
    return is_plain and target == torch.float32 and holds_all


def argmax(
    tensor: Any, border: Border, like: torch.Tensor, dim: int | None = None, keepdim: bool = False
) -> torch.Tensor | None:
    """`aten.argmax` of a device tensor that is seen as `like`; None where the device does not answer.

    A dry run has no contents, of which torch makes an index that is in range, and the device may not.
    """
    if dim is None or dim % like.ndim != like.ndim - 1 or not like.is_floating_point() or border.dry_run:
        return None
    found, ttnn = find_lowering(aten.argmax.default), border.namespace
    assert found is not None
    try:
        indices = found.function(ttnn, ttnn.to_layout(tensor, ttnn.ROW_MAJOR_LAYOUT), -1)
        return border.down(indices, torch.int64).reshape(*like.shape[:-1], *([1] if keepdim else []))
    except Exception:  # whatever TTNN raises, torch has the answer
        return None
