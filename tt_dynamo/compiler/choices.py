"""Which of several TTNN calls TTNN accepted, kept on disk: a second process asks only what no first one asked.

One file for each board, TTNN version, and text of our own code. A line is JSON: the question (operation,
arguments, what the device has free, a digest of the candidates), the candidate, and how many were refused before. Lines
are appended whole, so processes may write at once.

What was chosen longest ago is left out of a file of more than `LIMIT` bytes, and the least recently used files go where
the folder has more than `FOLDER_LIMIT`: those of other versions, for the most part.

An answer says which candidate is asked first, no more. TTNN still judges the call, and one that it refuses has all
candidates asked; where it refused all for another reason than room, the first is asked. A wrong line costs time, never
a value.
"""

import contextlib
import json
import logging
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from tt_dynamo.devices import Device
from tt_dynamo.devices.mock.toolchain import cache_root
from tt_dynamo.runtime.folder import mark_used, remove_least_recent, sources_digest, write_whole
from tt_dynamo.tuner.tuner import Tuning

log = logging.getLogger(__name__)

A = TypeVar("A")


def choices_path(device: Device) -> Path:
    """The file of a device's choices, in the folder that holds all we keep between processes."""
    return _path(device, "")


def tunings_path(device: Device) -> Path:
    """The file of what the tuner found, beside that of the choices."""
    return _path(device, "-tuned")


def _path(device: Device, what: str) -> Path:
    kind = "emulated" if device.emulated else "hardware"
    return cache_root() / "choices" / f"{device.board}-{kind}-ttnn-{version('ttnn')}-{sources_digest()}{what}.jsonl"


LIMIT = 1 << 24  # bytes of a file; a question with its answer takes about 500
FOLDER_LIMIT = 1 << 26


class Kept(dict[Any, A]):
    """Answers by question. Those to questions in text are kept on disk.

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
        mark_used(path)
        remove_least_recent(path.parent.glob("*.jsonl"), FOLDER_LIMIT)
        is_long = len(text) > LIMIT
        lines = [line for line in text[-LIMIT // 2 if is_long else 0 :].splitlines()[is_long:] if line]
        read = [self._parsed(line) for line in lines]
        self.update(found for found in read if found is not None)
        if None in read:
            log.warning("%s: %d of %d lines are damaged and left out", path, read.count(None), len(read))
        if None in read or is_long:
            self._rewrite(path)

    def to_json(self, answer: A) -> list[Any]:
        """What of an answer stands in its line, behind the question."""
        raise NotImplementedError

    def from_json(self, *found: Any) -> A:
        """The answer of a line. Raises ValueError, TypeError or KeyError where that is no answer."""
        raise NotImplementedError

    def __setitem__(self, question: Any, answer: A) -> None:
        known = self.get(question) == answer
        super().__setitem__(question, answer)
        if self._path is None or known or not isinstance(question, str):
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                line = self._line(question, answer)
                if os.write(file, line) < len(line):
                    raise OSError("the disk is full")
            finally:
                os.close(file)
        except OSError as error:
            self._give_up("written", error)

    def _rewrite(self, path: Path) -> None:
        """Put a sound file in the place of one that is not."""
        with contextlib.suppress(OSError):
            write_whole(path, b"".join(self._line(*item) for item in self.items() if isinstance(item[0], str)))

    def _give_up(self, what: str, error: OSError) -> None:
        log.warning("%s cannot be %s (%s): what is chosen is not kept for the next process", self._path, what, error)
        self._path = None

    def _line(self, question: str, answer: A) -> bytes:
        return json.dumps([question, *self.to_json(answer)]).encode() + b"\n"

    def _parsed(self, line: str) -> tuple[str, A] | None:
        """The question and the answer of a line, None where it is damaged."""
        try:
            question, *found = json.loads(line)
            return (question, self.from_json(*found)) if isinstance(question, str) else None
        except (ValueError, TypeError, KeyError):
            return None


class Choices(Kept[tuple[str, int]]):
    """The candidate that TTNN accepted and how many it refused before, by question."""

    def to_json(self, answer: tuple[str, int]) -> list[Any]:
        return list(answer)

    def from_json(self, *found: Any) -> tuple[str, int]:
        candidate, refused = found
        if not isinstance(candidate, str) or not isinstance(refused, int):
            raise ValueError("no choice")
        return candidate, refused


class Tunings(Kept[Tuning]):
    """What the tuner found, by question. A winner is asked first, as what was chosen is."""

    def to_json(self, answer: Tuning) -> list[Any]:
        return [asdict(answer)]

    def from_json(self, *found: Any) -> Tuning:
        (fields,) = found
        tuning = Tuning(**fields)
        texts = tuning.operation, tuning.winner, tuning.usual, *tuning.seconds
        numbers = *tuning.seconds.values(), tuning.pcc or 0.0
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, (int, float)) for n in numbers):
            raise ValueError("no tuning")
        if tuning.measured not in (True, False) or not {tuning.winner, tuning.usual} <= tuning.seconds.keys():
            raise ValueError("no tuning")
        return tuning
