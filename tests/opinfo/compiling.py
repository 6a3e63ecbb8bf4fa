"""Compile a function through the backend without Dynamo: AOTAutograd traces it, as it does after Dynamo.

Dynamo's share of a compilation is ten times that of everything else for a graph of one operation, and nothing of it is
under test where one operation after another is compiled.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._functorch.aot_autograd import aot_function
from torch.fx import GraphModule

from tt_dynamo.backend import decompositions
from tt_dynamo.capture.inputs import GraphInput, describe_inputs
from tt_dynamo.compiler.compile import Compiler
from tt_dynamo.devices import open_device
from tt_dynamo.options import Options
from tt_dynamo.report.report import GraphReport

# A process can hold one board; `make test` runs all on this one.
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


@dataclasses.dataclass
class Compiled:
    """What one run of a compiled function gave, the ATen graph that it was compiled from, and the compiler's report."""

    outputs: Any
    graph: GraphModule
    report: GraphReport


def run_compiled(
    function: Callable[..., Any], tensors: Sequence[torch.Tensor], parameters: int = 0, **options: Any
) -> Compiled:
    """Compile `function` for these tensors, without gradients, and call it once; the first `parameters` are parameters.

    Raises what AOTAutograd raises where it cannot trace the function (DynamicOutputShapeException for shapes that
    depend on values), and RuntimeError where torch leaves no graph to compile.
    """
    parsed = Options.parse({"device": BOARD, "preset": "accuracy", **options})
    found: list[tuple[GraphModule, GraphReport]] = []

    def compiler(module: GraphModule, _: Any) -> Callable[..., Any]:
        graph = GraphModule(module, copy.deepcopy(module.graph))
        names = [node.name for node in module.graph.find_nodes(op="placeholder")]
        describe_inputs(module, {name: GraphInput(f"input_{i}", i < parameters) for i, name in enumerate(names)})
        compiling = Compiler(module, open_device(parsed.device), parsed, "function")
        call: Any = functools.partial(compiling.compile())
        call._boxed_call = True
        found.append((graph, compiling.report))
        return call

    with torch.no_grad():
        outputs = aot_function(function, fw_compiler=compiler, decompositions=decompositions())(*tensors)
    if not found:
        raise RuntimeError("AOTAutograd gave no graph")
    return Compiled(outputs, *found[0])
