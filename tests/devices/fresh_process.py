"""Run code in a process that has opened no device yet."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class FreshProcess:
    """Runs code in a new process with its own home, cache and working directory, all under `folder`.

    seconds: after which a process counts as hung.
    """

    def __init__(self, folder: Path, seconds: float = 120):
        self.seconds = seconds
        self.home, self.cache, self.working = folder / "home", folder / "cache", folder / "working"
        self.home.mkdir()
        self.working.mkdir()

    def start(self, code: str, **environment: str) -> "subprocess.Popen[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "TTNN_", "XDG_"))}
        kept |= {"HOME": str(self.home), "TT_DYNAMO_CACHE": str(self.cache), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", dedent(code)], cwd=self.working, env=kept | environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        """What the code printed as JSON on its last line, plus everything it wrote as "output"."""
        out, err = process.communicate(timeout=self.seconds)
        assert process.returncode == 0, f"exit code {process.returncode}\n{out}\n{err}"
        lines = out.splitlines()
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return found | {"output": "\n".join(lines[:-1]) + err}

    def run(self, code: str, **environment: str) -> dict[str, Any]:
        return self.finish(self.start(code, **environment))

    def files(self, folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
