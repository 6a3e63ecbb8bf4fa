"""Meshes of several chips: which shape is opened, the fabric between the chips, and in which order meshes are closed.

A fabric is what the kernels of collectives send through. TTNN wants it chosen before a mesh is opened, and disables it
when that is closed. So we choose one where there is none, and put back what there was when our mesh is closed.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

from .clusters import Shape, cluster_of
from .errors import DeviceError

# Chips in a line along each axis of a mesh: what every cluster has the links for.
FABRIC = "FABRIC_1D"


def shape_of(handle: Any) -> Shape:
    """Rows and columns of an open mesh."""
    sizes = tuple(handle.shape)
    return (1, 1, *sizes)[-2:] if len(sizes) <= 2 else (1, math.prod(sizes))


def default_shape(ttnn: Any) -> Shape:
    """The mesh of all chips that there are: that of the cluster's type, else as TTNN describes the system."""
    kind, chips = ttnn.cluster.get_cluster_type().name, ttnn.get_num_devices()
    if (cluster := cluster_of(kind, chips)) is not None:
        return cluster.shape
    shape = tuple(ttnn._ttnn.multi_device.SystemMeshDescriptor().shape())
    return shape if len(shape) == 2 and math.prod(shape) == chips else (1, chips)


def check_shape(ttnn: Any, name: str, shape: Shape) -> None:
    """Raise DeviceError where a mesh has more chips than there are."""
    there = ttnn.get_num_devices()
    if math.prod(shape) > there:
        rows, columns = default_shape(ttnn)
        raise DeviceError(
            f"{name!r} has {there} chip{'s' if there > 1 else ''}, a mesh of {shape[0]}x{shape[1]} wants "
            f"{math.prod(shape)}; '{name}:{rows}x{columns}' takes all that there are"
        )


def check_one_host(ttnn: Any) -> None:
    """Raise DeviceError where this process is one of several hosts'.

    `tt-run` starts one process a host, by MPI, and each of them runs the same calls on its part of the mesh.
    """
    world = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
    if ttnn.distributed_context_is_initialized():
        world = max(world, int(ttnn.distributed_context_world_size()))
    if world > 1:
        raise DeviceError(
            f"this process is one of {world} (tt-run, mpirun): meshes over several hosts are not supported. Start one "
            "process without them, on the chips of its host."
        )


def restore_fabric(ttnn: Any, before: Any) -> None:
    if before is not None and ttnn.get_fabric_config() != before:
        ttnn.set_fabric_config(before)


@contextlib.contextmanager
def fabric_for(ttnn: Any, shape: Shape) -> Iterator[Any]:
    """Choose the fabric while a mesh is opened: what to give `restore_fabric` when it is closed, None for nothing.

    It is put back where opening raises.
    """
    if math.prod(shape) == 1:
        yield None
        return
    before = ttnn.get_fabric_config()
    if before == ttnn.FabricConfig.DISABLED:
        ttnn.set_fabric_config(getattr(ttnn.FabricConfig, FABRIC))
    try:
        yield before
    except BaseException:
        restore_fabric(ttnn, before)
        raise


def check_fabric(ttnn: Any, handle: Any) -> None:
    """Raise DeviceError for a mesh of the user's whose chips can't send to each other."""
    if handle.get_num_devices() > 1 and ttnn.get_fabric_config() == ttnn.FabricConfig.DISABLED:
        raise DeviceError(
            "the mesh given was opened without a fabric, so that its chips can't send to each other: call "
            f"ttnn.set_fabric_config(ttnn.FabricConfig.{FABRIC}) before ttnn.open_mesh_device(...)"
        )


def close_mesh(ttnn: Any, handle: Any) -> None:
    """Close a mesh, and what was made of parts of it first: TTNN aborts at exit where those stay open."""
    for part in handle.get_submeshes():
        close_mesh(ttnn, part)
    close = ttnn.close_device if handle.get_num_devices() == 1 else ttnn.close_mesh_device
    close(handle)
