"""Movement: the kernel launches of a program that compute nothing, by operation and by module.

A launch counts where every element of its result is an element of an operand or padding: in another place, order,
shape, dtype, layout or memory. `_MOVES` decides that for all of TTNN. A call counts as a whole, by what it is for.
Moves inside a computation are part of it: the halo of a convolution, the layout that a reduction changes first. So are
the kernels that attention, caches, lookups, resizing and meshes consist of: those that create and concatenate heads,
`update_cache`, `embedding`, `gather`, `upsample`, `all_gather`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tt_dynamo.report.modules import any_layer
from tt_dynamo.report.table import table

if TYPE_CHECKING:
    from tt_dynamo.report.report import Operation

_MOVES = {
    "layout": "to_layout tilize untilize tilize_with_val_padding untilize_with_unpadding",
    "memory": "to_memory_config interleaved_to_sharded sharded_to_interleaved reshard move reallocate",
    "dtype": "typecast",
    "shape": "reshape view unsqueeze squeeze",
    "order": "permute transpose fold",
    "part": "slice split chunk",
    "copy": "concat pad fill_implicit_tile_padding repeat expand clone copy experimental.slice_write",
    "chips": "mesh_partition",
    "transfer": "from_torch to_torch to_device from_device",  # the layout that they change on the device
}
MOVES = frozenset(f"ttnn.{name}" for names in _MOVES.values() for name in names.split())


@dataclass(frozen=True)
class Movement:
    """The kernel launches of one run that compute nothing, of all `program_launches`.

    launches: how many. operations: by TTNN operation, "ttnn.permute". modules: by module path, "encoder.layer.0.mlp";
    "" is the model itself. alike: by module path with "*" for the number of a layer, and there by operation. Each has
    the most first. Printed, it is a table of `alike`.
    """

    launches: int
    program_launches: int
    operations: dict[str, int]
    modules: dict[str, int]
    alike: dict[str, dict[str, int]]

    @classmethod
    def of(cls, operations: Iterable["Operation"]) -> "Movement":
        """The movement among the operations of a program."""
        every = list(operations)
        moving = [op for op in every if op.programs and op.target in MOVES]
        names: Counter[str] = Counter()
        modules: Counter[str] = Counter()
        alike: dict[str, Counter[str]] = {}
        for op in moving:
            names[op.target] += op.programs
            modules[op.module] += op.programs
            alike.setdefault(any_layer(op.module), Counter())[op.target] += op.programs
        by_most = sorted(alike, key=lambda module: -alike[module].total())
        return cls(
            names.total(),
            sum(op.programs for op in every),
            dict(names.most_common()),
            dict(modules.most_common()),
            {module: dict(alike[module].most_common()) for module in by_most},
        )

    @property
    def share(self) -> float:
        """Of all kernel launches, 0.0 to 1.0; 0.0 of a program without any."""
        return self.launches / self.program_launches if self.program_launches else 0.0

    def facts(self, most: int) -> list[tuple[str, str]]:
        """Labels and texts of a report: the sum, and the `most` modules that move most; nothing without launches."""
        if not self.program_launches:
            return []
        by_operation = f": {_counts(self.operations)}" if self.launches else ""
        whole = f"{self.launches} launches ({self.share:.1%}) compute nothing{by_operation}"
        modules = [(f"  {sum(by.values())} in", f"{_named(at)}: {_counts(by)}") for at, by in self.alike.items()]
        return [("movement", whole), *(modules[:most] if any(self.alike) else [])]

    def __str__(self) -> str:
        rows = [(sum(by.values()), _counts(by), _named(at)) for at, by in self.alike.items()]
        return table(("launches", "operations", "module"), rows)


def _counts(operations: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.removeprefix('ttnn.')}" for name, count in operations.items())


def _named(module: str) -> str:
    return module or "the model itself"
