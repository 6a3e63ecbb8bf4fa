"""Random small graphs, as Python: a hypothesis strategy that draws inputs, steps and outputs.

A graph is text, so that a failure prints as a function that a test can hold word for word. Each step is evaluated in
eager torch while it is drawn; one that eager torch refuses is left out, and so is one whose result is too large or of a
dtype that belongs to the host alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import values
from hypothesis import strategies as st

FLOATS = ("float32", "float32", "float32", "bfloat16", "float16")
INTEGERS = ("int64", "int64", "int32")
SIZES = (1, 2, 3, 5, 8, 16, 31, 32, 33, 64, 65)
LARGEST = 20_000  # elements of a value
KEPT = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.bool)

SCOPE = {
    "torch": torch,
    "F": F,
    "inf": math.inf,
    **{name: getattr(values, name) for name in ("floats", "integers", "booleans")},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A graph: the inputs `v0`, `v1`, … as expressions, how many of them are parameters (the first ones), the steps as
    statements, and the results as an expression."""

    inputs: tuple[str, ...]
    steps: tuple[str, ...]
    result: str
    parameters: int = 0

    def make(self) -> list[torch.Tensor]:
        """New inputs; an expression may name an input before it."""
        made: dict[str, Any] = {}
        for number, expression in enumerate(self.inputs):
            made[f"v{number}"] = eval(expression, SCOPE, made)
        return list(made.values())

    @property
    def source(self) -> str:
        names = ", ".join(f"v{number}" for number in range(len(self.inputs)))
        lines = [f"def forward({names}):", *(f"    {step}" for step in self.steps), f"    return {self.result}"]
        return "\n".join(lines) + "\n"

    def function(self) -> Callable[..., Any]:
        scope = dict(SCOPE)
        exec(self.source, scope)
        return scope["forward"]

    def __str__(self) -> str:
        inputs = "".join(f"        {text!r},\n" for text in self.inputs)
        steps = "".join(f"        {text!r},\n" for text in self.steps)
        return (
            f"Case(\n    inputs=(\n{inputs}    ),\n    steps=(\n{steps}    ),\n"
            f"    result={self.result!r},\n    parameters={self.parameters},\n)"
        )


