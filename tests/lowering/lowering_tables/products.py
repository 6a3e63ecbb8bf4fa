"""Matrix products and attention."""

from typing import Any

import torch
import torch.nn.functional as F
from compiled import random, rounded
from torch import nn

from tt_dynamo.ir import operators

from .row import Row, bind

SDPA = "transformer.scaled_dot_product_attention"

PRODUCTS = {
    ((3, 33), (33, 5)): "relu linear", ((4, 3, 33), (4, 33, 5)): "relu matmul", ((2, 4, 3, 33), (2, 4, 33, 5)):
        "relu matmul",
    ((2, 4, 3, 33), (4, 33, 5)): "relu reshape expand matmul", ((2, 4, 3, 33), (33, 5)): "relu linear", ((1, 3, 33), (1,
        33, 1)): "relu linear",
    ((33,), (33,)): "relu reshape reshape matmul reshape", ((33,), (33, 5)): "relu reshape linear", ((7, 33), (33,)):
        "relu reshape matmul reshape", ((2, 3, 33), (33,)): "relu linear",
    ((33,), (2, 33, 5)): "relu reshape reshape expand matmul", ((1, 1), (1,)): "relu reshape matmul reshape", ((3, 33),
        (2, 33, 5)): "relu reshape expand matmul", ((1, 3, 33), (2, 33, 5)): "relu expand matmul",
    ((2, 1, 3, 33), (4, 33, 5)): "relu expand reshape expand matmul", ((2, 1, 3, 33), (1, 4, 33, 5)):
        "relu expand expand matmul",
    ((2, 2, 2, 2, 3, 4), (2, 2, 2, 2, 4, 3)): "relu matmul",
}  # fmt: skip
VECTORS = {
    torch.dot: ((33,), (33,), "relu reshape reshape matmul reshape"), torch.vdot: ((33,), (33,),
        "relu reshape reshape matmul reshape"), torch.mv: ((7, 33), (33,), "relu reshape matmul reshape"),
    torch.inner: ((2, 33), (3, 33), "relu matmul"), torch.outer: ((7,), (33,),
        "relu reshape multiply"), torch.kron: ((3, 4), (5, 2), "relu reshape multiply"),
}  # fmt: skip
EINSUMS = {
    "ij,jk->ik": ((3, 33), (33, 5), "relu reshape matmul"), "bqhd,bkhd->bhqk": ((2, 3, 4, 8), (2, 5, 4, 8),
        "relu permute matmul"),
    "i,j->ij": ((3,), (5,), "relu reshape multiply"), "...ij,jk->...ik": ((2, 3, 4, 33), (33, 5),
        "relu reshape matmul"),
    "bij,bij->bij": ((2, 3, 4), (2, 3, 4), "relu multiply"),
}  # fmt: skip
# the product's calls, and all of them where the factors are 1
SUMS = {
    "addmm": (torch.addmm, (3, 5), (3, 33), (33, 5), "matmul", "relu matmul add"),
    "addmm: a row": (torch.addmm, (5,), (3, 33), (33, 5), "matmul", "relu linear"),
    "addmm: a column": (torch.addmm, (3, 1), (3, 33), (33, 5), "matmul", "relu matmul add"),
    "addmm: a number": (torch.addmm, (), (3, 33), (33, 5), "matmul", "relu matmul add"),
    "baddbmm": (torch.baddbmm, (4, 3, 5), (4, 3, 33), (4, 33, 5), "matmul", "relu matmul add"),
    "baddbmm: a row": (torch.baddbmm, (5,), (4, 3, 33), (4, 33, 5), "matmul", "relu matmul add"),
    "addbmm": (torch.addbmm, (3, 5), (4, 3, 33), (4, 33, 5), "permute reshape reshape matmul",
        "relu permute reshape reshape matmul add"),
    "addmv": (torch.addmv, (3,), (3, 33), (33,), "reshape matmul reshape", "relu reshape matmul reshape add"),
    "addmv: a number": (torch.addmv, (), (3, 33), (33,), "reshape matmul reshape", "relu reshape matmul reshape add"),
    "addr": (torch.addr, (3, 5), (3,), (5,), "reshape multiply multiply", "relu multiply multiply multiply add"),
}  # fmt: skip
SIZES = [(1, 1, 1, 1, 32), (2, 3, 5, 7, 32), (1, 2, 33, 33, 64), (1, 2, 5, 5, 8), (2, 2, 40, 70, 72)]


def _joined(name: str) -> Row:
    linear = rounded(nn.Linear(33, 17))
    function = bind(lambda x, f: f(linear(x)), operators.ACTIVATIONS[name])
    return Row(f"linear: {name}", function, random(2, 3, 33), "linear", cancels=True, programs=1)


