"""In which dtype each weight of a matrix product goes up: what the option `weight_dtype` says of its parameters.

A weight is the constant second operand of a product. One that is merged of several parameters (queries, keys and
values) is as wide as the widest of them is to be. Biases, norms and the tables of embeddings are no such operands and
stay in bfloat16; of a table that is tied to the last projection, the projection has a copy of its own. What TTNN does
not take in a block float, it is given in bfloat16.
"""

from __future__ import annotations

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


def is_weight_of(product: Node, operand: Node) -> bool:
    """Whether `product` reads it as its weight alone."""
    position = WEIGHT_OPERANDS.get(product.target, 0)
    return position > 0 and product.args[position] is operand and operand not in product.args[:position]


def choose_weight_dtype(product: Node, operand: Node, options: Options) -> tuple[str, str] | None:
    """The dtype in which `product` is to read its weight `operand`, and a note or ""; None for another operand."""
    constant = operand.args[0] if is_call(operand, operators.to_device) else operand
    folded = constant.all_input_nodes if constant.op == "call_module" else []
    sources = [constant] if is_parameter(constant) else folded
    if not sources or not is_weight_of(product, operand):
        return None
    also = module_path(product) if len(sources) == 1 else ""  # the last projection, of a table that is tied to it
    wanted = {_name(source): _matching(_name(source), also, options.weight_dtype) for source in sources}
    dtype = min(wanted.values(), key=WEIGHT_DTYPES.index)
    if len(set(wanted.values())) == 1:
        return dtype, ""
    return dtype, f"its merged weight is {dtype}, the widest of {', '.join(map(' '.join, wanted.items()))}"


def _matching(parameter: str, module: str, given: str | Sequence[tuple[str, str]]) -> str:
    if isinstance(given, str):
        return given
    names = (parameter, parameter.rpartition(".")[0], module)
    return next((dtype for pattern, dtype in given if any(fnmatchcase(n, pattern) for n in names)), WIDEST)


def _name(parameter: Node) -> str:
    return parameter.meta.get("parameter_name") or parameter.name
