"""The namespace that a lowering is given at compile time: it makes each TTNN call for real and writes it down.

`recorder.linear(x, w)` (1) calls `ttnn.linear` on tensors that have the right spec and no data, (2) adds an FX node
whose target is that operation, and (3) returns a value whose shape, dtype and layout are TTNN's answer. A call that
TTNN refuses raises `Refused` with its words and is not written down, so a lowering may try one way and take another.
Objects of TTNN (enumerations, grids, configurations) are written down as the Python expression that makes them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import operator
import types
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves, tree_map

from tt_dynamo.ir.errors import TTNN_ERRORS, Refused
from tt_dynamo.ir.spec import Value, on_device, spec_of
from tt_dynamo.ir.torch_internals import last_node, nodes_after
from tt_dynamo.ir.ttnn_internals import ttnn_reason
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering.choose import first_accepted

C = TypeVar("C")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Expression:
    """A Python expression in a program and the object that it makes."""

    text: str
    value: Any = dataclasses.field(compare=False)

    def __repr__(self) -> str:
        return self.text


def erase_after(before: Node) -> None:
    """Take back what was written down behind a node."""
    for node in reversed(list(nodes_after(before))):
        before.graph.erase_node(node)


class Recorder:
    """TTNN's module, or a submodule of it, whose operations write themselves down in `graph`."""

    def __init__(self, module: Any, graph: Graph, settings: Settings, path: str = "ttnn", shared: Any = None) -> None:
        self._module = module
        self._graph = graph
        self._path = path
        self._shared = shared if shared is not None else _Expressions()
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        path = f"{self._path}.{name}"
        if isinstance(found, types.ModuleType):
            result: Any = Recorder(found, self._graph, self.settings, path, self._shared)
        elif isinstance(found, type):
            result = _Constructor(found, path, self._shared)
        elif callable(found):
            result = functools.partial(self.record, found, path)
        else:
            self._shared.note(found, path)
            return found
        setattr(self, name, result)
        return result

    def note(self, value: Any, text: str) -> Any:
        """Remember the expression that stands for `value` in the program."""
        self._shared.note(value, text)
        return value

    def text_of(self, value: Any) -> str:
        """The expression that stands for `value` in the program."""
        return repr(self._shared.written(value))

    def choose(self, key: Sequence[Any], candidates: Sequence[C], call: Callable[[C], R]) -> R:
        """The result of `call` for the first of the candidates that TTNN accepts; the others leave nothing behind.

        candidates: the best first, as launches, bytes moved and cores that wait say; an estimate may sort them.
        key: the operation's name, and what the answer depends on: its tensors and parameters. The device, its free L1
        and its precision belong to every key, so that a program does not depend on what was compiled before. Raises
        Refused, with TTNN's words for the first candidate, where all are refused.
        """
        asked = (_described(key), self._conditions())
        chosen, count = self.settings.choices.get(asked, (None, 0))
        before = last_node(self._graph)
        ordered = [chosen, *candidates] if chosen in candidates else candidates
        accepted, result, refused = first_accepted(ordered, call, (Refused,), lambda: erase_after(before))
        if refused or chosen not in candidates:
            count = candidates.index(accepted)
            self.settings.choices[asked] = accepted, count
        if len(candidates) > 1 and last_node(self._graph) is not before:
            choice = {"operation": key[0], "candidate": _text(accepted), "refused": count}
            last_node(self._graph).meta["choice"] = choice
        return result

    def _conditions(self) -> tuple[Any, ...]:
        """What of the device decides beside a call itself: free L1 of a bank, and what takes L1 of its precision."""
        config = self.settings.compute_kernel_config
        l1 = self._module.get_memory_view(self.settings.device, self._module.BufferType.L1)
        free = l1.total_bytes_free_per_bank, l1.largest_contiguous_bytes_free_per_bank
        return *free, str(config.math_fidelity), config.fp32_dest_acc_en, config.packer_l1_acc

    def record(self, function: Any, path: str, /, *args: Any, **kwargs: Any) -> Any:
        """Make the call, write it down, and wrap what it gives."""
        try:
            result = function(*_tensors(args), **_tensors(kwargs))
        except TTNN_ERRORS as error:
            raise Refused(f"{path}: {ttnn_reason(error)}") from None
        name = path.rpartition(".")[2].rstrip("_")
        node = self._graph.create_node("call_function", function, *self._written((args, kwargs)), name=name)
        node.meta["path"] = path
        return self._wrap(node, result, _values((args, kwargs)))

    def _wrap(self, node: Node, result: Any, operands: list[Value]) -> Any:
        if isinstance(result, (tuple, list)):
            parts = []
            for index, part in enumerate(result):
                picked = self._graph.create_node("call_function", operator.getitem, (node, index), name="part")
                picked.meta["path"] = "getitem"
                parts.append(self._wrap(picked, part, operands))
            return tuple(parts)
        if hasattr(result, "memory_config"):
            if on_device(result):
                node.meta["ttnn"] = spec_of(result)
                node.meta["alias"] = _alias(result, operands)
            return Value(node, result)
        return result

    def _written(self, argument: Any) -> Any:
        return tree_map(lambda leaf: leaf.node if isinstance(leaf, Value) else self._shared.written(leaf), argument)


