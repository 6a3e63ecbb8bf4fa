"""The settings that lowerings read, and the recorder that has them: the device's, and the precision of each module."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.compiler.choices import Choices, Tunings, choices_path, tunings_path
from tt_dynamo.compiler.configs import Configs
from tt_dynamo.compiler.recorder import Recorder
from tt_dynamo.devices import Device
from tt_dynamo.estimate.chip import chip_of
from tt_dynamo.ir.graph import module_path, parameter_modules
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering.workarounds import compute_kernel_config, math_fidelity
from tt_dynamo.options import Options, matching
from tt_dynamo.runtime.l1_small import with_l1_small
from tt_dynamo.tuner.device_clock import DeviceClock
from tt_dynamo.tuner.tuner import EstimateClock, Tuner


def recorder_for(
    ttnn: Any, device: Device, options: Options, configs: Configs
) -> tuple[Recorder, Callable[[Node], Settings]]:
    """A recorder, which knows how a program writes its settings, and the settings of a node.

    The recorder's own are those of nodes that the option `fp32_accumulation` says nothing of. Raises OptionError where
    the configs name an operation that TTNN does not have.
    """
    grid = device.handle.compute_with_storage_grid_size()
    size = grid.x, grid.y
    choices = device.resource(Choices, choices_path(device))
    chip = chip_of(device.board, size, mesh=device.shape, links=device.links)
    settings = Settings(None, None, size, device.handle, chip, choices=choices)
    settings = replace(settings, **_search_settings(ttnn, device, options), attempt=partial(with_l1_small, device))
    recorder = Recorder(ttnn, Graph(), settings)
    recorder.note(device.handle, "device")
    settings = replace(settings, core_grid=recorder.CoreGrid(x=grid.x, y=grid.y), configs=configs, gelu=options.gelu)

    def accumulating(float32: bool) -> Settings:
        fidelity = math_fidelity(device.architecture, options.math_fidelity, float32)

        def kernel_config(fidelity: str) -> Any:
            return compute_kernel_config(recorder, getattr(ttnn.MathFidelity, fidelity), float32)

        return replace(
            settings,
            # One phase costs norms and attention most of the PCC that a model loses in LoFi, and saves them no time.
            compute_kernel_config=kernel_config("HiFi2" if fidelity == "LoFi" else fidelity),
            lofi_kernel_config=kernel_config(fidelity) if fidelity == "LoFi" else None,
        )

    given = options.fp32_accumulation
    values = {given} if isinstance(given, bool) else {True, *(value for _, value in given)}
    by_accumulation = {value: accumulating(value) for value in sorted(values)}

    def settings_of(node: Node) -> Settings:
        return by_accumulation[matching((module_path(node), *parameter_modules(node)), given, True)]

    recorder.settings = by_accumulation[matching((), given, True)]
    configs.check_operations(ttnn)
    configs.ttnn = recorder
    return recorder, settings_of


def _search_settings(ttnn: Any, device: Device, options: Options) -> dict[str, Any]:
    """By what lowerings choose between calls: least time, also as the tuner found it, or fewest bytes."""
    if options.optimize != "latency":
        return {"searches": False, "saves_memory": options.optimize == "memory"}
    clock = EstimateClock() if device.emulated else DeviceClock(ttnn, device.handle)
    kept = device.resource(Tunings, tunings_path(device))
    return {"searches": True, "tuner": Tuner(kept, clock if options.tune else None)}
