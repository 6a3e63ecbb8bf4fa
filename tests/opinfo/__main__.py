"""PyTorch's operator database through backend="ttnn": `python tests/opinfo --help`.

    python tests/opinfo                                  every operator, five dtypes (make opinfo)
    python tests/opinfo --operators add,cumsum --dtypes float32,int64 --show
    python tests/opinfo --match 'nn.functional.*norm' --show --here

Each sample is compiled without Dynamo and compared with eager torch (judge.py); cases run in worker processes, so that
crashes and hangs are counted. Exit code 1 where a sample failed that expected_failures.py does not name, or one passed
that it names.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import sys
from pathlib import Path
from typing import Any

from verdict import line, summary, verdict
from workers import run_all, serve


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.serve:
        serve()
        return 0
    from samples import CAP, all_cases

    cap = arguments.cap or CAP
    cases = [(case.operator, case.dtype) for case in all_cases() if _chosen(case.operator, case.dtype, arguments)]
    if not cases:
        print("no operator of the database matches", file=sys.stderr)
        return 2
    capped = [(*case, cap) for case in cases]
    outcomes = list(_here(cases, cap) if arguments.here else run_all(capped, arguments.processes, _Progress()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(outcomes, indent=0))
    if arguments.show:
        for outcome in outcomes:
            print(line(outcome))
    unexpected = verdict(outcomes)
    print(summary(outcomes, cap))
    print("\n".join(unexpected) if unexpected else "every sample is right, or fails as expected_failures.py says")
    return 1 if unexpected else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tests/opinfo", description=__doc__.splitlines()[0])
    parser.add_argument("--operators", help="names, separated by commas")
    parser.add_argument("--match", help="a pattern of names, as of files")
    parser.add_argument("--dtypes", help="float32, bfloat16, int64, int32, bool, separated by commas")
    parser.add_argument("--cap", type=int, help="samples of each operator and dtype at most")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="run in this process, where a debugger sees it")
    parser.add_argument("--show", action="store_true", help="print every sample")
    parser.add_argument("--json", help="a file for all outcomes")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser


def _chosen(operator: str, dtype: str, arguments: argparse.Namespace) -> bool:
    if arguments.operators and operator not in arguments.operators.split(","):
        return False
    if arguments.match and not fnmatch.fnmatch(operator, arguments.match):
        return False
    return not arguments.dtypes or dtype in arguments.dtypes.split(",")


def _here(cases: list[tuple[str, str]], cap: int) -> Any:
    from running import run_sample
    from samples import operators, samples

    infos = operators()
    for operator, dtype in cases:
        for number, sample in samples(infos[operator], dtype, cap):
            yield dataclasses.asdict(run_sample(operator, dtype, number, sample))


class _Progress:
    """Says every few seconds how far it is."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, done: int, total: int, seconds: float) -> None:
        if seconds - self._last > 5 or done == total:
            self._last = seconds
            left = seconds / done * (total - done)
            print(f"{done} of {total} cases, {seconds:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
