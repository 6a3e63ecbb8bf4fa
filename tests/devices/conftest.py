"""Fixtures for device tests: the board under test, open once per process, and fresh processes for everything else.

A process can hold one board. Tests here run on $TT_DYNAMO_TEST_BOARD (n150 unless set); whatever needs another board,
an untouched environment or an empty cache runs in a process of its own.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fresh_process import BOARD, FreshProcess

from tt_dynamo.devices import Device, open_device


@pytest.fixture(scope="session")
def device() -> Device:
    """The board under test, emulated."""
    return open_device(BOARD)


@pytest.fixture(scope="session")
def ttnn(device: Device) -> Any:
    """The real module."""
    return device.namespace(dry_run=True)


@pytest.fixture(scope="session")
def emulated(device: Device) -> Any:
    """The emulated namespace."""
    return device.namespace()


@pytest.fixture
def upload(ttnn: Any, emulated: Any, device: Device) -> Callable[..., Any]:
    """Put a torch tensor on the device: bfloat16 in tiles unless told otherwise."""

    def upload(tensor: torch.Tensor, dtype: Any = None, layout: Any = None) -> Any:
        return emulated.from_torch(
            tensor, dtype=dtype or ttnn.bfloat16, layout=layout or ttnn.TILE_LAYOUT, device=device.handle
        )

    return upload


@pytest.fixture
def random() -> Callable[..., torch.Tensor]:
    """Standard normal float32 tensors of given sizes whose elements bfloat16 can represent; seeded per test."""
    generator = torch.Generator().manual_seed(0)
    return lambda *sizes: torch.randn(sizes, generator=generator).bfloat16().float()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> FreshProcess:
    """A runner of new processes that share a cache, empty at first, with the others of the test module."""
    return FreshProcess(tmp_path_factory.mktemp("fresh"))
