"""In which dtype each weight of a matrix product goes up: what the option `weight_dtype` says of its parameters.

A weight is the constant second operand of a product. One that is merged of several parameters (queries, keys and
values) is as wide as the widest of them is to be. Biases, norms and the tables of embeddings are no such operands and
stay in bfloat16; of a table that is tied to the last projection, the projection has a copy of its own. What TTNN does
not take in a block float, it is given in bfloat16.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, is_call, is_parameter, module_path
from tt_dynamo.options import WEIGHT_DTYPES, Options

# Where each product has its weight. Its first operand is the activation, whose dtype is that of the result.
WEIGHT_OPERANDS = {
    operators.linear: 1,
    aten.matmul.default: 1,
    aten.bmm.default: 1,
    aten.addmm.default: 2,
    aten.baddbmm.default: 2,
}

WIDEST = WEIGHT_DTYPES[0]


class WeightDtypes:
    """The choice for one graph. Weights are known by the product that reads them."""

    def __init__(self, options: Options) -> None:
        given = options.weight_dtype
        self._patterns: Sequence[tuple[str, str]] = (("*", given),) if isinstance(given, str) else given
        self._narrowed: set[Node] = set()  # the products with a block float for a weight
        self._refused: dict[Node, str] = {}
        self._merged: dict[Node, str] = {}

    def of(self, product: Node, operand: Node, original: Node) -> str | None:
        """The dtype in which `product` reads `operand`; None where that is not its weight, or nothing was chosen.

        original: the product in the graph before it was placed, by which `refuse` knows it.
        """
        position = WEIGHT_OPERANDS.get(product.target)
        if position is None or product.args[position] is not operand or operand in product.args[:position]:
            return None
        constant = operand.args[0] if is_call(operand, operators.to_device) else operand
        if not is_parameter(constant) and constant.op != "call_module":
            return None
        sources = [constant] if is_parameter(constant) else constant.all_input_nodes
        if not sources or original in self._refused:
            return None
        also = module_path(product) if len(sources) == 1 else ""  # the last projection, of a table that is tied to it
        wanted = {_name(source): self._matching(_name(source), also) for source in sources}
        dtype = min(wanted.values(), key=WEIGHT_DTYPES.index)
        if dtype != WIDEST:
            self._narrowed.add(original)
        if len(set(wanted.values())) > 1:
            each = ", ".join(f"{name} {its}" for name, its in wanted.items())
            self._merged[original] = f"{product.name}: its merged weight is {dtype}, the widest of {each}"
        return dtype

    def _matching(self, parameter: str, module: str) -> str:
        names = (parameter, parameter.rpartition(".")[0], module)
        found = (dtype for pattern, dtype in self._patterns if any(fnmatchcase(n, pattern) for n in names))
        return next(found, WIDEST)

    def refuse(self, product: Node, reason: str) -> bool:
        """Give this product its weight in bfloat16 from now on; False where it has that already."""
        if product in self._refused or product not in self._narrowed:
            return False
        self._refused[product] = reason
        return True

    def notes(self, elsewhere: Sequence[Node]) -> list[str]:
        """What a user may want to know; of products that run `elsewhere` there is nothing to say."""
        refused = {
            node: f"{node.name}: its weight is bfloat16, TTNN refused a block float: {reason}"
            for node, reason in self._refused.items()
        }
        return [text for node, text in {**self._merged, **refused}.items() if node not in elsewhere]


def _name(parameter: Node) -> str:
    return parameter.meta.get("parameter_name") or parameter.name


def parameter_name(source: str) -> str:
    """The name in the model of what Dynamo calls `L['self']._modules['layers']._modules['0']._parameters['weight']`."""
    return ".".join(re.findall(r"\._(?:modules|parameters|buffers)\['([^']+)'\]", source))
