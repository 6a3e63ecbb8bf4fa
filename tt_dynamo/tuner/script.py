"""Run a user's script with the option `tune` forced on: `python -m tt_dynamo tune script.py`."""

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from tt_dynamo.report.report import GraphReport, record

FORCED = "TT_DYNAMO_TUNE"  # in the environment, which the option reads, so that the script's own processes tune as well


def run_script(script: Path, arguments: Sequence[str]) -> tuple[list[GraphReport], SystemExit | None]:
    """The reports of the graphs that a script compiles, and how it ended if it called `sys.exit`."""
    argv, path, forced = sys.argv, list(sys.path), os.environ.get(FORCED)
    sys.argv, sys.path[0] = [str(script), *arguments], str(script.resolve().parent)  # as Python runs a script
    os.environ[FORCED] = "1"
    ended = None
    try:
        with record() as reports:
            try:
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as error:
                ended = error
    finally:
        sys.argv, sys.path[:] = argv, path
        os.environ.pop(FORCED)
        if forced is not None:
            os.environ[FORCED] = forced
    return reports, ended
