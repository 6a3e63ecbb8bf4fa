"""Rows and elements by their numbers, and what prepares and checks the numbers."""

from __future__ import annotations

import torch

from tt_dynamo.ir.operators.definition import define


@define("look_up(Tensor x, Tensor rows) -> Tensor", fused=True)
def look_up(x, rows):
    """Rows of x [..., width], numbered through all its leading dimensions, at rows [...] -> [*rows.shape, width]."""
    return x.reshape(-1, x.shape[-1])[rows]


@define("pick(Tensor x, Tensor places) -> Tensor", fused=True)
def pick(x, places):
    """Elements of x, numbered through all its dimensions, at places [...] -> [*places.shape]."""
    return x.reshape(-1)[places]


@define("index_numbers(Tensor?[] indices, int[] sizes, int? dropped=None) -> Tensor", host=True)
def index_numbers(indices, sizes, dropped=None):
    """The numbers of what x[indices] of these sizes reads, less a dimension of one; raises as indexing does."""
    numbers = torch.ops.aten.index.Tensor(torch.arange(torch.Size(sizes).numel()).view(sizes), indices)
    return numbers if dropped is None else numbers.squeeze(dropped)


@define("put_numbers(Tensor?[] indices, int[] sizes, int[] shape, int? dropped=None) -> Tensor", host=True)
def put_numbers(indices, sizes, shape, dropped=None):
    """Where each element of x.index_put(indices, values of `shape`) lies in x followed by values; raises as it does."""
    first = torch.Size(sizes).numel()
    values = torch.arange(first, first + torch.Size(shape).numel()).view(shape)
    numbers = torch.ops.aten.index_put.default(torch.arange(first).view(sizes), indices, values)
    return numbers if dropped is None else numbers.squeeze(dropped)


@define("bounded(Tensor index, int size) -> Tensor", host=True)
def bounded(index, size):
    """Index as it is; raises as gather does where a number is not in [0, size)."""
    torch.arange(size).gather(0, index.reshape(-1))
    return index.clone()


@define("bounded_along(Tensor index, int size, int dim, int[] shape) -> Tensor", host=True)
def bounded_along(index, size, dim, shape):
    """The same for an index [n] along `dim`, repeated over the other dimensions of `shape`."""
    torch.arange(size).gather(0, index)
    line = index.view([-1 if d == dim else 1 for d in range(len(shape))])
    return line.repeat([1 if d == dim else length for d, length in enumerate(shape)])
