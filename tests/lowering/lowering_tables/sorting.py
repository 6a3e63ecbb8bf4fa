"""Sorting and the places of extremes. Both look where the operand lies: on the device after an operation there."""

from typing import Any

import torch
from compiled import random

from .row import Row, bind

SHAPES = [(700,), (40, 33), (7, 40, 33), (8, 4, 40, 33), (8, 2, 8, 20, 33), (8, 1, 2, 8, 8, 33)]
NAN, INF = float("nan"), float("inf")
CLOSE = torch.tensor([1.0, 1.0 + 2**-20, 1.0 - 2**-20])
WHOLE = torch.tensor([(1 << 24) + 1, 1 << 24, -(1 << 24) - 1, -(1 << 24), -(1 << 24) - 3])
ARGMAX, PERMUTED_ARGMAX = "to_layout argmax typecast", "to_layout permute argmax typecast"
SORT = "neg typecast sort typecast neg"


def distinct(*shape: int) -> torch.Tensor:
    """Numbers that bfloat16 holds, no two of 251 neighbours along any dimension alike; none of them 0."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    steps = torch.tensor([89, 57, 101, 23, 71, 149])[: len(shape)].reshape(-1, *[1] * len(shape))
    return ((places * steps).sum(0) % 251 - 125).float() + 0.5


def with_numbers(x: torch.Tensor, numbers: dict[Any, float]) -> torch.Tensor:
    """The tensor with these at their places."""
    for place, number in numbers.items():
        x[place] = number
    return x


def _places(x: torch.Tensor) -> list[torch.Tensor]:
    orders = [(dim, descending) for dim in (0, 1) for descending in (False, True)]
    return [torch.sort(x.neg(), stable=True, dim=dim, descending=down)[1][:3] for dim, down in orders]


def _top(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x.neg()
    return *y.topk(3), *y.topk(2, dim=1, largest=False), *y.topk(1, 0)


def _ranked(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x.argmax(), x.argmin(), *x.sort(), *x.sort(descending=True), *x.topk(2), *x.max(0), *x.min(0)


def _rows_in_order(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    order = ids.argsort()
    return x.relu()[ids.gather(0, order) // 2]


def _exact(name: str, function: Any, x: torch.Tensor | tuple[torch.Tensor, ...], calls: str) -> Row:
    return Row(name, function, x, calls, roundings=0)


ROWS = [
    *(
        row
        for shape in SHAPES
        for dim in sorted({0, len(shape) // 2, -1})
        for row in [
            _exact(f"argmax: {shape} along {dim}",
                bind(lambda x, d: (x.neg().argmax(d), x.neg().argmin(d, keepdim=True)), dim), distinct(*shape),
                "neg {0} neg {0} reshape".format(ARGMAX if dim in (-1, len(shape) - 1) else PERMUTED_ARGMAX)),
            *(
                _exact(f"sort: {shape} along {dim}, descending={down}",
                    bind(lambda x, d, down: x.neg().sort(d, down)[0].neg(), dim, down), distinct(*shape), SORT)
                for down in (False, True)
            ),
        ]
    ),
    _exact("argmax: all elements", lambda x: (x.neg().argmax(), x.neg().argmin(), x.neg().argmax(keepdim=True)),
        distinct(7, 40, 33), "neg to_layout argmax typecast neg to_layout argmax typecast argmax typecast"),
    _exact("argmax: beyond what bfloat16 holds", lambda x: x.neg().argmax(1),
        with_numbers(torch.zeros(2, 3001), {(0, 2999): -1, (1, 257): -1}), "neg to_layout argmax typecast"),
    _exact("argmax: the first of equals",
        lambda x: (x.neg().argmax(1), x.neg().argmax(0), x.neg().argmin(1), *x.neg().max(1), *x.neg().min(0)),
        with_numbers(torch.ones(40, 33), {3: -1, (slice(None), 5): -2}), "neg"),
    _exact("argmax: the first NaN", lambda x: (x.neg().argmax(1), x.neg().argmin(1), *x.neg().max(1), *x.neg().min(1)),
    with_numbers(random(400, 33), {(3, 7): NAN, (3, 9): NAN, (5, 0): INF, 6: INF, 7: -INF}),
            "neg to_layout argmax typecast neg to_layout argmax typecast to_layout argmax typecast max to_layout min "
            "neg to_layout argmax typecast to_layout"),
    *(
        _exact(f"max: along {dim}, keepdim={keep}",
            bind(lambda x, *to: (*x.neg().max(*to), *x.neg().min(*to)), dim, keep), distinct(40, 40, 40),
            f"neg {place} max to_layout min neg {place} to_layout")
        for dim, argmax in {0: PERMUTED_ARGMAX, 1: PERMUTED_ARGMAX, -1: ARGMAX}.items()
        for keep, place in {False: argmax, True: f"{argmax} reshape"}.items()
    ),
    _exact("max: the extreme alone", lambda x: x.neg().max(1)[0], distinct(40, 33), "neg max"),
    _exact("max: the place alone", lambda x: x.neg().max(1)[1], distinct(40, 33), "neg to_layout argmax typecast"),
    _exact("sort: equal elements", _places, (torch.arange(400 * 60).reshape(400, 60) % 7).float(),
        "neg typecast sort typecast slice typecast sort typecast slice typecast sort typecast slice typecast sort "
        "typecast slice"),
    _exact("sort: NaN",
        lambda x: (x.abs().sort(1)[0].abs(), x.abs().sort(dim=1, descending=True, stable=True)[1][:, :3]),
    with_numbers(random(40, 33), {(3, 7): NAN, (3, 9): NAN, (5, 0): INF, (5, 2): -INF}),
            "abs typecast sort typecast abs typecast sort typecast slice"),
    _exact("topk: along several dimensions", _top, distinct(60, 50, 128), "neg typecast topk typecast typecast "
        "typecast topk typecast typecast typecast topk typecast typecast"),
    _exact("topk: of all", lambda x: x.neg().topk(40)[0].neg(),
    torch.randperm(40, generator=torch.Generator().manual_seed(0)).float().repeat(40, 1),
            "neg typecast topk typecast neg"),
    _exact("topk: beyond 16 bits", lambda x: (*x.neg().topk(3), x.neg().argmax()),
    with_numbers(torch.zeros(70000), {69999: -3, 65536: -2, 5: -1}), "neg to_layout typecast topk typecast typecast "
            "argmax typecast"),
    _exact("sort: inputs on the host", lambda x: (x.argmax(), *x.sort(), *x.topk(2), *x.max(0)), CLOSE, ""),
    _exact("argmax: a single number", lambda x: (x.neg().argmax(), x.neg().argmin(0)), torch.tensor(1.5), "neg"),
    _exact("sort: integers that say which rows, and what is computed of them", _rows_in_order,
        (random(40, 64), torch.randperm(40, generator=torch.Generator().manual_seed(0))), "relu"),
    *(_exact(f"sort: {dtype}", _ranked, WHOLE.to(dtype), "") for dtype in (torch.int64, torch.int32)),
]  # fmt: skip
