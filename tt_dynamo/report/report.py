"""What one compiled graph does: where its nodes run, what crosses, what it launches and what it holds.

The compiler fills one `GraphReport` per graph and hands it to `emit`; a user collects them with `record`. Everything in
a report is a plain number or string, so that it stays valid after the device is closed and can be written as JSON.

What must hold: nothing is kept here between compilations. The only state is a `ContextVar` of the lists that collect
now, so that a report of one thread or task never lands in the list of another.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tt_dynamo.report.configs import ChosenConfigs
from tt_dynamo.report.modules import layer_launches
from tt_dynamo.report.movement import Movement
from tt_dynamo.report.table import fact_sheet, size_text, table
from tt_dynamo.report.tunings import Tuned, tuning_table

if TYPE_CHECKING:
    from torch.fx import Node

MOVING_MODULES = 5  # that a printed report names


@dataclass(frozen=True)
class Fallback:
    """A node, by its name in the graph, that runs in eager torch.

    kind: "unsupported" (no lowering), "refused" (by TTNN at compile time) or "runtime" (TTNN raised in a run). reason:
    TTNN's own words where it gave any. count: in how many runs TTNN raised, of which the last gave the reason. module,
    line: what it comes from, "encoder.layer.0.attention", "model.py:84 in forward: scores = q @ k"; "" if unknown.
    """

    node: str
    kind: str
    reason: str
    count: int = 1
    module: str = ""
    line: str = ""

    @classmethod
    def of(cls, node: "Node", kind: str, reason: str) -> "Fallback":
        from tt_dynamo.ir.graph import module_path, source_line  # only now: it takes torch, which reports do without

        return cls(node.name, kind, reason, module=module_path(node), line=source_line(node))

    @property
    def origin(self) -> str:
        """Where in the model it comes from, as far as is known."""
        return ", ".join(filter(None, (self.module, self.line)))

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}" + (f" (of {self.origin})" if self.origin else "")


@dataclass(frozen=True)
class Decomposed:
    """A fused operation, `target` "tt_dynamo.attention.default", that TTNN refused and whose parts took its place."""

    node: str
    target: str
    reason: str
    module: str


@dataclass(frozen=True)
class Transfer:
    """Bytes of one value that cross between host and device in every call. direction: "to_device" or "to_host"."""

    name: str
    direction: str
    bytes: int


@dataclass(frozen=True)
class Operation:
    """One TTNN call of the program, by the name of its node there.

    target: "ttnn.linear". module: as in `Fallback`. programs: kernel launches it makes in one run, 0 for a view.
    estimated_seconds: of its kernels, an estimate. bound: what they wait for most, "compute", "DRAM", "L1", "NoC",
    "dispatch" or "unknown"; "" of no kernels. utilization: the share of that time that an ideal chip needs, 0 to 1.
    node: of the graph, which it was lowered from. config: what it was made with, of what the option `configs` may say.
    plain_seconds: an estimate of the call as it is without the option, where that changed it.
    """

    name: str
    target: str
    module: str
    programs: int
    estimated_seconds: float = 0.0
    bound: str = ""
    utilization: float = 0.0
    node: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    plain_seconds: float | None = None


@dataclass(frozen=True)
class Choice:
    """Which of several TTNN calls that would do was chosen for a node of the graph.

    operation: "conv2d". candidate: what tells it from the others. refused: how many candidates before it TTNN refused.
    """

    operation: str
    candidate: str
    refused: int
    node: str
    module: str


@dataclass
class GraphReport:
    """What one compiled graph does in one run.

    `nodes` counts the ATen nodes that compute, of which `device_nodes` run on the device and `host_nodes` in eager
    torch. `calls` are TTNN calls per run; `device_programs` are kernel launches per run as TTNN's own graph capture
    counts them. Peaks, `weight_dtypes` (the weights by TTNN's dtype) and `cache_bytes` (what else stays on the device
    between calls) are bytes on the device; `transfers` are per call. `weights_read` came from files of the weight
    cache since the first call, `weights_written` went there. `expert_bytes` are the weights of mixtures' experts, of
    which one run reads `expert_bytes_read`. `notes` say what else a user may want to know, `seconds` the compile time
    of each stage, `code` the program as Python. `launch_gap_seconds` lie between two kernels, and
    `host_bytes_per_second` cross to or from the host: both are of the estimate. `configured_for` is the phase and board
    as a key of the option `configs` has them, "@decode@n150". `trace` is "captured", or why there is none. Where
    `from_cache`, an earlier process compiled the program, or this one did before, and all else is as it was then.

    `peak_dram_bytes` are of the whole board, `peak_l1_bytes` of one core: buffers and circular buffers that it holds at
    once. An interleaved buffer takes its share of it, a sharded one its shard. TTNN 0.81 does not tell the circular
    buffers of products and norms, which are not in it.

    `new_allocations` counts the buffers of a steady call that lie where none of the call before lay, while the caller
    holds those of its results that stay on the device (`held_results`); without any, 0 is good. None if not measured.
    `highest_dram_address` ends the last buffer in DRAM, and `lowest_l1_address` begins the first in L1, where the
    allocator starts at the top; 0 without one. Both are bytes in a bank, beside what was on the device at compile time.
    """

    name: str
    device: str
    nodes: int = 0
    device_nodes: int = 0
    host_nodes: int = 0
    fallbacks: list[Fallback] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    calls: int = 0
    device_programs: int = 0
    peak_dram_bytes: int = 0
    peak_l1_bytes: int = 0
    highest_dram_address: int = 0
    lowest_l1_address: int = 0
    new_allocations: int | None = None
    held_results: int = 0
    weight_dtypes: dict[str, int] = field(default_factory=dict)
    cache_bytes: int = 0
    expert_bytes: int = 0
    expert_bytes_read: int = 0
    weights_read: int = 0
    weights_written: int = 0
    notes: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    tuned: list[Tuned] = field(default_factory=list)
    decomposed: list[Decomposed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    code: str = ""
    configured_for: str = ""
    launch_gap_seconds: float = 0.0
    host_bytes_per_second: float = 0.0
    trace: str = ""
    from_cache: bool = False

    @property
    def kernel_seconds(self) -> float:
        """Of all kernels in one run, an estimate."""
        return sum(operation.estimated_seconds for operation in self.operations)

    @property
    def transfer_seconds(self) -> float:
        """Of the bytes that cross in one call, an estimate."""
        return self.transfer_bytes / self.host_bytes_per_second if self.host_bytes_per_second else 0.0

    @property
    def estimated_seconds(self) -> float:
        """Of one call, an estimate: kernels, the gaps between them, and transfers. Host nodes are not in it."""
        return self.kernel_seconds + self.device_programs * self.launch_gap_seconds + self.transfer_seconds

    @property
    def phase(self) -> str:
        """ "decode" for a step against a cache, "prefill" for a prompt that fills one, else "forward".

        As the compiler found it in the graph; "forward" of a graph that was not compiled.
        """
        return self.configured_for.split("@")[1] if self.configured_for else "forward"

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights on the device."""
        return sum(self.weight_dtypes.values())

    @property
    def launches(self) -> dict[str, int]:
        """Kernel launches of each TTNN operation in one run, the most first."""
        counts: Counter[str] = Counter()
        for operation in self.operations:
            counts[operation.target] += operation.programs
        return dict(counts.most_common())

    @property
    def movement(self) -> Movement:
        """Kernel launches in one run that compute nothing, by operation and by module."""
        return Movement.of(self.operations)

    @property
    def movement_share(self) -> float:
        """Share of the kernel launches that compute nothing, 0.0 to 1.0; 0.0 of a graph without launches."""
        return self.movement.share

    @property
    def transfer_bytes(self) -> int:
        """Bytes that cross in one call, both directions together."""
        return sum(transfer.bytes for transfer in self.transfers)

    @property
    def device_share(self) -> float:
        """Share of the computing nodes that run on the device, 0.0 to 1.0; 1.0 for a graph that computes nothing."""
        return self.device_nodes / self.nodes if self.nodes else 1.0

    def layers(self, prefix: str | None = None) -> dict[str, int]:
        """Kernel launches of each repeated layer, by module path, in program order.

        A layer is the shortest module path that ends in a number and has siblings: `encoder.layer.0` next to
        `encoder.layer.1`, or `encoder.layers.encoder_layer_0`. Of stages that hold blocks (`stages.0.blocks.3`) the
        stage is the layer; `prefix="stages.0"` looks at its blocks instead. What launches no kernel doesn't count.
        """
        return layer_launches(self.operations, prefix)

    def launches_per_layer(self, prefix: str | None = None) -> int | None:
        """Most kernel launches of any layer (see `layers`), None for a model without repeated layers."""
        return max(self.layers(prefix).values(), default=None)

    def count_fallbacks(self, found: Iterable[Fallback]) -> None:
        """Note what fell back in a call; a node that did before is counted and gets the new reason."""
        known = {(fallback.node, fallback.kind): fallback for fallback in self.fallbacks}
        for fallback in found:
            key = fallback.node, fallback.kind
            known[key] = replace(fallback, count=known[key].count + 1) if key in known else fallback
        self.fallbacks[:] = known.values()

    def to_dict(self) -> dict[str, object]:
        """All fields and the derived numbers, of types that `json.dumps` takes."""
        names = ("weight_bytes", "launches", "transfer_bytes", "device_share", "estimated_seconds", "phase")
        derived = {name: getattr(self, name) for name in (*names, "movement_share")}
        per_layer, movement = self.launches_per_layer(), asdict(self.movement)
        return {**asdict(self), **derived, "launches_per_layer": per_layer, "movement": movement}

    def operation_table(self) -> str:
        """One line per TTNN call: kernel launches, operation, node, module."""
        rows = [(op.programs, op.target, op.name, op.module) for op in self.operations]
        return table(("launches", "operation", "node", "module"), rows)

    def choice_table(self) -> str:
        """One line for all choices that are alike: how many, operation, candidate, how many were refused before."""
        alike = Counter((choice.operation, choice.candidate, choice.refused) for choice in self.choices)
        return table(("times", "operation", "chosen", "refused before"), [(alike[one], *one) for one in alike])

    def tuning_table(self) -> str:
        """One line for each candidate that the tuner timed, what is alike once."""
        return tuning_table(self.tuned)

    def configs(self) -> ChosenConfigs:
        """What each call was made with, as the option `configs` takes it: edit it, or write it as JSON.

        Compiled with it, the graph gives the same program. Printed, it is a table with estimates beside the configs.
        """
        return ChosenConfigs(self.operations, self.configured_for)

    def estimate_table(self) -> str:
        """One line per TTNN call that takes time: estimate, what bounds it, utilization, operation, node, module."""
        rows = [
            (f"{op.estimated_seconds * 1e6:.1f}", op.bound, f"{op.utilization:.0%}", op.target, op.name, op.module)
            for op in self.operations
            if op.estimated_seconds
        ]
        return table(("estimate µs", "bound", "utilization", "operation", "node", "module"), rows)

    def estimated_modules(self, depth: int = 2) -> dict[str, float]:
        """Estimated seconds of kernels by module, the most first; depth: of the module paths, in parts."""
        totals: dict[str, float] = {}
        for operation in self.operations:
            module = ".".join(operation.module.split(".")[:depth])
            totals[module] = totals.get(module, 0.0) + operation.estimated_seconds
        return {module: totals[module] for module in sorted(totals, key=lambda m: -totals[m]) if totals[module]}

    def _estimate_text(self) -> str:
        if not self.kernel_seconds:
            return ""
        gaps = self.device_programs * self.launch_gap_seconds
        parts = ((self.kernel_seconds, "kernels"), (gaps, "launch gaps"), (self.transfer_seconds, "transfers"))
        whole = ", ".join(f"{seconds * 1e3:.3f} ms {name}" for seconds, name in parts)
        return f"{self.estimated_seconds * 1e3:.3f} ms per run ({self.phase}): {whole}"

    def _address_text(self) -> str:
        if self.new_allocations is None:
            return ""
        held = f" beside {self.held_results} held results of the one before" if self.held_results else ""
        l1 = f", L1 from {self.lowest_l1_address:#x}" if self.lowest_l1_address else ""
        dram = f"DRAM up to {self.highest_dram_address:#x}"
        return f"{dram}{l1}; {self.new_allocations} new allocations in a steady call{held}"

    def __str__(self) -> str:
        most = self.launches_per_layer()
        in_layer = f", at most {most} in a layer" if most is not None else ""
        dtypes = ", ".join(f"{size_text(size)} {dtype}" for dtype, size in self.weight_dtypes.items())
        several = f": {dtypes}" if self.weight_dtypes.keys() - {"bfloat16"} else ""
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.seconds.items())
        experts = size_text(self.expert_bytes)
        cached = f"{self.weights_read} weights read, {self.weights_written} written"
        placed = f"{self.device_nodes} on the device ({self.device_share:.1%}), {self.host_nodes} on the host"
        facts = [
            ("nodes", f"{self.nodes}: {placed}"),
            ("TTNN calls", f"{self.calls} per run"),
            ("kernel launches", f"{self.device_programs} per run{in_layer}"),
            *self.movement.facts(most=MOVING_MODULES),
            ("estimate", self._estimate_text()),
            ("transfers", f"{len(self.transfers)} per run, {size_text(self.transfer_bytes)}"),
            *((f"  {t.direction.replace('_', ' ')}", f"{size_text(t.bytes):>10}  {t.name}") for t in self.transfers),
            ("peak DRAM", size_text(self.peak_dram_bytes)),
            ("peak L1 a core", size_text(self.peak_l1_bytes)),
            ("addresses", self._address_text()),
            ("weights", f"{size_text(self.weight_bytes)}{several}"),
            ("experts", f"{size_text(self.expert_bytes_read)} of {experts} read per run" if self.expert_bytes else ""),
            ("caches", size_text(self.cache_bytes) if self.cache_bytes else ""),
            ("weight cache", cached if self.weights_read or self.weights_written else ""),
            ("trace", self.trace),
            ("compile time", (stages or "not measured") + (", compiled before" if self.from_cache else "")),
            ("fallbacks", str(len(self.fallbacks) or "none")),
        ]
        for each in self.fallbacks:
            calls = f"  in {each.count} calls" if each.count > 1 else ""
            facts += [("  fallback", f"{each.node}  [{each.kind}]{calls}"), ("", each.origin), ("", each.reason)]
        alike = Counter((one.target, one.reason) for one in self.decomposed)
        facts += [("decomposed", f"{count} of {target}: {reason}") for (target, reason), count in alike.items()]
        return fact_sheet(f"{self.name} on {self.device}", [*facts, *(("note", note) for note in self.notes)])


def estimated_phases(reports: Iterable[GraphReport]) -> dict[str, float]:
    """Estimated seconds of one run of each graph, by phase."""
    totals: dict[str, float] = {}
    for report in reports:
        totals[report.phase] = totals.get(report.phase, 0.0) + report.estimated_seconds
    return totals


_collecting: ContextVar[tuple[list[GraphReport], ...]] = ContextVar("tt_dynamo_collecting", default=())


@contextmanager
def record() -> Iterator[list[GraphReport]]:
    """Collect a `GraphReport` of every graph that is compiled inside the `with` block.

    torch.compile is lazy: the first call with its shapes compiles a graph, and belongs inside the block. Blocks nest;
    every open one gets each report. Other threads and tasks don't see them: what they compile lands here where they run
    in a copy of this context (`contextvars.copy_context().run(...)`, `asyncio.to_thread`), even after the block's end.
    """
    reports: list[GraphReport] = []
    token = _collecting.set((*_collecting.get(), reports))
    try:
        yield reports
    finally:
        _collecting.reset(token)


def emit(report: GraphReport) -> None:
    """Give `report` to every `record` block that is open in this context."""
    for reports in _collecting.get():
        reports.append(report)
