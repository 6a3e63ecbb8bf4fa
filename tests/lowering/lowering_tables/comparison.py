"""Comparison, logic and choice; booleans are bfloat16 zeros and ones on the device."""

import operator

import torch
from compiled import random

from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering import comparison

from .row import Row, bind

INF, NAN = float("inf"), float("nan")
SPECIAL = torch.tensor([[0.0, -0.0, 1.0, -1.0, 0.5, INF, -INF, NAN]])
ZEROS = torch.tensor([[3.0, 0.0, -0.0, -2.0, 0.25]])
ENDS = torch.tensor([[0.0, 1.0, -1.0, INF, NAN]])
X, Y = random(3, 33), random(33, mean=2.0)
COUNTS = torch.tensor([[0, 1, 2, -3]])
COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
LOGIC = {
    "and": (operator.and_, torch.logical_and), "or": (operator.or_, torch.logical_or),
    "xor": (operator.xor, torch.logical_xor),
}  # fmt: skip


def whole(*shape: int) -> torch.Tensor:
    """Small integers as floats, so that many are equal."""
    return random(*shape).round()


ROWS = [
    *(
        row
        for name, compare in COMPARISONS.items()
        for row in [
            *(
                Row(f"{name}: a number and {shape}", bind(lambda x, f: f(torch.relu(x), 1), compare), whole(*shape),
                    f"relu {name}")
                for shape in [(3, 33), (1,), (2, 3, 4, 5)]
            ),
            Row(f"{name}: tensors that broadcast", bind(lambda x, y, f: f(torch.relu(x), torch.relu(y)), compare),
                (whole(2, 3, 33), whole(33)), f"relu relu {name}"),
            # 0.1 is no bfloat16: on the device it and the element that was 0.1 are the same one.
            Row(f"{name}: a number that is rounded", bind(lambda x, f: f(torch.relu(x), 0.1), compare),
                torch.tensor([[0.1, 0.0, 1.0]]), f"relu {name}"),
            Row(f"{name}: tensors of NaNs", compare, (ENDS, -ENDS.T), ""),
        ]
    ),
    Row("ne: itself", lambda x: -x != -x, SPECIAL, "neg isnan"),
    Row("eq: itself", lambda x: -x == -x, SPECIAL, "neg isnan eqz"),
    *(
        Row(f"{target}", bind(lambda x, target: target(-x), target),
            SPECIAL.nan_to_num(1.0) if target is aten.signbit.default else SPECIAL,
            f"neg {target._schema.name.removeprefix('aten::')}")
        for target in comparison.PREDICATES
    ),
    Row("isfinite", lambda x: torch.isfinite(-x), SPECIAL, "neg abs isposinf eqz isnan eqz multiply"),
    *(
        row
        for name, (bitwise, logical) in LOGIC.items()
        for row in [
            *(
                Row(f"{kind}_{name}: booleans", bind(lambda x, f: f(torch.relu(x) > 0.5, torch.tanh(x[:1]) < 0.7), f),
                    X, f"relu gt slice tanh lt logical_{name}")
                for kind, f in [("bitwise", bitwise), ("logical", logical)]
            ),
            Row(f"logical_{name}: numbers", bind(lambda x, f: f(x, torch.relu(x)) * torch.exp(x), logical), ZEROS,
                f"relu logical_{name} exp multiply"),
        ]
    ),
    Row("bitwise_not: booleans", lambda x: ~(torch.relu(x) > 0.5), X, "relu gt eqz"),
    Row("bitwise_not: integers", torch.bitwise_not, torch.arange(12).reshape(3, 4) + 2**20),
    Row("bitwise_and: integers", lambda i: i & (i + 2), torch.arange(12).reshape(3, 4) + 2**20),
    Row("logical_not: booleans", lambda x: torch.logical_not(torch.relu(x) > 0.5), X, "relu gt eqz"),
    Row("logical_not: numbers", lambda x: torch.logical_not(torch.relu(x)), ZEROS, "relu eqz"),
    Row("where: two tensors", lambda x, y: torch.where(torch.relu(x) > 0.5, x, y), (X, Y), "relu gt where"),
    Row("where: a broadcast condition", lambda x, y: torch.where(torch.relu(x[:1]) > 0.5, x, y), (X, Y),
        "slice relu gt where"),
    Row("where: a tensor and a number", lambda x: torch.where(torch.relu(x) > 0.5, x, 0.0), X, "relu gt where"),
    Row("where: a number and a tensor", lambda x, y: torch.where(torch.relu(x) > 0.5, -1.5, y), (X, Y),
        "relu gt where"),
    Row("where: two numbers", lambda x: torch.where(torch.relu(x) > 0.5, 1.5, -2.0) * torch.relu(x), X,
        "relu gt where multiply"),
    Row("masked_fill", lambda x: x.masked_fill(torch.relu(x) > 0.5, -1.0), X, "relu gt where"),
    Row("masked_fill: by -inf", lambda x: x.masked_fill(torch.relu(x) > 0.5, -INF), X, "relu gt where"),
    Row("where: integers", lambda x, i: torch.where(torch.relu(x) > 0.5, i, i + 1),
        (random(3, 4), torch.arange(12).reshape(3, 4) + 2**20), "relu gt"),
    Row("where: NaNs do not leak", lambda x, y: (torch.where(x > 0, x, y), torch.where(x > 0, y, 2.0)),
        (torch.tensor([[1.0, 2.0, 3.0, -1.0]]), torch.tensor([[NAN, INF, -INF, 1.0]])), "gt where where"),
    Row("where: a pole does not leak", lambda x: torch.where(x == 0, 1.0, 1 / x),
        torch.tensor([[0.0, 2.0, -0.0, -4.0]]), "eq reciprocal where"),
    *(
        Row(f"where: {shapes}", lambda c, x, y: torch.where(torch.relu(c) > 0.5, x, y),
            tuple(random(*shape) for shape in shapes), "relu gt where")
        for shapes in [((3, 1), (33,), ()), ((), (2, 3), (3,)), ((2, 1, 1, 4), (3, 1), (5, 1, 4))]
    ),
    Row("nan_to_num", torch.nan_to_num, SPECIAL, "isnan where clamp"),
    Row("nan_to_num: nan", bind(torch.nan_to_num, nan=2.0), SPECIAL, "isnan where clamp"),
    Row("nan_to_num: posinf", bind(torch.nan_to_num, posinf=8.0), SPECIAL,
        "isnan where isposinf where isneginf where"),
    Row("nan_to_num: all", bind(torch.nan_to_num, nan=1.0, posinf=4.0, neginf=-2.0), SPECIAL,
        "isnan where isposinf where isneginf where"),
    *(
    Row(f"_to_copy: a boolean to {dtype}", bind(lambda x, to: torch.relu(x) * (torch.tanh(x) > 0.5).to(to), dtype),
            X, calls)
        for dtype, calls in ((torch.float32, "tanh gt multiply"), (torch.bfloat16, "relu tanh gt multiply"))
    ),
    Row("_to_copy: an integer to float32", lambda i, x: i.float() * x, (COUNTS, random(3, 4)), "multiply"),
    Row("_to_copy: an integer to bool", lambda i, x: i.bool() * x, (COUNTS, random(3, 4)), "multiply"),
]  # fmt: skip