def _product(name: str, function: Any, shapes: Any, calls: str) -> Row:
    return Row(name, bind(lambda a, b, f: f(torch.relu(a), b), function), tuple(random(*s) for s in shapes), calls)


TRANSPOSED = {
    "a": (lambda a, b: a.mT @ b, (2, 3, 33, 5), (2, 3, 33, 7)),
    "b": (lambda a, b: a @ b.mT, (2, 3, 5, 33), (2, 3, 7, 33)),
    "both": (lambda a, b: a.mT @ b.mT, (40, 33), (7, 40)),
}


def _sums(name: str, function: Any, *shapes_and_calls: Any) -> list[Row]:
    *shapes, product, plain = shapes_and_calls
    addend, a, b = (random(*shape) for shape in shapes)
    name += ", " if ":" in name else ": "
    calls = {(1, 1): plain, (0.5, 2): f"relu {product} multiply multiply add", (1, -3): f"relu {product} multiply add"}
    if function is torch.addr:  # alpha is a factor of the vector
        calls = {(1, 1): "relu multiply add", (0.5, 2): plain, (1, -3): "relu multiply multiply add"}
    return [
        *(
            Row(
                f"{name}beta {beta}, alpha {alpha}",
                bind(lambda c, **k: function(torch.relu(c), a, b, **k), beta=beta, alpha=alpha),
                addend,
                call,
                roundings=2,
                cancels=True,
            )
            for (beta, alpha), call in calls.items()
        ),
        Row(
            f"{name}beta 0",
            lambda c, a: function(c, torch.neg(a), b, beta=0),
            (addend * float("nan"), a),
            f"neg {product}",
        ),
    ]


def _integers(name: str, function: Any, *shapes_and_calls: Any) -> Row:
    generator = torch.Generator().manual_seed(0)
    integers = tuple(torch.randint(-(2**26), 2**26, shape, generator=generator) for shape in shapes_and_calls[:3])
    return Row(f"{name}: integers", function, integers, "")


