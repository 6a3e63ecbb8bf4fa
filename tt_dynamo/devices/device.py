"""Open a device by choice: hardware, an emulated board, or one that the user already opened.

TTNN keeps one cluster per process: the first device opened decides whether that is real or mocked and, if mocked,
which cluster of chips. So a process has at most one emulated cluster, and everything that asks for it shares it. The
environment variables that select the mock are set while TTNN opens its first device and put back right after; a process
that opens hardware keeps its environment as it is.

One device is one mesh of TTNN, of one chip or several; `meshes.py` has what only several need.
"""

import atexit
import difflib
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from .boards import ARCHITECTURES, DEFAULT_BOARD, Architecture
from .clusters import CHOICES, CLUSTERS, Shape, board_of, cluster_of, parse_choice
from .errors import DeviceError
from .installed import check_installed, environment_of, import_ttnn
from .meshes import (
    check_fabric,
    check_one_host,
    check_shape,
    close_mesh,
    default_shape,
    fabric_for,
    restore_fabric,
    shape_of,
)
from .mock.toolchain import cache_root, mock_environment
from .queues import HardwareQueues
from .traces import HardwareTrace

log = logging.getLogger(__name__)
R = TypeVar("R")

# Convolutions and pools keep their halo tables in this region, which TTNN leaves empty unless asked; bytes per core.
L1_SMALL_SIZE = 32768
HARDWARE_NODES = Path("/dev/tenstorrent")

_lock = threading.RLock()
_cluster: str | None = None  # what this process's one TTNN cluster is: its name in CLUSTERS, or "hardware"
_devices: "list[Device]" = []  # what is open in it: at most one that we opened, and those that the user handed to us


