"""Rows and elements by number, to the last bit."""

from typing import Any

import torch
import torch.nn.functional as F
from compiled import random
from torch import nn

from .row import Row, wrap

SHAPE = (2, 3, 4, 33)
X = random(*SHAPE)
IDS = torch.randint(0, 33, SHAPE, generator=torch.Generator().manual_seed(0))
ROWS_OF_TABLE, WIDTH = 40, 24

SCATTER = "relu to_layout scatter to_layout relu"
GATHER = "relu to_layout gather to_layout relu"
LOOKUP = "relu to_layout reshape reshape embedding reshape relu"
# positions that the program knows: one lookup of rows
KNOWN = {
    "roll": (lambda x: x.roll((1, -2), (1, 2)), LOOKUP),
    "roll: along the last dimension": (
        lambda x: x.roll(5, -1),
        "relu permute to_layout reshape reshape embedding reshape permute relu",
    ),
    "roll: as a line": (lambda x: x.roll(3), "relu to_layout reshape reshape gather reshape to_layout relu"),
    "flip": (lambda x: x.flip(0, 2), LOOKUP),
    "flip: along the last dimension": (
        lambda x: x.flip(-1),
        "relu permute to_layout reshape reshape embedding reshape permute relu",
    ),
    "flip: all dimensions": (
        lambda x: x.flip(0, 1, 2, 3),
        "relu to_layout reshape reshape gather reshape to_layout relu",
    ),
    "rot90": (lambda x: x.rot90(1, (1, 2)), LOOKUP),
    "reflection_pad2d": (
        lambda x: F.pad(x, (2, 1, 1, 3), mode="reflect"),
        "relu permute to_layout reshape reshape embedding reshape relu",
    ),
    "reflection_pad1d": (
        lambda x: F.pad(x[0], (2, 1), mode="reflect"),
        "relu slice reshape permute to_layout reshape embedding permute relu",
    ),
    "reflection_pad3d": (
        lambda x: F.pad(x, (2, 1, 1, 3, 1, 2), mode="reflect"),
        "relu permute to_layout reshape reshape embedding reshape permute relu",
    ),
    "replication_pad2d": (
        lambda x: F.pad(x, (2, 1, 1, 3), mode="replicate"),
        "relu permute to_layout reshape reshape embedding reshape relu",
    ),
    "unfold": (
        lambda x: x.unfold(2, 3, 1),
        "relu to_layout reshape reshape embedding reshape reshape permute reshape relu",
    ),
    "im2col": (lambda x: F.unfold(x, 2, padding=1), "relu to_layout pad permute reshape embedding permute relu"),
    "diagonal": (lambda x: x.diagonal(1, 1, 2), "relu to_layout reshape embedding permute relu"),
    "as_strided": (lambda x: x.as_strided((5, 33), (66, 1), 33), LOOKUP),
    "index: rows in any order": (lambda x: x[:, [2, 0, 0]], LOOKUP),
    "index: columns in any order": (
        lambda x: x[..., [2, 0, -1]],
        "relu permute to_layout reshape reshape embedding reshape permute relu",
    ),
    "index: rows in order": (lambda x: x[:, [1, 2]], "relu slice relu"),
    "index: the last row": (lambda x: x[:, [-1]], "relu slice relu"),
    "index: rows by two lists": (lambda x: x[[0, 1], [2, 0]], "relu to_layout reshape embedding relu"),
    "index: rows by two lists that are apart": (
        lambda x: x[[0, 1], :, [2, 0]],
        "relu to_layout reshape embedding relu",
    ),
    "slice_scatter: every second row": (
        lambda x: torch.slice_scatter(x, x[:, :, :2], 2, 0, 4, 2),
        "relu to_layout slice to_layout reshape reshape concat reshape embedding reshape relu",
    ),
    "diagonal_scatter": (
        lambda x: torch.diagonal_scatter(x, x.diagonal(0, 1, 2) * 2, 0, 1, 2),
        "relu to_layout reshape embedding permute multiply reshape to_layout reshape to_layout concat reshape reshape "
        "gather reshape to_layout relu",
    ),
}

