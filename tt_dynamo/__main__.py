"""`python -m tt_dynamo sensitivity MODEL [--pcc 0.99] [--output FILE]`: which weights may be narrower.

`python -m tt_dynamo tune SCRIPT [ARGUMENT ...]`: run a script and time the candidates of what it compiles.
"""

import argparse
import importlib
import logging
import sys
from pathlib import Path

from tt_dynamo.options import DEFAULT_PRESET, presets
from tt_dynamo.report.tunings import tuning_table
from tt_dynamo.tuner.script import run_script
from tt_dynamo.weight_sensitivity import sensitivity


def main() -> None:
    """Print the table, and write the proposed option where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tt_dynamo")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("sensitivity", help="PCC that each weight loses in narrower dtypes")
    one.add_argument("model", metavar="MODULE:FUNCTION", help="what returns a model and its inputs, a tuple or a dict")
    one.add_argument("--pcc", type=float, default=0.99, help="to keep, %(default)s by default")
    one.add_argument("--output", metavar="FILE", type=Path, help="JSON of the proposed option weight_dtype")
    one.add_argument("--device", default="auto")
    one.add_argument("--preset", default=DEFAULT_PRESET, choices=presets())
    other = commands.add_parser("tune", help="run a script, and time the candidates of the calls that it compiles")
    other.add_argument("script", metavar="SCRIPT", type=Path)
    other.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.command == "tune":
        return _tune(parser, given.script, given.arguments)
    module, _, function = given.model.partition(":")
    if not function:
        parser.error(f"{given.model!r} is not MODULE:FUNCTION")
    sys.path.insert(0, "")  # as `python -m` finds modules
    model, inputs = getattr(importlib.import_module(module), function)()
    found = sensitivity(model, inputs, given.pcc, _show, device=given.device, preset=given.preset)
    print("\r\033[K", end="", file=sys.stderr)
    print(found)
    if given.output:
        given.output.write_text(found.to_json() + "\n")
        print(f'{given.output} has the option: options={{"weight_dtype": json.load(open({str(given.output)!r}))}}')


def _tune(parser: argparse.ArgumentParser, script: Path, arguments: list[str]) -> None:
    """Run the script, print what was found, and end as the script ended."""
    if not script.is_file():
        parser.error(f"there is no script {str(script)!r}")
    steps, log = _Steps(), logging.getLogger("tt_dynamo.tuner")
    log.addHandler(steps)
    log.setLevel(logging.INFO)
    try:
        reports, ended = run_script(script, arguments)
    finally:
        log.removeHandler(steps)
    print("\r\033[K", end="", file=sys.stderr)
    print(tuning_table([tuned for report in reports for tuned in report.tuned]))
    print("\n".join(dict.fromkeys(note for report in reports for note in report.notes if note.startswith("tune:"))))
    if ended is not None:
        raise ended


class _Steps(logging.Handler):
    """Shows what the tuner says, the last of it."""

    def emit(self, record: logging.LogRecord) -> None:
        _show(record.getMessage())


def _show(step: str) -> None:
    print(f"\r\033[K{step}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
