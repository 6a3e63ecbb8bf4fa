"""The program of a compilation, from the cache where that has it: no pass, no lowering and no measuring then."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from tt_dynamo.artifacts import files
from tt_dynamo.artifacts.description import LaterRecovery, describe, program_of, report_of
from tt_dynamo.artifacts.key import Unkeyable, compilation_key, tunings_digest
from tt_dynamo.devices import Device
from tt_dynamo.ir.graph import Assumption
from tt_dynamo.options import Options
from tt_dynamo.report.report import GraphReport, emit
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.recovery import Recovery
from tt_dynamo.runtime.transfer import border_of
from tt_dynamo.runtime.weights import WeightStore

log = logging.getLogger(__name__)


class Kept:
    """One compilation's place in the cache; none where the options, or the graph, leave it out."""

    def __init__(
        self,
        eager: GraphModule,
        device: Device,
        options: Options,
        name: str,
        others: Mapping[str, Any],
        tunings: Path,
        recovery: Callable[[], Recovery],
    ) -> None:
        """eager: the graph as it came. others: what the program depends on beside it, options and `tunings`.

        tunings: the file of what the tuner found. recovery: compiles what a kept program needs after a failure.
        """
        self._eager, self._device, self._options, self._name = eager, device, options, name
        self._recompile = recovery
        ttnn = device.namespace(dry_run=True)
        self._notes: list[str] = []
        self._key = ""
        # A dump has every stage in it, an edited program is the user's, and tuning is to be done.
        if not options.cache or options.tune or any((options.dump, options.program)):
            return
        try:
            given = {**others, "tuned": tunings_digest(tunings)}
            self._key = compilation_key(eager.graph, device, options, ttnn, given)
        except Unkeyable as error:
            log.debug("%s is not kept for the next process: %s", self._name, error)
        except Exception:  # of any kind: a cache never breaks a compilation
            log.warning("%s has no key; it is not kept for the next process", self._name, exc_info=True)

    def load(self) -> tuple[Program, list[Assumption]] | None:
        """The program that is kept, its report emitted, and what it assumes.

        None where none is, or the device has no room for it.
        """
        if not self._key:
            return None
        started = time.perf_counter()
        try:
            description = files.read(self._key)
            if description is None:
                return None
            report = report_of(description, self._eager)
            if report.peak_dram_bytes > free_dram(self._device):
                return None  # the compiler says what takes too much
            recovery = self._recovery(report)
            program = program_of(description, report, recovery, self._device.resource(WeightStore), self._eager)
            assumptions = [Assumption(*a) for a in description["assumptions"]]
        except Exception as error:  # of any kind: a file may hold anything
            reason = f"{type(error).__name__}: {error}"
            self._note(f"{files.path_of(self._key)} does not load ({reason}); it is written anew")
            return None
        report.name, report.from_cache = self._name, True
        report.seconds = {"cache": time.perf_counter() - started}
        emit(report)
        log.info("%s on %s: from the cache in %.2f s", report.name, report.device, report.seconds["cache"])
        return program, assumptions

    def save(self, program: Program, assumptions: Sequence[Assumption]) -> None:
        """Keep a program that was compiled; a folder that cannot be written is noted."""
        report = program.report
        if self._key:
            try:
                files.write(self._key, describe(program, assumptions))
            except Unkeyable as error:
                log.debug("%s is not kept for the next process: %s", self._name, error)
            except Exception as error:
                self._note(f"{files.folder()} cannot be written ({error}); this program is not kept")
        report.notes += self._notes

    def _recovery(self, report: GraphReport) -> LaterRecovery:
        options = self._options
        border = border_of(self._device, report, options.dry_run, options.weight_cache, options.weight_cache_limit)
        return LaterRecovery(self._eager, border, options.fallback == "error", self._recompile)

    def _note(self, text: str) -> None:
        self._notes.append(f"cache of compiled programs: {text}")
        log.warning("%s: %s", self._name, self._notes[-1])


def free_dram(device: Device) -> int:
    """How many bytes of the whole board's DRAM are free."""
    ttnn = device.namespace(dry_run=True)
    view = ttnn.get_memory_view(device.handle, ttnn.BufferType.DRAM)
    return int(view.total_bytes_free_per_bank * view.num_banks)
