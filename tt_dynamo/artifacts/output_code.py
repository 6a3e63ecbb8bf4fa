"""A compiled program as torch saves those of Inductor: in AOTAutogradCache, by `aot_compile`, and by
`torch.compiler.save_cache_artifacts`.

Torch pickles a `CompiledProgram`, which is bytes then: what `files.pack` makes of a description. Whoever loads it gets
a program on the open device, for the board, versions and options that it was compiled for, and no others. The graph
that was compiled is not in it; a call that fails runs in eager torch, by the text that torch generates of that graph.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch._functorch._aot_autograd.autograd_cache import BypassAOTAutogradCache
from torch._inductor.output_code import OutputCode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph

from tt_dynamo.artifacts import files
from tt_dynamo.artifacts.description import (
    Description,
    LaterRecovery,
    constant_of,
    describe,
    describe_constant,
    program_of,
    report_of,
)  # fmt: skip
from tt_dynamo.artifacts.kept import free_dram
from tt_dynamo.artifacts.key import Unkeyable, versions
from tt_dynamo.devices import Device, open_device
from tt_dynamo.ir.graph import compute_nodes
from tt_dynamo.options import Options
from tt_dynamo.report.report import emit
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.transfer import border_of
from tt_dynamo.runtime.weights import WeightStore

OPENING = ("device", "dry_run", "weight_cache", "weight_cache_limit", "fallback")


class LoadError(Exception):
    """A saved program does not run here, and why."""


class CompiledProgram(OutputCode):
    """What AOTAutograd calls for an ATen graph. call: a boxed callable, None as long as nothing is loaded.

    contents: what torch saves. Raises BypassAOTAutogradCache with `refusal` where it is to save a program without.
    """

    def __init__(self, call: Callable[[list[Any]], Any], contents: bytes | None, refusal: str = "") -> None:
        super().__init__()
        self._call: Callable[[list[Any]], Any] | None = call
        self._contents, self._refusal = contents, refusal
        self._boxed_call = True  # of the object: wrappers copy its attributes, not its class's

    def __call__(self, inputs: Sequence[Any]) -> Any:
        assert self._call is not None, "post_compile was not called"
        return self._call(inputs)  # type: ignore[arg-type]

    def prepare_for_serialization(self) -> None:
        """Leave the contents alone. Torch calls it of a copy. Raises BypassAOTAutogradCache without contents."""
        if self._contents is None:
            raise BypassAOTAutogradCache(f'backend "ttnn" cannot save this program: {self._refusal}')
        self._call = None

    def post_compile(self, example_inputs: Sequence[Any], constants: Any, graph_kwargs: Any) -> None:
        """Make the program on the device, and emit its report. Raises LoadError, DeviceError, `files.Damaged`."""
        assert self._contents is not None
        with unset_fake_temporarily():
            program = _load(self._contents)
        self._call = lambda args: program(args)  # without attributes for wrappers to copy

    def set_triton_bundle(self, triton_bundle: Any) -> None:
        """There are no kernels of Triton."""


def compiled_program(call: Callable[[list[Any]], Any], program: Any, options: Options) -> CompiledProgram:
    """What was just compiled, as torch may save it. call: runs it. program: what that calls."""
    try:
        if not isinstance(program, Program):
            raise Unkeyable("it runs in eager torch, or for some values of its inputs alone")
        return CompiledProgram(call, _contents(program, options))
    except Unkeyable as error:
        return CompiledProgram(call, None, str(error))


@unset_fake_temporarily()  # AOTAutograd calls with its fake mode on
def _contents(program: Program, options: Options) -> bytes:
    if not isinstance(options.device, str):
        raise Unkeyable("it is for a device that the caller opened; name the device in options")
    if program.edited is not None:
        raise Unkeyable(f"{program.edited} runs in place of it")
    eager = program.recovery.eager
    opening = {name: getattr(options, name) for name in OPENING}
    if options.weight_cache is not None:
        opening["weight_cache"] = os.fspath(options.weight_cache)
    description = {
        **describe(program, []),
        "eager": describe_constant(eager),
        "placeholders": [node.name for node in eager.graph.find_nodes(op="placeholder")],
        "computes": [node.name for node in compute_nodes(eager.graph)],
        "made_for": _made_for(program.device),
        "opening": opening,
    }
    return files.pack("", description)


def _made_for(device: Device) -> dict[str, str]:
    """What a program runs on, by names for people."""
    grid = device.handle.compute_with_storage_grid_size()
    board = f"{device.description}, {grid.x} x {grid.y} cores, {device.handle.get_num_devices()} chips"
    return {**versions(), "device": board}


def _load(contents: bytes) -> Program:
    started = time.perf_counter()
    description = files.unpack("", contents, "a saved program")
    opening = description["opening"]
    device = open_device(opening["device"])
    device.check_open()
    found = _made_for(device)
    others = [f"{name} {was}, here {found.get(name)}" for name, was in description["made_for"].items()
              if found.get(name) != was]  # fmt: skip
    if others:
        raise LoadError(f"a saved program was compiled for {'; '.join(others)}: compile and save the model here")
    eager = EagerText(description)
    report = report_of(description, eager)
    if report.peak_dram_bytes > free_dram(device):
        raise LoadError(f"a saved program takes {report.peak_dram_bytes} bytes of DRAM; {free_dram(device)} are free")
    border = border_of(device, report, opening["dry_run"], opening["weight_cache"], opening["weight_cache_limit"])
    recovery = LaterRecovery(eager, border, opening["fallback"] == "error", _recompile)
    program = program_of(description, report, recovery, device.resource(WeightStore), eager)
    report.from_cache, report.seconds = True, {"cache": time.perf_counter() - started}
    emit(report)
    return program


def _recompile() -> Any:
    raise LoadError("a saved program has no graph to compile; its failing calls run in eager torch")


class EagerText:
    """What stands for the graph of a saved program: its inputs and calls by their names, and its text, to be called."""

    def __init__(self, description: Description) -> None:
        self.graph = Graph()
        for name in description["placeholders"]:
            self.graph.placeholder(name)
        for name in description["computes"]:
            self.graph.create_node("call_function", _call_by_name, name=name)
        self.graph.output(())
        self._run = constant_of(description["eager"])

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)


def _call_by_name() -> None:
    """The target of a call whose name alone is known."""
