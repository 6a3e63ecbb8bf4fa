"""The operations of a random graph: templates of torch expressions, and functions where shapes must be chosen.

In a template the first letter in braces names the first operand x: {f} a float, {i} an integer, {b} a boolean, {x}
anything. The others are {g}, {j}, {c}, {y}: the same kinds, broadcasting with x. {h} has x's very shape. {s} is a
number, {n} a small positive one, {d} a dimension of x, {dims} several, {k} True or False, {t} a dtype.
"""

from __future__ import annotations

import re
from typing import Any

from graphs import Builder

KINDS = {"f": "float", "i": "integer", "b": "boolean", "x": ""}
OTHERS = {"g": "float", "j": "integer", "c": "boolean", "y": ""}
NUMBERS = (0, 1, 2, -1, 3, 0.5, -2.25, 3.7, 0.001, 100.0)
DTYPES = ("float32", "bfloat16", "float16", "int64", "int32", "bool")

UNARY = (
    "relu", "sigmoid", "tanh", "abs", "neg", "erf", "sin", "cos", "square", "sign", "floor", "ceil", "round",
    "trunc", "exp2", "expm1", "atan", "sinh", "asinh", "isnan", "isinf", "isfinite", "logical_not",
    "nan_to_num", "exp", "frac", "reciprocal", "positive", "deg2rad", "sinc", "signbit",
)  # fmt: skip
ACTIVATIONS = (
    "silu", "gelu", "relu6", "selu", "softsign", "logsigmoid", "tanhshrink", "hardswish", "hardsigmoid",
    "hardtanh", "mish", "elu", "softplus", "leaky_relu", "celu", "hardshrink", "softshrink",
)  # fmt: skip

