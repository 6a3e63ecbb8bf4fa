"""Which lowering an operation has, and what it asks of its operands.

A lowering is a plain function (ttnn, *operands, **keywords) that makes TTNN calls and returns their result. Operands
that are tensors arrive as device values with `shape`, `dtype`, `layout`; everything else arrives as in the ATen node.
An operand's layout is TILE unless the registration says ROW_MAJOR or "any"; its dtype is that of
`tt_dynamo.ir.spec.DEVICE_DTYPES` unless it says otherwise. Where the layout depends on shapes or positions, as rows
that end inside a tile, the registration says a function of the node instead. TTNN itself checks everything else.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.spec import Value

Layout = str | Callable[[Node], str]
# What stands for the module in a lowering: it has `settings`, `choose`, `memory`, `dtype` and `weight_dtype` besides.
TTNN = Any
Tensor = Value  # while a graph is compiled; where one is lowered again after a failure, a tensor of TTNN


@dataclasses.dataclass(frozen=True)
class Need:
    """What a lowering asks of one operand: layout "TILE", "ROW_MAJOR" or "any"; a TTNN dtype, or None for the usual.

    "HOST" asks for a tensor of TTNN on the host, in ROW_MAJOR; one that the device computes comes from the device.
    """

    layout: Layout = "TILE"
    dtype: str | None = None

    def layout_at(self, node: Node) -> str:
        return self.layout if isinstance(self.layout, str) else self.layout(node)


@dataclasses.dataclass(frozen=True)
class Lowering:
    """A registered lowering: the function, its needs by operand name, and the layout of what it gives.

    sharded: whether it may be given tensors that are sharded in L1; others are given them interleaved in DRAM.
    """

    function: Callable[..., Any]
    needs: Mapping[str, Need]
    gives: Layout
    sharded: bool = False

    def layout_at(self, node: Node) -> str:
        layout = self.gives if isinstance(self.gives, str) else self.gives(node)
        return "same" if layout == "any" else layout

    def need(self, operand: str) -> Need:
        return self.needs.get(operand, Need())


_lowerings: dict[Any, Lowering] = {}


def is_tensor(operand: Any) -> bool:
    return hasattr(operand, "layout")


def is_integer(ttnn: Any, x: Any) -> bool:
    return x.dtype in (ttnn.int32, ttnn.uint32)


def _of_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(ttnn: Any, *operands: Any, **keywords: Any) -> Any:
        if any(is_tensor(x) and is_integer(ttnn, x) for x in (*operands, *keywords.values())):
            raise Unsupported("integer arithmetic stays on the host")
        return function(ttnn, *operands, **keywords)

    return checked


def lower(
    *targets: Any, gives: Layout = "TILE", sharded: bool = False, floats: bool = False, **needs: Need
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function for `targets`; raises ValueError for one that has a lowering already.

    gives: layout of the results, "same" or "any" where they keep the first operand's; or a function of the node.
    sharded: whether operands may come sharded, see `Lowering`.
    floats: whether it refuses integers, which go through floats in places inside TTNN.
    needs: what the operands of that name must be, by the names of the operator's schema.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        function = _of_floats(function) if floats else function
        for target in targets:
            if target in _lowerings:
                raise ValueError(f"{target} has a lowering already: {_lowerings[target].function.__name__}")
            names = {argument.name for argument in target._schema.arguments}
            if not names.issuperset(needs):
                raise ValueError(f"{target} has no operand {sorted(set(needs) - names)}; it has {sorted(names)}")
            _lowerings[target] = Lowering(function, needs, gives, sharded)
        return function

    return register


def find(target: Any) -> Lowering | None:
    """The lowering of an operation, or None where it has none."""
    _import_all()
    return _lowerings.get(target)


def operand_name(target: torch._ops.OpOverload, position: int) -> str:
    """The schema's name of the operand at `position`."""
    return target._schema.arguments[position].name


def registered() -> dict[Any, Lowering]:
    """A copy of the whole registry."""
    _import_all()
    return dict(_lowerings)


@functools.cache
def _import_all() -> None:
    """Have each file of the package register what it has; a program that was compiled before needs none of them."""
    package = importlib.import_module(__package__)
    for module in pkgutil.walk_packages(package.__path__, f"{__package__}."):
        importlib.import_module(module.name)
