"""Prompts of many lengths in a few programs: padded at the end to the next of some lengths, the buckets.

Before   program_37(ids [1, 37])   program_41(ids [1, 41])   …                       a program for each length
After    program_64(ids padded to [1, 64], length)[:, :length]                       one for all from 33 to 64

Inputs repeat their last row, which gives numbers, no NaN, and lies in every table that the prompt's rows lie in. Where
rows of the prompt may depend on those behind them (`passes/prompts`), each length is compiled by itself.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_symbols
from torch.multiprocessing.reductions import StorageWeakRef

from tt_dynamo.capture.keep_whole import asks_for_gradients
from tt_dynamo.ir.errors import FallbackError, LengthDependent, LongerThanCache
from tt_dynamo.ir.torch_internals import is_static_input

log = logging.getLogger(__name__)

_log_once = functools.cache(log.warning)

Make = Callable[[Sequence[Any], Sequence[Any], int], "Bucket"]
IDS = (torch.int64, torch.int32)
SMALLEST = 32  # "auto": powers of two from a tile's rows


class OutsideBucket(Exception):
    """A call that the program of a bucket was not made for."""


class Bucket(NamedTuple):
    """A program of so many rows, which takes the length as its last input, for prompts of at least `shortest` rows."""

    call: Callable[..., Any]
    shortest: int
    rows: int


class Prompts:
    """Which inputs and results of a Dynamo graph have the rows of a prompt, of token ids [batch, length].

    inputs, results: the dimensions that have them, by position. numbers: the inputs that are the length itself. slopes:
    how often the length is in the results that are numbers.
    """

    def __init__(self, module: GraphModule) -> None:
        """Raises ValueError, with a reason if there is a prompt, where its rows are not to be told apart."""
        placeholders = list(module.graph.find_nodes(op="placeholder"))
        values, made = (list(map(_value, nodes)) for nodes in (placeholders, module.graph.output_node().args[0]))
        ids = [v for v, node in zip(values, placeholders, strict=True) if _is_ids(v) and not is_static_input(node)]
        lengths = {symbol for value in ids for symbol in free_symbols(value.shape[1])}
        if len(lengths) != 1:
            raise ValueError("it has several lengths" if lengths else "")
        self.symbol = lengths.pop()
        for value in (*values, *made, *map(_value, module.graph.nodes)):
            for size in value.shape if isinstance(value, torch.Tensor) else [value]:
                if isinstance(size, torch.SymInt) and not sympy.sympify(size).is_polynomial(self.symbol):
                    raise ValueError(f"it rounds the length or compares it: {size}")
        self.inputs = self._dimensions(values)
        self.results = self._dimensions(made)
        self.numbers = [
            at for at, value in enumerate(values) if not isinstance(value, torch.Tensor) and self._in(value)
        ]
        totals = {at: value for at, value in enumerate(made) if isinstance(value, torch.SymInt) and self._in(value)}
        self.slopes = {at: sympy.sympify(value).diff(self.symbol) for at, value in totals.items()}
        if not all(slope.is_Integer for slope in self.slopes.values()):
            raise ValueError("it gives a number that is no sum with the length")
        memory = [StorageWeakRef(v.untyped_storage()) for v in (*values, *made) if isinstance(v, torch.Tensor)]
        if any(memory.count(StorageWeakRef(made[at].untyped_storage())) > 1 for at in self.results):
            raise ValueError("two of its results, or a result and an input, share memory")

    def _in(self, value: Any) -> bool:
        return self.symbol in free_symbols(value)

    def _dimensions(self, values: Sequence[Any]) -> dict[int, list[int]]:
        found = {}
        for at, value in enumerate(values):
            sizes = value.shape if isinstance(value, torch.Tensor) else ()
            dims = [dim for dim, size in enumerate(sizes) if self._in(size)]
            if any(sympy.sympify(sizes[dim]) != self.symbol for dim in dims):
                raise ValueError(f"it takes or gives a tensor with other sizes that depend on the length: {sizes}")
            if dims:
                found[at] = dims
        return found

    def are_plain(self, args: Sequence[Any]) -> bool:
        """Whether none of the inputs to be padded lives on a device."""
        return all(type(args[at]) is torch.Tensor for at in self.inputs)

    def length(self, args: Sequence[Any]) -> int:
        at, (dim, *_) = next(iter(self.inputs.items()))
        return int(args[at].shape[dim])

    def resized(self, args: Sequence[Any], length: int) -> list[Any]:
        """Inputs of another length: cut, or with their last row repeated."""
        resized = list(args)
        for at, dims in self.inputs.items():
            for dim in dims:
                rows = torch.arange(length).clamp(max=resized[at].shape[dim] - 1)
                resized[at] = resized[at].index_select(dim, rows)
        return [length if at in self.numbers else value for at, value in enumerate(resized)]

    def cut(self, results: Sequence[Any], length: int, rows: int) -> list[Any]:
        """Results of `rows` rows as those of the prompt alone, in memory as it would give them."""
        cut = list(results)
        for at, slope in self.slopes.items():
            if not isinstance(cut[at], torch.Tensor):  # as which the program has counted
                cut[at] -= int(slope) * (rows - length)
        for at, dims in self.results.items():
            for dim in dims:
                cut[at] = cut[at].narrow(dim, 0, length)
            cut[at] = cut[at].clone(memory_format=torch.preserve_format)
        return cut


def _value(node: Any) -> Any:
    return node.meta.get("example_value") if isinstance(node, Node) else node


def _is_ids(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2 and value.dtype in IDS


def bucket_of(length: int, buckets: str | Sequence[int]) -> int | None:
    """The bucket of a prompt; None where it is longer than the largest."""
    if buckets == "auto":
        return max(SMALLEST, 1 << (length - 1).bit_length())
    return min((int(bucket) for bucket in buckets if int(bucket) >= length), default=None)


class Buckets:
    """A Dynamo graph's programs for buckets of prompts, each compiled when the first of them comes."""

    def __init__(self, module: GraphModule, buckets: str | Sequence[int], make: Make) -> None:
        """make: gives a program of so many rows, called with inputs of it and of a row less."""
        self._buckets, self._make = buckets, make
        self._known: dict[Any, Bucket | str] = {}
        self._prompts: Prompts | None = None
        self.reason = ""  # why the last prompt has no program of a bucket; none where there is no prompt
        try:
            self._prompts = Prompts(module)
        except ValueError as error:
            self.reason = str(error)

    def __call__(self, args: Sequence[Any], key: Callable[[Sequence[Any]], Any]) -> list[Any] | None:
        """The results for a prompt; None where it is to be compiled for its length.

        key: what two calls have in common that run the same program
        """
        if self._prompts is None or asks_for_gradients(args) or not self._prompts.are_plain(args):
            return None
        length = self._prompts.length(args)
        rows = bucket_of(length, self._buckets)
        if rows is None:
            self.reason = "it is longer than the largest bucket"
            _log_once("a prompt of %d tokens is longer than the largest bucket; it is compiled for its length", length)
            return None
        padded = self._prompts.resized(args, rows)
        known = self._known.get(key(padded))
        if known is None:
            known = self._known[key(padded)] = self._compiled(args, rows)
        if isinstance(known, str) or not known.shortest <= length <= known.rows:
            self.reason = (
                known if isinstance(known, str) else f"a bucket is for {known.shortest} to {known.rows} tokens"
            )
            return None
        if known.rows != rows:
            padded = self._prompts.resized(args, known.rows)
        try:
            results = known.call(*padded, torch.tensor(length))
        except OutsideBucket:
            self.reason = "its caches are not written from their first row"
            return None
        return self._prompts.cut(results, length, known.rows)

    def _compiled(self, args: Sequence[Any], rows: int) -> Bucket | str:
        """The program of a bucket or of the cache that it exceeds, or the reason why there is none."""
        assert self._prompts is not None
        try:
            return self._make(self._prompts.resized(args, rows), self._prompts.resized(args, rows - 1), rows)
        except LongerThanCache as error:
            fits = max(2, self._prompts.length(args)) <= error.length < rows
            return self._compiled(args, error.length) if fits else str(error)
        except (LengthDependent, FallbackError) as error:
            return str(error)