TEMPLATES = {
    "unary": [f"torch.{name}({{f}})" for name in UNARY]
    + [f"F.{name}({{f}})" for name in ACTIVATIONS]
    + [
        "torch.log({f}.abs() + 0.5)",
        "torch.sqrt({f}.abs())",
        "torch.rsqrt({f}.abs() + 0.25)",
        "torch.log1p({f}.abs())",
        "torch.log2({f}.abs() + 0.5)",
        "torch.log({f})",
        "torch.sqrt({f})",
        "torch.acos(torch.tanh({f}))",
        "torch.atanh({f}.clamp(-0.5, 0.5))",
        "F.gelu({f}, approximate='tanh')",
        "F.leaky_relu({f}, {s})",
        "F.elu({f}, alpha=1.5)",
        "F.threshold({f}, 0.25, {s})",
        "F.softplus({f}, beta=2)",
        "F.glu({f}, {d})",
        "torch.clamp({f}, -0.5, 1.25)",
        "torch.clamp({f}, min={s})",
        "torch.clamp({f}, max={s})",
        "torch.round({f}, decimals=1)",
        "-{x}",
        "abs({i})",
        "~{b}",
        "~{i}",
        "torch.sign({i})",
        "torch.logical_not({x})",
        "torch.clamp({i}, -3, 1000)",
    ],
    "binary": [
        "{f} + {g}",
        "{f} - {g}",
        "{f} * {g}",
        "{f} / ({g}.abs() + 0.5)",
        "{f} / {g}",
        "{x} + {y}",
        "{x} * {y}",
        "{x} - {s}",
        "{s} - {f}",
        "{f} * {s}",
        "{s} / ({f}.abs() + 0.5)",
        "{f} / {s}",
        "{i} + {j}",
        "{i} * {s}",
        "{i} / {s}",
        "{i} // 3",
        "{i} % 7",
        "{i} + {g}",
        "{b} * {g}",
        "{b} + {j}",
        "torch.add({f}, {g}, alpha={s})",
        "torch.sub({x}, {y}, alpha=2)",
        "torch.rsub({f}, {s})",
        "torch.maximum({f}, {g})",
        "torch.minimum({x}, {y})",
        "torch.fmax({f}, {g})",
        "torch.pow({f}, 2)",
        "torch.pow({f}, {s})",
        "torch.pow({f}.abs() + 0.5, {g}.clamp(-3, 3))",
        "torch.pow(2.0, {f})",
        "torch.atan2({f}, {g})",
        "torch.hypot({f}, {g})",
        "torch.copysign({f}, {g})",
        "torch.div({f}, {s}, rounding_mode='floor')",
        "torch.div({f}, {g}, rounding_mode='trunc')",
        "torch.remainder({f}, {s})",
        "torch.fmod({f}, 3)",
        "torch.lerp({f}, {g}, 0.3)",
        "torch.addcmul({f}, {g}, {g}, value={s})",
        "torch.addcdiv({f}, {g}, {g}.abs() + 0.5)",
        "torch.xlogy({f}, {g}.abs() + 0.5)",
        "torch.logaddexp({f}, {g})",
        "F.mse_loss({f}, {h})",
        "F.smooth_l1_loss({f}, {h}, reduction='none')",
        "torch.bitwise_and({i}, {j})",
        "torch.bitwise_xor({b}, {c})",
        "{i} << 2",
        "{i} >> 1",
    ],
    "choice": [
        "{f} > {g}",
        "{f} <= {s}",
        "{x} == {y}",
        "{x} != {y}",
        "{i} < {j}",
        "{i} >= {s}",
        "{b} & {c}",
        "{b} | {c}",
        "{b} ^ {c}",
        "torch.logical_and({x}, {y})",
        "torch.logical_or({x}, {y})",
        "torch.logical_xor({x}, {y})",
        "torch.where({b}, {g}, {g})",
        "torch.where({f} > 0, {f}, {s})",
        "torch.where({b}, {s}, {s})",
        "torch.where({b}, {j}, {j})",
        "torch.where({b}, {g}, float('-inf'))",
        "{f}.masked_fill({c}, {s})",
        "{f}.masked_fill({c}, float('-inf'))",
        "{i}.masked_fill({c}, -7)",
        "torch.isclose({f}, {h}, atol=0.1)",
        "torch.clamp({f}, {g}, {g})",
    ],
    "reduction": [
        "{f}.sum()",
        "{f}.mean({d}, keepdim={k})",
        "{x}.sum({d}, keepdim={k})",
        "{f}.sum({dims}, keepdim={k})",
        "{f}.mean({dims}, keepdim={k})",
        "{f}.amax({dims}, keepdim={k})",
        "{f}.amin({dims}, keepdim={k})",
        "{x}.amax({d}, keepdim={k})",
        "torch.max({f}, {d}, keepdim={k})[0]",
        "torch.min({x}, {d})[0]",
        "{f}.max()",
        "{i}.min()",
        "{x}.argmax({d}, keepdim={k})",
        "{f}.argmin({d})",
        "{f}.argmax()",
        "{x}.any({d})",
        "{b}.all({d}, keepdim={k})",
        "{f}.var({d}, keepdim={k})",
        "{f}.var({dims}, correction=0)",
        "{f}.std({d})",
        "{f}.prod({d})",
        "{f}.norm(dim={d}, keepdim={k})",
        "torch.linalg.vector_norm({f}, {n}, dim={dims})",
        "torch.logsumexp({f}, {d}, keepdim={k})",
        "F.softmax({f}, {d})",
        "F.log_softmax({f}, {d})",
        "F.softmax({f}, {d}, dtype=torch.float32)",
        "F.softmin({f}, {d})",
        "F.normalize({f}, dim={d})",
        "torch.cumsum({x}, {d})",
        "torch.cumprod({f}, {d})",
        "torch.sum({b}, {d})",
        "torch.count_nonzero({x}, {d})",
        "{f}.mean(dtype=torch.float32)",
        "torch.aminmax({f}, dim={d})",
        "F.cosine_similarity({f}, {h}, dim={d})",
        "torch.topk({f}, 1, {d})[0]",
        "torch.sort({f}, {d}, stable=True)",
        "torch.sort({i}, {d}, descending={k})[0]",
        "torch.logcumsumexp({f}, {d})",
        "torch.cummax({f}, {d})[0]",
    ],
    "move": [
        "{x}.reshape(-1)",
        "{x}.flatten({d})",
        "{x}.transpose({d}, {d})",
        "{x}.movedim({d}, {d})",
        "{x}.unsqueeze({d})",
        "{x}.unsqueeze(-1)",
        "{x}.squeeze()",
        "{x}.squeeze({d})",
        "{x}[..., ::2]",
        "{x}[..., 1:]",
        "{x}[1:]",
        "{x}[..., None]",
        "{x}[:, -1]",
        "{x}[-2:, 1:]",
        "{x}.select({d}, -1)",
        "{x}.narrow({d}, 0, 1)",
        "torch.cat([{x}, {h}], {d})",
        "torch.cat([{f}, {f}, {h}], {d})",
        "torch.stack([{x}, {h}], {d})",
        "torch.hstack([{f}, {h}])",
        "{x}.chunk(2, {d})",
        "{x}.split({n}, {d})",
        "{x}.unbind({d})",
        "{x}.tensor_split(3, {d})",
        "F.pad({f}, (1, 2))",
        "F.pad({f}, (-1, 2), value={s})",
        "F.pad({x}, (0, 1, 2, 0), value=2)",
        "F.pad({f}, (1, 1), mode='replicate')",
        "F.pad({f}, (1, 1), mode='reflect')",
        "{x}.roll({n}, {d})",
        "{x}.flip({dims})",
        "{x}.repeat_interleave({n}, {d})",
        "{x}.tile(2)",
        "{x}.tile((2, 1))",
        "{f}.tril()",
        "{f}.triu({n})",
        "{f}.tril(-1)",
        "{x}.diagonal()",
        "torch.diag_embed({f})",
        "{x}.expand(2, *{x0}.shape)",
        "{x}.broadcast_to((2, 1, *{x0}.shape))",
        "{x}.clone()",
        "{x}.contiguous()",
        "{x}.mT",
        "{x}.t()",
        "{x}.permute(*reversed(range({x0}.ndim)))",
        "{x}.contiguous().view(*reversed({x0}.shape))",
        "{x}.unfold({d}, 1, 1)",
        "{x}.view_as({x0}.contiguous())",
        "torch.slice_scatter({f}, {h}[:1], 0, 0, 1)",
        "torch.select_scatter({f}, {h}[0], 0, -1)",
        "torch.atleast_2d({x})",
        "torch.rot90({x})",
        "torch.meshgrid({x}.flatten()[:3], {h}.flatten()[:4], indexing='ij')",
    ],
    "index": [
        "{x}[torch.tensor([0, -1, 0])]",
        "{x}[:, torch.tensor([[0], [-1]])]",
        "{x}[torch.tensor([0]), torch.tensor([-1])]",
        "{x}.index_select({d}, torch.tensor([0, 0]))",
        "{x}.gather({d}, torch.zeros_like({x0}, dtype=torch.int64))",
        "{f}.gather({d}, {f0}.argsort({d}, stable=True))",
        "torch.take_along_dim({x}, torch.zeros_like({x0}, dtype=torch.int64), {d})",
        "{f}.scatter({d}, torch.zeros_like({f0}, dtype=torch.int64)[:1], 7.0)",
        "{f}.scatter_add({d}, torch.zeros_like({f0}, dtype=torch.int64), {h}.to({f0}.dtype))",
        "{f}.index_add({d}, torch.tensor([0]), {f0}.narrow({d}, 0, 1))",
        "{f}.index_fill({d}, torch.tensor([0]), {s})",
        "{f}.index_put((torch.tensor([0, -1]),), torch.tensor(0.5).to({f0}.dtype))",
        "F.embedding({i} % 3, torch.arange(12.0).reshape(3, 4))",
        "F.one_hot({i} % 3, 3)",
        "torch.bucketize({f}, torch.tensor([-1.0, 0.0, 1.0]))",
        "torch.arange({x}.ndim + 2) * {s}",
        "torch.zeros_like({x})",
        "torch.ones_like({f})",
        "torch.full_like({f}, {s})",
        "torch.full_like({f}, {s}, dtype=torch.{t})",
    ],
    "cast": [
        "{f}.to(torch.float32)",
        "{f}.to(torch.bfloat16)",
        "{f}.half()",
        "{i}.to(torch.float32)",
        "{i}.to(torch.{t})",
        "{b}.to(torch.{t})",
        "{f}.bool()",
        "{f}.nan_to_num(0, 99, -99).clamp(-99, 99).to(torch.{t})",
        "{i}.clamp(-(2**30), 2**30).to(torch.int32)",
    ],
    "product": [
        "{f} @ {h}.to({f0}.dtype).mT",
        "{f}.mT @ {f0}",
        "torch.matmul({f}, {f0}.flatten()[:{f0}.shape[-1]])",
        "torch.einsum('...i,...i->...', {f}, {h}.to({f0}.dtype))",
        "torch.einsum('ij,kj->ik', {f}, {h}.to({f0}.dtype))",
        "torch.outer({f}.flatten(), {f0}.flatten()[:5])",
        "torch.tensordot({f}, {h}.to({f0}.dtype), 1)",
        "F.layer_norm({f}, {f0}.shape[-1:])",
        "F.layer_norm({f}, {f0}.shape[-2:])",
        "F.rms_norm({f}, {f0}.shape[-1:])",
        "F.max_pool1d({f}, 2)",
        "F.avg_pool1d({f}, 3, 1, 1)",
        "F.adaptive_avg_pool2d({f}, (2, 1))",
        "F.max_pool2d({f}, 2, 1, 1)",
        "F.avg_pool2d({f}, 2)",
        "F.interpolate({f}, scale_factor=2)",
        "F.interpolate({f}, scale_factor=2.0, mode='bilinear')",
        "F.instance_norm({f})",
        "torch.cdist({f}, {h}.to({f0}.dtype))",
    ],
}

