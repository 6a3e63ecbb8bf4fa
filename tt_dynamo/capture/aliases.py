"""Inputs that share elements where AOTAutograd takes them for apart, and would trace writes as if none saw them."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tt_dynamo.ir.strides import extent_of
from tt_dynamo.ir.torch_internals import compute_overlapping_tensors, storage_of


def misjudged_inputs(inputs: Sequence[Any]) -> list[int]:
    """The positions of two inputs of a graph that share elements, which AOTAutograd says they do not; else none.

    Its rule for matrices of equal strides asks where rows of the second begin between rows of the first, and not
    whether both begin at one place: x and x[1:] with x = base[:, :2] are apart by it.
    """
    places: dict[int, list[int]] = {}
    for position, x in enumerate(inputs):
        if isinstance(x, Tensor) and storage_of(x) and x.numel():
            places.setdefault(storage_of(x), []).append(position)
    for among in places.values():
        for pair in itertools.combinations(among, 2):
            one, other = (inputs[position] for position in pair)
            if not compute_overlapping_tensors([one, other], symbolic=False) and share_elements(one, other):
                return list(pair)
    return []


def share_elements(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one storage have an element in common."""
    begins = [x.storage_offset() for x in (one, other)]
    if begins[0] + extent_of(one) <= begins[1] or begins[1] + extent_of(other) <= begins[0]:
        return False
    runs = [_runs(x) for x in (one, other)]
    starts = torch.cat([starts for starts, _ in runs])
    ends = torch.cat([starts + length for starts, length in runs])
    whose = torch.cat([torch.full_like(starts, number) for number, (starts, _) in enumerate(runs)])
    order = torch.argsort(starts)
    starts, ends, whose = starts[order], ends[order], whose[order]
    reached = [torch.where(whose == number, ends, 0).cummax(0).values for number in (0, 1)]
    before = torch.where(whose[1:] == 0, reached[1][:-1], reached[0][:-1])
    return bool((before > starts[1:]).any())


def _runs(x: Tensor) -> tuple[Tensor, int]:
    """Where runs of neighbouring elements begin in the storage, and the elements of each."""
    length = 1
    outer: list[tuple[int, int]] = []
    for size, stride in sorted(zip(x.shape, x.stride(), strict=True), key=lambda dimension: dimension[1]):
        if stride == length and not outer:
            length *= size
        elif size > 1:
            outer.append((size, stride))
    starts = torch.tensor([x.storage_offset()])
    for size, stride in outer:
        starts = (starts[:, None] + torch.arange(size) * stride).reshape(-1)
    return starts, length
