"""`python -m tt_dynamo sensitivity MODEL [--pcc 0.99] [--output FILE]`: which weights may be narrower."""

import argparse
import importlib
import sys
from pathlib import Path

from tt_dynamo.options import presets
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
    one.add_argument("--preset", default="accuracy", choices=presets())
    given = parser.parse_args()
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


def _show(step: str) -> None:
    print(f"\r\033[K{step}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
