"""The program of a compilation, from the cache where that has it: no pass, no lowering and no measuring then."""

import dataclasses
import functools
import logging
import time
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from tt_dynamo.artifacts import files
from tt_dynamo.artifacts.description import LaterRecovery, describe, program_of, report_of
from tt_dynamo.artifacts.key import Unkeyable, compilation_key, tunings_digest
from tt_dynamo.devices import Device
from tt_dynamo.ir.graph import Assumption, copy_graph
from tt_dynamo.report.report import GraphReport, emit
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.recovery import Recovery
from tt_dynamo.runtime.transfer import border_of
from tt_dynamo.runtime.weights import WeightStore

log = logging.getLogger(__name__)


class Kept:
    """One compilation's place in the cache; none where the options, or the graph, leave it out."""

    def __init__(self, compiler: Any, tunings: Path) -> None:
        """compiler: a `Compiler` with its graph as it came. tunings: what the tuner found, which it reads."""
        self._eager, self._device, self._options = compiler.eager, compiler.device, compiler.options
        self._context, self._name = compiler.context, compiler.report.name
        self._again = functools.partial(compiler.__class__, name=self._name, assume=self._context.assume)
        self._ttnn = self._device.namespace(dry_run=True)
        self._notes: list[str] = []
        self._key = ""
        # A dump has every stage in it, an edited program is the user's, and tuning is to be done.
        if not self._options.cache or self._options.tune or any((self._options.dump, self._options.program)):
            return
        try:
            passes = [transform.__name__ for transform in compiler.passes]
            others = {"passes": passes, "assume": self._context.assume, "tuned": tunings_digest(tunings)}
            self._key = compilation_key(self._eager.graph, self._device, self._options, self._ttnn, others)
        except Unkeyable as error:
            log.debug("%s is not kept for the next process: %s", self._name, error)
        except Exception:  # of any kind: a cache never breaks a compilation
            log.warning("%s has no key; it is not kept for the next process", self._name, exc_info=True)

    def load(self) -> Program | None:
        """The program that is kept, its report emitted; None where none is, or the device has no room for it."""
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
        self._context.assumptions += assumptions
        report.name, report.from_cache = self._name, True
        report.seconds = {"cache": time.perf_counter() - started}
        emit(report)
        log.info("%s on %s: from the cache in %.2f s", report.name, report.device, report.seconds["cache"])
        return program

    def save(self, program: Program) -> None:
        """Keep a program that was compiled; a folder that cannot be written is noted."""
        report = program.report
        if self._key:
            try:
                files.write(self._key, describe(program, self._context.assumptions))
            except Unkeyable as error:
                log.debug("%s is not kept for the next process: %s", self._name, error)
            except Exception as error:
                self._note(f"{files.folder()} cannot be written ({error}); this program is not kept")
        report.notes += self._notes

    def _recovery(self, report: GraphReport) -> LaterRecovery:
        options = self._options
        border = border_of(self._device, report, options.dry_run, options.weight_cache, options.weight_cache_limit)

        def recompile() -> Recovery:
            graph = GraphModule(self._eager, copy_graph(self._eager.graph)[0])
            compiler: Any = self._again(graph, self._device, dataclasses.replace(options, cache=False))
            found: Recovery = compiler.compile().recovery
            return found

        return LaterRecovery(self._eager, border, options.fallback == "error", recompile)

    def _note(self, text: str) -> None:
        self._notes.append(f"cache of compiled programs: {text}")
        log.warning("%s: %s", self._name, self._notes[-1])


def free_dram(device: Device) -> int:
    """How many bytes of the whole board's DRAM are free."""
    ttnn = device.namespace(dry_run=True)
    view = ttnn.get_memory_view(device.handle, ttnn.BufferType.DRAM)
    return int(view.total_bytes_free_per_bank * view.num_banks)
