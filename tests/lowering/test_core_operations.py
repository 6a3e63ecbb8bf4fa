"""Core ATen operations: each in the table, each of its calls compiled, and lowering/coverage.md written from it."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled import BOARD, calls, close
from coverage_table import coverage
from lowering_tables import CORE
from lowering_tables.core import DTYPES, Core, Host
from torch._functorch.aot_autograd import aot_function
from torch.utils._pytree import tree_flatten, tree_unflatten

from tt_dynamo.capture.decompositions import decompositions
from tt_dynamo.compiler.compile import Compiler
from tt_dynamo.devices import open_device
from tt_dynamo.lowering import registered
from tt_dynamo.lowering.on_host import IMPOSSIBLE
from tt_dynamo.options import Options
from tt_dynamo.report.report import GraphReport

CHECKED_IN = Path(__file__).parents[2] / "lowering" / "coverage.md"
REFUSALS = (RuntimeError, TypeError, IndexError, NotImplementedError)


def core_operations() -> list[str]:
    """Every core ATen operation that gives new values; variants with an `out` argument are left out."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, qualified = name.partition("::")
        packet, _, overload = qualified.partition(".")
        target = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if namespace == "aten" and target and torch.Tag.core in target.tags and not target._schema.is_mutable:
            found.append(f"{packet}.{overload or 'default'}")
    return sorted(found)


def compile_call(target: Any, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, GraphReport | None]:
    """What the compiled call gives and its report; no report where torch cannot put the call into a graph."""
    options = Options.parse({"device": BOARD, "placement": "device"})
    device = open_device(options.device)
    leaves, structure = tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    reports: list[GraphReport] = []

    def call(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        positional, named = tree_unflatten(filled, structure)
        return target(*positional, **named)

    def compiler(module: torch.fx.GraphModule, _: Any) -> Any:
        compiling = Compiler(module, device, options, "core")
        program: Any = functools.partial(compiling.compile())
        program._boxed_call = True
        reports.append(compiling.report)
        return program

    fw_compiler: Any = compiler
    try:
        with torch.no_grad():
            outputs = aot_function(call, fw_compiler, decompositions=decompositions())(*(leaves[i] for i in places))
    except (torch._subclasses.fake_tensor.DynamicOutputShapeException, RuntimeError, AttributeError):
        return None, None
    return outputs, reports[0] if reports else None


@pytest.mark.parametrize("operation", CORE, ids=lambda operation: operation.name)
def test_a_core_operation_becomes_its_calls_with_each_dtype(operation: Core) -> None:
    for dtype in DTYPES:
        target, expected = operation.target, operation.outcome(dtype)
        if expected is None:
            with pytest.raises(REFUSALS):
                args, kwargs = operation.arguments(dtype)
                target(*args, **kwargs)
            continue
        args, kwargs = operation.arguments(dtype)
        outputs, report = compile_call(target, args, kwargs)
        found = " ".join(calls(report)) if report else ""
        reasons = tuple(dict.fromkeys(fallback.reason for fallback in report.fallbacks)) if report else ()
        host = Host(calls=expected) if isinstance(expected, str) else expected
        assert (dtype, found, reasons) == (dtype, host.calls, host.reasons)
        if report and not operation.is_open(dtype):
            close(outputs, target(*args, **kwargs), operation.roundings, cancels=True)


def test_every_core_operation_has_a_row() -> None:
    assert sorted(operation.name for operation in CORE) == core_operations()


def test_what_ttnn_cannot_express_has_no_lowering() -> None:
    assert not IMPOSSIBLE.keys() & registered().keys()


def test_the_summary_is_up_to_date() -> None:
    found, expected = coverage().splitlines(), CHECKED_IN.read_text().splitlines()
    stale = [line for line in found if line not in expected]
    assert found == expected, "run: python tests/lowering/coverage_table.py > lowering/coverage.md\n" + "\n".join(stale)


def test_95_of_100_core_operations_that_ttnn_can_express_are_lowered() -> None:
    expressible = [operation for operation in CORE if operation.target not in IMPOSSIBLE]
    assert sum(operation.is_lowered for operation in expressible) >= 0.95 * len(expressible)
