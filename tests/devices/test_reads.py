"""Reads of the mock device, which never answers: they must not fill TTNN's queue, and give what a read gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fresh_process import BOARD, FreshProcess

from tt_dynamo.devices import open_device

QUEUE = 8192  # reads that TTNN's queue holds


def test_a_process_outlives_more_reads_than_the_queue_holds(fresh: FreshProcess) -> None:
    found = fresh.run(f"""
        import json, torch
        from tt_dynamo.devices import open_device
        device = open_device({BOARD!r})
        ttnn = device.namespace(dry_run=True)
        x = ttnn.from_torch(torch.ones(32, 32), layout=ttnn.TILE_LAYOUT, device=device.handle)
        for reads in range({QUEUE + 64}):
            y = ttnn.to_torch(x)
        print(json.dumps({{"reads": reads + 1, "shape": list(y.shape)}}))
    """)
    assert (found["reads"], found["shape"]) == (QUEUE + 64, [32, 32])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bfloat8_b", "uint32", "int32"])
@pytest.mark.parametrize("wanted", [None, torch.float32])
def test_what_is_read_has_the_shape_and_dtype_of_a_read(dtype: str, wanted: torch.dtype | None) -> None:
    device = open_device(BOARD)
    ttnn: Any = device.namespace(dry_run=True)
    x = torch.ones(2, 33, 5, dtype=torch.int32 if "int" in dtype else torch.float32)
    lying = {"dtype": getattr(ttnn, dtype), "layout": ttnn.TILE_LAYOUT}
    expected = ttnn.to_torch(ttnn.from_torch(x, **lying), dtype=wanted)  # from the host
    found = ttnn.to_torch(ttnn.from_torch(x, **lying, device=device.handle), dtype=wanted)
    assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())
    assert expected.sum() == x.sum(), "a tensor of the host is read as it is"