WRITES = [
    "{f}.add_({g})",
    "{f}.mul_({s})",
    "{f}.relu_()",
    "{f}.clamp_(-1, 1)",
    "{x}.zero_()",
    "{f}.fill_({s})",
    "{x}.copy_({y})",
    "{f}.masked_fill_({c}, {s})",
    "{f}[0] = {s}",
    "{f}[..., 1:] *= 2",
    "{f}[..., ::2].add_(1)",
    "{f}.t().sub_(0.5)",
    "{f}.view(-1)[1:].mul_(-1)",
    "{i}.add_(1)",
    "{b}.logical_not_()",
    "{f}.unsqueeze_(0)",
    "{f}.select(-1, 0).fill_({s})",
]

FAMILIES = ("unary", "binary", "binary", "choice", "reduction", "move", "move", "index", "cast", "product", "shaped")


def fill(builder: Builder, template: str) -> str | None:
    """The template with operands and numbers drawn for its letters; None where x has no dimension that it needs."""
    first: list[str] = []

    def draw(match: re.Match[str]) -> str:
        letter = match.group(1)
        if letter in KINDS:
            first.append(builder.operand(KINDS[letter]))
            return first[-1]
        if letter in ("s", "n", "k", "t"):
            return str(
                {
                    "s": lambda: builder.pick(NUMBERS),
                    "n": lambda: builder.integer(1, 4),
                    "k": lambda: builder.chance(2),
                    "t": lambda: builder.pick(DTYPES),
                }[letter]()
            )
        if letter in ("f0", "x0"):
            return first[0]
        if letter == "h":
            return builder.like(first[0], exactly=True)
        if letter in OTHERS:
            return builder.like(first[0], OTHERS[letter])
        rank = max(builder.value(first[0]).ndim, 1)
        if letter == "d":
            return str(builder.integer(-rank, rank - 1))
        chosen = sorted({builder.integer(0, rank - 1) for _ in range(builder.integer(1, rank))})
        return str(tuple(d - rank if builder.chance(4) else d for d in chosen))

    # A number that stands before x is drawn before it: numbers need no x.
    return re.sub(r"\{(\w+)\}", draw, template)


