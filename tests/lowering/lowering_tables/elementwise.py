"""Elementwise arithmetic."""

from typing import Any

import torch
from compiled import positive, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering import elementwise

from .row import Row, bind

INF, NAN = float("inf"), float("nan")
# Where functions overflow, have poles, or are not defined; each exact in bfloat16.
SPECIAL = torch.tensor([[0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 200.0, -200.0, INF, -INF, NAN]])
X = random(3, 33)
LIMIT = torch.tensor([[0.5], [-0.25], [1.0]])
WHOLE = torch.arange(12).reshape(3, 4)

ARITHMETIC = {torch.add: "add", torch.sub: "subtract", torch.mul: "multiply", torch.div: "divide"}
TWO_OPERANDS = {
    **elementwise.BINARY,
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), "multiply"),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), "divide"),
}
BROADCAST = [
    ((3, 33), (3, 33)), ((2, 3, 33), (33,)), ((2, 1, 5), (3, 5)), ((1,), (4,)), ((), (3,)), ((2, 3, 4), (2, 1, 1)),
    ((1, 5), (4, 1)), ((2, 3, 4, 5, 6), (6,)), ((33,), (2, 3, 33)),
]  # fmt: skip
EXPONENTS = {
    0: "fill", 1: "", 2: "multiply", 3: "pow", 4.0: "pow", 2.5: "pow", 0.5: "sqrt", -0.5: "rsqrt",
    -1: "reciprocal", -2: "multiply reciprocal", -3.0: "pow reciprocal", -1.5: "pow reciprocal", -2.5: "pow reciprocal",
}  # fmt: skip
RANKS = [(2, 1, 3, 1, 2, 5)[6 - rank :] for rank in range(7)]


def _defined(target: Any) -> torch.Tensor:
    """Numbers for which a function of one operand is defined."""
    name = target._schema.name.removeprefix("aten::")
    if name in ("acos", "asin", "atanh"):
        return X.clamp(-1, 1)
    return positive(3, 33) if name in ("log", "log2", "log10", "log1p", "acosh") else X


