"""Folders that several processes fill: the least recently used files go where there are more bytes than allowed."""

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


@functools.cache
def sources_digest() -> str:
    """A digest of all our code and its data, any of which may say what is kept."""
    specs = [find_spec(f"tt_dynamo{package}") for package in ("", ".lowering", ".passes")]  # which imports neither
    found = [Path(folder) for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    texts = set()
    while found:
        file = found.pop()
        if file.is_dir():
            found += file.iterdir()
        elif file.name.endswith((".py", ".json", ".csv")):
            texts.add(file.read_bytes())
    return hashlib.sha256(b"".join(sorted(texts))).hexdigest()[:12]


def write_whole(path: Path, contents: bytes) -> None:
    """Put a file where others may look for it: it appears whole, by being renamed, or not. Raises OSError."""
    name = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as new:
            name = new.name
            new.write(contents)
        os.replace(name, path)
    except OSError:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        raise


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
