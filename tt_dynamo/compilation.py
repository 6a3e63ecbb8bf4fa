"""The program of a graph: from the cache where that has it, else from the compiler.

The compiler is imported where something is compiled: with all passes, lowerings and formulas of the estimate, that
takes longer than a program takes from the cache.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import GraphModule

from tt_dynamo.artifacts.kept import Kept
from tt_dynamo.compiler.choices import tunings_path
from tt_dynamo.devices import Device
from tt_dynamo.ir.graph import Assumption, copied
from tt_dynamo.ir.strides import as_eager_gives
from tt_dynamo.options import Options
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.recovery import Recovery
from tt_dynamo.runtime.traces.traces import Traces

if TYPE_CHECKING:
    from tt_dynamo.compiler.compile import Compiler


class Compilation:
    """One graph for one device.

    notes: for the report. assume: whether the program may be right for some values of its inputs alone, which
    `assumptions` name. `eager` is a copy of the graph as it came; the compiler rewrites the other.
    """

    def __init__(
        self,
        module: GraphModule,
        device: Device,
        options: Options,
        name: str,
        *,
        assume: bool = True,
        notes: Sequence[str] = (),
    ) -> None:
        self.eager, self.assumptions = module, list[Assumption]()
        self._module, self._device, self._options, self._name = module, device, options, name
        self._assume, self._notes = assume, notes

    @unset_fake_temporarily()  # AOTAutograd calls with its fake mode on; weights and literals are real tensors
    def program(self) -> Program:
        """The program; emits its report. Raises FallbackError as `Compiler.compile` does."""
        with self._device.resource(Traces).turn():
            return self._program()

    def _program(self) -> Program:
        self.eager = as_eager_gives(self._module)
        others: dict[str, Any] = {"assume": self._assume}
        if self._device.chips > 1:
            from tt_dynamo.passes.shard.plan import plan_of_classes

            others["plan"] = plan_of_classes(self.eager.graph)  # which transformers may have changed
        given = self.eager, self._device, self._options, self._name, others
        kept = Kept(*given, tunings_path(self._device), self._recovery)
        if (found := kept.load()) is not None:
            program, self.assumptions = found
            del self._module  # its recovery, which holds this, compiles a copy of `eager`
            return program
        compiler = self._compiler(self._module)
        program, self.assumptions = compiler.compile(self.eager), compiler.context.assumptions
        kept.save(program, self.assumptions)
        return program

    def _compiler(self, module: GraphModule) -> "Compiler":
        from tt_dynamo.compiler.compile import Compiler

        compiler = Compiler(module, self._device, self._options, self._name, assume=self._assume)
        compiler.report.notes += self._notes
        return compiler

    def _recovery(self) -> Recovery:
        return self._compiler(copied(self.eager)).compile(self.eager).recovery
