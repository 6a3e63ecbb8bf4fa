"""Which samples of PyTorch's operator database are run: every operator, five dtypes, at most CAP samples of each.

Samples are taken evenly from all that an OpInfo gives, first and last included; seeds are fixed, so the same numbers
mean the same samples on every run with the same torch.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from judge import representable
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

CAP = 12
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One operator of the database with one dtype, by the names that reports use."""

    operator: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.operator}[{self.dtype}]"


# Random operators of the database set this seed themselves where they run, which a compiled graph does not repeat.
SEED = 42


def seed() -> None:
    """The same random numbers from here on."""
    torch.manual_seed(SEED)
    numpy.random.seed(SEED)
    random.seed(SEED)


def operators() -> dict[str, Any]:
    """Every OpInfo of the database by name; variants carry theirs behind a dot."""
    from torch.testing._internal.common_methods_invocations import op_db  # takes seconds

    return {f"{info.name}.{info.variant_test_name}".rstrip("."): info for info in op_db}


def all_cases() -> list[Case]:
    """Every operator with every dtype of ours that it supports, in the order of the database."""
    return [
        Case(name, dtype)
        for name, info in operators().items()
        for dtype, torch_dtype in DTYPES.items()
        if torch_dtype in info.supported_dtypes("cpu")
    ]


@dataclasses.dataclass
class Sample:
    """One call of an operator: a function of its tensors alone, and the tensors.

    unordered: the dimension along which equal elements may come in any order; None where there is none.
    """

    function: Callable[..., Any]
    tensors: list[torch.Tensor]
    text: str
    unordered: int | None = None

    def copies(self) -> list[torch.Tensor]:
        """The tensors again, in memory of their own that has the same strides."""
        return [tensor.detach().clone(memory_format=torch.preserve_format) for tensor in self.tensors]


def samples(info: Any, dtype: str, cap: int) -> Iterator[tuple[int, Sample]]:
    """At most `cap` samples of an OpInfo with their numbers."""
    seed()
    found = list(info.sample_inputs("cpu", DTYPES[dtype], requires_grad=False))
    count = min(cap, len(found))
    numbers = sorted({round(i * (len(found) - 1) / max(count - 1, 1)) for i in range(count)})
    for number in numbers:
        yield number, _sample(info, found[number])


def _sample(info: Any, given: Any) -> Sample:
    leaves, structure = tree_flatten(representable((given.input, given.args, given.kwargs)))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def function(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        first, args, kwargs = tree_unflatten(filled, structure)
        return info.op(first, *args, **kwargs)

    text = str(tree_map(_short, (given.input, *given.args))) + (str(tree_map(_short, given.kwargs)))
    return Sample(function, [leaves[place].detach() for place in places], text[:300], _unordered(info, given))


# Where these take the dimension, among the arguments behind the tensor.
SORTS = {"sort": 0, "argsort": 0, "topk": 1}


def _unordered(info: Any, given: Any) -> int | None:
    if info.name not in SORTS or given.kwargs.get("stable"):
        return None
    position = SORTS[info.name]
    return given.kwargs.get("dim", given.args[position] if len(given.args) > position else -1)


def _short(leaf: Any) -> Any:
    return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}" if isinstance(leaf, torch.Tensor) else leaf


def in_float32(tensor: torch.Tensor) -> torch.Tensor:
    """A bfloat16 tensor in float32; any other as it is."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