class Builder:
    """A graph while it is drawn: its text, and eager's value of every name."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self.inputs: list[str] = []  # their expressions
        self.steps: list[str] = []
        self.known: dict[str, torch.Tensor] = {}
        self.sizes = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3), label="sizes")
        self.special = draw(st.integers(0, 11)) == 11

    # --- draws ------------------------------------------------------------------------------------------------------

    def pick(self, options: Any) -> Any:
        return self._draw(st.sampled_from(list(options)))

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def chance(self, one_in: int) -> bool:
        return self._draw(st.integers(0, one_in - 1)) == one_in - 1  # shrinks to False

    def shape(self) -> tuple[int, ...]:
        sizes = [*self.sizes, *self.sizes, 1]
        return tuple(self.pick(sizes) for _ in range(self.pick([2, 0, 1, 2, 3, 3, 4, 5])))

    def names(self, accept: Callable[[torch.Tensor], bool]) -> list[str]:
        return [name for name, value in reversed(self.known.items()) if accept(value)]

    # --- inputs -----------------------------------------------------------------------------------------------------

    def data(self, shape: tuple[int, ...], kind: str) -> str:
        """An expression for a tensor of that shape; kind "float", "integer" or "boolean"."""
        shape, seed = tuple(shape), self.integer(0, 9)
        if kind == "boolean":
            return f"booleans({shape}, {seed})"
        if kind == "integer":
            dtype = self.pick(INTEGERS)
            low, high = self.pick([(-5, 6), (0, 3), (-(2**26), 2**26), (-(2**31), 2**31 - 1), (2**24, 2**24 + 9)])
            return f"integers({shape}, {low}, {high}, {seed}, torch.{dtype})"
        kinds = ["normal", "positive", "wide", "ties", *(["special"] if self.special else [])]
        return f"floats({shape}, {self.pick(kinds)!r}, {seed}, torch.{self.pick(FLOATS)})"

    def strided(self, shape: tuple[int, ...], kind: str) -> str:
        """The same, in memory that lies otherwise."""
        rank = len(shape)
        ways = ["plain", "plain", "plain"]
        ways += ["offset", "steps", "padded"] if rank else []
        ways += ["transposed", "expanded", "windows"] if rank > 1 else []
        way = self.pick(ways)
        if way == "transposed":
            d = self.integer(0, rank - 2)
            swapped = list(shape)
            swapped[d], swapped[-1] = swapped[-1], swapped[d]
            return f"{self.data(tuple(swapped), kind)}.transpose({d}, -1)"
        if way == "expanded":
            d = self.integer(0, rank - 1)
            return f"{self.data((*shape[:d], 1, *shape[d + 1 :]), kind)}.expand{shape}"
        if way == "offset":
            return f"{self.data((shape[0] + 1, *shape[1:]), kind)}[1:]"
        if way == "steps":
            return f"{self.data((*shape[:-1], 2 * shape[-1]), kind)}[..., ::2]"
        if way == "padded":
            return f"{self.data((*shape[:-1], shape[-1] + 3), kind)}[..., :{shape[-1]}]"
        if way == "windows":
            count = shape[0] + math.prod(shape[1:])
            strides = [1, *(math.prod(shape[d + 1 :]) for d in range(1, rank))]
            return f"{self.data((count,), kind)}.as_strided({tuple(shape)}, {tuple(strides)})"
        return self.data(shape, kind)

    def input(self, shape: tuple[int, ...] | None = None, kind: str = "", plain: bool = False) -> str:
        """A new input of the graph."""
        assert not self.steps
        shape = self.shape() if shape is None else tuple(shape)
        while math.prod(shape) > LARGEST:
            shape = shape[:-1]
        kind = kind or self.pick(["float", "float", "float", "float", "integer", "boolean"])
        text = self.data(shape, kind) if plain else self.strided(shape, kind)
        return self._add_input(text)

    def input_that_shares_memory(self) -> str | None:
        name = self.pick(self.known)
        if not self.known[name].ndim:
            return None
        return self._add_input(self.pick([f"{name}[1:]", f"{name}", f"{name}.transpose(0, -1)"]))

    def _add_input(self, text: str) -> str:
        name = f"v{len(self.known)}"
        self.known[name] = eval(text, SCOPE, dict(self.known))
        self.inputs.append(text)
        return name

    # --- operands ---------------------------------------------------------------------------------------------------

    def operand(self, kind: str = "") -> str:
        """A value of a kind that there is, or one made here."""
        accept = {
            "": lambda x: True,
            "float": lambda x: x.is_floating_point(),
            "integer": lambda x: not x.is_floating_point() and x.dtype != torch.bool,
            "boolean": lambda x: x.dtype == torch.bool,
        }[kind]
        found = self.names(accept)
        return self.pick(found[:4]) if found else self.constant(self.shape(), kind or "float")

    def constant(self, shape: tuple[int, ...], kind: str = "float") -> str:
        """A tensor of that shape that the graph holds: a literal of it, by a statement that makes it."""
        shape = tuple(shape)
        if math.prod(shape) > LARGEST:
            shape = ()
        count = math.prod(shape)
        if kind == "boolean":
            return f"(torch.arange({count}) % {self.pick([2, 3])} == 0).reshape({shape})"
        if kind == "integer":
            return f"(torch.arange({count}) * {self.pick([1, -7, 65539])}).reshape({shape})"
        ways = [f"torch.ones({shape})", f"torch.full({shape}, -1.5)", f"torch.arange({count}).reshape({shape}) * 0.25"]
        ways += [f"(torch.arange({count}) % 7 - 3).reshape({shape}).to(torch.{self.pick(FLOATS)})"]
        return f"({self.pick(ways)})"

    def like(self, name: str, kind: str = "", exactly: bool = False) -> str:
        """A value that broadcasts with `name`, of a kind."""
        value = self.value(name)
        wanted = tuple(value.shape)

        def fits(other: torch.Tensor) -> bool:
            if exactly and other.shape != value.shape:
                return False
            try:
                torch.broadcast_shapes(other.shape, wanted)
            except RuntimeError:
                return False
            return not kind or _kind(other) == kind

        found = self.names(fits)
        if found and not self.chance(4):
            return self.pick(found[:4])
        shape = wanted if exactly or self.chance(2) else tuple(1 if self.chance(3) else size for size in wanted)
        if not exactly and shape and self.chance(3):
            shape = shape[self.integer(0, len(shape)) :]
        return self.constant(shape, kind or "float")

    def value(self, expression: str) -> torch.Tensor:
        return self.known[expression] if expression in self.known else eval(expression, SCOPE, dict(self.known))

    # --- steps ------------------------------------------------------------------------------------------------------

    def step(self, expression: str) -> bool:
        """Add `name = expression`; False where eager torch refuses it or its result is not for us."""
        try:
            result = eval(expression, SCOPE, dict(self.known))
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
            return False
        results = [result] if isinstance(result, torch.Tensor) else list(result)
        if not results or len(results) > 4 or not all(map(_is_kept, results)):
            return False
        names = [f"v{len(self.known) + number}" for number in range(len(results))]
        self.known.update(zip(names, results, strict=True))
        self.steps.append(f"{', '.join(names)}{',' if not isinstance(result, torch.Tensor) else ''} = {expression}")
        return True

    def statement(self, text: str) -> bool:
        """Add a statement that writes to a value; False where eager torch refuses it."""
        scope, known = dict(SCOPE), dict(self.known)
        try:
            exec(text, scope, known)
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
            return False
        self.steps.append(text)
        return True

    def case(self, parameters: int) -> Case:
        text = " ".join(step.partition(" = ")[2] or step for step in self.steps)
        given = [f"v{number}" for number in range(len(self.inputs))]
        unread = [name for name in self.known if not re.search(rf"\b{name}\b", text) and name not in given]
        chosen = [*reversed(unread[-6:]), *(self.pick(self.known) for _ in range(self.integer(0, 2)))]
        chosen = chosen or [list(self.known)[-1]]
        chosen += [f"{self.pick(self.known)}[..., :1]"] if self.chance(6) else []
        chosen += [self.pick(["3", "None", "torch.ones(2)"])] if self.chance(8) else []
        chosen = [name for name in chosen if not name.endswith("]") or self.known[name.split("[")[0]].ndim]
        result = f"({', '.join(chosen)},)" if len(chosen) > 1 else chosen[0]
        return Case(tuple(self.inputs), tuple(self.steps), result, parameters)


def _kind(value: torch.Tensor) -> str:
    if value.is_floating_point():
        return "float"
    return "boolean" if value.dtype == torch.bool else "integer"


def _is_kept(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in KEPT and value.numel() <= LARGEST and value.ndim <= 6


@st.composite
def cases(draw: Any) -> Case:
    """A graph of one to four inputs and one to ten steps."""
    from operations import add_step

    builder = Builder(draw)
    parameters = builder.integer(0, 2)
    for _ in range(parameters):
        builder.input(plain=True)
    for _ in range(builder.integer(1, 3)):
        builder.input()
    if builder.chance(10):
        builder.input_that_shares_memory()
    for _ in range(builder.integer(1, 10)):
        add_step(builder, parameters)
    if not builder.steps:
        builder.step("v0.reshape(-1) + 1")
    return builder.case(parameters)
