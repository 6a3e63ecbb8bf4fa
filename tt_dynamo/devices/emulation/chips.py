"""Values on a mesh: one torch tensor a chip, chips that hold the same share one.

A value is a plain torch.Tensor where all chips hold the same, as on one chip; `PerChip` where they don't. So what is
replicated is computed once, and a program for one chip never meets a `PerChip`.
"""

from collections.abc import Callable, Iterator, Sequence

import torch


class PerChip:
    """The values of a tensor on the chips of a mesh, row after row.

    All have one shape and dtype. Chips that hold the same share one tensor, by identity.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[torch.Tensor]) -> None:
        self.parts = tuple(parts)

    @property
    def shape(self) -> torch.Size:
        return self.parts[0].shape

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    def numel(self) -> int:
        return self.parts[0].numel()

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.parts)

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Value":
        """The values that `change` gives, which is called once for each that chips share."""
        made: dict[int, torch.Tensor] = {}
        for part in self.parts:
            if id(part) not in made:
                made[id(part)] = change(part)
        return per_chip([made[id(part)] for part in self.parts])

    def view(self, shape: torch.Size) -> "Value":
        return self.map(lambda part: part.view(shape))

    def clone(self) -> "Value":
        return self.map(torch.clone)


Value = torch.Tensor | PerChip


def per_chip(parts: Sequence[torch.Tensor]) -> Value:
    """The value of a mesh whose chips hold `parts`: plain where all are one tensor."""
    return parts[0] if all(part is parts[0] for part in parts) else PerChip(parts)


def shared(parts: Sequence[torch.Tensor]) -> Value:
    """As `per_chip`, with one tensor for those that hold the same elements."""
    found: list[torch.Tensor] = []
    for part in parts:
        found.append(next((other for other in _once(found) if torch.equal(part, other)), part))
    return per_chip(found)


def _once(parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(part): part for part in parts}.values())


def at(value: Value, chip: int) -> torch.Tensor:
    """What one chip holds."""
    return value.parts[chip] if isinstance(value, PerChip) else value


def each(value: Value, change: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    """`change` of what each chip holds, once for each that chips share."""
    return value.map(change) if isinstance(value, PerChip) else change(value)


def parts_of(value: Value, chips: int) -> list[torch.Tensor]:
    """What each of so many chips holds."""
    return [at(value, chip) for chip in range(chips)]


def count_of(values: Sequence[Value]) -> int:
    """Of how many chips some of the values differ; 1 where none do."""
    return max((len(value) for value in values if isinstance(value, PerChip)), default=1)


def combinations(values: Sequence[Value], chips: int) -> list[list[int]]:
    """Chips for which all the values are the same, together, in the order of the first of each."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for chip in range(chips):
        groups.setdefault(tuple(id(at(value, chip)) for value in values), []).append(chip)
    return list(groups.values())
