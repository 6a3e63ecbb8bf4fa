"""How the option `configs` reaches calls of TTNN, where they are made for the first time.

A call that a lowering makes is changed in what its config says and it can express: precision and grid where the
lowering leaves them to the settings, memory where the result lies interleaved. TTNN judges the changed call. What it
refuses is left out with a note, or where the config is strict refuses the call, so that the next candidate is asked.

What must hold: a config that says what is done anyway changes nothing, so that a report's own mapping gives the same
program.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from torch.fx import Graph
from torch.utils._pytree import tree_leaves

from tt_dynamo.configs import CHUNKS, Rule, default_configs
from tt_dynamo.devices import Device
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import Refused, require_one_of
from tt_dynamo.ir.spec import Blocks, Value, on_device, tiles
from tt_dynamo.ir.ttnn_internals import lacks_argument
from tt_dynamo.lowering.matmul import program_config, subblock
from tt_dynamo.lowering.memory import is_sharded
from tt_dynamo.lowering.workarounds import compute_kernel_config, fidelity_is_wrong

Config = Mapping[str, Any]
Arguments = dict[str, Any]
Change = tuple[str, Arguments]  # what is changed, in words, and the keywords that change

DECODE = (
    operators.update_cache,
    operators.update_cache_decode,
    operators.update_caches_decode,
    operators.slide_cache_decode,
    operators.attention_decode,
    operators.capped_attention_decode,
)
PRODUCTS = ("ttnn.linear", "ttnn.matmul")
CORES = frozenset({"grid", "in0_block_w"})
PRECISION = ("compute_kernel_config", "compute_config")  # as operations name that argument


def phase_of(graph: Graph) -> str:
    """ "decode" for a step against a cache, "prefill" for a prompt that fills or makes one, else "forward"."""
    targets = {node.target for node in graph.nodes}
    if not targets.isdisjoint(DECODE):
        return "decode"
    makes_caches = operators.fill_cache in targets or bool(meta.kept.get(graph.output_node(), ()))
    return "prefill" if makes_caches else "forward"


class Configs:
    """The rules for one board and phase, and which calls they meet.

    place: module path and name of the node that is being lowered. refusal: why TTNN refused a strict config there, or
    "". ttnn: the recorder of the program, which makes objects that it can hold.
    """

    def __init__(self, rules: Sequence[Rule], device: Device, phase: str) -> None:
        self.phase, self.board = phase, device.board
        self._rules = [
            rule
            for rule in (*rules, *default_configs())
            if rule.phase in ("", phase) and rule.board in ("", device.board)
        ]
        self._own = {rule.key for rule in rules}
        self._literal: dict[str, list[int]] = {}
        self._patterns: list[int] = []
        for at, rule in enumerate(self._rules):
            if any(mark in rule.pattern for mark in "*?["):
                self._patterns.append(at)
            else:
                self._literal.setdefault(rule.pattern, []).append(at)
        self._architecture = device.architecture
        self._made: dict[tuple[str, bool], Any] = {}  # compute kernel configs
        self.ttnn: Any = None
        self._met: set[str] = set()
        self._how = "ask"  # what becomes of `CORES`
        self.begin()

    def begin(self) -> None:
        """Forget what the last trace left out."""
        self.enter("", "")
        self._names: dict[str, None] = {}
        self._left_out: dict[tuple[str, str, str], list[str]] = {}

    def enter(self, module: str, node: str, parameter_modules: Sequence[str] = ()) -> None:
        """Say which node is lowered from now on, and of which modules it reads parameters."""
        self.place, self.refusal = (module, node), ""
        self._modules = (module, *parameter_modules)

    def find(self, operation: str) -> dict[str, Any]:
        """The config of a call of this operation ("ttnn.linear") where the trace is."""
        module, node = self.place
        return self._first((*self._modules, operation), _addresses(module, operation, node))

    def weight_dtype(self, names: Iterable[str], module: str, operation: str, node: str) -> str | None:
        """The dtype of a weight with these names, which this product reads; None where no rule says."""
        found = self._first((*names, operation), _addresses(module, operation, node))
        return found.get("weight_dtype")

    def _first(self, names: tuple[str, ...], addresses: tuple[str, ...]) -> dict[str, Any]:
        self._names.update(dict.fromkeys(names))
        fitting = {at for name in (*names, *addresses) for at in self._literal.get(name, ())}
        for at in self._patterns:
            pattern = self._rules[at].pattern
            if any(fnmatchcase(name, pattern) for name in (addresses if ":" in pattern else names)):
                fitting.add(at)
        found: dict[str, Any] = {}
        for at in sorted(fitting):
            self._met.add(self._rules[at].key)
            for field, value in self._rules[at].fields:
                found.setdefault(field, value)
        return found

    def check_operations(self, ttnn: Any) -> None:
        """Raise OptionError where a rule names an operation that TTNN does not have."""
        for rule in self._rules:
            if not any(mark in rule.operation for mark in "*?["):
                found, path = ttnn, "ttnn"
                for name in rule.operation.split(".")[1:]:
                    known = [each for each in dir(found) if not each.startswith("_")]
                    require_one_of(f"operation in the config {rule.key!r}: {path} has no", name, known)
                    found, path = getattr(found, name), f"{path}.{name}"

    def notes(self) -> list[str]:
        """What the last trace could not do as a rule says."""
        notes = []
        for (operation, what, reason), modules in self._left_out.items():
            where = list(dict.fromkeys(filter(None, modules)))
            more = f" and {len(where) - 1} more" if len(where) > 1 else ""
            of = f" of {where[0]}{more}" if where else ""
            notes.append(f"configs: {what} left out for {operation}{of}: {reason}")
        for rule in self._rules:
            if rule.key in self._own and rule.key not in self._met:
                close = get_close_matches(rule.pattern.partition(":")[0], filter(None, self._names), n=1, cutoff=0.4)
                hint = f"; the nearest is {close[0]!r}" if close else ""
                notes.append(f"configs: {rule.key!r} fits no call of this graph{hint}")
        return notes

    def call(
        self, make: Callable[[Arguments], Any], path: str, operands: list[Value], kwargs: Arguments
    ) -> tuple[Any, Arguments, Any]:
        """What a call gives with its config, and the keywords that it went through with.

        make: makes the call with these keywords. The third is what the call gives without the config; None where the
        config changes nothing. Raises Refused where TTNN refuses the call, for a strict config the changed one.
        """
        config = self.find(path)
        changes = list(self._changes(path, config, operands, kwargs))
        result, given = self._make(make, path, config, changes, kwargs)
        plain = result if given != kwargs else None
        memory = config.get("memory")
        if memory is None or "memory_config" in given or memory_of(result, operands) in ("", memory):
            return result, given, plain
        where = {"memory_config": getattr(self.ttnn, f"{memory}_MEMORY_CONFIG")}
        try:
            return make({**given, **where}), {**given, **where}, result
        except Refused as error:
            if config.get("strict") and not lacks_argument(error):
                self._refuse(path, f"memory {memory!r}", error)
            self._leave_out(path, f"memory {memory!r}", error)
        return result, given, plain

    def _make(
        self,
        make: Callable[[Arguments], Any],
        path: str,
        config: Config,
        changes: list[Change],
        kwargs: Arguments,
    ) -> tuple[Any, Arguments]:
        """The call with all changes, else with those that TTNN takes one after another."""
        try:
            given = _changed(kwargs, changes)
            return make(given), given
        except Refused as error:
            if not changes or self._how == "insist":
                raise
            if config.get("strict"):
                self._refuse(path, " and ".join(what for what, _ in changes), error)
        result, given = make(kwargs), kwargs
        for change in changes:
            try:
                wider = _changed(given, [change])
                result, given = make(wider), wider
            except Refused as error:
                self._leave_out(path, change[0], error)
        return result, given

    def preferred(self, operation: str, candidates: Sequence[Any]) -> tuple[Sequence[Any], Any]:
        """The candidates with the config's own before them, or alone where it is strict; and the own one, or None."""
        config = self.find(operation)
        chunks = {field: config[field] for field in CHUNKS if field in config}
        fields = next((each for each in candidates if isinstance(each, dict) and each.keys() & chunks.keys()), None)
        if fields is None:
            return candidates, None
        own = {field: chunks.get(field, value) for field, value in fields.items()}
        return ([own] if config.get("strict") else [own, *candidates]), own

    def refuse_chunks(self, operation: str, own: Config, reason: object) -> None:
        """Note that TTNN refused the config's own candidate; raises Refused where it is strict."""
        what = ", ".join(f"{field} {value}" for field, value in own.items() if field in CHUNKS)
        self._refuse_or_leave_out(operation, self.find(operation), what, reason)

    def question(self, operation: str) -> tuple[Any, ...]:
        """What of the config an answer of TTNN depends on, beside the candidates."""
        config, fields = self.find(operation), ["fidelity", "fp32_accumulation", "memory"]
        fields += sorted(CORES) if self._how == "insist" else []
        return tuple((field, config[field]) for field in fields if field in config)

    def described(self, kwargs: Arguments, given: Arguments, result: Any, operands: list[Value]) -> dict[str, Any]:
        """The config of a call that the lowering made with `kwargs` and that went through with `given`."""
        found: dict[str, Any] = {}
        if name := self._precision_of(kwargs):
            found["fidelity"] = given[name].math_fidelity.name
            found["fp32_accumulation"] = bool(given[name].fp32_dest_acc_en)
        program = given.get("program_config")
        if program is not None and program is not kwargs.get("program_config"):
            found["in0_block_w"] = program.in0_block_w
            if grid := getattr(program, "compute_with_storage_grid_size", None):
                found["grid"] = [grid.x, grid.y]
        elif self._has_all_cores(kwargs):
            found["grid"] = [given["core_grid"].x, given["core_grid"].y]
        memory = "" if "memory_config" in kwargs else memory_of(result, operands)
        return {**found, "memory": memory} if memory else found

    def _precision_of(self, kwargs: Arguments) -> str:
        """The keyword that has a precision of the settings, "" where the lowering chose another, or none."""
        settings = self.ttnn.settings
        usual = settings.compute_kernel_config, settings.weight_kernel_config  # which differ in LoFi
        return next((name for name in PRECISION if any(kwargs.get(name) is each is not None for each in usual)), "")

    def _has_all_cores(self, kwargs: Arguments) -> bool:
        return kwargs.get("core_grid") is self.ttnn.settings.core_grid is not None

    def asks_for_cores(self, operation: str) -> bool:
        """Whether the config says which cores compute this product, or how much they take at once."""
        return operation in PRODUCTS and not CORES.isdisjoint(self.find(operation))

    @contextlib.contextmanager
    def cores(self, how: str) -> Iterator[None]:
        """What becomes of grid and in0_block_w inside: calls without them are refused ("insist"), or all ("ignore")."""
        before, self._how = self._how, how
        try:
            yield
        finally:
            self._how = before

    def refuse_cores(self, operation: str, reason: object) -> None:
        """Note that TTNN took no candidate with the cores of the config; raises Refused where it is strict."""
        if self.refusal:
            raise Refused(self.refusal)
        config = self.find(operation)
        grid = config.get("grid", self.ttnn.settings.grid_size)
        width = config.get("in0_block_w")
        what = f"grid {list(grid)}" if width is None else f"in0_block_w {width} on {grid[0]} x {grid[1]} cores"
        self._refuse_or_leave_out(operation, config, what, reason)

    def _changes(self, path: str, config: Config, operands: list[Value], kwargs: Arguments) -> Iterable[Change]:
        """What the config changes of the keywords, each with its name; only what differs from what they are."""
        if name := self._precision_of(kwargs):
            yield from self._precision(path, config, name, kwargs[name])
        asked = {field: config[field] for field in CORES & config.keys()} if self._how != "ignore" else {}
        if asked and (path in PRODUCTS or self._has_all_cores(kwargs)):
            try:
                yield from self._cores(path, config, operands, kwargs)
            except Refused as error:
                if self._how == "insist":
                    raise
                self.refuse_cores(path, str(error))

    def _precision(self, path: str, config: Config, name: str, usual: Any) -> Iterable[Change]:
        before = usual.math_fidelity.name, bool(usual.fp32_dest_acc_en)
        fidelity, float32 = config.get("fidelity", before[0]), config.get("fp32_accumulation", before[1])
        what = f"fidelity {fidelity!r} with fp32_accumulation {float32}"
        if (fidelity, float32) != before and fidelity_is_wrong(self._architecture, fidelity, float32):
            reason = f"it gives wrong elements on {self.board} (tt-metal issue 38306), HiFi3 does not"
            self._refuse_or_leave_out(path, config, what, reason)
            fidelity = "HiFi3"
        if (fidelity, float32) == before:
            return
        if (fidelity, float32) not in self._made:
            value = getattr(self.ttnn.MathFidelity, fidelity)
            self._made[fidelity, float32] = compute_kernel_config(self.ttnn, value, float32)
        yield what, {name: self._made[fidelity, float32]}

    def _cores(self, path: str, config: Config, operands: list[Value], kwargs: Arguments) -> Iterable[Change]:
        usual = self.ttnn.settings.grid_size
        grid: tuple[int, int] | None = config.get("grid")
        if grid is not None and (grid[0] > usual[0] or grid[1] > usual[1]):
            reason = f"{self.board} has {usual[0]} columns and {usual[1]} rows of cores"
            self._refuse_or_leave_out(path, config, f"grid {list(grid)}", reason)
            grid = None
        width = config.get("in0_block_w") if path in PRODUCTS else None
        if "program_config" in kwargs:
            yield from self._other_cores(grid, width, path, operands, kwargs)
        elif width is not None and not _is_plain_product(operands, kwargs):
            raise Refused("only for one matrix as it lies, with relu, silu or gelu")
        elif width is not None:
            program = self._product_program(grid or usual, width, path, operands, kwargs.get("activation"))
            what = f"in0_block_w {width} on {(grid or usual)[0]} x {(grid or usual)[1]} cores"
            yield what, {"core_grid": None, "activation": None, "program_config": program}
        elif grid not in (None, usual) and not self._has_all_cores(kwargs):
            raise Refused("TTNN itself chooses the cores of this call")
        elif grid not in (None, usual):
            yield f"grid {list(grid)}", {"core_grid": self.ttnn.CoreGrid(x=grid[0], y=grid[1])}

    def _other_cores(
        self, grid: tuple[int, int] | None, width: int | None, path: str, operands: list[Value], kwargs: Arguments
    ) -> Iterable[Change]:
        """What changes of a product for which the lowering made a program config."""
        kind, made = self.ttnn.made(kwargs["program_config"])
        cores = made.get("compute_with_storage_grid_size")
        taken = (cores.x, cores.y) if cores is not None else None
        if grid not in (None, taken):
            memory = kwargs.get("memory_config")
            if taken is None or any(map(is_sharded, operands)) or (memory is not None and memory.is_sharded()):
                raise Refused(f"its shards lie on {f'{taken[0]} x {taken[1]}' if taken else 'other'} cores")
            depth = width or made["in0_block_w"]
            program = self._product_program(grid, depth, path, operands, made.get("fused_activation"))
        elif width in (None, made["in0_block_w"]):
            return
        else:
            program = getattr(self.ttnn, kind)(**{**made, "in0_block_w": width})
        yield f"in0_block_w {width} on {grid or taken} cores", {"program_config": program}

    def _product_program(
        self, grid: tuple[int, int], width: int, path: str, operands: list[Value], activation: Any
    ) -> Any:
        """How a product of these operands is computed in blocks of `width` tiles along the inner dimension.

        One row of tiles is shared by all cores (1D); more are in blocks, rows of cores by columns (2D).
        """
        x, weight = operands[:2]
        rows, columns = tiles(x.shape)[0], tiles(weight.shape)[1]
        blocks: Arguments = {"in0_block_w": width}
        if rows == 1:
            per_core = 1, math.ceil(columns / math.prod(grid))
            blocks["mcast_in0"] = True
        else:
            per_core = math.ceil(rows / grid[1]), math.ceil(columns / grid[0])
        size = subblock(self.ttnn, *per_core, path)
        return program_config(self.ttnn, Blocks(*grid, *per_core), activation, blocks, size)

    def _refuse_or_leave_out(self, path: str, config: Config, what: str, reason: object) -> None:
        if config.get("strict"):
            self._refuse(path, what, reason)
        self._leave_out(path, what, reason)

    def _refuse(self, path: str, what: str, reason: object) -> NoReturn:
        """Refuse a call of a strict config; the trace raises if there is no other way either."""
        module = f" of {self.place[0]}" if self.place[0] else ""
        self.refusal = f"configs: {what} for {path}{module}: {reason}; change it, or leave out 'strict'"
        raise Refused(self.refusal)

    def _leave_out(self, path: str, what: str, reason: object) -> None:
        self._left_out.setdefault((path, what, str(reason)), []).append(self.place[0])