def shaped(builder: Builder) -> str | None:
    """An operation whose other operands have shapes that follow from x's."""
    name = builder.operand("float")
    x = builder.value(name)
    dtype = f".to({name}.dtype)"
    if x.ndim == 0:
        return f"{name}.expand({builder.pick(builder.sizes)}, 2)"
    last, ways = x.shape[-1], ["linear", "addmm", "norm"]
    ways += ["reshape", "attention", "bmm"] if x.ndim > 1 else []
    ways += ["conv", "group_norm", "batch_norm"] if x.ndim in (3, 4) and x.numel() else []
    way, width = builder.pick(ways), builder.pick([*builder.sizes, 4])

    def small(*shape: int) -> str:
        return f"(({builder.constant(shape)}){dtype} * 0.125)"

    if way == "linear":
        bias = f", {small(width)}" if builder.chance(2) else ""
        return f"F.linear({name}, {small(width, last)}{bias})"
    if way == "addmm":
        beta, alpha = builder.pick([1, 0.5, 0]), builder.pick([1, 2])
        flat = f"{name}.reshape(-1, {last})"
        return f"torch.addmm({small(width)}, {flat}, {small(last, width)}, beta={beta}, alpha={alpha})"
    if way == "norm":
        return f"F.layer_norm({name}, ({last},), {small(last)}, {small(last)})"
    if way == "reshape":
        a, b = x.shape[0], x.numel() // max(x.shape[0], 1)
        shape = builder.pick([(b, a), (-1, last), (a, -1), (1, a, b), (a, 1, b), (x.numel(), 1)])
        return f"{name}.reshape({shape})"
    if way == "bmm":
        return f"torch.matmul({name}, {small(*x.shape[:-2], last, width)})"
    if way == "attention":
        wanted = f"{name}.reshape(-1, 1, {x.shape[-2]}, {last})"
        more = builder.pick(["", ", is_causal=True", ", scale=0.5", f", attn_mask={name}.new_zeros(1, 1, 1, 1)"])
        return f"F.scaled_dot_product_attention({wanted}, {wanted}, {wanted}.neg(){more})"
    channels = x.shape[1]
    if way == "conv":
        spatial = x.ndim - 2
        kernel, stride, padding = builder.integer(1, 3), builder.integer(1, 2), builder.integer(0, 1)
        weight = small(builder.pick([1, 3, 32]), channels, *[kernel] * spatial)
        return f"F.conv{spatial}d({name}, {weight}, stride={stride}, padding={padding})"
    if way == "group_norm":
        groups = builder.pick([g for g in (1, 2, 4, channels) if g and channels % g == 0] or [1])
        return f"F.group_norm({name}, {groups})"
    return f"F.batch_norm({name}, {small(channels)}, ({small(channels)}).abs() + 1)"


def add_step(builder: Builder, parameters: int) -> None:
    """Draw a step; one that eager torch refuses is replaced by another a few times."""
    for _ in range(4):
        if builder.chance(14):
            text = fill(builder, builder.pick(WRITES))
            if text is not None and _writes_to_none_of(builder, text, parameters) and builder.statement(text):
                return
            continue
        family = builder.pick(FAMILIES)
        text = shaped(builder) if family == "shaped" else fill(builder, builder.pick(TEMPLATES[family]))
        if text is not None and builder.step(text):
            return


def _overlaps(x: Any) -> bool:
    """Whether elements of x lie over one another."""
    return x.numel() > 1 + sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))


def _writes_to_none_of(builder: Builder, text: str, parameters: int) -> bool:
    """A model's forward may write to its inputs and values, not to its parameters."""
    written: Any = re.match(r"v\d+", text)
    if not written:
        return False
    if _overlaps(builder.known[written.group()]):
        return False  # torch refuses most such writes, and what the others do is undefined
    memory = builder.known[written.group()].untyped_storage()._cdata
    return all(builder.known[f"v{n}"].untyped_storage()._cdata != memory for n in range(parameters))