class _Constructor:
    """A class of TTNN: what it constructs is remembered with its expression; members of an enumeration pass."""

    def __init__(self, cls: type, path: str, shared: _Expressions) -> None:
        self._cls, self._path, self._shared = cls, path, shared

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        value = self._cls(*args, **kwargs)
        written = [self._shared.written(a) for a in args]
        named = [f"{key}={self._shared.written(item)!r}" for key, item in kwargs.items()]
        self._shared.note(value, f"{self._path}({', '.join([*map(repr, written), *named])})")
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cls, name)


class _Expressions:
    """Which expression makes which object; keeps the objects alive, since it knows them by identity."""

    def __init__(self) -> None:
        self._known: dict[int, Expression] = {}

    def note(self, value: Any, text: str) -> None:
        self._known.setdefault(id(value), Expression(text, value))

    def written(self, value: Any) -> Any:
        if id(value) in self._known and not isinstance(value, (bool, int, float, str, type(None))):
            return self._known[id(value)]
        if isinstance(value, float) and not math.isfinite(value):
            return Expression(f'float("{value}")', value)
        if isinstance(value, (bool, int, float, str, type(None))):
            return value
        if isinstance(value, enum.Enum) or hasattr(type(value), "__members__"):
            return Expression(f"ttnn.{type(value).__name__}.{value.name}", value)
        if isinstance(value, (tuple, list)):
            return type(value)(self.written(item) for item in value)
        raise TypeError(f"a program cannot hold {value!r}: make it through the ttnn namespace of the lowering")


def _described(item: Any) -> Any:
    """What tells calls apart: of a tensor its shape, dtype, layout and memory."""
    if isinstance(item, Value):
        memory = str(item.tensor.memory_config()) if on_device(item.tensor) else "HOST"
        return item.shape, str(item.dtype), str(item.layout), memory
    if isinstance(item, dict):
        item = tuple(item.items())
    return tuple(map(_described, item)) if isinstance(item, (tuple, list)) else item


def _text(candidate: Any) -> str:
    if not isinstance(candidate, dict):
        return str(candidate)
    return ", ".join(f"{name}={value}" for name, value in candidate.items()) or "as TTNN chooses"


def _tensors(argument: Any) -> Any:
    return tree_map(lambda leaf: leaf.tensor if isinstance(leaf, Value) else leaf, argument)


def _values(argument: Any) -> list[Value]:
    return [leaf for leaf in tree_leaves(argument) if isinstance(leaf, Value)]


def _alias(result: Any, operands: list[Value]) -> Node | None:
    """The operand whose buffer the result lives in; equal addresses of tensors that are both alive say so."""

    def buffer_of(tensor: Any) -> Any:
        return tensor.buffer_address(), tensor.memory_config().buffer_type

    lying = (operand for operand in operands if on_device(operand.tensor))  # others are on their way up
    return next((operand.node for operand in lying if buffer_of(operand.tensor) == buffer_of(result)), None)
