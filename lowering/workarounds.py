"""What the mock cannot see: faults that show only on silicon, each in one place with its issue.

Every function here says which tt-metal issue it works around; remove it when that issue is closed in the TTNN that we
require. Nothing here is needed for a call to be valid, so no test without hardware can tell that it may go.
"""

from __future__ import annotations

import math
from typing import Any

TILE = 32


def pad_mask(ttnn: Any, mask: Any) -> Any:
    """Fill a mask's tile padding with -inf.

    scaled_dot_product_attention reads the padding columns of an explicit mask as part of it: zeros there let padding
    keys into the softmax wherever the key length is no multiple of 32. https://github.com/tenstorrent/tt-metal/issues/54833
    """
    if mask.shape[-1] % TILE == 0:
        return mask
    return ttnn.fill_implicit_tile_padding(mask, -math.inf)
