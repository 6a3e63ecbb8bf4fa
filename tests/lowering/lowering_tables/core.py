"""What a core ATen operation becomes with each dtype: the rows of `core_elementwise` and `core_others`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from tt_dynamo.lowering import on_host

DTYPES = (torch.float32, torch.bfloat16, torch.int32, torch.int64, torch.bool)
Make = Callable[..., torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Host:
    """In eager torch: the reason of each fallback, none where no graph holds the operation; calls: what does not."""

    reasons: tuple[str, ...] = ()
    calls: str = ""


# The TTNN calls in order, or the host; None where eager torch refuses the dtype.
Outcome = str | Host | None

ARITHMETIC = Host(("integer arithmetic stays on the host",))
PICKING = Host(("picking integers stays on the host",))
PROMOTED = Host(("TTNN gives bfloat16, eager torch torch.int64",))
PERMUTED = Host(("a permute of integers: tt-metal issue 19950",))
NO_LOWERING = Host(("{target} has no lowering to TTNN",))
IMPOSSIBLE = Host(("{target} {impossible}",))
AS_FLOATS = Host(("as floats",))


@dataclasses.dataclass(frozen=True)
class Core:
    """A core operation with one call for each dtype.

    sample: the arguments from a maker of tensors (`make(*shape)`: positive numbers of the dtype), a dictionary at the
    end for keywords; where operands may broadcast, they do. others: by dtype, where one differs from its kind.
    roundings: as in `Row`.
    """

    name: str
    sample: Callable[[Make], tuple[Any, ...]]
    floats: Outcome
    integers: Outcome = AS_FLOATS
    booleans: Outcome = AS_FLOATS
    others: dict[torch.dtype, Outcome] = dataclasses.field(default_factory=dict)
    roundings: int = 3

    @property
    def target(self) -> Any:
        packet, _, overload = self.name.partition(".")
        return getattr(getattr(torch.ops.aten, packet), overload)

    @property
    def is_lowered(self) -> bool:
        """Whether it runs on the device with some dtype."""
        return any(isinstance(self.outcome(dtype), str) for dtype in DTYPES)

    def is_open(self, dtype: torch.dtype) -> bool:
        """Whether torch leaves its values open: random numbers, memory as it is, the order of equal elements."""
        if self.name == "sort.default" and dtype == torch.bool:
            return True
        return torch.Tag.nondeterministic_seeded in self.target.tags or self.name.startswith("empty")

    def outcome(self, dtype: torch.dtype) -> Outcome:
        """What the compiler makes of it with this dtype."""
        kind = self.floats if dtype.is_floating_point else self.booleans if dtype == torch.bool else self.integers
        outcome = self.others.get(dtype, self.floats if kind is AS_FLOATS else kind)
        if not isinstance(outcome, Host):
            return outcome
        names = {"target": f"torch.ops.{self.target}", "impossible": on_host.IMPOSSIBLE.get(self.target)}
        return dataclasses.replace(outcome, reasons=tuple(reason.format(**names) for reason in outcome.reasons))

    def arguments(self, dtype: torch.dtype) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments of the sample, of numbers that bfloat16 represents."""

        def make(*shape: int) -> torch.Tensor:
            numbers = torch.linspace(0.25, 3.75, torch.Size(shape).numel()).reshape(shape)
            return (numbers > 2) if dtype == torch.bool else numbers.bfloat16().to(dtype)

        *arguments, last = self.sample(make)
        return (arguments, last) if isinstance(last, dict) else ([*arguments, last], {})


def one(make: Make) -> tuple[Any, ...]:
    return (make(3, 40),)


def two(make: Make) -> tuple[Any, ...]:
    return make(2, 3, 40), make(40)


def number(make: Make) -> tuple[Any, ...]:
    return make(3, 40), 2


def image(make: Make) -> torch.Tensor:
    """An image of which each channel has small and large elements."""
    return make(64, 32).T.contiguous().reshape(1, 32, 8, 8)


def index(*shape: int, rows: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % rows