def operands(batch: int, heads: int, queries: int, keys: int, dim: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values: [batch, heads, sequence, dim]."""
    return (
        random(batch, heads, queries, dim),
        random(batch, heads, keys, dim),
        random(batch, heads, keys, dim, mean=0.25),
    )


def _attention(name: str, size: Any, *mask: torch.Tensor, function: Any = None, after: str = "", **options: Any) -> Row:
    """Attention of this size; after: the calls behind those of heads that fill no tile."""
    *_, queries, keys, dim = size
    expanded = "add " if mask and mask[0].shape[2] < queries else ""
    padded, sliced = ("pad pad pad ", f" slice{after}") if dim % 32 else ("", "")
    filled = "fill_implicit_tile_padding " if mask and keys % 32 else ""
    function = function or bind(F.scaled_dot_product_attention, **options)
    return Row(
        f"scaled_dot_product_attention: {name}{size}",
        function,
        (*operands(*size), *mask),
        f"{expanded}{padded}{filled}{SDPA}{sliced}",
        cancels=True,
    )


def _masks(size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    batch, heads, queries, keys, _ = size
    return {
        "a mask for the batch": random(1, heads, queries, keys),
        "a mask for the heads": random(batch, 1, queries, keys),
        "a mask for the queries": random(batch, 1, 1, keys),
        "a mask": random(batch, heads, queries, keys),
        "a boolean mask": torch.arange(keys)[None, None, None] <= torch.arange(batch)[:, None, None, None],
    }


def _spelled_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.mT / 32**0.5, -1) @ v


def _merging(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _multihead(width: int, heads: int, batch_first: bool) -> Row:
    attention = rounded(nn.MultiheadAttention(width, heads, batch_first=batch_first))
    calls = f"linear reshape experimental.nlp_create_qkv_heads {SDPA} linear"
    if not batch_first:  # rows of all sequences become those of each
        narrow = f"reshape permute slice slice slice pad pad pad {SDPA} slice permute reshape"
        heads_of = narrow if width // heads % 32 else f"experimental.nlp_create_qkv_heads {SDPA}"
        calls = f"reshape embedding linear reshape {heads_of} to_layout reshape embedding linear"
    # projection, attention and output are rounded once each, and what the first rounds, the others sum up
    return Row(
        f"multihead attention: {width} in {heads}, batch_first={batch_first}",
        lambda x: attention(x, x, x, need_weights=False)[0],
        random(2, 5, width),
        calls,
        roundings=3,
        cancels=True,
    )


GATED = rounded(nn.Linear(64, 64))


def _gated(x: torch.Tensor, residual: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return residual + gate * GATED(x)


def _attend_without_softmax(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    padded = nn.functional.pad(value, (0, 1), value=1.0)
    out = torch.relu(query) @ (torch.relu(key).mT @ padded)
    return out[..., :-1] / (out[..., -1:] + 1e-6)


ROWS = [
    *(
        Row(f"linear: {shape}, bias={bias}", rounded(nn.Linear(33, 17, bias=bias)), random(*shape), "linear")
        for shape in [(3, 33), (2, 3, 33), (1, 33), (2, 2, 3, 33), (33,), (64, 33)]
        for bias in (True, False)
    ),
    *(
        Row(f"linear: {shape}", rounded(nn.Linear(*shape)), random(2, shape[0]), "linear")
        for shape in [(1, 1), (2, 2), (33, 32), (64, 96), (5, 1)]
    ),
    Row("linear: core grid and fidelity", rounded(nn.Linear(33, 17)), random(2, 33), "linear",
        code=("core_grid=", "compute_kernel_config=")),
    *(_joined(name) for name in operators.ACTIVATIONS),
    Row("linear_parts: a modulation", bind(lambda x, y: y(x).chunk(3, -1), rounded(nn.Linear(33, 96))), random(2, 33),
        "experimental.minimal_matmul_split", programs=1),
    Row("linear_addcmul: a gate", _gated, (random(1, 33, 64), random(1, 33, 64, mean=1.0), random(1, 1, 64)),
        "experimental.dit_minimal_matmul_addcmul_fused", roundings=2, cancels=True, programs=1),
    Row("linear_addcmul: block floats", _gated, (random(1, 33, 64), random(1, 33, 64, mean=1.0), random(1, 1, 64)),
        "linear addcmul", roundings=4, cancels=True, options={"weight_dtype": "bfloat8_b"}),
    Row("linear_attention: two heads", _attend_without_softmax, tuple(random(2, 2, 64, 32) for _ in range(3)),
        "relu relu matmul sum matmul matmul divide", roundings=6, cancels=True, programs=7),
    *(_product(f"matmul: {shapes}", torch.matmul, shapes, calls) for shapes, calls in PRODUCTS.items()),
    *(_product(f"matmul: {name} transposed", f, shapes, "relu matmul") for name, (f, *shapes) in TRANSPOSED.items()),
    Row("addmm: an input", torch.addmm, (random(5), random(3, 33), random(33, 5)), "linear"),
    *(_product(f.__name__, f, shapes, calls) for f, (*shapes, calls) in VECTORS.items()),
    Row("mv: a vector is not moved", torch.mv, (random(7, 33), random(33)), "reshape matmul reshape", programs=1),
    *(
        _product(f"einsum: {equation}", bind(lambda a, b, e: torch.einsum(e, a, b), equation), shapes, calls)
        for equation, (*shapes, calls) in EINSUMS.items()
    ),
    _product("tensordot", bind(torch.tensordot, dims=([1, 0], [0, 1])), [(3, 4, 5), (4, 3, 2)],
        "relu permute reshape linear"),
    *(row for name, (function, *rest) in SUMS.items() for row in _sums(name, function, *rest)),
    *(_integers(name, *SUMS[name]) for name in ("addmm", "baddbmm", "addbmm", "addmv", "addr")),
    Row("bilinear", rounded(nn.Bilinear(33, 5, 7)), (random(2, 3, 33), random(2, 3, 5)),
        "matmul reshape matmul reshape add", roundings=3,
        cancels=True),
    *(_attention("", size) for size in SIZES),
    *(_attention("merging its heads ", size, function=_merging, after=" permute" if size[-1] % 32 == 0 else "")
      for size in SIZES),
    *(_attention(f"{name} ", size, mask) for size in SIZES for name, mask in _masks(size).items()),
    *(_attention("padding of a mask ", (1, 2, 5, keys, 32), random(1, 1, 5, keys)) for keys in (32, 33)),
    _attention("causal ", (1, 2, 33, 33, 32), is_causal=True),
    *(_attention("a scale ", (1, 2, 5, 7, dim), scale=0.3) for dim in (32, 8)),
    Row("scaled_dot_product_attention: fewer key heads", bind(F.scaled_dot_product_attention, enable_gqa=True),
        (random(1, 4, 33, 32), random(1, 2, 33, 32), random(1, 2, 33, 32, mean=0.25)), SDPA, cancels=True),
    Row("scaled_dot_product_attention: values wider than keys", bind(F.scaled_dot_product_attention),
        (random(1, 2, 33, 16), random(1, 2, 7, 16), random(1, 2, 7, 32, mean=0.25)), f"pad pad {SDPA}", cancels=True),
    _attention("spelled out ", (2, 3, 5, 7, 32), function=_spelled_out),
    *(_multihead(*size, batch_first) for size in [(64, 2), (48, 6), (96, 3)] for batch_first in (True, False)),
]  # fmt: skip
