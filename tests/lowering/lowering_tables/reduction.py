"""Reductions, norms of vectors, running sums and products."""

import torch
import torch.nn.functional as F
from compiled import positive, random

from .row import Row, bind

INF, NAN = float("inf"), float("nan")
X, POSITIVE = random(2, 40, 33), positive(2, 3, 33)
DIMS = [(-1, False), (-1, True), (0, False), (1, True), ((0, 1), False), ((1, 2), True), ((0, 1, 2), False)]
SHAPES = [(1,), (33,), (64, 32), (2, 3, 33), (2, 2, 2, 5), (2, 1, 3, 2, 33), (2, 1, 3, 2, 2, 5)]
ONE = torch.tensor(1.5)
LOGSUMEXP = "max isinf where subtract exp sum log add"
NORMS = {1: "abs sum", INF: "abs max", -INF: "abs min", 0: "ne sum", 3: "abs pow sum pow"}
LARGE = [[1 << 24, (1 << 24) + 1, -(1 << 24) - 3], [-7, (1 << 30) + 1, -((1 << 30) + 3)]]
HELD = torch.relu(random(8, 40, 3) - 1).repeat(1, 1, 30)
NAN_BESIDE_ZEROS = torch.tensor([[NAN, 0.0], [0.0, 0.0]]).repeat(20, 40)
INFINITE = torch.tensor([[1.0, INF, -INF], [NAN, 1.0, 2.0], [-INF, -INF, -INF]])
NOT_NUMBERS = torch.stack([positive(33), torch.full((33,), NAN), positive(33).masked_fill(torch.arange(33) == 3, NAN)])
POWERS = torch.tensor([[1.0, -INF, 2.0], [-INF, -INF, -INF], [INF, 1.0, -INF], [NAN, 1.0, 2.0]])