class Device:
    """An open TTNN device and the TTNN namespace that programs for it call.

    Get one from `open_device`. board: what each of its chips is ("n150"). cluster: all that there is, of which it may
    be a part ("t3k"). shape: rows and columns of the mesh, (1, 1) for one chip. emulated: whether it is TTNN's mock.
    """

    def __init__(
        self, handle: Any, board: str, *, emulated: bool, owned: bool, cluster: str = "", shape: Shape = (1, 1)
    ):
        self._handle = handle
        self._owned = owned  # whether close() closes the TTNN device
        self._fabric: Any = None  # what to restore when it is closed
        self.board, self.cluster, self.shape = board, cluster or board, shape
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
    def chips(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def links(self) -> int:
        """Links between neighbouring chips, 1 where that is not known."""
        return CLUSTERS[self.cluster].links_between if self.cluster in CLUSTERS else 1

    @property
    def choice(self) -> str:
        """What `open_device` takes for one like it: "t3k:2x4"."""
        name = self.cluster if self.emulated else "hardware"
        return name if self._is_all_of_one_chip else f"{name}:{self.shape[0]}x{self.shape[1]}"

    @property
    def _is_all_of_one_chip(self) -> bool:
        """Whether the cluster has only this one chip."""
        return self.chips == 1 and (self.cluster not in CLUSTERS or CLUSTERS[self.cluster].chips == 1)

    @property
    def description(self) -> str:
        """For people: "n150 (emulated)", "t3k 1x8 (emulated)"."""
        mesh = self.cluster if self._is_all_of_one_chip else f"{self.cluster} {self.shape[0]}x{self.shape[1]}"
        return f"{mesh} (emulated)" if self.emulated else mesh

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

                close_mesh(ttnn, handle)
                restore_fabric(ttnn, self._fabric)
                if self.emulated:
                    from .emulation.tensor import device_closed

                    device_closed()

    def __repr__(self) -> str:
        return f"<Device {self.description}{', closed' if self.closed else ''}>"


def open_device(choice: Any = "auto", queues: int = 1) -> Device:
    """Open the device that `choice` names, or return the one that is already open for it.

    choice: "auto" (hardware where there is some, else an emulated N150), "hardware", a cluster's name to emulate it
    ("n150", "p150", "n300-1" for one chip of an N300; "n300", "t3k", "p300", "p150x2", "p150x4", "p150x8", "galaxy" for
    meshes of all their chips), either of them with a mesh of another shape ("t3k:2x4", "hardware:1x1"), an open ttnn
    device or mesh, which the caller owns and closes, or a Device.
    queues: how many command queues to open it with, 1 or 2; what is open already keeps those that it has.

    Raises DeviceError: no such choice or shape, TTNN not installed or not for this Python, no hardware found, several
    hosts, another cluster or another mesh already open in this process.
    """
    if isinstance(choice, Device):
        choice.handle  # noqa: B018  raises when closed
        return choice
    name, shape = parse_choice(choice) if isinstance(choice, str) else ("", None)
    if isinstance(choice, str) and name not in CHOICES:
        near = difflib.get_close_matches(name.lower(), CHOICES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DeviceError(f"unknown device {name!r}{hint} Known: {', '.join(CHOICES)}, or an open ttnn device.")
    check_installed()
    with _lock:
        if not isinstance(choice, str):
            return _adopt(choice)
        if name != "auto" and _cluster not in (None, name):
            raise _taken(name, _cluster)
        if name in CLUSTERS:
            shape = shape or CLUSTERS[name].shape
        # A second device on the same chip would take the first down with it when closed.
        for device in list(_devices):
            if not _is_open(device.handle):
                device.close()
        if _devices:
            return _opened_already(name, shape)
        if name == "auto":
            name = _cluster or ("hardware" if _hardware_nodes() else DEFAULT_BOARD)
        return _open(name, shape, queues)


def _opened_already(name: str, shape: Shape | None) -> Device:
    """The open device of a shape; with None, whichever was opened first."""
    for device in _devices:
        if shape in (None, device.shape):
            return device
    assert shape is not None
    rows, columns = _devices[0].shape
    raise DeviceError(
        f"cannot open '{name}:{shape[0]}x{shape[1]}': its chips are open as a mesh of {rows}x{columns}. Use "
        f"{_devices[0].choice!r} here, or close that one first: open_device({_devices[0].choice!r}).close()"
        if _devices[0]._owned
        else f"cannot open '{name}:{shape[0]}x{shape[1]}': you opened a mesh of {rows}x{columns} of its chips. Give "
        "that one, or close it first."
    )


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


def _open(target: str, shape: Shape | None, queues: int) -> Device:
    global _cluster
    cluster = CLUSTERS.get(target)
    if cluster is None and not _hardware_nodes():
        raise DeviceError(
            f"no Tenstorrent hardware: nothing at {HARDWARE_NODES}/*. Install the tt-kmd driver and check that the "
            f"board is visible (tt-smi), or emulate one: {', '.join(map(repr, CLUSTERS))}."
        )
    try:
        environment = mock_environment(cluster) if cluster is not None else {}
    except OSError as error:
        raise DeviceError(
            f"cannot prepare the emulated device in {cache_root()}: {error}. Set TT_DYNAMO_CACHE to a folder that can "
            "be written to."
        ) from error
    with environment_of(environment):
        ttnn = import_ttnn()
        check_one_host(ttnn)
        # The user may have opened a device of another cluster before us: TTNN keeps to that one.
        if cluster is not None and _cluster_name(ttnn) != target:
            raise _taken(target, _cluster_name(ttnn))
        options: dict[str, Any] = {"l1_small_size": L1_SMALL_SIZE, "num_command_queues": queues}
        if cluster is not None and cluster.dispatch:
            options["dispatch_core_config"] = ttnn.DispatchCoreConfig(getattr(ttnn.DispatchCoreType, cluster.dispatch))
        try:
            shape = shape or default_shape(ttnn)
            check_shape(ttnn, target, shape)
            with fabric_for(ttnn, shape) as fabric:
                handle = (
                    ttnn.open_device(device_id=0, **options)
                    if shape == (1, 1)
                    else ttnn.open_mesh_device(ttnn.MeshShape(*shape), **options)
                )
        except RuntimeError as error:
            if isinstance(error, DeviceError):
                raise
            reason = " ".join(str(error).split("backtrace:")[0].split())
            raise DeviceError(f"TTNN could not open {target!r}: {reason}") from error
    _cluster = target
    device = _device(ttnn, handle, emulated=cluster is not None, owned=True)
    device._fabric = fabric
    _devices.append(device)
    log.info("opened %s; accelerators at %s: %d", device.description, HARDWARE_NODES, len(_hardware_nodes()))
    return device


def _adopt(handle: Any) -> Device:
    """A Device for a ttnn device that the user opened."""
    global _cluster
    ttnn = import_ttnn()
    if not isinstance(handle, ttnn.MeshDevice):
        raise DeviceError(f"a device is one of {', '.join(CHOICES)} or an open ttnn device, not {handle!r}")
    if not _is_open(handle):
        raise DeviceError("the ttnn device given was closed; open it again and give the new one")
    for device in _devices:
        if device.handle is handle:
            return device
    check_one_host(ttnn)
    check_fabric(ttnn, handle)
    if _cluster is None:
        # Without a device node TTNN's driver can only be mocked.
        mocked = "TT_METAL_MOCK_CLUSTER_DESC_PATH" in os.environ or not _hardware_nodes()
        _cluster = _cluster_name(ttnn) if mocked else "hardware"
    _devices.append(_device(ttnn, handle, emulated=_cluster != "hardware", owned=False))
    return _devices[-1]


def _device(ttnn: ModuleType, handle: Any, *, emulated: bool, owned: bool) -> Device:
    board, name = board_of(ttnn.cluster.get_cluster_type().name), _cluster_name(ttnn)
    return Device(handle, board, emulated=emulated, owned=owned, cluster=name, shape=shape_of(handle))


def _cluster_name(ttnn: ModuleType) -> str:
    """The name of TTNN's cluster, as we know it or else as TTNN does: "n150"."""
    kind = ttnn.cluster.get_cluster_type().name
    cluster = cluster_of(kind, ttnn.get_num_devices())
    return cluster.name if cluster is not None else kind.lower()


@atexit.register
def _close_at_exit() -> None:
    for device in list(_devices):
        device.close()
