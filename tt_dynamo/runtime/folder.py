"""Folders that several processes fill: the least recently used files go where there are more bytes than allowed."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def mark_used(path: Path) -> None:
    """Have a file count as used now."""
    with contextlib.suppress(OSError):  # another process removed it, or the folder is read-only
        os.utime(path)


def remove_least_recent(files: Iterable[Path], limit: int) -> int:
    """Remove the least recently used of some files until `limit` bytes are left of them; gives how many are left.

    A file that another process removes meanwhile counts as removed; one that cannot be removed stays.
    """
    found = []
    for path in files:
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime_ns, path, status.st_size))
    left = sum(size for _, _, size in found)
    for _, path, size in sorted(found):
        if left <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            left -= size
    return left
