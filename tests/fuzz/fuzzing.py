"""Run a random graph compiled and in eager torch, and say what differs.

A float result is right where it lies within the tolerance of tests/opinfo/judge.py around eager torch in float32: a
small multiple of what rounding every intermediate to bfloat16 does to the same function, and 2 units in the last place.
Comparisons and steps (floor, argmax) of computed numbers turn over where two of them lie close: the function is rounded
in other ways too, to either neighbour at random, and a result is right where one of these runs explains it; the last is
of the ATen graph, where what torch has whole is taken apart. Elements turn over each for itself, so those of whole
numbers and truths may be explained each by another run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from comparison import shared_memory, tensors_of
from compiling import BOARD, run_compiled
from graphs import Case
from judge import complaint, meaningless, rounded_run
from rounding import Rounded
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

import tt_dynamo
from tt_dynamo.capture.aliases import misjudged_inputs

RANDOM_ROUNDINGS = 32


@dataclasses.dataclass
class Outcome:
    """What is wrong with a graph, "" where nothing is; how many nodes ran where; whether its values prove nothing."""

    complaint: str = ""
    device_nodes: int = 0
    host_nodes: int = 0
    meaningless: bool = False
    code: str = ""


def run(case: Case, whole: bool = False) -> Outcome:
    """Compile and run one graph, `whole` through torch.compile, else without Dynamo."""
    inputs, eager_inputs = case.make(), case.make()
    with torch.no_grad():
        eager = case.function()(*eager_inputs)
        try:
            ours, reports = (_through_dynamo if whole else _without_dynamo)(case, inputs)
        except Exception as error:
            return Outcome(f"{type(error).__name__}: {str(error).strip()[:500]}")
    outcome = Outcome(
        device_nodes=sum(report.device_nodes for report in reports),
        host_nodes=sum(report.host_nodes for report in reports),
        code="\n".join(report.code for report in reports),
    )
    everything, all_eager = (ours, inputs), (eager, eager_inputs)
    outcome.complaint = _memory_complaint(ours, eager, inputs, eager_inputs) or _value_complaint(
        case, everything, all_eager, outcome
    )
    return outcome


def _without_dynamo(case: Case, inputs: list[torch.Tensor]) -> tuple[Any, list[tt_dynamo.GraphReport]]:
    if misjudged_inputs(inputs):
        return _through_dynamo(case, inputs)
    try:
        found = run_compiled(case.function(), inputs, parameters=case.parameters)
    except AssertionError as error:
        # AOTAutograd by itself cannot write through one of two inputs that lie in one memory; after Dynamo it can.
        if "ViewMeta" not in str(error):
            raise
        inputs[:] = case.make()
        return _through_dynamo(case, inputs)
    return found.outputs, [found.report]


class Model(torch.nn.Module):
    """The graph with its parameters as a model has them."""

    def __init__(self, function: Callable[..., Any], parameters: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.function, self.count = function, len(parameters)
        for number, value in enumerate(parameters):
            if value.is_floating_point():
                setattr(self, f"p{number}", torch.nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(f"p{number}", value)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*(getattr(self, f"p{number}") for number in range(self.count)), *inputs)


def _through_dynamo(case: Case, inputs: list[torch.Tensor]) -> tuple[Any, list[tt_dynamo.GraphReport]]:
    torch._dynamo.reset()
    model = Model(case.function(), inputs[: case.parameters])
    for number in range(case.parameters):
        inputs[number] = getattr(model, f"p{number}")
    with tt_dynamo.record() as reports:
        compiled = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD, "preset": "accuracy"})
        return compiled(*inputs[case.parameters :]), reports


def _memory_complaint(ours: Any, eager: Any, inputs: Any, eager_inputs: Any) -> str:
    """What shares memory in eager torch shares it, at the same strides; shapes and dtypes are the judge's.

    Strides of a value in memory of its own are what torch's fake tensors say, not always what eager torch gives.
    """
    shared, expected = shared_memory(ours, inputs), shared_memory(eager, eager_inputs)
    if shared != expected:
        return f"shares memory {sorted(shared)}, eager torch {sorted(expected)}"
    positions = {number for _, number, _ in expected} | {other for kind, _, other in expected if kind == "output"}
    mine, theirs = tensors_of(ours), tensors_of(eager)
    for position in sorted(positions):
        if mine[position].shape == theirs[position].shape and _steps(mine[position]) != _steps(theirs[position]):
            strides = mine[position].stride(), theirs[position].stride()
            return f"tensor {position} has the strides {strides[0]}, eager torch's {strides[1]}"
    return ""


def _steps(x: torch.Tensor) -> list[int]:
    """The strides that say where elements lie."""
    return [step for step, size in zip(x.stride(), x.shape, strict=True) if size > 1]


def _value_complaint(case: Case, everything: Any, eager: Any, outcome: Outcome) -> str:
    wide = in_float32(case)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        references = _result(wide)
        found, turned = "", None
        for way, seed in [(case, None), (wide, None), *((wide, seed) for seed in range(RANDOM_ROUNDINGS))]:
            rounded = tree_leaves(_result(way, Rounded(seed)))
            turned = rounded if turned is None else list(map(_turned_over, turned, rounded, tree_leaves(eager)))
            outcome.meaningless = outcome.meaningless or meaningless(references, rounded)
            if seed is not None:
                rounded = _halved(turned, tree_leaves(references))
            problem = complaint(everything, eager, references, rounded)
            if not problem:
                return ""
            found = found or problem
        outputs = rounded_run(run_compiled(case.function(), case.make()).graph, case.make())
    if len(outputs) != len(tree_leaves(eager[0])):  # written inputs come down as outputs of the graph
        return found
    return found and complaint(everything, eager, references, [*outputs, *tree_leaves(references[1])])


def _turned_over(before: Any, now: Any, eager: Any) -> Any:
    """A result of the last run; of whole numbers and truths what any run so far made other than eager torch."""
    if not isinstance(now, torch.Tensor) or now.is_floating_point() or now.shape != eager.shape:
        return now
    return torch.where(before != eager, before, now)


def _halved(rounded: list[Any], exact: list[Any]) -> list[Any]:
    """Rounding to either neighbour is off by up to twice what rounding to the nearest is."""
    pairs = zip(rounded, exact, strict=True)
    return [(r.float() + e) / 2 if isinstance(r, torch.Tensor) and r.is_floating_point() else r for r, e in pairs]


def _result(case: Case, mode: Any = None) -> Any:
    """The outputs in eager torch, and the inputs afterwards; `mode` is on while they are computed."""
    inputs = case.make()
    with mode or contextlib.nullcontext():
        return case.function()(*inputs), inputs


def in_float32(case: Case) -> Case:
    """The same graph on the same numbers with float32 in place of the other floats."""
    narrow = re.compile(r"torch\.b?float16|\.half\(\)")
    cast = re.compile(r"\.to\(torch\.b?float16\)|\.half\(\)")  # a copy, which may be written where a view may not
    inputs = tuple(f"({text}).float()" if narrow.search(text) else text for text in case.inputs)
    steps = tuple(narrow.sub("torch.float32", cast.sub(".to(torch.float32, copy=True)", text)) for text in case.steps)
    return dataclasses.replace(case, inputs=inputs, steps=steps)
