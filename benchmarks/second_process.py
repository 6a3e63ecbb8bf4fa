"""How much sooner a model runs in the second process that compiles it: the first one leaves its programs on disk.

    python benchmarks/second_process.py                     # ResNet-50 on an emulated N150
    python benchmarks/second_process.py vit-base --layers 2 --device p150

Each process opens the device, builds the model, and times its first call; on an emulated board in a dry run, which
computes no values. A third one compiles it for a backend that does nothing, which is what torch.compile itself takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from cases import CASES, SEED, check_names
from overhead import nothing
from tables import print_table

import tt_dynamo
from tt_dynamo.devices import open_device


def first_call(name: str, board: str, layers: int | None, torch_alone: bool) -> dict[str, Any]:
    """Seconds of the first call of a case in this process, of the compiler, and whether the cache had it."""
    device = open_device(board)
    torch.manual_seed(SEED)
    work = CASES[name].build(1, layers)
    options = {"device": board, "dry_run": device.emulated, "fallback": "error"}
    compiled = torch.compile(
        work.model, **({"backend": nothing} if torch_alone else {"backend": "ttnn", "options": options})
    )
    with torch.no_grad(), tt_dynamo.record() as reports:
        start = time.perf_counter()
        compiled(**work.inputs)
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "compiler": sum(sum(report.seconds.values()) for report in reports),
        "from_cache": bool(reports) and all(report.from_cache for report in reports),
    }


def in_a_process(cache: str, *arguments: str) -> dict[str, Any]:
    """What `first_call` gives in a new process with that cache folder. Raises CalledProcessError where it fails."""
    command = [sys.executable, __file__, "--measure", *arguments]
    environment = {**os.environ, "TT_DYNAMO_CACHE": cache}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def measure(name: str, board: str, layers: int | None) -> dict[str, Any]:
    """What `first_call` gives in two processes, as pairs, and its seconds in one of torch.compile alone."""
    given = [name, "--device", board, *([] if layers is None else ["--layers", str(layers)])]
    with tempfile.TemporaryDirectory() as cache:
        in_a_process(cache, "--torch-alone", *given)  # which prepares the device's files, too
        alone = in_a_process(cache, "--torch-alone", *given)["seconds"]
        first, second = (in_a_process(cache, *given) for _ in range(2))
    found = {name: (first[name], second[name]) for name in first}
    return {"case": name, "torch": alone, **found}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: resnet-50)")
    parser.add_argument("--device", default="n150", help="hardware, or a board to emulate (default: n150)")
    parser.add_argument("--layers", type=int, help="only so many layers of each model")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--torch-alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    check_names(parser, options.cases, CASES)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    cases = options.cases or ["resnet-50"]
    if options.measure:
        print(json.dumps(first_call(cases[0], options.device, options.layers, options.torch_alone)))
        return
    rows = []
    for name in cases:
        found = measure(name, options.device, options.layers)
        (first, second), (compiled, loaded) = found["seconds"], found["compiler"]
        ratios = second / first, (second - found["torch"]) / (first - found["torch"]), loaded / compiled
        rows.append([name, *(f"{value:.2f}" for value in (found["torch"], first, second, *ratios))])
    headings = ["first call, seconds", "torch alone", "first process", "second", "ratio", "without torch", "compiler's"]
    print_table(headings, rows)


if __name__ == "__main__":
    main()