INDEXED = {
    "index: rows": (lambda x, i: x[i], 2, LOOKUP),
    "index: rows of every batch": (lambda x, i: x[:, i], 3, LOOKUP),
    "index: rows by a matrix of ids": (lambda x, i: x[:, i.view(2, 2)], 3, LOOKUP),
    "index: columns": (
        lambda x, i: x[..., i],
        33,
        "relu permute to_layout reshape reshape embedding reshape permute relu",
    ),
    "index: two dimensions": (lambda x, i: x[:, i, i], 3, "relu to_layout reshape embedding relu"),
    "index: two dimensions apart": (lambda x, i: x[i, :, i], 2, "relu to_layout reshape embedding relu"),
    "index: two dimensions broadcast": (lambda x, i: x[i, i[:, None]], 2, LOOKUP),
    "index: the first and the last dimension": (
        lambda x, i: x[i, ..., i],
        2,
        "relu permute to_layout reshape embedding relu",
    ),
    "index: all dimensions": (
        lambda x, i: x[i, i, i, i],
        2,
        "relu to_layout reshape reshape gather reshape to_layout relu",
    ),
    "index_select": (lambda x, i: x.index_select(2, i % 4), 4, LOOKUP),
    "take": (lambda x, i: x.take(i), 700, "relu to_layout reshape reshape gather reshape to_layout relu"),
}

GATHERED = {
    "gather": (lambda x, i: x.gather(3, i), GATHER),
    "gather: along the first dimension": (lambda x, i: x.gather(0, i % 2), GATHER),
    "gather: a part": (lambda x, i: x.gather(2, i[:1, :2] % 4), GATHER),
    "gather: from a line": (
        lambda x, i: x[0, 0, 0].gather(0, i[0, 0, 0]),
        "relu slice reshape slice reshape slice reshape to_layout reshape reshape gather reshape to_layout relu",
    ),
    "gather: take_along_dim": (lambda x, i: x.take_along_dim(i, 3), GATHER),
    "scatter": (lambda x, i: x.scatter(3, torch.arange(33).flip(0).expand(2, 3, 4, 33) + 0 * i, x), SCATTER),
    "scatter: numbers": (lambda x, i: x.scatter(3, i, 2.5), SCATTER),
    "scatter: along the first dimension": (lambda x, i: x.scatter(1, i[:, :1] % 3, x), SCATTER),
    "scatter: into a line": (
        lambda x, i: x[0, 0, 0].scatter(0, i[0, 0, 0], 1.0),
        "relu slice reshape slice reshape slice reshape to_layout scatter to_layout relu",
    ),
}

SUMS = {
    "scatter_add": (lambda x, i: x.scatter_add(1, i % 3, x), SCATTER),
    "scatter: with add": (lambda x, i: x.scatter(1, i % 3, x, reduce="add"), SCATTER),
    "scatter: with multiply": (lambda x, i: x.scatter(1, i % 3, 2.0, reduce="multiply"), SCATTER),
    "scatter_reduce: sums": (lambda x, i: x.scatter_reduce(1, i % 3, x, "sum"), SCATTER),
    "scatter_reduce: products": (lambda x, i: x.scatter_reduce(1, i % 3, x, "prod"), SCATTER),
    "scatter_reduce: sums alone": (
        lambda x, i: x.scatter_reduce(1, i % 3, x, "sum", include_self=False),
        "relu to_layout scatter scatter to_layout relu",
    ),
    "scatter_reduce: products alone": (
        lambda x, i: x.scatter_reduce(1, i % 3, x, "prod", include_self=False),
        "relu to_layout scatter scatter to_layout relu",
    ),
    "index_add": (
        lambda x, i: x.index_add(1, i[0, 0, 0, :2] % 3, x[:, :2]),
        "relu to_layout slice to_layout scatter to_layout relu",
    ),
    "index_add: multiples": (
        lambda x, i: x.index_add(1, i[0, 0, 0, :2] % 3, x[:, :2], alpha=2),
        "relu to_layout slice multiply to_layout scatter to_layout relu",
    ),
    "index_put: accumulated": (
        lambda x, i: x.index_put((i[0, 0, 0, :3] % 2 - 2,), x[0], accumulate=True),
        "relu to_layout slice reshape reshape expand to_layout scatter to_layout relu",
    ),
}


