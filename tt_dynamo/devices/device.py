"""Open a device by choice: hardware, an emulated board, or one that the user already opened.

TTNN keeps one cluster per process: the first device opened decides whether that is real or mocked and, if mocked,
which board. So a process has at most one emulated board, and everything that asks for it shares it. The environment
variables that select the mock are set while TTNN opens its first device and put back right after; a process that opens
hardware keeps its environment as it is.
"""

import atexit
import contextlib
import difflib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from .boards import ARCHITECTURES, BOARD_DESCRIPTIONS, BOARDS, DEFAULT_BOARD, Architecture
from .errors import DeviceError
from .mock.toolchain import cache_root, mock_environment
from .queues import HardwareQueues
from .traces import HardwareTrace

log = logging.getLogger(__name__)
R = TypeVar("R")

# Convolutions and pools keep their halo tables in this region, which TTNN leaves empty unless asked; bytes per core.
L1_SMALL_SIZE = 32768
HARDWARE_NODES = Path("/dev/tenstorrent")
CHOICES = ("auto", "hardware", *BOARDS)

_lock = threading.RLock()
_cluster: str | None = None  # what this process's one TTNN cluster is: a board's name, or "hardware"
_devices: "list[Device]" = []  # what is open in it: at most one that we opened, and those that the user handed to us


class Device:
    """An open TTNN device and the TTNN namespace that programs for it call.

    Get one from `open_device`. `board` is the board's name ("n150"), `emulated` whether it is TTNN's mock cluster.
    """

    def __init__(self, handle: Any, board: str, *, emulated: bool, owned: bool):
        self._handle = handle
        self._owned = owned  # whether close() closes the TTNN device
        self.board = board
        self.emulated = emulated
        self._resources: dict[type, Any] = {}
        self._dependents: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def handle(self) -> Any:
        """The open `ttnn.MeshDevice`. Raises DeviceError when closed."""
        if self._handle is None:
            raise DeviceError(f"the device {self.description} was closed; open it again with open_device()")
        return self._handle

    @property
    def closed(self) -> bool:
        return self._handle is None

    @property
    def architecture(self) -> Architecture:
        """Raises DeviceError when closed."""
        name = self.handle.arch().name.lower()
        return ARCHITECTURES.get(name, Architecture(name))

    @property
    def description(self) -> str:
        """For people: "n150 (emulated)"."""
        return f"{self.board} (emulated)" if self.emulated else self.board

    def namespace(self, dry_run: bool = False) -> Any:
        """What a program calls as `ttnn`: the module itself, or on an emulated device one that computes values too.

        With `dry_run` on an emulated device, the module but for reads: every call reaches the mock device, no values
        exist. Raises DeviceError when closed.
        """
        self.handle  # noqa: B018  raises when closed
        import ttnn

        if not self.emulated:
            return ttnn
        if dry_run:
            from .mock.reads import WithoutReads

            return self.resource(WithoutReads, ttnn)
        from .emulation.namespace import emulated_namespace

        return emulated_namespace(ttnn)

    def trace(self, run: Any, check: Any, dry_run: bool, handle: Any, arguments: Sequence[Any]) -> Any:
        """A captured run of `run(handle, *arguments)`; on an emulated device `check` makes its calls without values."""
        import ttnn

        if not self.emulated:
            return HardwareTrace(ttnn, handle, run, arguments)
        from .emulation.traces import EmulatedTrace

        return EmulatedTrace(ttnn, handle, None if dry_run else run, check, arguments)

    @property
    def has_two_queues(self) -> bool:
        """Whether it was opened with two command queues, which a mock device need not be: what is given to its queues
        is only noted, and each number of queues has kernels of its own to build. Raises DeviceError for hardware that
        was closed.
        """
        if self.emulated:
            return True
        import ttnn

        try:
            ttnn.record_event(self.handle, 1)
        except RuntimeError:
            return False
        return True

    def queues(self, namespace: Any, dry_run: bool) -> Any:
        """The two command queues, for one program with its namespace, as `HardwareQueues`."""
        import ttnn

        if not self.emulated:
            return HardwareQueues(ttnn, self.handle)
        from .emulation.queues import Clocks, EmulatedQueues

        return EmulatedQueues(ttnn, namespace, self.resource(Clocks), computes=not dry_run)

    def host_tensor(self, tensor: Any, dry_run: bool) -> Any:
        """A `HostTensor` of one that `ttnn.from_torch` made on the host, for torch to write to. Raises as that does."""
        import ttnn

        from .host_tensors import HostTensor

        if not self.emulated or dry_run:
            return HostTensor(ttnn, tensor)
        from .emulation.host_tensors import EmulatedHostTensor

        return EmulatedHostTensor(ttnn, tensor)

    def check_open(self) -> None:
        """Raise DeviceError if the device is closed, also where its user closed it without telling us."""
        if not _is_open(self.handle):
            raise DeviceError(f"the device {self.description} that you opened was closed; open it and compile again")

    def resource(self, kind: type[R], *arguments: Any) -> R:
        """The one object of a kind that belongs to this device, made with `arguments` at its first use."""
        if kind not in self._resources:
            self._resources.setdefault(kind, kind(*arguments))  # whichever thread was first
        return self._resources[kind]  # type: ignore[no-any-return]

    def depend(self, dependent: Any) -> None:
        """Have `dependent.release()` called when the device is closed, for it to let go of what is on the device."""
        self._dependents.add(dependent)

    def close(self) -> None:
        """Close the device, which frees all that is on it; one that the user opened is only forgotten."""
        with _lock:
            for dependent in list(self._dependents):
                dependent.release()
            self._dependents.clear()
            handle, self._handle = self._handle, None
            if self in _devices:
                _devices.remove(self)
            if handle is not None and self._owned:
                import ttnn

                ttnn.close_device(handle)
                if self.emulated:
                    from .emulation.tensor import device_closed

                    device_closed()

    def __repr__(self) -> str:
        return f"<Device {self.description}{', closed' if self.closed else ''}>"


