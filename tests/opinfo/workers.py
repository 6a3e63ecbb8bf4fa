"""Run cases in worker processes, so that a crash or a hang of one sample is a result and not the end of the suite.

A worker reads one request a line, `{"operator", "dtype", "cap", "skip"}`, and answers one line for every sample: first
`{"started": number}`, then its outcome; `{"finished": true}` ends the case.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any

HANG_SECONDS = 120.0
START_SECONDS = 300.0


def serve() -> None:
    """A worker's life: answer the requests on standard input. What else is printed goes to stderr."""
    from running import run_sample
    from samples import operators, samples

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    infos = operators()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        name, dtype = request["operator"], request["dtype"]
        for number, sample in samples(infos[name], dtype, request["cap"]):
            if number in request["skip"]:
                continue
            print(json.dumps({"started": number, "sample": sample.text}), file=answers)
            print(json.dumps(dataclasses.asdict(run_sample(name, dtype, number, sample))), file=answers)
        print(json.dumps({"finished": True}), file=answers)


class Worker:
    """One worker process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def run(self, operator: str, dtype: str, cap: int) -> list[dict[str, Any]]:
        """The outcomes of one case; a sample that killed the process or hung has status "crash" or "hang"."""
        outcomes: list[dict[str, Any]] = []
        skip: list[int] = []
        while True:
            lost = self._attempt({"operator": operator, "dtype": dtype, "cap": cap, "skip": skip}, outcomes)
            skip = [outcome["number"] for outcome in outcomes]
            if lost is None:
                return outcomes
            outcomes.append({"operator": operator, "dtype": dtype, **lost})
            skip.append(lost["number"])
            self.stop()
            if lost["number"] < 0:
                return outcomes

    def _attempt(self, request: dict[str, Any], outcomes: list[dict[str, Any]]) -> dict[str, Any] | None:
        self._start()
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        current: dict[str, Any] = {"number": -1, "sample": ""}
        while True:
            answer = self._answer(HANG_SECONDS)
            if isinstance(answer, str):
                return {**current, "status": answer, "message": self._last_words()}
            if "finished" in answer:
                return None
            if "started" in answer:
                current = {"number": answer["started"], "sample": answer["sample"]}
            else:
                outcomes.append(answer)

    def _start(self) -> None:
        if self._process is not None:
            return
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._answers = queue.Queue()
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._answers), daemon=True).start()
        answer = self._answer(START_SECONDS)
        if answer != {"ready": True}:
            raise RuntimeError(f"a worker did not start ({answer}): see python tests/opinfo --serve")

    def _answer(self, seconds: float) -> dict[str, Any] | str:
        """The next line, or "hang" or "crash"."""
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            return "hang"
        return json.loads(line) if line.endswith("\n") else "crash"

    def _last_words(self) -> str:
        assert self._process is not None
        try:
            return f"exit code {self._process.wait(timeout=5)}"
        except subprocess.TimeoutExpired:
            return f"no answer within {HANG_SECONDS:.0f} s"

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Every line of a stream, and at its end an empty one."""
    for line in stream:
        lines.put(line)
    lines.put("")


def run_all(
    cases: list[tuple[str, str, int]], processes: int, progress: Callable[[int, int, float], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Every outcome of every case (operator, dtype, samples at most), as workers finish them."""
    workers = [Worker() for _ in range(processes)]
    idle = list(workers)
    started = time.perf_counter()

    def run(case: tuple[str, str, int]) -> list[dict[str, Any]]:
        worker = idle.pop()
        try:
            return worker.run(*case)
        finally:
            idle.append(worker)

    try:
        with ThreadPoolExecutor(processes) as pool:
            futures = [pool.submit(run, case) for case in cases]
            for done, future in enumerate(as_completed(futures), 1):
                yield from future.result()
                if progress is not None:
                    progress(done, len(cases), time.perf_counter() - started)
    finally:
        for worker in workers:
            worker.stop()
