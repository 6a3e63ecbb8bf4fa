"""A compiled program as text, numbers and tensors, and the program that such a description makes on an open device.

A description is read by `torch.load(weights_only=True)`, which makes no objects of other kinds. What computes a
constant is the text that torch generates of its graph. The graph that recovery runs is not in it: a program that needs
that one compiles it then, from the graph that AOTAutograd gives to every process.
"""

import contextvars
import dataclasses
import functools
import logging
import math
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node

from tt_dynamo.artifacts.key import Unkeyable
from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Assumption, compute_nodes, source_line
from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.uses import StateUse, WeightUse
from tt_dynamo.report.report import Choice, Decomposed, Fallback, GraphReport, Operation, Transfer
from tt_dynamo.report.tunings import Tuned
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.recovery import Recovery
from tt_dynamo.runtime.traces.program import TraceSource
from tt_dynamo.runtime.transfer import Border

log = logging.getLogger(__name__)

Description = dict[str, Any]
AS_THEY_ARE = ("source", "input_positions", "parameter_positions", "held_positions", "state_positions", "results")
# What the text of a constant's graph may name beside `torch`.
KNOWN = {"torch": torch, "device": torch.device, "inf": math.inf, "nan": math.nan, "NoneType": type(None)}
ROWS = {
    "fallbacks": Fallback, "transfers": Transfer, "operations": Operation, "choices": Choice, "tuned": Tuned,
    "decomposed": Decomposed,
}  # fmt: skip


def describe(program: Program, assumptions: Sequence[Assumption]) -> Description:
    """The description of a program that has not run yet. Raises Unkeyable where a constant has no text."""
    states = [(vars(use.spec), use.held, use.written, use.result is None) for use in program.states]
    kept = [(at, vars(spec), tuple(like.shape), like.stride(), like.dtype) for at, spec, like in program.kept]
    return {
        **{name: getattr(program, name) for name in AS_THEY_ARE},
        "states": states,
        "kept": kept,
        "weights": [_describe_weight(use) for use in program.weights],
        "parts": vars(program.parts) if program.parts is not None else None,
        "assumptions": [(a.placeholders, a.value) for a in assumptions],
        "report": dataclasses.asdict(program.report),
    }


def _describe_weight(use: WeightUse) -> Description:
    computed = None
    if use.node.op != "placeholder":
        computed = describe_constant(getattr(use.node.graph.owning_module, str(use.node.target)))
    spec = vars(use.spec) if use.spec is not None else None
    text = {"positions": list(use.positions), "expression": use.expression, "mesh": tuple(use.mesh)}
    return {"spec": spec, "computed": computed, **text}


def describe_constant(value: Any) -> Any:
    """A literal as the tensor that it is, a folded constant as the text of its graph and what that reads."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if not isinstance(value, GraphModule):
        raise Unkeyable(f"a constant is computed by a {type(value).__name__}")
    code = value.graph.python_code("self")
    unknown = [name for name in code.globals if name not in KNOWN and name in code.src]
    if unknown:
        raise Unkeyable(f"a constant is computed by {', '.join(unknown)}")
    read = {str(node.target) for node in value.graph.nodes if node.op in ("get_attr", "call_module")}
    return {"code": code.src, "reads": {name: describe_constant(getattr(value, name)) for name in sorted(read)}}


def constant_of(described: Any) -> Any:
    """The tensor of a literal, or a function of the parameters that a constant is made of."""
    if isinstance(described, torch.Tensor):
        return described
    reads = types.SimpleNamespace(**{name: constant_of(value) for name, value in described["reads"].items()})
    scope: dict[str, Any] = dict(KNOWN)
    exec(compile(described["code"], "<tt_dynamo constant>", "exec"), scope)
    return functools.partial(scope["forward"], reads)


def _weight(described: Description, node: Node) -> WeightUse:
    spec = Spec(**described["spec"]) if described["spec"] is not None else None
    use = WeightUse(node, spec, described["positions"], expression=described["expression"], mesh=described["mesh"])
    if described["computed"] is not None:
        value = constant_of(described["computed"])
        use.evaluate = (lambda: value) if isinstance(value, torch.Tensor) else value
    return use


def report_of(description: Description, eager: GraphModule) -> GraphReport:
    """The report of a description; its fallbacks name the lines that the graph comes from now."""
    fields = dict(description["report"])
    for name, kind in ROWS.items():
        fields[name] = [kind(**row) for row in fields[name]]
    lines = {node.name: source_line(node) for node in compute_nodes(eager.graph)} if fields["fallbacks"] else {}
    fields["fallbacks"] = [dataclasses.replace(f, line=lines.get(f.node) or f.line) for f in fields["fallbacks"]]
    return GraphReport(**fields)


class LaterRecovery:
    """Recovery of a program that was not compiled here: compiles its graph when a call needs that."""

    def __init__(self, eager: GraphModule, border: Border, strict: bool, recompile: Callable[[], Recovery]) -> None:
        self.eager, self.border, self.strict = eager, border, strict
        self._recompile = recompile
        self._recovery: Recovery | None = None
        self._lock = threading.Lock()

    def run(self, args: Sequence[Any]) -> tuple[Sequence[Any], list[tuple[Node, str]]]:
        """See `Recovery.run`; all of it runs in eager torch where the graph cannot be compiled now."""
        try:
            with self._lock, torch.inference_mode(False):
                # Its report is nobody's: the program has one.
                found = self._recovery = self._recovery or contextvars.Context().run(self._recompile)
        except Exception as error:
            if self.strict:
                raise
            log.warning("a graph cannot be compiled to run on after a failure; it runs in eager torch", exc_info=True)
            reason = f"{type(error).__name__}: {error}"
            with torch.no_grad():
                outputs = self.eager(*args)
            nodes = [node for node in compute_nodes(self.eager.graph) if node.target not in operators.TRANSFERS]
            return outputs, [(node, reason) for node in nodes]
        return found.run(args)


def program_of(description: Description, report: GraphReport, recovery: Any, store: Any, eager: GraphModule) -> Program:
    """The program of a description on the device of `recovery.border`."""
    placeholders = list(eager.graph.find_nodes(op="placeholder"))
    unknown = eager.graph.output_node()  # the graph that was lowered is not there
    states = []
    for (spec, held, written, in_place), at in zip(description["states"], description["state_positions"], strict=True):
        states.append(StateUse(placeholders[at], Spec(**spec), held, written, None if in_place else unknown))
    with FakeTensorMode():
        kept = [
            (at, Spec(**spec), torch.empty_strided(shape, stride, dtype=dtype))
            for at, spec, shape, stride, dtype in description["kept"]
        ]
    weights = [_weight(described, unknown) for described in description["weights"]]
    same = {name: description[name] for name in AS_THEY_ARE}
    device = recovery.border.device
    parts = TraceSource(**description["parts"]) if description["parts"] is not None else None
    found = {"states": states, "kept": kept, "weights": weights, "parts": parts, "report": report, "store": store}
    return Program(device=device, recovery=recovery, **same, **found)
