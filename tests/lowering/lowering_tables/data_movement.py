"""Moves of data on the device, to the last bit."""

from typing import Any

import torch
import torch.nn.functional as F
from compiled import random

from .row import Row, bind, wrap

X, SMALL = random(2, 3, 33), random(3, 5)
LARGE = torch.tensor([[2**24 + 1, -(2**24) - 1, 2**31 - 1], [-(2**31), 0, 7]])
ON_DEVICE = {"placement": "device"}

MOVES = {
    "view: flattened": (lambda x: x.reshape(-1), "relu reshape relu"),
    "view: rows joined": (lambda x: x.reshape(6, 33), "relu relu"),
    "view: columns split": (lambda x: x.reshape(2, 3, 3, 11), "relu reshape relu"),
    "view: in six dimensions": (lambda x: x.reshape(1, 2, 3, 1, 3, 11), "relu reshape relu"),
    "unsqueeze": (lambda x: x[:, None], "relu reshape relu"),
    "permute": (lambda x: x.permute(2, 0, 1), "relu permute relu"),
    "permute: movedim": (lambda x: x.movedim(0, -1), "relu permute relu"),
    "transpose_copy": (lambda x: torch.transpose_copy(x, 0, 2), "relu permute relu"),
    "transpose": (lambda x: x.mT, "relu permute relu"),
    "expand: a dimension of one": (lambda x: x[:, :1].expand(2, 4, 33), "relu slice expand relu"),
    "expand: a new dimension": (lambda x: x.expand(5, 2, 3, 33), "relu reshape expand relu"),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), "relu reshape expand relu"),
    "slice: rows": (lambda x: x[:, 1:], "relu to_layout slice to_layout relu"),
    "slice: every second column": (lambda x: x[..., ::2], "relu to_layout slice to_layout relu"),
    "slice: counted from the end": (lambda x: x[..., -5:-1], "relu to_layout slice to_layout relu"),
    "slice: beyond the end": (lambda x: x[:, 1:100], "relu to_layout slice to_layout relu"),
    "narrow_copy": (lambda x: torch.narrow_copy(x, 2, 1, 30), "relu to_layout slice to_layout relu"),
    "select: one row": (lambda x: x[:, 1], "relu to_layout slice reshape to_layout relu"),
    "select: the last column": (lambda x: x[..., -1], "relu slice reshape relu"),
    "repeat": (lambda x: x.repeat(1, 2, 3), "relu repeat relu"),
    "repeat: a dimension more": (lambda x: x.repeat(2, 1, 1, 1), "relu reshape repeat relu"),
    "tile": (lambda x: x.tile(2, 1), "relu repeat relu"),
    "constant_pad_nd: behind": (lambda x: F.pad(x, (0, 2)), "relu pad relu"),
    "constant_pad_nd: two dimensions": (lambda x: F.pad(x, (0, 31, 0, 2), value=1.5), "relu pad relu"),
    "constant_pad_nd: in front": (lambda x: F.pad(x, (1, 2), value=-1.0), "relu to_layout pad to_layout relu"),
    "constant_pad_nd: on all sides": (lambda x: F.pad(x, (1, 2, 3, 0, 1, 1)), "relu to_layout pad to_layout relu"),
    "constant_pad_nd: five dimensions": (
        lambda x: F.pad(x[None, None], (1, 0, 2, 2, 1, 1, 1, 0, 0, 1)),
        "relu reshape to_layout pad to_layout relu",
    ),
    "constant_pad_nd: padded and cut": (
        lambda x: F.pad(x, (1, -2, -1, 3)),
        "relu slice to_layout slice pad to_layout relu",
    ),
    "constant_pad_nd: cut on both sides": (lambda x: F.pad(x, (-1, -2)), "relu to_layout slice to_layout relu"),
    "_pad_circular": (
        lambda x: F.pad(x, (2, 1), mode="circular"),
        "relu to_layout slice to_layout concat concat slice slice concat relu",
    ),
    "stack": (lambda x: torch.stack([x, x], 1), "relu reshape concat relu"),
    "stack: at the end": (lambda x: torch.stack([x, x], -1), "relu reshape concat relu"),
    "triu": (lambda x: x.triu(-1), "relu where relu"),
    "tril": (lambda x: x.tril(2), "relu where relu"),
    "diag_embed": (lambda x: torch.diag_embed(x, 1), "relu concat reshape where relu"),
    "diag_embed: other dimensions": (lambda x: torch.diag_embed(x, -2, 0, 2), "relu concat reshape permute where relu"),
    "channel_shuffle": (lambda x: F.channel_shuffle(x.reshape(1, 6, 3, 11), 2), "relu permute reshape relu"),
    "pixel_unshuffle": (
        lambda x: F.pixel_unshuffle(x.reshape(1, 6, 3, 11)[..., :2, :10], 2),
        "relu reshape slice slice reshape permute relu",
    ),
    "pixel_shuffle": (
        lambda x: F.pixel_shuffle(x.reshape(1, 18, 1, 11)[:, :12], 2),
        "relu reshape slice reshape permute reshape relu",
    ),
    "select_scatter": (
        lambda x: torch.select_scatter(x, x[:, 0], 1, 2),
        "relu slice reshape reshape where relu",
    ),
    "slice_scatter": (
        lambda x: torch.slice_scatter(x, x[:, :2], 1, 1),
        "relu slice to_layout slice to_layout concat to_layout relu",
    ),
}

