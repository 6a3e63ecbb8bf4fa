"""Does a model fit? Compile it without its data, and say what TTNN's allocator answers.

The model is copied to torch's meta device, traced by Dynamo, and compiled as for a call. Nothing is uploaded or
computed, so a model that is larger than the host's memory can be checked before its weights are downloaded.
"""

import dataclasses
import gc
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.fx import GraphModule

from tt_dynamo.backend import compile_graph
from tt_dynamo.capture.without_data import on_host, shapes_alone, without_data
from tt_dynamo.compiler.fit import DoesNotFit, dram, l1_of_a_core
from tt_dynamo.devices import open_device
from tt_dynamo.options import Options
from tt_dynamo.report.report import Fallback, GraphReport, record
from tt_dynamo.report.table import fact_sheet, size_text, table


@dataclasses.dataclass
class Check:
    """Whether a model fits on a device, and what it would do there.

    fits: TTNN's allocator took the weights, the caches and the largest moment of a run. reason: why it did not.
    needed_bytes: of DRAM at that moment; where it does not fit, of weights and caches alone. dram_bytes, free_bytes:
    what the device has. l1_bytes: what one of its cores has. reports: one for each graph that was compiled, with its
    operations and fallbacks.
    """

    device: str
    fits: bool
    needed_bytes: int
    dram_bytes: int
    free_bytes: int
    l1_bytes: int
    reason: str = ""
    reports: list[GraphReport] = dataclasses.field(default_factory=list)

    @property
    def weight_dtypes(self) -> dict[str, int]:
        """Bytes of the weights by TTNN's dtype."""
        sizes = sum((Counter(report.weight_dtypes) for report in self.reports), Counter[str]())
        return dict(sorted(sizes.items()))

    @property
    def weight_bytes(self) -> int:
        return sum(report.weight_bytes for report in self.reports)

    @property
    def cache_bytes(self) -> int:
        """Bytes of what else stays on the device between calls: KV caches."""
        return sum(report.cache_bytes for report in self.reports)

    @property
    def fallbacks(self) -> list[Fallback]:
        return [fallback for report in self.reports for fallback in report.fallbacks]

    @property
    def device_programs(self) -> int:
        """Kernel launches in one call."""
        return sum(report.device_programs for report in self.reports)

    @property
    def peak_l1_bytes(self) -> int:
        """Most bytes of L1 that one core holds at once."""
        return max((report.peak_l1_bytes for report in self.reports), default=0)

    def operation_table(self) -> str:
        """One line for each TTNN operation: kernel launches and calls in one call of the model."""
        whole = GraphReport("", self.device, operations=[one for report in self.reports for one in report.operations])
        calls = Counter(operation.target for operation in whole.operations)
        rows = [(count, calls[name], name) for name, count in whole.launches.items()]
        return table(("launches", "calls", "operation"), rows)

    def __str__(self) -> str:
        facts = [
            ("DRAM needed", f"{size_text(self.needed_bytes)} of {size_text(self.dram_bytes)}"),
            ("DRAM free", size_text(self.free_bytes) if self.free_bytes < self.dram_bytes else ""),
            ("reason", self.reason),
            ("peak L1 a core", f"{size_text(self.peak_l1_bytes)} of {size_text(self.l1_bytes)}"),
        ]
        sheet = fact_sheet(f"{'fits' if self.fits else 'does not fit'} on {self.device}", facts)
        operations = [self.operation_table()] if self.reports else []
        return "\n\n".join([sheet, *map(str, self.reports), *operations])


def check(
    model: torch.nn.Module, example_inputs: Sequence[Any] | Mapping[str, Any], device: Any = "n150", **options: Any
) -> Check:
    """Whether `model` fits on `device` when it is called with `example_inputs`, and what it would do there.

    model: may lie on the meta device (`with torch.device("meta"): model = AutoModelForCausalLM.from_config(config)`);
    one with data is not touched. example_inputs: a tuple of positional or a dict of keyword arguments, tensors or
    caches, on any device; only their shapes count. options: those of `torch.compile(model, backend="ttnn")`.

    Raises OptionError and DeviceError as compilation does, and Dynamo's error for a model that reads tensors in Python.
    """
    try:
        return _checked(model, example_inputs, Options.parse({**options, "device": device, "dry_run": True}))
    finally:
        gc.collect()  # graphs are cyclic, and what was allocated to lower them goes with them


def _checked(model: torch.nn.Module, example_inputs: Sequence[Any] | Mapping[str, Any], parsed: Options) -> Check:
    opened = open_device(parsed.device)
    ttnn = opened.namespace(dry_run=True)
    has, fast = dram(ttnn, opened.handle), l1_of_a_core(ttnn, opened.handle)

    def backend(module: GraphModule, inputs: Sequence[Any]) -> Any:
        return compile_graph(module, on_host(module, inputs), opened, parsed, instead=shapes_alone)

    copied, inputs = without_data(getattr(model, "_orig_mod", model), example_inputs)
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    result = Check(opened.description, True, 0, has.total, has.free, fast)
    compiled = torch.compile(own_forward(), backend=backend, dynamic=False)
    with record() as result.reports, torch.no_grad():
        try:
            compiled(copied, *args, **kwargs)
        except BackendCompilerFailed as error:
            cause = error.inner_exception
            if not isinstance(cause, DoesNotFit):
                raise cause from None
            result.fits, result.needed_bytes, result.reason = False, cause.needed, str(cause)
            return result
    waiting = [report.peak_dram_bytes - report.weight_bytes for report in result.reports]
    result.needed_bytes = result.weight_bytes + max(waiting, default=0)
    if result.needed_bytes > has.free:  # several graphs, of which each fits alone
        result.fits, result.reason = False, f"its {len(result.reports)} graphs do not fit together"
    return result


def own_forward() -> Callable[..., Any]:
    """Calls the model that it is given first; has code of its own, since Dynamo remembers as long as code lives."""
    return types.FunctionType(_forward.__code__.replace(), globals())


def _forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    # The model is called `self`, as Dynamo calls one that is compiled by itself, so that names are the same.
    return self(*args, **kwargs)
