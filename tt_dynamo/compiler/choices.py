"""Which of several TTNN calls TTNN accepted, kept on disk: a second process asks only what no first one asked.

One file for each board, TTNN version, and text of our lowerings and estimate. A line is JSON: the question (operation,
arguments, what the device has free, a digest of the candidates), the candidate, and how many were refused before. Lines
are appended whole, so processes may write at once.

An answer says which candidate is asked first, no more. TTNN still judges the call, and one that it refuses has all
candidates asked: a wrong line costs time, never a value.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from tt_dynamo.devices import Device
from tt_dynamo.devices.mock.toolchain import cache_root

log = logging.getLogger(__name__)


def choices_path(device: Device) -> Path:
    """The file of a device's choices, in the folder that holds all we keep between processes."""
    kind = "emulated" if device.emulated else "hardware"
    return cache_root() / "choices" / f"{device.board}-{kind}-ttnn-{version('ttnn')}-{_lowerings()}.jsonl"


@functools.cache
def _lowerings() -> str:
    """A digest of the lowerings and of the estimate, so that what a changed one chooses is asked anew."""
    found = [file for name in ("lowering", "estimate") for file in files(f"tt_dynamo.{name}").iterdir()]
    texts = sorted(file.read_bytes() for file in found if file.name.endswith((".py", ".json")))
    return hashlib.sha256(b"".join(texts)).hexdigest()[:12]


class Choices(dict[Any, tuple[str, int]]):
    """The candidate that TTNN accepted and how many it refused before, by question. Questions in text are kept on disk.

    A file that cannot be read or written is warned of once; the choices are those of this process then.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path: Path | None = path
        try:
            text = path.read_text(errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            return self._give_up("read", error)
        lines = [line for line in text.splitlines() if line]
        read = [_parsed(line) for line in lines]
        self.update(found for found in read if found is not None)
        if None in read:
            log.warning("%s: %d of %d lines are damaged and left out", path, read.count(None), len(read))
            self._rewrite(path)

    def __setitem__(self, question: Any, choice: tuple[str, int]) -> None:
        known = self.get(question) == choice
        super().__setitem__(question, choice)
        if self._path is None or known or not isinstance(question, str):
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                line = _line(question, choice)
                if os.write(file, line) < len(line):
                    raise OSError("the disk is full")
            finally:
                os.close(file)
        except OSError as error:
            self._give_up("written", error)

    def _rewrite(self, path: Path) -> None:
        """Put a sound file in the place of one that is not."""
        with contextlib.suppress(OSError):
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as new:
                new.writelines(_line(*item) for item in self.items() if isinstance(item[0], str))
            os.replace(new.name, path)

    def _give_up(self, what: str, error: OSError) -> None:
        log.warning("%s cannot be %s (%s): what is chosen is not kept for the next process", self._path, what, error)
        self._path = None


def _line(question: str, choice: tuple[str, int]) -> bytes:
    return json.dumps([question, *choice]).encode() + b"\n"


def _parsed(line: str) -> tuple[str, tuple[str, int]] | None:
    """The question and the choice of a line, None where it is damaged."""
    try:
        question, candidate, refused = json.loads(line)
    except (ValueError, TypeError):
        return None
    sound = isinstance(question, str) and isinstance(candidate, str) and isinstance(refused, int)
    return (question, (candidate, refused)) if sound else None
