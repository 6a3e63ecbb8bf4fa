"""The operations of a random graph: templates filled in, and functions where shapes must be chosen."""

from __future__ import annotations

import re
from typing import Any

from graphs import Builder
from templates import COPIES, TEMPLATES, WRITES

KINDS = {"f": "float", "i": "integer", "b": "boolean", "x": ""}
OTHERS = {"g": "float", "j": "integer", "c": "boolean", "y": ""}
NUMBERS = (0, 1, 2, -1, 3, 0.5, -2.25, 3.7, 0.001, 100.0)
DTYPES = ("float32", "bfloat16", "float16", "int64", "int32", "bool")

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
            if text is None or not _writes_to_none_of(builder, text, parameters):
                continue
            copied = COPIES[len(builder.steps) % len(COPIES)]
            builder.step(copied.format(x=re.split(r"\W", text)[0]))
            if builder.statement(text):
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
