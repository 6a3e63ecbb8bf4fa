"""Rows and elements by their numbers, and what prepares and checks the numbers."""

import torch

from tt_dynamo.ir.operators.definition import FUSED, HOST, define


@define("Tensor x, Tensor rows", FUSED)
def look_up(x, rows):
    """Rows of x [..., width], numbered through all its leading dimensions, at rows [...] -> [*rows.shape, width]."""
    return x.reshape(-1, x.shape[-1])[rows]


@define("Tensor x, Tensor places", FUSED)
def pick(x, places):
    """Elements of x, numbered through all its dimensions, at places [...] -> [*places.shape]."""
    return x.reshape(-1)[places]


@define("Tensor x, Tensor places", FUSED)
def gather_columns(x, places):
    """Of each row of x [..., width] the elements at its places [..., count], all in [0, width) -> [..., count]."""
    return x.gather(-1, places)


@define("Tensor?[] indices, int[] sizes, int? dropped=None", HOST)
def index_numbers(indices, sizes, dropped=None):
    """The numbers of what x[indices] of these sizes reads, less a dimension of one; raises as indexing does."""
    numbers = torch.ops.aten.index.Tensor(torch.arange(torch.Size(sizes).numel()).view(sizes), indices)
    return numbers if dropped is None else numbers.squeeze(dropped)


@define("Tensor?[] indices, int[] sizes, int[] shape, int? dropped=None", HOST)
def put_numbers(indices, sizes, shape, dropped=None):
    """Where each element of x.index_put(indices, values of `shape`) lies in x followed by values; raises as it does."""
    first = torch.Size(sizes).numel()
    values = torch.arange(first, first + torch.Size(shape).numel()).view(shape)
    numbers = torch.ops.aten.index_put.default(torch.arange(first).view(sizes), indices, values)
    return numbers if dropped is None else numbers.squeeze(dropped)


@define("Tensor mask, int count, bool exact", HOST)
def masked_numbers(mask, count, exact):
    """For each place [...] where mask is true the number of the value that is written there, counted in order; else 0.

    Raises as masked_scatter does where there are fewer than that in `count`; where `exact`, as index_put does where
    there are not as many.
    """
    numbers, values = torch.zeros(mask.shape, dtype=torch.int64), torch.arange(count)
    if exact:
        return torch.ops.aten.index_put.default(numbers, [mask], values)
    return torch.ops.aten.masked_scatter.default(numbers, mask, values)


@define("Tensor index", FUSED)
def found(index):
    """An index [...] whose numbers are in bounds where it is read: places among as many, that the device found."""
    return index.clone()


@define("Tensor index, int size", HOST)
def bounded(index, size):
    """Index as it is; raises as gather does where a number is not in [0, size)."""
    torch.arange(size).gather(0, index.reshape(-1))
    return index.clone()


@define("Tensor index, int size, int dim, int[] shape", HOST)
def bounded_along(index, size, dim, shape):
    """The same for an index [n] along `dim`, repeated over the other dimensions of `shape`."""
    torch.arange(size).gather(0, index)
    line = index.view([-1 if d == dim else 1 for d in range(len(shape))])
    return line.repeat([1 if d == dim else length for d, length in enumerate(shape)])


@define("Tensor ids, Tensor offsets, bool mean, bool includes_last, int padding_idx", HOST)
def bag_weights(ids, offsets, mean, includes_last, padding_idx):
    """What each id [n] weighs in each bag, as embedding_bag sums or averages: float32 [bags, n]; raises as it does."""
    count = ids.shape[0]
    each = torch.cat([torch.eye(count), torch.zeros(1, count)])
    places = torch.where(ids == padding_idx, count, torch.arange(count))
    padding = count if padding_idx >= 0 else -1
    offsets = offsets.to(torch.int64)
    arguments = each, places, offsets, False, int(mean), False, None, includes_last, padding
    return torch.ops.aten._embedding_bag_forward_only.default(*arguments)[0]
