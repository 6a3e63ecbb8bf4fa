"""Descriptions of programs in a folder, one file each, which any number of processes may share.

    FOLDER/<key>.program      a digest of the key and of what follows, and what follows: what `torch.save` wrote

A file appears whole, by being renamed; one that was cut, damaged, or put there under another name is ignored, and
written anew. The least recently used files go where all have more than `LIMIT` bytes.
"""

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tt_dynamo.devices.mock.toolchain import cache_root
from tt_dynamo.ir.torch_internals import outside_tracing
from tt_dynamo.runtime.folder import mark_used, remove_least_recent, write_whole

LIMIT = 1 << 29  # bytes of the folder; the program of a model takes some hundred kilobytes
SUFFIX = ".program"


class CacheInfo(NamedTuple):
    """What the cache of compiled programs holds: its folder, the programs there, their bytes, and how many may be."""

    folder: Path
    programs: int
    bytes: int
    limit: int


class Damaged(Exception):
    """A file is not what was written under its name."""


def folder() -> Path:
    return cache_root() / "programs"


def cache_info() -> CacheInfo:
    """What the cache of compiled programs holds; of a folder that is not there, nothing."""
    sizes = []
    for path in folder().glob(f"*{SUFFIX}"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # another process removed it
            continue
    return CacheInfo(folder(), len(sizes), sum(sizes), LIMIT)


def path_of(key: str) -> Path:
    return folder() / f"{key}{SUFFIX}"


def read(key: str) -> dict[str, Any] | None:
    """What was written under a key, None if nothing was. Raises Damaged, OSError."""
    path = path_of(key)
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        return None
    description = unpack(key, contents, str(path))
    mark_used(path)
    return description


def write(key: str, description: dict[str, Any]) -> None:
    """Put a description under a key. Raises OSError, and what `torch.load` raises for what it would not read."""
    contents = pack(key, description)
    folder().mkdir(parents=True, exist_ok=True)
    write_whole(path_of(key), contents)
    remove_least_recent(folder().glob(f"*{SUFFIX}"), LIMIT)


def pack(key: str, description: dict[str, Any]) -> bytes:
    """A description as the bytes of its file. Raises what `torch.load` raises for what it would not read."""
    stored = io.BytesIO()
    torch.save(description, stored)
    _loaded(stored.getvalue())
    return _digest(key, stored.getvalue()) + b"\n" + stored.getvalue()


def unpack(key: str, contents: bytes, name: str) -> dict[str, Any]:
    """The description that `pack` made bytes of. name: what to call those. Raises Damaged."""
    digest, _, stored = contents.partition(b"\n")
    if digest != _digest(key, stored):
        raise Damaged(f"{name} is damaged or not of this cache")
    return _loaded(stored)


def _loaded(stored: bytes) -> dict[str, Any]:
    with outside_tracing():
        found: dict[str, Any] = torch.load(io.BytesIO(stored), weights_only=True)
    return found


def _digest(key: str, stored: bytes) -> bytes:
    return hashlib.sha256(key.encode() + stored).hexdigest().encode()
