"""Graphs as passes see them in real life, and what must hold after every pass.

`capture` compiles with backend="ttnn" up to the point where the compiler would run its passes, so that decompositions,
lifted parameters and their marks are the backend's own. `Captured.apply` runs passes and checks what must hold after
any of them: the graph lints and runs in eager torch, the outputs and the inputs afterwards keep shape, dtype and
values, every node's fake value has the shape and dtype of its real one, and a second run finds nothing more to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._functorch.aot_autograd import aot_function
from torch.fx import Graph, GraphModule, Interpreter, Node

import tt_dynamo.backend
from tt_dynamo.backend import decompositions, describe_inputs, kept_whole, regularize
from tt_dynamo.capture.inputs import GraphInput
from tt_dynamo.ir.graph import Context

Pass = Callable[[Graph, Context], int]


@dataclasses.dataclass
class Captured:
    """One ATen graph and the arguments of the call that it was captured from."""

    module: GraphModule
    arguments: list[Any]
    context: Context = dataclasses.field(default_factory=Context)

    @property
    def graph(self) -> Graph:
        return self.module.graph

    def calls(self, *targets: Any) -> list[Node]:
        """The nodes that call any of `targets`, in order."""
        return [node for node in self.graph.nodes if node.op == "call_function" and node.target in targets]

    def only(self, target: Any) -> Node:
        """The one node that calls `target`."""
        (node,) = self.calls(target)
        return node

    def targets(self) -> list[Any]:
        """What the graph calls, in order."""
        return [node.target for node in self.graph.nodes if node.op == "call_function"]

    def run(self) -> tuple[Any, ...]:
        """The outputs and the inputs afterwards in eager torch, random numbers seeded; fake values are held against
        real ones."""
        self.module.recompile()
        arguments = [a.clone() if isinstance(a, torch.Tensor) else a for a in self.arguments]
        torch.manual_seed(0)
        with torch.no_grad():
            return (*_Checked(self.module).run(*arguments), *arguments)

    def apply(self, *passes: Pass, exact: bool = True) -> int:
        """Run passes; returns how many places the last one changed.

        exact: outputs are equal to the last bit; otherwise but for float32's rounding, where sums are re-associated.
        """
        before = self.run()
        changed = 0
        for transform in passes:
            changed = transform(self.graph, self.context)
            self.graph.lint()
        same(self.run(), before, exact)
        assert passes[-1](self.graph, self.context) == 0, f"{passes[-1].__name__} was not done after one run"
        return changed


def capture(model: Callable[..., Any], *inputs: Any) -> Captured:
    """The graph of `model(*inputs)`, which must be one graph, before any pass."""
    found: list[Captured] = []

    def compiler(graph: GraphModule, _: Any = None) -> Callable[..., Any]:
        def run(arguments: list[Any]) -> Any:
            found.append(Captured(graph, list(arguments)))
            return graph(*arguments)

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    if isinstance(model, nn.Module) or _reads_tensors(model):
        _through_dynamo(compiler, model, inputs)
    else:
        _through_autograd(compiler, model, inputs)
    (graph,) = found
    return graph


def _reads_tensors(model: Callable[..., Any]) -> bool:
    """Whether a function has tensors or modules of its own, which Dynamo makes inputs and parameters."""
    cells = [cell.cell_contents for cell in getattr(model, "__closure__", None) or ()]
    return any(isinstance(value, (torch.Tensor, nn.Module)) for value in cells)


def _through_dynamo(compiler: Callable[..., Any], model: Callable[..., Any], inputs: Sequence[Any]) -> None:
    class Capturing:
        assumptions = ()

        def __init__(self, graph: GraphModule, *_: Any, **__: Any) -> None:
            self.graph = graph

        def program(self) -> Callable[[list[Any]], Any]:
            return compiler(self.graph)

    torch._dynamo.reset()
    with mock.patch.multiple(tt_dynamo.backend, Compilation=Capturing, open_device=mock.DEFAULT), torch.no_grad():
        torch.compile(model, backend="ttnn", dynamic=False)(*inputs)


def _through_autograd(compiler: Callable[..., Any], model: Callable[..., Any], inputs: Sequence[Any]) -> None:
    """As `compile_graph` has AOTAutograd trace, without Dynamo before it, which takes ten times as long."""

    def forward(graph: GraphModule, _: Any) -> Callable[..., Any]:
        names = [node.name for node in graph.graph.find_nodes(op="placeholder")]
        describe_inputs(graph, {name: GraphInput(name, False) for name in names})
        regularize(graph)
        return compiler(graph)

    with torch.no_grad(), kept_whole(GraphModule(nn.Module(), Graph()), inputs):
        aot_function(model, fw_compiler=forward, decompositions=decompositions(), keep_inference_input_mutations=True)(
            *inputs
        )


class Module(nn.Module):
    """A module with the given members as p0, p1, … and a function (module, *inputs) as its forward."""

    def __init__(self, *members: nn.Module | nn.Parameter, forward: Callable[..., Any]) -> None:
        super().__init__()
        for index, member in enumerate(members):
            setattr(self, f"p{index}", member)
        self.function = forward

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def random(*shape: int) -> torch.Tensor:
    """Standard normal float32 numbers, the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + 31 * len(shape)))


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(random(*shape))


def same(after: Sequence[Any], before: Sequence[Any], exact: bool) -> None:
    """Assert equal outputs: shape, dtype, values, and which of them are no tensors."""
    tolerance = {"rtol": 0.0, "atol": 0.0} if exact else {}
    assert len(after) == len(before)
    for new, old in zip(after, before, strict=True):
        if isinstance(old, torch.Tensor):
            torch.testing.assert_close(new, old, equal_nan=True, **tolerance)
        else:
            assert new == old


class _Checked(Interpreter):
    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op not in ("output", "placeholder"):
            assert "val" in n.meta, f"{n.format_node()} has no fake value"
            fakes = n.meta["val"] if isinstance(n.meta["val"], (tuple, list)) else [n.meta["val"]]
            reals = result if isinstance(result, (tuple, list)) else [result]
            for fake, real in zip(fakes, reals, strict=True):
                if isinstance(real, torch.Tensor):
                    facts = (tuple(real.shape), real.dtype)
                    assert (tuple(fake.shape), fake.dtype) == facts, f"{n.format_node()} gives {facts}"
        return result


def with_statistics(norm: nn.Module) -> nn.Module:
    """The norm in evaluation mode with statistics and weights of its own."""
    for index, (name, tensor) in enumerate(norm.state_dict().items()):
        if tensor.is_floating_point():
            tensor.copy_(random(*tensor.shape) * (index + 1))
            if name.endswith("var"):
                tensor.abs_().add_(0.5)
    return norm.eval()