SPLITS = {
    "unbind": (
        lambda x: x.unbind(1),
        "relu to_layout slice reshape slice reshape slice reshape to_layout to_layout to_layout relu relu relu",
    ),
    "split": (
        lambda x: x.split(10, -1),
        "relu to_layout slice slice slice slice to_layout to_layout to_layout to_layout relu relu relu relu",
    ),
    "split_with_sizes": (
        lambda x: x.split([3, 10, 20], 2),
        "relu to_layout slice slice slice to_layout to_layout to_layout relu relu relu",
    ),
    "unsafe_split": (lambda x: torch.unsafe_split(x, 2, 1), "relu to_layout slice slice to_layout to_layout relu relu"),
    "unsafe_split_with_sizes": (
        lambda x: torch.unsafe_split_with_sizes(x, [1, 2], 1),
        "relu to_layout slice slice to_layout to_layout relu relu",
    ),
    "chunk": (lambda x: x.chunk(2, -1), "relu to_layout slice slice to_layout to_layout relu relu"),
    "tensor_split": (
        lambda x: x.tensor_split([1, 3], -1),
        "relu to_layout slice slice to_layout slice to_layout relu relu relu",
    ),
    "split: along the first dimension": (lambda x: x.split(1), "relu slice slice relu relu"),
}

INTEGERS = {
    "slice: integers": (lambda i: i[:, 1:], "slice", ()),
    "view: integers": (lambda i: i.reshape(3, 2), "reshape", ()),
    "cat: integers": (lambda i: torch.cat([i, i]), "concat", ()),
    # what gets integers wrong on silicon
    "cat: columns of integers": (lambda i: torch.cat([i, i], 1), "", ("19950",)),
    "permute: integers": (lambda i: i.permute(1, 0), "", ("19950",)),
    "repeat: integers": (lambda i: i.repeat(2, 1), "repeat", ()),
    "constant_pad_nd: integers": (lambda i: F.pad(i, (1, 1), value=5), "pad", ()),
    # a number that float32 lacks
    "constant_pad_nd: a large integer": (lambda i: F.pad(i, (1, 1), value=2**24 + 1), "", ("16777217",)),
}

STRIDES = {
    "permute: strides": (lambda x: torch.relu(x).permute(1, 0), "relu"),
    "clone: of a permuted value": (lambda x: torch.relu(x).permute(1, 0).contiguous(), "relu"),
    "slice: strides": (lambda x: torch.relu(x)[:, ::2], "relu to_layout slice"),
    "expand: strides": (lambda x: torch.relu(x)[:1].expand(3, 5), "relu slice"),
    "transpose: strides": (lambda x: torch.relu(x).unsqueeze(1).transpose(0, 2), "relu"),
    "flip: strides": (lambda x: torch.relu(x).flip(0), "relu to_layout reshape embedding reshape"),
    "stack: strides": (lambda x: torch.stack([torch.relu(x), x], -1), "relu"),
    "diagonal: strides": (lambda x: torch.relu(x).diagonal(), "relu to_layout reshape reshape gather reshape"),
}

# in one layout where they are joined along whole tiles or columns
JOINED = {
    "relu tanh abs concat relu": [((2, 3, 33), 0), ((2, 3, 33), -1), ((2, 32, 64), 0), ((2, 32, 64), -1), ((1, 5), -1)],
    "relu to_layout tanh abs to_layout concat to_layout relu": [((1, 5), 0), ((4,), 0), ((4,), -1)],
}

VIEWS = {
    "view: of an input": (lambda x: x.view(3, 5), "reshape"),
    "transpose: of an input": (lambda x: x.transpose(-1, 1), "permute"),
    "squeeze: of an input": (lambda x: x.squeeze(0), "reshape"),
    "squeeze: dimensions of an input": (lambda x: x.squeeze((0, 1)), "reshape"),
}


