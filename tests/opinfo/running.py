"""Run one sample of an operator, compiled and in eager torch, and say how it went."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import warnings
from typing import Any, NamedTuple

import torch
from compiling import run_compiled
from judge import by_elements, complaint, meaningless, rounded_run
from samples import Sample, in_float32, seed
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tt_dynamo.ir.spec import DEVICE_DTYPES
from tt_dynamo.lowering.on_host import IMPOSSIBLE

# How a sample can go here; `workers` adds "crash" and "hang". The first four are right.
DEVICE = "device"  # right, with no fallback
MIXED = "mixed"  # right, with some nodes in eager torch
HOST = "host"  # right, all of it in eager torch
EAGER = "eager"  # shapes depend on values or eager torch refuses the sample: Dynamo compiles no such graph
WRONG = "wrong"
ERROR = "error"

# Results with undefined contents: only shape and dtype can be compared.
UNDEFINED = frozenset({"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"})
# Shapes that depend on values: with Dynamo's default settings such a call breaks the graph and runs in eager torch.
DATA_DEPENDENT = (DynamicOutputShapeException, DataDependentOutputException, GuardOnDataDependentSymNode)


@dataclasses.dataclass
class Outcome:
    """How one sample went: operator, dtype, number of the sample, status and what there is to say of it.

    targets: the ATen operations that eager torch calls for it, less views. core: all are core ATen operations.
    expressible: TTNN has a way for all of them, and the dtypes of all results.
    reasons: why nodes ran in eager torch. meaningless: bfloat16 alone destroys the result, so values prove nothing.
    """

    operator: str
    dtype: str
    number: int
    status: str
    message: str = ""
    sample: str = ""
    targets: tuple[str, ...] = ()
    core: bool = False
    expressible: bool = False
    reasons: tuple[str, ...] = ()
    meaningless: bool = False


class Results(NamedTuple):
    """What a call gave, and its tensors after it."""

    outputs: Any
    tensors: list[torch.Tensor]


class _Called(TorchDispatchMode):
    """Notes which ATen operations eager torch calls."""

    def __init__(self) -> None:
        super().__init__()
        self._called: dict[str, bool] = {}
        self.expressible = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.name() != "aten::detach":
            self._called[str(func)] = _is_core(func)
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.expressible &= func not in IMPOSSIBLE and all(tensor.dtype in DEVICE_DTYPES for tensor in tensors)
        return result

    def targets(self) -> tuple[str, ...]:
        return tuple(sorted(self._called))

    def all_core(self) -> bool:
        return bool(self._called) and all(self._called.values())


def _is_core(target: torch._ops.OpOverload) -> bool:
    """Whether it is a core ATen operation, or the in-place form of one, which functionalization makes that one."""
    packet = target.overloadpacket
    name = packet.__name__.removesuffix("_")
    functional = getattr(torch.ops.aten, name, packet)
    candidates = [target] + [getattr(functional, o) for o in functional.overloads() if o == target._overloadname]
    return any(torch.Tag.core in candidate.tags for candidate in candidates)


def run_sample(operator: str, dtype: str, number: int, sample: Sample) -> Outcome:
    """Run one sample; never raises."""
    outcome = Outcome(operator, dtype, number, EAGER, sample=sample.text)
    with _quiet():
        try:
            with _Called() as called:
                eager = _eager(sample, sample.copies())
        except Exception as error:
            outcome.message = f"eager torch refuses it: {_first_line(error)}"
            return outcome
        outcome.targets, outcome.core, outcome.expressible = called.targets(), called.all_core(), called.expressible
        try:
            _judge(outcome, sample, eager)
        except DATA_DEPENDENT as error:
            outcome.message = _first_line(error)
        except Exception as error:
            outcome.status, outcome.message = ERROR, f"{type(error).__name__}: {_first_line(error)}"
    return outcome


def _eager(sample: Sample, tensors: list[torch.Tensor]) -> Results:
    """What eager torch gives, and the tensors as it leaves them."""
    seed()
    return Results(sample.function(*tensors), tensors)


def _judge(outcome: Outcome, sample: Sample, eager: Results) -> None:
    tensors = sample.copies()
    seed()
    compiled = run_compiled(sample.function, tensors, placement="device")
    outcome.reasons = tuple(f"{fallback.node}: {fallback.reason}" for fallback in compiled.report.fallbacks)
    references = _reference(sample, eager) if outcome.dtype == "bfloat16" else eager
    # What the call writes into its tensors is judged like a result of it.
    written = [i for i, tensor in enumerate(eager.tensors) if tensor._version]
    ours, theirs, exact = (
        [*(given.tensors[i] for i in written), *tree_leaves(given.outputs)]
        for given in (Results(compiled.outputs, tensors), eager, references)
    )
    copies = sample.copies()
    seed()
    rounded = rounded_run(compiled.graph, copies, exact)
    if outcome.operator in UNDEFINED:
        ours, theirs, exact, rounded = map(_zeroed, (ours, theirs, exact, rounded))
    if sample.unordered is not None:
        named = functools.partial(by_elements, x=sample.tensors[0], dim=sample.unordered)
        ours, theirs, exact, rounded = map(named, (ours, theirs, exact, rounded))
    outcome.message = complaint(ours, theirs, exact, rounded)
    outcome.meaningless = meaningless(exact, rounded)
    if outcome.message:
        outcome.status = WRONG
    elif not outcome.reasons:
        outcome.status = DEVICE
    else:
        outcome.status = MIXED if compiled.report.device_nodes else HOST


def _reference(sample: Sample, eager: Results) -> Results:
    """The sample in float32; bfloat16's own answer where the operator does other things then."""
    try:
        found = _eager(sample, [in_float32(tensor) for tensor in sample.copies()])
    except Exception:
        return eager
    ours, theirs = tree_leaves(found), tree_leaves(eager)
    same = len(ours) == len(theirs) and all(
        not isinstance(b, torch.Tensor) or (isinstance(a, torch.Tensor) and a.shape == b.shape)
        for a, b in zip(ours, theirs, strict=True)
    )
    return found if same else eager


def _zeroed(tree: Any) -> Any:
    return [torch.zeros_like(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in tree_leaves(tree)]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextlib.contextmanager
def _quiet() -> Any:
    """No warnings of deprecated operators, and none of ours about values that stay on the host."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = logging.getLogger("tt_dynamo")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