def _is_plain_product(operands: list[Value], kwargs: Arguments) -> bool:
    """Whether it is [..., k] @ [k, n], with an activation that a program config can hold."""
    known = not isinstance(kwargs.get("activation"), str) or kwargs["activation"] in ("relu", "silu")
    turned = kwargs.get("transpose_a") or kwargs.get("transpose_b")
    return known and not turned and math.prod(operands[1].shape[:-2]) == 1


def memory_of(result: Any, operands: Sequence[Value]) -> str:
    """Where what a call gives lies interleaved, "DRAM" or "L1"; "" for views and what is sharded or on the host."""
    tensors = [leaf for leaf in tree_leaves(result) if hasattr(leaf, "memory_config")]
    if not tensors or not all(on_device(tensor) and not tensor.is_sharded() for tensor in tensors):
        return ""
    taken = {_buffer(operand.tensor) for operand in operands if on_device(operand.tensor)}
    if any(_buffer(tensor) in taken for tensor in tensors):
        return ""
    kinds = {kind for kind, _ in map(_buffer, tensors)}
    return kinds.pop() if len(kinds) == 1 else ""


def _buffer(tensor: Any) -> tuple[str, int]:
    return tensor.memory_config().buffer_type.name, tensor.buffer_address()


def _changed(kwargs: Arguments, changes: Iterable[Change]) -> Arguments:
    """The keywords with these changes; None takes one away."""
    kwargs = dict(kwargs)
    for _, change in changes:
        kwargs.update(change)
    changed = {name for _, change in changes for name in change}
    return {name: value for name, value in kwargs.items() if value is not None or name not in changed}


def _addresses(module: str, operation: str, node: str) -> tuple[str, str]:
    return f"{module}:{operation}", f"{module}:{operation}:{node}"