def _booleans(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    a, b = torch.relu(x) > 0.5, torch.tanh(x) < 0.7
    return a + b, a * b, (a + b) * torch.exp(x), (a | b) * 2.5


ROWS = [
    *(
        Row(f"relu: {shape}", torch.relu, random(*shape), "relu", roundings=0)
        for shape in [(), (1,), (33,), (3, 5), (2, 3, 33), (1, 1, 1, 1), (2, 1, 3, 4, 5), (32, 64)]
    ),
    *(Row(f"{target}", bind(target), _defined(target), call) for target, call in elementwise.UNARY.items()),
    *(Row(f"{target}: of poles", bind(target), SPECIAL, call) for target, call in elementwise.UNARY.items()),
    *(
        Row(f"{operation.__name__}: {first} and {second}", operation, (random(*first), random(*second, mean=4.0)), call)
        for operation, call in ARITHMETIC.items()
        for first, second in BROADCAST
    ),
    *(
        Row(f"{operation.__name__}: a tensor and {number}", bind(operation, number), random(3, 5), call)
        for operation, call in ARITHMETIC.items()
        for number in (2.5, -3, 0.1)
    ),
    *(
        row
        for shape in [(3, 5), ()]
        for number in (2.5, 1)
        for x in [random(*shape, mean=8.0)]
        for row in [
            Row(f"rsub: {number} and {shape}", bind(lambda x, number: number - x, number), x, "rsub"),
    Row(f"div: {number} / {shape}", bind(lambda x, number: number / x, number), x, "reciprocal multiply",
                roundings=2),
            Row(f"div: {number} and {shape}", bind(lambda x, number: aten.div.Tensor(number, x), number), x, "rdiv"),
        ]
    ),
    *(
        Row(
            f"{target}",
            bind(lambda x, second, target: target(torch.relu(x), second), target),
            (positive(3, 33), 2.5 if "Scalar" in str(target) else random(3, 1, mean=4.0)),
            f"relu {call}",
        )
        for target, call in TWO_OPERANDS.items()
    ),
    *(
        Row(f"{target}: of poles", bind(target), (SPECIAL, SPECIAL.T), call)
        for target, call in {**elementwise.BINARY, aten.mul.Tensor: "multiply", aten.div.Tensor: "divide"}.items()
    ),
    *(
        row
        for operation, call in [(torch.add, "add"), (torch.sub, "subtract")]
        for row in [
            Row(
                f"{operation.__name__}: alpha", bind(operation, alpha=-3), (positive(3, 5), positive(5)),
                f"multiply {call}", roundings=2, cancels=True,
            ),
            Row(f"{operation.__name__}: alpha and a number", bind(operation, 3, alpha=2), positive(3, 5), call),
        ]
    ),
    Row("clamp: both", bind(torch.clamp, min=-0.5, max=0.5), X, "clamp", roundings=0),
    Row("clamp: below", bind(torch.clamp, min=0.5), X, "maximum", roundings=0),
    Row("clamp: above", bind(torch.clamp, max=0.5), X, "minimum", roundings=0),
    Row("clamp: both wrong way round", bind(torch.clamp, 0.5, -0.5), X, "maximum minimum", roundings=0),
    Row("clamp: of poles", lambda x: (x.clamp(min=-1), x.clamp(max=1)), SPECIAL, "maximum minimum", roundings=0),
    Row("clamp: tensors", torch.clamp, (X, random(3, 1), random(33, mean=1.0)), "maximum minimum", roundings=0),
    Row("clamp_min: a number", lambda x: torch.clamp_min(torch.relu(x), 0.25), X, "relu maximum", roundings=0),
    Row("clamp_max: a number", lambda x: torch.clamp_max(torch.relu(x), 0.25), X, "relu minimum", roundings=0),
    Row("clamp_min: a tensor", lambda x, y: torch.clamp_min(torch.relu(x), y), (X, LIMIT), "relu maximum", roundings=0),
    Row("clamp_max: a tensor", lambda x, y: torch.clamp_max(torch.relu(x), y), (X, LIMIT), "relu minimum", roundings=0),
    *(
        row
        for exponent, call in EXPONENTS.items()
        for power in [bind(lambda x, exponent: x**exponent, exponent)]
        for base in [random(3, 33, scale=4.0).abs() if exponent % 1 else X]
        for row in [
            Row(
                f"pow: {exponent} of relu", bind(lambda x, power: power(torch.relu(x)), power), positive(3, 33),
                f"relu {call}".strip(), roundings=2,
            ),
            Row(f"pow: {exponent}", power, base, call, roundings=2),
            # The sign of infinity as an odd negative power of -0.0 is all that the device does not have.
            Row(f"pow: {exponent} of poles", power, SPECIAL.where(SPECIAL != 0, 0.0), call, roundings=2),
        ]
    ),
    Row("pow: two tensors", torch.pow, (positive(3, 33), random(33)), "typecast typecast pow typecast"),
    Row("pow: two tensors of poles", torch.pow, (SPECIAL, SPECIAL.T), "typecast typecast pow typecast"),
    Row("pow: of a number", lambda x: 2.5 ** torch.relu(x), X, "relu rpow"),
    Row("pow: of a number to poles", lambda x: 0.5**x, SPECIAL, "rpow"),
    Row("addcmul", bind(torch.addcmul, value=-0.5), (random(2, 3, 33), random(3, 1), positive(33)), "addcmul",
        cancels=True),
    *(
        Row(f"activated_product: {name}", bind(lambda x, y, gate: gate(x) * y, gate=gate), (X, X.flip(0)), "multiply")
        for name, gate in (("silu", torch.nn.functional.silu), ("relu", torch.relu))
    ),
    Row("scaled_sum", lambda x, y: (x + y) / 2**0.5, (X, X.flip(0)), "add", cancels=True),
    # torch.addcdiv is taken apart by Dynamo
    Row("addcdiv", bind(aten.addcdiv, value=2), (random(2, 3, 33), random(3, 1), positive(33)), "addcdiv",
        cancels=True),
    *(
        Row(f"lerp: {weight}", bind(torch.lerp, weight), (X, random(33)), "lerp", cancels=True)
        for weight in (0.25, 0.75)
    ),
    Row("lerp: a tensor", torch.lerp, (X, random(33), LIMIT.abs()), "lerp", cancels=True),
    Row("copysign: from zeros", torch.copysign, (random(11, 11), SPECIAL.nan_to_num(1.0)), "abs signbit neg where",
        roundings=0),
    Row("copysign: from numbers", lambda x: (x.copysign(-0.0), torch.copysign(x, 2)), X, "abs neg abs", roundings=0),
    Row("angle: of poles", torch.angle, SPECIAL, "isnan ltz multiply where"),
    Row("fmax: of poles", torch.fmax, (SPECIAL, SPECIAL.T), "isnan isnan maximum where where", roundings=0),
    Row("fmin: of poles", torch.fmin, (SPECIAL, SPECIAL.T), "isnan isnan minimum where where", roundings=0),
    *(
        Row(f"mul: {dtype}", torch.mul, (random(3, 5).to(dtype), random(3, 5).to(dtype)), "multiply")
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
    ),
    Row("mul: float32 and bfloat16", torch.mul, (random(3, 5), random(5).bfloat16()), "multiply"),
    Row("mul: bfloat16 and float32", torch.mul, (random(5).bfloat16(), random(3, 5)), "multiply"),
    Row("mul: integers", lambda i: (i + 3, i * 3 - i), WHOLE + 2**20),
    Row("div: integers", lambda i, x: i / 4 + x, (WHOLE, random(3, 4, mean=4.0)), "divide add", roundings=2),
    Row("mul: a float and an integer", lambda i, x: torch.relu(x) * i, (WHOLE, random(3, 4, mean=4.0)), "relu multiply",
        roundings=2),
    Row("mul: 2 and infinities", lambda x: x * 2, torch.tensor([[INF, -INF, NAN, 0.0, -0.0, 1.0]]), "multiply"),
    Row("exp: of infinities", torch.exp, torch.tensor([[INF, -INF, NAN, 0.0, -0.0, 1.0]]), "exp"),
    Row("reciprocal: of infinities", lambda x: 1.0 / x, torch.tensor([[INF, -INF, NAN, 0.0, -0.0, 1.0]]),
        "reciprocal multiply"),
    Row("add: booleans", _booleans, X, "relu gt tanh lt logical_or multiply exp multiply logical_or multiply"),
    # TTNN adds to a boolean in bfloat16, where integers above 256 are lost.
    Row("add: a boolean and an integer", lambda x: ((torch.relu(x) > 0.5) + 2) * torch.exp(x), X,
        "relu gt exp multiply",
        ("TTNN gives bfloat16, eager torch torch.int64",), roundings=2),
    *(
        Row(f"where: {shape}", lambda x, y, z: torch.where(x > y, x * y, z),
            (random(*shape), random(), random(*shape[-1:])), "gt multiply where")
        for shape in RANKS
    ),
    Row("mul: any strides", lambda x, y, z: torch.relu(x) * y * z, (
        random(4, 6, 8).mT, random(4, 6, 8)[0, ::2, ::2].T.flatten()[3:9], random(4, 6, 8)[1, :, :1].expand(6, 8).T,
    ), "relu multiply multiply", roundings=2),
    Row("fill: of a shape", lambda x: torch.exp(x) + x.clone().fill_(2), random(3, 5), "exp add", roundings=2),
]  # fmt: skip
