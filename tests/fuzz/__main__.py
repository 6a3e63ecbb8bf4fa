"""Random graphs, compiled and in eager torch: `python tests/fuzz --graphs 2000 --seed 0` (make fuzz).

Runs in batches of other seeds, so that one failure does not end the search; each failure is printed as the smallest
graph that shows it, in the form that test_found.py holds. Every tenth batch goes through torch.compile whole.
"""

from __future__ import annotations

import argparse
import collections
import logging
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "opinfo"), str(HERE.parent)]

from fuzzing import Outcome, run  # noqa: E402
from graphs import Case, cases  # noqa: E402
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings  # noqa: E402

BATCH = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="another search at every run")
    arguments = parser.parse_args()
    logging.getLogger("tt_dynamo").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    current = Path(tempfile.gettempdir()) / f"tt_dynamo_fuzz_{arguments.seed}.py"
    print(f"{arguments.graphs} graphs, seed {arguments.seed}; the one that runs stands in {current}", flush=True)
    counts: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    started = time.monotonic()
    for number in range((arguments.graphs + BATCH - 1) // BATCH):
        count = min(BATCH, arguments.graphs - number * BATCH)
        failure = _batch(arguments.seed + number, count, number % 10 == 9, counts, current)
        if failure:
            failures.append(failure)
            print(failure, flush=True)
        print(f"{number * BATCH + count} graphs, {len(failures)} wrong, {time.monotonic() - started:.0f} s", flush=True)
    nodes = counts["device"] + counts["host"]
    print(
        f"seed {arguments.seed}: {counts['graphs']} graphs run, {len(failures)} batches of {BATCH} with a wrong one, "
        f"{counts['device']} of {nodes} nodes on the device, bfloat16 alone destroys {counts['meaningless']} graphs"
    )
    return 1 if failures else 0


def _batch(number: int, count: int, whole: bool, counts: collections.Counter[str], current: Path) -> str:
    """Run `count` graphs; the smallest that is wrong and what is wrong with it, or ""."""
    last: list[tuple[Case, Outcome]] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def search(case: Case) -> None:
        current.write_text(str(case))
        outcome = run(case, whole)
        counts.update(graphs=1, device=outcome.device_nodes, host=outcome.host_nodes, meaningless=outcome.meaningless)
        if outcome.complaint:
            last.append((case, outcome))
            raise AssertionError(outcome.complaint)

    try:
        search()
    except AssertionError:
        case, outcome = last[-1]
        return f"# {outcome.complaint}\n{case}\n{case.source}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