def open_device(choice: Any = "auto", queues: int = 1) -> Device:
    """Open the device that `choice` names, or return the one that is already open for it.

    choice: "auto" (hardware where there is some, else an emulated N150), "hardware", a board's name to emulate it
    ("n150", "n300" as one chip, "p150"), an open ttnn device or mesh, which the caller owns and closes, or a Device.
    queues: how many command queues to open it with, 1 or 2; what is open already keeps those that it has.

    Raises DeviceError: no such choice, TTNN not installed or not for this Python, no hardware found, another board
    already open in this process.
    """
    if isinstance(choice, Device):
        choice.handle  # noqa: B018  raises when closed
        return choice
    if isinstance(choice, str) and choice not in CHOICES:
        near = difflib.get_close_matches(choice.lower(), CHOICES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DeviceError(f"unknown device {choice!r}{hint} Known: {', '.join(CHOICES)}, or an open ttnn device.")
    _check_installed()
    with _lock:
        if not isinstance(choice, str):
            return _adopt(choice)
        if choice != "auto" and _cluster not in (None, choice):
            raise _taken(choice, _cluster)
        # A second device on the same chip would take the first down with it when closed.
        for device in list(_devices):
            if _is_open(device.handle):
                return device
            device.close()
        if choice == "auto":
            choice = _cluster or ("hardware" if _hardware_nodes() else DEFAULT_BOARD)
        return _open(choice, queues)


def open_devices() -> list[Device]:
    """Every device that is open in this process."""
    return list(_devices)


def _is_open(handle: Any) -> bool:
    """Whether the TTNN device is open; the user may close theirs at any time."""
    import ttnn

    try:
        ttnn.get_memory_view(handle, ttnn.BufferType.L1)
    except RuntimeError:
        return False
    return True


def _taken(choice: str, cluster: str) -> DeviceError:
    return DeviceError(
        f"cannot open {choice!r}: this process already opened {cluster!r}, and TTNN keeps one cluster per process. "
        f"Use {cluster!r} here, or start another process for {choice!r}."
    )


def _hardware_nodes() -> list[Path]:
    """Device nodes of Tenstorrent's kernel driver, one per accelerator."""
    return sorted(HARDWARE_NODES.glob("[0-9]*"))


def _open(target: str, queues: int) -> Device:
    global _cluster
    emulated = target != "hardware"
    if not emulated and not _hardware_nodes():
        raise DeviceError(
            f"no Tenstorrent hardware: nothing at {HARDWARE_NODES}/*. Install the tt-kmd driver and check that the "
            f"board is visible (tt-smi), or emulate a board: {', '.join(map(repr, BOARDS))}."
        )
    try:
        environment = mock_environment(BOARD_DESCRIPTIONS[target]) if emulated else {}
    except OSError as error:
        raise DeviceError(
            f"cannot prepare the emulated device in {cache_root()}: {error}. Set TT_DYNAMO_CACHE to a folder that can "
            "be written to."
        ) from error
    with _environment(environment):
        ttnn = _import_ttnn()
        # The user may have opened a device of another cluster before us: TTNN keeps to that one.
        if emulated and _board(ttnn) != target:
            raise _taken(target, _board(ttnn))
        options: dict[str, Any] = {"l1_small_size": L1_SMALL_SIZE, "num_command_queues": queues}
        if emulated and (dispatch := BOARD_DESCRIPTIONS[target].dispatch):
            options["dispatch_core_config"] = ttnn.DispatchCoreConfig(getattr(ttnn.DispatchCoreType, dispatch))
        try:
            handle = ttnn.open_device(device_id=0, **options)
        except RuntimeError as error:
            reason = " ".join(str(error).split("backtrace:")[0].split())
            raise DeviceError(f"TTNN could not open {target!r}: {reason}") from error
    _cluster = target
    device = Device(handle, _board(ttnn), emulated=emulated, owned=True)
    _devices.append(device)
    log.info("opened %s; accelerators at %s: %d", device.description, HARDWARE_NODES, len(_hardware_nodes()))
    return device


def _adopt(handle: Any) -> Device:
    """A Device for a ttnn device that the user opened."""
    global _cluster
    ttnn = _import_ttnn()
    if not isinstance(handle, ttnn.MeshDevice):
        raise DeviceError(f"a device is one of {', '.join(CHOICES)} or an open ttnn device, not {handle!r}")
    if not _is_open(handle):
        raise DeviceError("the ttnn device given was closed; open it again and give the new one")
    for device in _devices:
        if device.handle is handle:
            return device
    if _cluster is None:
        # Without a device node TTNN's driver can only be mocked.
        mocked = "TT_METAL_MOCK_CLUSTER_DESC_PATH" in os.environ or not _hardware_nodes()
        _cluster = _board(ttnn) if mocked else "hardware"
    _devices.append(Device(handle, _board(ttnn), emulated=_cluster != "hardware", owned=False))
    return _devices[-1]


def _board(ttnn: ModuleType) -> str:
    """The board's name as TTNN's cluster reports it: "n150"."""
    return ttnn.cluster.get_cluster_type().name.lower()


def _import_ttnn() -> ModuleType:
    """Import TTNN, without the dump of its configuration that it logs at debug level."""
    # TTNN logs through loguru, which prints debug messages unless told otherwise.
    if sys.modules.keys() & {"ttnn", "loguru"}:
        import ttnn  # where loguru is in use already, what it prints is the user's choice

        return ttnn
    from loguru import logger

    logger.disable("ttnn")
    try:
        import ttnn
    finally:
        logger.enable("ttnn")
    return ttnn


def _check_installed() -> None:
    with contextlib.suppress(PackageNotFoundError):
        if find_spec("ttnn") is not None and version("ttnn"):
            return
    why = "install it with `pip install 'ttnn==0.81.*'`"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python not in ("3.10", "3.12"):
        why = f"it has wheels for CPython 3.10 and 3.12 only and this is Python {python}: use one of those"
    raise DeviceError(f"the package ttnn is not installed; {why}.")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


@atexit.register
def _close_at_exit() -> None:
    for device in list(_devices):
        device.close()