def _single(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x.sum(), x.sum(-1), x.mean(), x.amax(0), x.norm(), x.logsumexp(0), x.std(unbiased=False), x.var(0)


def _counts(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    positive = torch.relu(x) > 0
    return positive.sum(), positive.sum(1), positive.sum((0, -1), keepdim=True), x.count_nonzero()


def _nonzero(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = torch.relu(x)
    return y.count_nonzero(), y.count_nonzero(1), (y > 0.5).count_nonzero((0, 1))


def _integers(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x.sum(), x.sum(1), x.sum(0, dtype=torch.int32), x.amax(1), x.amin(), x.prod(1), *x.max(0), x.argmax(1)


def _logic(x: torch.Tensor, name: str, arguments: tuple) -> tuple[torch.Tensor, ...]:
    y = torch.relu(x)
    return getattr(y > 0.25, name)(*arguments), getattr(y, name)(*arguments)


ROWS = [
    *(
        Row(f"{name}: {dim}, keepdim={keepdim}", bind(name, dim, keepdim=keepdim), POSITIVE, call)
        for name, call in [("mean", "mean"), ("sum", "sum"), ("amax", "max"), ("amin", "min")]
        for dim, keepdim in DIMS
    ),
    *(
        Row(f"sum: {shape}", bind(lambda x, d: (x.sum(-1), x.mean(0), x.amax(d, keepdim=True)), len(shape) // 2),
            positive(*shape), "sum mean max")
        for shape in SHAPES
    ),
    *(
        Row(f"{name}: all elements", bind(name), (positive(2, 3, 5) / 2 + 0.5).bfloat16().float(), call, roundings=2)
    for name, call in {"sum": "sum", "mean": "mean", "max": "max", "min": "min", "amax": "max", "prod":
            "typecast permute reshape cumprod slice reshape permute reshape cumprod slice reshape reshape cumprod "
            "slice reshape typecast"}.items()
    ),
    Row("sum: no dimensions", lambda x: (x.abs().sum([]), x.abs().mean([]), x.amax(()), x.norm(dim=[])), X,
        "abs sum mean max multiply sum sqrt",
        roundings=3),
    Row("sum: a single number", _single, ONE, "sum sum mean max multiply sum sqrt max isinf where subtract exp sum log "
        "add reshape std var", roundings=2),
    Row("sum: strides", lambda x: (x.t()[::2].sum(0), x.t().mean(-1)), positive(33, 6),
        "slice to_layout sum mean"),
    Row("mean: many elements", lambda x: (x.mean(), x.mean(-1)), positive(4, 40000), "mean mean"),
    *(
        Row(f"sum: to {to}", bind(lambda x, to: (x.sum(1, dtype=to), x.mean(dtype=to)), to),
            positive(3, 33).bfloat16(), "sum mean")
        for to in (torch.float32, torch.bfloat16)
    ),
    Row("sum: to float64", lambda x: torch.relu(x).sum(1, dtype=torch.float64), positive(3, 33), "relu",
        ("TTNN has no float64",) * 2,
        roundings=0),
    Row("sum: booleans", _counts, random(2, 70, 129), "relu gt typecast sum typecast typecast sum typecast typecast "
        "sum typecast"),
    Row("count_nonzero", _nonzero, random(2, 70, 129), "relu ne typecast sum typecast typecast sum typecast gt "
        "typecast sum typecast"),
    Row("sum: booleans to float32", lambda x: (x > 0).sum(1, dtype=torch.float32), X, "gt sum"),
    *(Row(f"sum: {dtype}", _integers, torch.tensor(LARGE, dtype=dtype), "") for dtype in (torch.int64, torch.int32)),
    Row("sum: floats to int64", lambda x: torch.relu(x).sum(1, dtype=torch.int64),
        torch.tensor([[1.5, 1.5, -1.5, 300.5]]), "relu",
        ("a cast to torch.int64 stays on the host", "integer arithmetic stays on the host")),
    *(
        Row(f"{name}: {arguments}", bind(_logic, name, arguments), HELD, f"relu gt {call} ne {call}")
        for name, call in [("any", "max"), ("all", "min")]
        for arguments in [(), (0,), (-1, True), ((0, 2),)]
    ),
    Row("any: no dimension", lambda x: (torch.any(torch.relu(x) > 0, []), torch.all(torch.relu(x) > 0, ())), X,
        "relu gt"),
    Row("any: NaN", lambda x: ((x @ torch.eye(80)).any(1), (x @ torch.eye(80)).count_nonzero()), NAN_BESIDE_ZEROS,
        "linear ne max typecast sum typecast"),
    Row("amax: of negatives", lambda x: (x.amax(0), x.amax(1), x.amax()), -positive(3, 5), "max max max", roundings=0),
    Row("amin: of positives", lambda x: (x.amin(0), x.amin(1), x.amin()), positive(3, 5), "min min min", roundings=0),
    Row("aminmax", lambda x: (*torch.aminmax(x), *torch.aminmax(x, dim=1, keepdim=True)), X, "min max min max",
        roundings=0),
    Row("amax: of infinities", lambda x: (x.amax(1), x.amin(1), x.sum(1)), INFINITE, "max min sum"),
    *(
        Row(f"{name}: {dim}, correction={correction}",
            bind(getattr(torch, name), dim, correction=correction, keepdim=True), X, name)
        for name in ("var", "std")
        for correction in (0, 1)
        for dim in (None, 1, -1, (0, 2), (0, 1, 2))
    ),
    Row("var: correction=3", bind(torch.var, 1, correction=3), X, "var multiply", roundings=2),
    Row("std: correction=3", bind(torch.std, 1, correction=3), X, "std multiply", roundings=2),
    Row("var: around a large mean", lambda x: (x.var(1), x.std(1)), random(3, 512, mean=1000.0, scale=16.0), "var std"),
    Row("var_mean", lambda x: (*torch.var_mean(x, 1), *torch.std_mean(x, correction=0)), X, "var mean std mean",
        cancels=True),
    *(
        Row(f"linalg_vector_norm: {dim}", bind(torch.linalg.vector_norm, dim=dim), POSITIVE, "multiply sum sqrt",
            roundings=3)
        for dim in (-1, 0, None, (0, 2))
    ),
    *(
        Row(f"linalg_vector_norm: order {order}, {dim}",
            bind(torch.linalg.vector_norm, order, dim=dim, keepdim=True), torch.relu(random(2, 3, 33)), call,
            roundings=5)
        for order, call in NORMS.items()
        for dim in (None, 1, (0, -1))
    ),
    *(
    Row(f"linalg_vector_norm: order {order}", bind(torch.linalg.vector_norm, order, dim=-1), positive(3, 33),
            "abs pow sum pow",
            roundings=8)
        for order in (0.5, -1.5)
    ),
    Row("linalg_vector_norm: normalize", bind(F.normalize, dim=-1), POSITIVE, "rms_norm", roundings=4),
    Row("dist", lambda a, b: (torch.dist(a, b, 3), F.pairwise_distance(a, b)), (positive(4, 33), -positive(4, 33)),
        "subtract abs pow sum pow add multiply sum sqrt", roundings=6),
    *(
        Row(f"_cdist_forward: order {order}", bind(torch.cdist, order, "donot_use_mm_for_euclid_dist"),
            (random(2, 5, 33), random(2, 7, 33)), call, roundings=4)
    for order, call in {1.0: "reshape reshape subtract abs sum", 2.0: "reshape reshape subtract multiply sum sqrt", INF:
            "reshape reshape subtract abs max"}.items()
    ),
    Row("_euclidean_dist", bind(torch.cdist, 2.0, "use_mm_for_euclid_dist"), (random(2, 5, 33), random(2, 7, 33)),
        "reshape reshape subtract multiply sum sqrt", roundings=4),
    *(
        Row(f"logsumexp: {dim}, keepdim={keepdim}",
            bind(lambda x, *to: (x.logsumexp(*to), (x - 1024).logsumexp(*to)), dim, keepdim),
            random(3, 33, 5) * 100, f"{call} subtract {call}", roundings=2)
        for dim in (-1, 0, (0, 2))
        for keepdim, call in {False: f"{LOGSUMEXP} reshape", True: LOGSUMEXP}.items()
    ),
    Row("logsumexp: of infinities", bind("logsumexp", 1), POWERS, "max isinf where subtract exp sum log add reshape"),
    Row("nansum", lambda x: (x.nansum(), x.nansum(1, keepdim=True)), NOT_NUMBERS, "isnan where sum sum"),
    Row("nanmean", bind("nanmean", 1), NOT_NUMBERS, "isnan eqz typecast sum typecast isnan where sum typecast divide",
        roundings=3),
    Row("sum: nothing", lambda x: (x.sum(), x.sum(0), x.prod(1), x.any(), x.all(1)), torch.empty(3, 0), ""),
]  # fmt: skip
