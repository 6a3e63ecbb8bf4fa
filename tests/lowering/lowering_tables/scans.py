"""Running sums and products, products along a dimension, softmax and its gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from compiled import positive, random

from tt_dynamo.ir.graph import aten

from .row import Row, bind

# and along how many dimensions: the first, the middle and the last
SHAPES = {
    (1,): 2, (33,): 2, (5, 33): 3, (2, 3, 33): 3, (2, 3, 4, 5): 3, (2, 1, 3, 2, 5): 3, (2, 1, 2, 3, 2, 5): 3
}  # fmt: skip
LAST = "typecast reshape cumprod slice reshape typecast typecast reshape cumprod slice reshape typecast reshape"
FIRST = LAST.replace("typecast reshape cumprod", "typecast permute reshape cumprod")
INF = float("inf")
ONE, X = torch.tensor(1.5), random(2, 3, 5, 33)
MASKED = torch.cat([X[:1], X[1:].index_fill(1, torch.tensor(1), -INF)])
FACTORS = -positive(3, 5).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(0.0))
SOFTMAX = {
    torch.softmax: ("softmax", aten._softmax_backward_data, "moreh_softmax_backward"),
    torch.log_softmax: ("moreh_logsoftmax", aten._log_softmax_backward_data, "moreh_logsoftmax_backward"),
}


def _near_one(*shape: int) -> torch.Tensor:
    return (random(*shape, scale=0.125) + 1).bfloat16().float()


def _along(name: str, shape: tuple[int, ...], *keepdims: bool) -> Any:
    """A method along the first, the middle and the last dimension."""
    options = [(dim, *keep) for dim in sorted({0, len(shape) // 2, -1}) for keep in ([(k,) for k in keepdims] or [()])]
    return lambda x: tuple(getattr(x, name)(*option) for option in options)


def _integers(x: torch.Tensor, dtype: Any) -> tuple[torch.Tensor, ...]:
    return x.cumsum(0, dtype=dtype), x[2:].cumprod(0, dtype=dtype), x[2:].prod(0, dtype=dtype)


ROWS = [
    *(
        Row(f"{name}: {shape}", _along(name, shape), _near_one(*shape), " ".join([f"{name} typecast"] * dims))
        for shape, dims in SHAPES.items()
        for name in ("cumsum", "cumprod")
    ),
    *(
        Row(f"prod: {shape}", _along("prod", shape, False, True), _near_one(*shape),
            {2: f"{LAST} {LAST}", 3: f"{FIRST} {LAST} {FIRST}"}[dims])
        for shape, dims in SHAPES.items()
    ),
    Row("cumsum: many elements", lambda x: (x.cumsum(0), x.cumsum(1)), positive(3, 3000),
        "cumsum typecast cumsum typecast"),
    Row("prod: many factors", lambda x: (x.prod(1), x.prod()), (random(3, 300, scale=1 / 64) + 1).bfloat16().float(),
    "typecast permute reshape cumprod slice reshape typecast typecast permute reshape cumprod slice reshape reshape "
            "cumprod slice reshape typecast"),
    Row("prod: all elements", bind("prod"), _near_one(2, 3, 5), "typecast permute reshape cumprod slice reshape "
        "permute reshape cumprod slice reshape reshape cumprod slice reshape typecast"),
    Row("cumsum: a single number", lambda x: (x.cumsum(0), x.cumprod(-1), x.prod(), x.prod(0)), ONE,
        "reshape cumsum typecast reshape reshape cumprod typecast reshape clone clone"),
    Row("prod: negatives and zeros", lambda x: (x.prod(0), x.prod(1)), FACTORS,
        "typecast reshape cumprod slice reshape typecast typecast permute reshape cumprod slice reshape typecast"),
    Row("cumsum: booleans", lambda x: (torch.relu(x) > 0).cumsum(1) * x, random(2, 900, 4).abs(),
        "relu gt cumsum typecast typecast multiply", roundings=2),
    Row("prod: booleans", lambda x: ((torch.relu(x) > -1).prod(-1), (torch.relu(x) > 0).prod(-1, keepdim=True)),
        torch.cat([torch.ones(8, 3, 33), random(8, 40, 33)[:, 3:]], 1), "relu gt min typecast gt min typecast"),
    *(
        Row(f"cumsum: {dtype} to {given}", bind(_integers, given),
            torch.tensor([(1 << 24) + 1, -(1 << 25) - 3, 3, -1], dtype=dtype), "")
        for dtype in (torch.int64, torch.int32)
        for given in (None, torch.int32, torch.int64)
    ),
    *(
        row
        for softmax, (call, backward, backward_call) in SOFTMAX.items()
        for name in [softmax.__name__]
        for row in [
            *(Row(f"_{name}: {shape}", _along(name, shape), random(*shape), " ".join([call] * dims))
              for shape, dims in SHAPES.items()),
            *(Row(f"_{name}: {dim} of four", bind(softmax, dim), X, call) for dim in range(-1, 3)),
            Row(f"_{name}: large numbers", bind(softmax, -1), X * 256, call),
            Row(f"_{name}: masked", bind(lambda x, f: f(x.masked_fill(torch.relu(x) > 0.5, -INF), -1), softmax), X,
                f"relu gt where {call}"),
            *(
                Row(f"_{name}_backward_data: {dim}",
                    bind(lambda g, y, f, dim: f(g, y, dim, torch.float32), backward, dim),
                    (random(3, 2, 33, 5).reshape(X.shape), softmax(X, dim).bfloat16().float()), backward_call,
                    cancels=True)
                for dim in (0, 1, -2, -1)
            ),
        ]
    ),
    Row("_softmax: a row that is masked whole",
    lambda x: (torch.softmax(x, -1), torch.log_softmax(x, -1), aten._safe_softmax(x, -1)), MASKED,
            "softmax moreh_logsoftmax max eq softmax where"),
    *(
    Row(f"_softmax: a single number, {dim}", bind(lambda x, d: (x.softmax(d), x.log_softmax(d)), dim), ONE,
            "reshape softmax reshape reshape moreh_logsoftmax reshape")
        for dim in (0, -1)
    ),
    *(
        Row(f"_softmax: to {to}", bind(lambda x, to: (x.softmax(1, dtype=to), x.log_softmax(1, dtype=to)), to),
            X.bfloat16(), "softmax moreh_logsoftmax", roundings=2)
        for to in (torch.float32, torch.bfloat16)
    ),
    Row("_softmax: softmin", bind(F.softmin, 1), X, "neg softmax"),
]  # fmt: skip
