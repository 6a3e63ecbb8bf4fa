"""Weights in files: what was converted for a board once goes up as it is the next time.

    DIR/<key>/<digest>.tensorbin

The file is TTNN's own, of the tensor as it lies on the device. The key is a digest of the contents that go up, of the
spec they go up at, and of the board and the versions that convert them; so nothing is ever found for other contents.
The digest is that of the key and the file: a file that was damaged, or put there by somebody, is not read. Files appear
whole, by being renamed, and equal contents make equal files, so any number of processes may share a folder. Where the
files of a folder have more bytes than allowed, the least recently used go: reading a file is using it.
"""

import hashlib
import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tt_dynamo.ir.errors import TTNN_ERRORS
from tt_dynamo.ir.spec import BLOCK_FLOATS, Spec
from tt_dynamo.ir.ttnn_internals import ttnn_reason
from tt_dynamo.report.report import GraphReport
from tt_dynamo.runtime.folder import mark_used, remove_least_recent

if TYPE_CHECKING:
    from tt_dynamo.runtime.transfer import Border

log = logging.getLogger(__name__)

SUFFIX = ".tensorbin"  # TTNN takes no other
LEAST = 1 << 16  # elements; fewer are converted faster than a file is read
CHUNK = 1 << 22  # bytes that one thread digests at a time


class WeightCache:
    """The weights of one program in a folder of at most `limit` bytes, beside the file that is being written.

    `report` counts what was read and written, and notes what went wrong.
    """

    def __init__(self, folder: str | os.PathLike[str], report: GraphReport, limit: int) -> None:
        self._folder = Path(folder).expanduser()
        self._report, self._limit = report, limit
        self._writable = True
        self._bytes: int | None = None  # in the folder, once something was written

    def up(self, border: "Border", tensor: torch.Tensor, spec: Spec) -> Any:
        """What `border.up` gives, from a file where there is one; else there is one from now on."""
        if not _is_kept(border, tensor, spec):
            return border.up(tensor, spec)
        key = _key(border, tensor, spec)
        found = self._read(border, key)
        if found is None:
            found = border.up(tensor, spec)
            self._write(border, key, found)
        return found

    def _read(self, border: "Border", key: str) -> Any:
        """The tensor of a key on the device, None where there is no sound file of it."""
        try:
            for path in sorted((self._folder / key).glob(f"*{SUFFIX}")):
                if path.stem == _file_digest(key, path):
                    mark_used(path)
                    tensor = border.namespace.load_tensor(path, device=border.device.handle)
                    self._report.weights_read += 1
                    return tensor
                self._note(f"{path} is damaged or not of this cache; it is ignored and written anew")
        except OSError as error:
            self._note(f"{self._folder} cannot be read ({error}); weights are converted as without a cache")
        except TTNN_ERRORS as error:
            self._note(f"TTNN does not load {path} ({ttnn_reason(error)}); it is ignored and written anew")
        return None

    def _write(self, border: "Border", key: str, tensor: Any) -> None:
        """Put a tensor of the device into a file, alone under its key; after a failure none is tried any more."""
        if not self._writable:
            return
        try:
            folder = self._folder / key
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".new-", ignore_cleanup_errors=True) as new:
                written = Path(new) / f"weight{SUFFIX}"
                border.namespace.dump_tensor(written, tensor)
                path = folder / f"{_file_digest(key, written)}{SUFFIX}"
                written.replace(path)
            for other in folder.glob(f"*{SUFFIX}"):
                if other != path:
                    other.unlink(missing_ok=True)
            self._report.weights_written += 1
            self._keep_the_limit(path)
        except (OSError, *TTNN_ERRORS) as error:
            self._writable = False
            reason = error if isinstance(error, OSError) else ttnn_reason(error)
            self._note(f"{self._folder} cannot be written ({reason}); this graph's weights are not kept")

    def _keep_the_limit(self, written: Path) -> None:
        if self._bytes is not None:
            self._bytes += written.stat().st_size
        if self._bytes is None or self._bytes > self._limit:
            self._bytes = remove_least_recent(self._folder.glob(f"*/*{SUFFIX}"), self._limit)

    def _note(self, text: str) -> None:
        note = f"weight cache: {text}"
        if note not in self._report.notes:
            self._report.notes.append(note)
            log.warning("%s: %s", self._report.name, note)


def _is_kept(border: "Border", tensor: torch.Tensor, spec: Spec) -> bool:
    """Whether a file is read faster than the weight is converted, and holds what lies on the device.

    Tiles of bfloat16 are made faster than a digest of what they are made of; TTNN's mock drops what it prepares.
    """
    device = border.device
    pays = not device.emulated if spec.prepare else spec.dtype in BLOCK_FLOATS
    return pays and tensor.numel() >= LEAST and tensor.device.type == "cpu" and device.handle.get_num_devices() == 1


def _key(border: "Border", tensor: torch.Tensor, spec: Spec) -> str:
    """What tells a weight from all others, also from those that other versions or boards make of its contents."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    stored = tensor.detach().permute(order).contiguous()  # as it lies in memory already, but for gaps
    contents = _digest(stored.reshape(-1).view(torch.uint8).numpy())
    grid = border.device.handle.compute_with_storage_grid_size()
    versions = [f"{name} {version(name)}" for name in ("ttnn", "tt-dynamo")]
    what = tuple(tensor.shape), order, tensor.dtype, contents, spec
    return _hash(repr((what, versions, border.device.description, grid.x, grid.y)).encode())[:32]


def _file_digest(key: str, path: Path) -> str:
    return _hash(key.encode() + _digest(np.fromfile(path, np.uint8)).encode())[:32]


def _digest(data: np.ndarray) -> str:
    """A digest of bytes, made by as many threads as pay: hashing takes most of the time of a warm start."""
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    with ThreadPoolExecutor() as pool:
        return _hash("".join(pool.map(_hash, chunks)).encode())


def _hash(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()