def _set(x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, i] = v[:, :1]
    return y


PUT = {
    "index_put: rows": (
        lambda x, i, v: x.index_put((i,), v),
        "relu to_layout reshape concat reshape embedding reshape relu",
    ),
    "index_put: one row": (
        lambda x, i, v: x.index_put((i,), v[0]),
        "relu to_layout reshape expand to_layout reshape reshape concat reshape embedding reshape relu",
    ),
    "index_put: one number": (
        lambda x, i, v: x.index_put((i,), torch.tensor(2.5)),
        "relu to_layout reshape concat reshape embedding reshape relu",
    ),
    "index_put: by two indices": (
        lambda x, i, v: x.index_put((i, i), v[:, 0]),
        "relu to_layout reshape concat reshape embedding reshape relu",
    ),
    "index_put: by all": (
        lambda x, i, v: x.index_put((i, i, i, i), torch.relu(v)[:, 0, 0, 0]),
        "relu relu slice reshape slice reshape slice reshape to_layout reshape to_layout concat reshape reshape gather "
        "reshape to_layout relu",
    ),
    "index_copy": (
        lambda x, i, v: x.index_copy(2, i, x[:, :, :2] * 2),
        "relu to_layout slice multiply to_layout reshape reshape concat reshape embedding reshape relu",
    ),
    "index_fill": (
        lambda x, i, v: x.index_fill(1, i, 2.5),
        "relu to_layout reshape concat reshape embedding reshape relu",
    ),
    "index_put: an item": (_set, "relu to_layout reshape concat reshape embedding reshape relu"),
}

MASK = torch.rand(SHAPE[:3], generator=torch.Generator().manual_seed(1)) < 0.4
PLACES = int(MASK.sum())
MASKED = {
    "masked_scatter": (
        lambda x, m: x.masked_scatter(m[..., None], x[:, 1:]),
        "relu slice to_layout reshape reshape embedding reshape where relu",
    ),
    "masked_scatter: elements": (
        lambda x, m: x[..., 0].masked_scatter(m, x[0, 0]),
        "relu slice reshape slice reshape slice reshape reshape to_layout reshape reshape gather reshape to_layout "
        "where relu",
    ),
    "index_put: by a mask": (
        lambda x, m: x.index_put((m,), x.flatten(0, 2)[:PLACES]),
        "relu reshape slice to_layout reshape embedding reshape where relu",
    ),
    "index_put: a number, by a mask": (lambda x, m: x.index_put((m,), torch.tensor(2.5)), "relu where relu"),
}
# Rows of distinct numbers, whose order is one: 4 rows of 40 places.
PLACES_IN_ROWS = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(i)) for i in range(4)]).float()
FOUND = {
    "embedding: by what the device found": (
        lambda x, t: F.embedding(torch.relu(x).argmax(-1), t) * 1,
        "relu to_layout argmax typecast typecast reshape embedding reshape multiply",
    ),
    "index: rows that the device found": (
        lambda x, t: torch.relu(t)[torch.relu(x).argmin(-1)] * 1,
        "relu to_layout relu neg to_layout argmax typecast typecast reshape embedding reshape multiply",
    ),
    "gather: what the device found": (
        lambda x, t: torch.relu(x).gather(1, torch.relu(x).topk(5)[1]) * 1,
        "relu to_layout typecast topk typecast to_layout typecast gather to_layout multiply",
    ),
}


def _ids(name: str, size: int) -> torch.Tensor:
    """The first and the last place, and the same counted from the end where torch does."""
    return torch.tensor([0, size - 1, 0, 1] if name == "index_select" else [0, size - 1, -1, -size])


def table(padding: int | None = None, width: int = WIDTH) -> nn.Embedding:
    module = nn.Embedding(ROWS_OF_TABLE, width, padding)
    module.weight.data.copy_(random(ROWS_OF_TABLE, width))
    return module


def _buckets() -> Any:
    """T5's buckets: bfloat16 would put distances next to a border into another one."""
    embedding = table()

    def model(position: torch.Tensor) -> torch.Tensor:
        distances = (position - torch.arange(512)[None]).clamp(min=0)
        far = 16 + (torch.log(distances.float() / 16) / 2.0794415416798357 * 16).to(torch.int64)
        return embedding(torch.where(distances < 16, distances, far.clamp(max=ROWS_OF_TABLE - 1)))

    return model