def _sliced(x: torch.Tensor) -> torch.Tensor:
    y = torch.relu(x)
    y[:, 1] = 0
    y[..., :2] = y[..., 2:4]
    return y * 1


def _masked(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    y = torch.relu(x)
    y[mask] = 3.0
    return y * 1


def _without_dimensions(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = torch.relu(x)
    return y.expand([]) * 1, y.repeat([]) * 1, y.roll(2) * 1, y.index_fill(0, torch.tensor(0), 3.0) * 1


def _merge(x: torch.Tensor) -> torch.Tensor:
    """Patch merging of Swin: four strided slices, joined."""
    corners = [torch.relu(x)[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.relu(torch.cat(corners, 2))


def _windows(x: torch.Tensor) -> torch.Tensor:
    """Swin: rolled, cut into windows, and back."""
    x = torch.relu(x).roll((-2, -2), (1, 2))
    return torch.relu(x.view(1, 2, 4, 2, 4, 32).permute(0, 1, 3, 2, 4, 5).reshape(4, 16, 32))


def _exact(name: str, function: Any, inputs: Any, calls: str, **options: Any) -> Row:
    return Row(name, function, inputs, calls, roundings=0, **options)


ROWS = [
    *(_exact(name, wrap(move), X, calls) for name, (move, calls) in MOVES.items()),
    *(
        _exact(name, bind(lambda x, f: [torch.relu(part) for part in f(torch.relu(x))], split), X, calls)
        for name, (split, calls) in SPLITS.items()
    ),
    *(
        Row(f"cat: {shape} along {dim}",
            bind(lambda x, dim: torch.relu(torch.cat([torch.relu(x), torch.tanh(x).abs(), x], dim)), dim),
            random(*shape), calls)
        for calls, samples in JOINED.items()
        for shape, dim in samples
    ),
    *(
        _exact(f"cat: tiles {shape} along {dim}",
    bind(lambda x, dim: torch.relu(torch.cat([torch.relu(x), x], dim)), dim), random(*shape), "relu concat relu")
        for shape, dim in [((2, 32, 64), 1), ((2, 3, 33), 0), ((2, 3, 33), 2)]
    ),
    _exact("cat: four strided slices", _merge, random(1, 6, 6, 5), "relu to_layout slice slice slice slice slice slice "
        "concat to_layout relu"),
    _exact("roll: a shifted window", _windows, random(1, 8, 8, 32), "relu to_layout reshape embedding relu"),
    _exact("cat: parts of different sizes", lambda x, y: torch.relu(torch.cat([x, torch.relu(y)], 1)),
        (random(2, 1, 33), random(2, 5, 33)), "relu to_layout concat to_layout relu"),
    _exact("cat: parts without elements", lambda x: torch.relu(torch.cat([torch.empty(0), x, x[:0]], 0)), SMALL,
        "relu"),
    _exact("cat: parts of different dtypes", lambda x, i, b: torch.relu(torch.cat([torch.relu(x), i, b], 0)),
    (random(2, 3), torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]])),
            "relu to_layout concat to_layout relu"),
    *(
        _exact(f"{name} of {dtype}", move, LARGE.to(dtype), calls, reasons=reasons, options=ON_DEVICE)
        for name, (move, calls, reasons) in INTEGERS.items()
        for dtype in (torch.int64, torch.int32)
    ),
    *(
        Row(name, bind(lambda x, make: torch.relu(x) + make(torch.relu(x)), make), SMALL, "relu add")
        for name, make in {
            "zeros_like": torch.zeros_like, "ones_like": torch.ones_like, "new_full": bind("new_full", (3, 5), 2.0),
        }.items()
    ),
    _exact("slice_scatter: in place", _sliced, X, "relu where to_layout slice to_layout slice to_layout concat "
        "multiply"),
    _exact("index_put: a number by a mask", _masked,
        (X, torch.tensor([[True, False, True], [False, False, True]])), "relu where multiply"),
    *(
        _exact(f"{name}, on the device", view, SMALL, calls, options=ON_DEVICE)
        for name, (view, calls) in VIEWS.items()
    ),
    _exact("expand: no dimensions", _without_dimensions, torch.tensor(2.5), "relu multiply multiply reshape "
        "to_layout concat reshape reshape gather reshape reshape to_layout multiply"),
    *(_exact(name, model, SMALL, calls) for name, (model, calls) in STRIDES.items()),
]  # fmt: skip
