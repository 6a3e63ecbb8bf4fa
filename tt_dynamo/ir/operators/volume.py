"""Operations on volumes as TTNN has them: channels last, flattened, [1, 1, batch * frames * height * width, channels].

`volume` is (batch, frames, height, width) of what comes in.
"""

import torch.nn.functional as F

from tt_dynamo.ir.operators.definition import FUSED, define
from tt_dynamo.ir.operators.linear import ACTIVATIONS


@define(
    "Tensor x, Tensor weight, Tensor? bias, int[] volume, int[] stride, int[] padding, int[] dilation, int groups, "
    "str activation=''",
    FUSED,
)
def conv3d(x, weight, bias, volume, stride, padding, dilation, groups, activation=""):
    """weight [out, in / groups, *kernel], bias [1, out]; zeros before and after frames, rows, columns; activation."""
    batch, *size = volume
    x = x.reshape(batch, *size, x.shape[-1]).permute(0, 4, 1, 2, 3)
    bias = None if bias is None else bias.reshape(-1)
    around = [zeros for dim in (4, 2, 0) for zeros in padding[dim : dim + 2]]
    y = F.conv3d(F.pad(x, around) if any(padding) else x, weight, bias, stride, 0, dilation, groups)
    y = y.permute(0, 2, 3, 4, 1).reshape(1, 1, -1, weight.shape[0])
    return ACTIVATIONS[activation](y) if activation else y
