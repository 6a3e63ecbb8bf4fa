"""What a program takes beside its inputs: weights, what stays on the device between calls, its device's settings."""

import dataclasses
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.parts import Mesh, on_chip, places
from tt_dynamo.ir.spec import Spec


@dataclasses.dataclass
class WeightUse:
    """A constant that a program reads.

    node: the placeholder or folded constant it is. spec: None for the host. positions: of the call's arguments that
    `evaluate` computes it from, on the host. expression: the text that identifies the computation.
    mesh: that on which every chip has its own, () where all have the same.
    """

    node: Node
    spec: Spec | None
    positions: Sequence[int] = ()
    evaluate: Callable[..., torch.Tensor] = lambda tensor: tensor
    expression: str = ""
    mesh: Mesh = ()

    def values(self, sources: Sequence[torch.Tensor]) -> "torch.Tensor | list[torch.Tensor]":
        """The constant of these sources; where every chip has its own, one for each."""
        if not self.mesh:
            return self.evaluate(*sources)
        found = []
        for place in places(self.mesh):
            with on_chip(place):
                found.append(self.evaluate(*sources))
        return found


@dataclasses.dataclass(eq=False)
class StateUse:
    """An input of a program that stays on the device.

    node: its placeholder. held: whether it is a DeviceTensor. written: whether the graph writes into it. result: the
    value at its end, set by tracing; None where that was written in place, or not at all.
    """

    node: Node
    spec: Spec
    held: bool
    written: bool
    result: Node | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """What lowerings need to know of the device and the options; the same names in every namespace they see."""

    core_grid: Any
    compute_kernel_config: Any
    grid_size: tuple[int, int]  # columns, rows of worker cores
    device: Any = None
    chip: Any = None  # of `tt_dynamo.estimate`, by which calls are costed; None costs nothing
    searches: bool = False  # whether lowerings look for faster calls than those that TTNN would choose
    # The candidates that TTNN accepted, by what that depends on, and how many it refused before: kept with the device.
    choices: dict[Any, tuple[str, int]] = dataclasses.field(default_factory=dict, compare=False)
    # Values that a lowering had to shard anew, and wants block-sharded.
    wants_block_sharding: MutableSequence[Any] = dataclasses.field(default_factory=list, compare=False)
    lofi_kernel_config: Any = None
    saves_memory: bool = False  # whether of several calls that which takes the fewest bytes of L1 is to be made
    tuner: Any = None  # of `tt_dynamo.tuner`, which knows what was timed; None where nothing is looked for
    gelu: str = "Accurate"  # the variant that is fused into products, of TTNN's `GeluVariant`
    configs: Any = None  # of `tt_dynamo.compiler.configs`
    # What makes a call of TTNN, and makes it once more where that helps.
    attempt: Callable[[Callable[[], Any]], Any] = dataclasses.field(default=lambda call: call(), compare=False)

    @property
    def weight_kernel_config(self) -> Any:
        """The compute kernel config of linear layers and convolutions, which alone may be LoFi."""
        return self.lofi_kernel_config or self.compute_kernel_config

    def config(self, operation: str) -> Mapping[str, Any]:
        """What the user and the defaults say of calls of an operation ("ttnn.linear") where the compiler is now."""
        found: Mapping[str, Any] = self.configs.find(operation) if self.configs is not None else {}
        return found