BAG, STARTS = torch.tensor([3, 0, 9, 9, 1, 2, 7, 5]), torch.tensor([0, 3, 3, 5])

ROWS = [
    *(Row(name, wrap(move), X, calls, roundings=0) for name, (move, calls) in KNOWN.items()),
    *(
        Row(f"{name}, {dtype}" if ":" in name else f"{name}: {dtype}", wrap(pick), (X, _ids(name, size).to(dtype)),
            calls, roundings=0)
        for name, (pick, size, calls) in INDEXED.items()
        for dtype in [torch.int64, *([torch.int32] if name != "take" else [])]  # eager torch takes by int64 alone
    ),
    *(
        Row(name, wrap(put), (X, torch.tensor([1, 0]), random(*SHAPE) + 1), calls)
        for name, (put, calls) in PUT.items()
    ),
    Row("index_put: two writes to one place", lambda x, i, v: torch.relu(x).index_put((i,), torch.relu(v)) * 1,
    (random(3, 33), torch.tensor([1, 1, -2]), random(4, 33)[:3]), "relu to_layout relu to_layout concat reshape "
        "embedding reshape multiply", roundings=0),
    *(Row(name, wrap(write), (X, MASK), calls, roundings=0) for name, (write, calls) in MASKED.items()),
    *(Row(name, wrap(pick), (X, IDS), calls, roundings=0) for name, (pick, calls) in GATHERED.items()),
    *(Row(name, wrap(add), (X, IDS), calls, roundings=2) for name, (add, calls) in SUMS.items()),
    Row("index: by what the device computes", lambda x: torch.relu(x)[:, torch.relu(x).argmax(1)[0, 0]] * 1, X,
        "relu to_layout permute argmax typecast slice reshape slice reshape reshape reshape embedding reshape multiply",
        roundings=0),
    *(Row(name, look_up, (PLACES_IN_ROWS, X[0, 0, :, :WIDTH].repeat(10, 1)), calls, roundings=0)
      for name, (look_up, calls) in FOUND.items()),
    Row("index: integers", lambda t, i: t[i], (torch.tensor([2**24 + 1, -(2**24) - 1, 2**40]), torch.tensor([2, 0, 1])),
        "", roundings=0),
    *(
        Row(f"embedding: {shape}, {dtype}", table(),
            torch.randint(0, ROWS_OF_TABLE, shape, generator=torch.Generator().manual_seed(0)).to(dtype),
            "embedding" if len(shape) == 2 else "reshape embedding reshape", roundings=0)
        for shape in [(2, 3), (3,), (2, 1, 3), (), (1, 1), (1, 33)]
        for dtype in (torch.int64, torch.int32)
    ),
    Row("embedding: two-dimensional ids", table(), torch.tensor([[0, ROWS_OF_TABLE - 1, 7]]), "embedding", roundings=0),
    Row("embedding: tiles", table(width=64), torch.arange(32)[None], "embedding", roundings=0, programs=1),
    Row("embedding_bag: bags of one size", lambda t, i: F.embedding_bag(i, t, mode="sum"), (X[0, 0].repeat(4, 1),
        BAG.view(4, 2)), "reshape embedding reshape reshape sum", roundings=2),
    Row("embedding_bag: any bags", lambda t, i, o: F.embedding_bag(i, t, o), (X[0, 0].repeat(4, 1), BAG, STARTS),
        "reshape embedding reshape linear", roundings=3),
    Row("embedding_bag: with the last offset", lambda t, i, o: F.embedding_bag(i, t, o, include_last_offset=True),
        (X[0, 0].repeat(4, 1), BAG, STARTS), "reshape embedding reshape linear", roundings=3),
    Row("embedding: the padding row", table(3), torch.tensor([[3, 0, 3]]), "embedding", roundings=0),
    *(
        Row(f"embedding: T5's buckets at {position}", _buckets(), torch.tensor(position), "embedding", roundings=0,
            dynamo=True)
        for position in (511, 300)
    ),
]  # fmt: skip
