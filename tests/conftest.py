"""Fixtures for tests of the whole: a Dynamo without memory, the emulated namespace watched, fresh processes.

Tests run on $TT_DYNAMO_TEST_BOARD (n150 unless set), emulated; a process can hold one board.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh_process import BOARD, FreshProcess

from tt_dynamo import options

# The longest files, twenty seconds and more each. They come first, so that the last ones to be handed out are short and
# no worker is left alone with a long one (`make test` has pytest-xdist keep this order).
LONGEST = (
    "test_opinfo.py",
    "test_tables.py",
    "test_core_operations.py",
    "test_encoders.py",
    "test_deep_graphs.py",
    "test_block_sharded_encoders.py",
    "test_static_cache.py",
    "test_backend.py",
    "test_decoders.py",
    "test_open.py",
    "test_encoder_decoders.py",
    "test_composites_attention.py",
    "test_other_board.py",
)
_modules_kept = 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_unconfigure() -> None:
    """The interpreter ends as without these fixtures: extension modules report what it leaves behind."""
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def imports_kept() -> None:
    """What imports made lives to the end: the collection after each test, a quarter of a second long, skips it."""
    global _modules_kept
    if len(sys.modules) > _modules_kept:
        gc.unfreeze()
        if dynamo := sys.modules.get("torch._dynamo"):
            dynamo.reset()  # what was compiled is to be collected, now or when its test ends
        gc.collect()
        gc.freeze()
        _modules_kept = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def exact_by_default() -> Iterator[None]:
    """Tests compare with eager torch as closely as bfloat16 allows; those of presets name theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "DEFAULT_PRESET", "accuracy")
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_anew() -> Iterator[None]:
    """No program is taken from an earlier test; those of the cache ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "CACHED", False)
        yield


@pytest.fixture
def clean_dynamo() -> Iterator[None]:
    """Nothing compiled is left over from other tests, and nothing is left to them."""
    import torch

    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()
    gc.collect()


@pytest.fixture(autouse=True)
def passes_that_raised() -> Iterator[list[str]]:
    """What passes raised during a test. The compiler goes on without them; a test fails unless it empties the list."""
    raised: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raised.append(self.format(record))

    handler, log = Collecting(logging.WARNING), logging.getLogger("tt_dynamo.passes")
    log.addHandler(handler)
    yield raised
    log.removeHandler(handler)
    assert not raised, raised[0]


@pytest.fixture(scope="session", autouse=True)
def choices_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What TTNN accepted in other runs is not known to this one."""
    import tt_dynamo.compiler.choices as choices

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "cache_root", lambda: tmp_path_factory.getbasetemp() / "tt_dynamo")
        yield


@pytest.fixture(scope="session", autouse=True)
def guards_not_timed() -> Iterator[None]:
    """Dynamo times the guards of each compilation, for its log, behind a flush of the processor's cache: 25 ms."""
    import torch._dynamo.guards as guards

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "profile_guard_manager", lambda *_: 0.0, raising=False)
        yield


@pytest.fixture(scope="session")
def board_device() -> Any:
    """The board under test, emulated: the device that every program in this process runs on."""
    from tt_dynamo.devices import open_device

    return open_device(BOARD)


@pytest.fixture(scope="session")
def device(board_device: Any) -> Any:
    return board_device


@pytest.fixture(scope="session")
def ttnn(device: Any) -> Any:
    """TTNN as programs are recorded with: calls are made, and compute nothing."""
    return device.namespace(dry_run=True)


@pytest.fixture
def uploads(board_device: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what programs upload during the test: the calls of `ttnn.from_torch` with values."""
    return _shapes_given(board_device, "from_torch", monkeypatch)


@pytest.fixture
def downloads(board_device: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what comes down during the test: the calls of `ttnn.to_torch` with values."""
    return _shapes_given(board_device, "to_torch", monkeypatch)


def _shapes_given(device: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the tensors that a function of TTNN is given from now on."""
    shapes: list[tuple[int, ...]] = []
    namespace = device.namespace()
    function = getattr(namespace, name)

    def counted(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(tensor.shape))
        return function(tensor, *args, **kwargs)

    monkeypatch.setattr(namespace, name, counted)
    return shapes


@pytest.fixture
def bytes_in_use(board_device: Any) -> Callable[[], list[int]]:
    """Says how many bytes of each bank are allocated, of DRAM and of L1."""
    ttnn = board_device.namespace(dry_run=True)

    def in_use() -> list[int]:
        kinds = (ttnn.BufferType.DRAM, ttnn.BufferType.L1)
        return [ttnn.get_memory_view(board_device.handle, kind).total_bytes_allocated_per_bank for kind in kinds]

    return in_use


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> Any:
    """Call it for the messages that tt_dynamo logged as warnings or worse since the last call."""

    def take() -> list[str]:
        found = [
            record.getMessage()
            for record in caplog.records
            if record.levelno >= logging.WARNING and record.name.startswith("tt_dynamo")
        ]
        caplog.clear()
        return found

    return take


@pytest.fixture
def fresh_process(tmp_path: Path) -> FreshProcess:
    """A runner of new processes with their own home, cache and working directory."""
    return FreshProcess(tmp_path)
