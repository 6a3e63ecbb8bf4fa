"""Rounding, division to whole numbers and what is left over."""

import torch
from compiled import positive, random

from tt_dynamo.ir.graph import aten

from .row import Row, bind

INF, NAN = float("inf"), float("nan")
HALVES = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.25, -0.75, 0.0, -0.0, 3.0, 100.5, INF, -INF, NAN]])
DIVIDENDS = random(3, 33, scale=8.0)
JUST_BELOW = torch.tensor([[764.0, -764.0]]), torch.tensor([[255.0], [-255.0]])  # 764 / 255 = 2.996 is 3.0 in bfloat16
POLES = torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[0.0], [-0.0], [2.0]])
LEFT_OF_POLES = torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[0.0], [3.0]])
DIVISIONS = {
    "div: down": (bind(torch.div, rounding_mode="floor"), "divide floor typecast subtract add", POLES),
    "div: towards zero": (bind(torch.div, rounding_mode="trunc"), "divide trunc typecast", POLES),
    "floor_divide": (lambda x, y: x // y, "divide floor typecast subtract add", None),
    "fmod": (torch.fmod, "fmod", LEFT_OF_POLES),
    "remainder": (torch.remainder, "remainder", LEFT_OF_POLES),
}

ROWS = [
    *(
        Row(f"{name}: halves", getattr(aten, name), HALVES, name, roundings=0)
        for name in ("ceil", "floor", "frac", "round", "trunc")
    ),
    *(
        Row(f"round: to {decimals} decimals",
            bind(lambda x, decimals: torch.round(torch.relu(x), decimals=decimals), decimals),
            (positive(3, 33) * 100).bfloat16().float(), "relu round")
        for decimals in (0, 1, 2, -1)
    ),
    Row("div: not rounded", bind(aten.div.Tensor_mode, rounding_mode=None), (DIVIDENDS, random(33, scale=2.0)),
        "divide"),
    *(
        row
        for name, (divide, call, poles) in DIVISIONS.items()
        for row in [
            Row(f"{name}: tensors", divide, (DIVIDENDS, random(33, scale=2.0)), call),
            *(
                Row(f"{name}: by {divisor}", bind(lambda x, divide, divisor: divide(x, divisor), divide, divisor),
                    DIVIDENDS, call)
                for divisor in (3, -2.5, 0.75)
            ),
            Row(f"{name}: just below a whole number", divide, JUST_BELOW, call),
            *([Row(f"{name}: by zero", divide, poles, call)] if poles else []),
        ]
    ),
    Row("remainder: of a number", lambda x: torch.remainder(7.5, x), random(3, 33, scale=4.0), "fill remainder"),
]  # fmt: skip
