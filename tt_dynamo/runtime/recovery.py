"""Run a graph node by node after a TTNN call raised, with eager torch for every node that TTNN does not carry out.

A program is straight-line code, so it cannot be resumed in the middle. Its graph can be run again: each node on the
device through its own lowering; where that raises, on values read back, by eager torch. The answer is eager's whichever
call fails, at the price of a slow call. Where nothing can be read back, all of it runs in eager torch.

What is run again is called as the options say, without the option `configs`: those belong to the calls of the program.

An index may be out of range of a table that a pass made, and in range for eager torch: such a call runs in eager torch
as a whole, on the graph as it was before all passes.
"""

import collections
import contextlib
import dataclasses
import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import TTNN_ERRORS, FallbackError, Refused
from tt_dynamo.ir.graph import Sides, compute_nodes, device_arguments, is_call
from tt_dynamo.ir.torch_internals import Run
from tt_dynamo.ir.ttnn_internals import ttnn_reason
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering import find as find_lowering
from tt_dynamo.lowering.choose import first_accepted
from tt_dynamo.lowering.memory import interleaved, is_sharded
from tt_dynamo.report.report import Fallback
from tt_dynamo.runtime.l1_small import with_l1_small
from tt_dynamo.runtime.transfer import Border

log = logging.getLogger(__name__)


class LoweringNamespace:
    """A TTNN namespace with the settings that lowerings read, for making their calls outright.

    What lowerings note there for the compiler is not kept: it would be tensors of every call.
    """

    memory = dtype = weight_dtype = None  # what is lowered again lies in DRAM, in bfloat16
    compares_shardings = False

    def __init__(self, namespace: Any, settings: Settings) -> None:
        self._namespace = namespace
        self.settings = dataclasses.replace(settings, wants_block_sharding=collections.deque(maxlen=0), configs=None)

    def choose(self, key: Sequence[Any], candidates: Sequence[Any], call: Callable[[Any], Any], **_: Any) -> Any:
        """The result of the first candidate that TTNN accepts; see `Recorder.choose`."""
        return first_accepted(candidates, call, (Refused, *TTNN_ERRORS))[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._namespace, name)


class Unreadable(Exception):
    """A value cannot be read back from the device, and why."""


@dataclasses.dataclass(eq=False)
class Recovery:
    """Runs one placed graph. Nothing of a run is kept here: threads run at once."""

    module: GraphModule  # of the placed graph
    eager: GraphModule
    sides: Sides
    border: Border
    ttnn: LoweringNamespace
    strict: bool

    def run(self, args: Sequence[Any]) -> tuple[Sequence[Any], list[tuple[Node, str]]]:
        """The graph's outputs for its inputs, and which nodes fell back, with the reason of each.

        Raises FallbackError where `strict` and a node would fall back.
        """
        with torch.no_grad():
            if self.border.device.chips > 1:
                return self.in_eager(args)
            run = _Run(self, self.sides)
            try:
                return run.run(*args), run.failed
            except (Unreadable, IndexError) as error:
                reason, in_range = str(error), not isinstance(error, IndexError)
            if self.strict:
                raise FallbackError(f'{reason} (fallback="error")')
            outputs = _Run(self, {}).run(*args) if in_range else self.eager(*args)
        return outputs, [(node, reason) for node in self._on_device()]

    def in_eager(self, args: Sequence[Any]) -> tuple[Sequence[Any], list[tuple[Node, str]]]:
        """The whole graph in eager torch: the host computes no parts for single chips of a mesh."""
        reason = "a call failed on a mesh, whose parts are not computed one by one on the host"
        if self.strict:
            raise FallbackError(f'{reason} (fallback="error")')
        return self.eager(*args), [(node, reason) for node in self._on_device()]

    def _on_device(self) -> list[Node]:
        nodes = (node for node in compute_nodes(self.module.graph) if self.sides.get(node) == "device")
        return [node for node in nodes if node.target not in operators.TRANSFERS]


class _Run(Run):
    """One run of a placed graph; the nodes of `sides` on the device, as far as TTNN carries them out."""

    def __init__(self, recovery: Recovery, sides: Sides) -> None:
        super().__init__(recovery.module)
        self.extra_traceback = False  # the reason of a failure is what TTNN says
        self.recovery, self.sides = recovery, sides
        self.failed: list[tuple[Node, str]] = []

    def run_node(self, n: Node) -> Any:
        if n.op != "call_function" or n.target is operator.getitem:
            return super().run_node(n)
        if is_call(n, operators.to_device):
            return self.env[n.args[0]]  # crosses when a node on the device takes it
        if is_call(n, *operators.CACHE_WRITES):
            self._check_positions(n)
        if self.sides.get(n) == "device":
            try:
                return with_l1_small(self.recovery.border.device, lambda: self._on_device(n))
            except Exception as error:  # whatever TTNN raises, eager torch has the answer
                reason = ttnn_reason(error)
            if self.recovery.strict:
                raise FallbackError(f'{Fallback.of(n, "runtime", reason)} (fallback="error")')
            self.failed.append((n, reason))
        args, kwargs = torch.fx.node.map_arg((n.args, n.kwargs), self._on_host)
        return n.target(*args, **kwargs)

    def _on_device(self, node: Node) -> Any:
        found, ttnn = find_lowering(node.target), self.recovery.ttnn
        assert found is not None
        for operand in node.all_input_nodes:
            if isinstance(self.env[operand], torch.Tensor):
                self.env[operand] = self.recovery.border.up(self.env[operand], meta.spec(operand))

        def attempt(value_of: Callable[[Node], Any]) -> Any:
            args, kwargs = device_arguments(node, value_of)
            return found.function(ttnn, *args, **kwargs)

        if found.sharded and any(is_sharded(self.env[operand]) for operand in node.all_input_nodes):
            with contextlib.suppress(Exception):
                return attempt(self.env.__getitem__)
        return attempt(lambda operand: interleaved(ttnn, self.env[operand]))

    def _on_host(self, operand: Node) -> Any:
        value, expected = self.env[operand], operand.meta["val"]
        if isinstance(value, torch.Tensor) or not isinstance(expected, torch.Tensor):
            return value
        try:
            return self.recovery.border.down(value, expected.dtype)
        except Exception as error:
            raise Unreadable(ttnn_reason(error)) from None

    def _check_positions(self, node: Node) -> None:
        """Raise IndexError for a write behind the end of a cache, which TTNN does not notice."""
        length, positions = node.args[0].meta["val"].shape[2], [self.env[p] for p in node.args[2:3]]
        for found in positions:
            if isinstance(found, torch.Tensor) and found.numel() and not 0 <= int(found.max()) < length:
                raise IndexError(f"position {int(found.max())} is out of range for a cache of {length} tokens")
