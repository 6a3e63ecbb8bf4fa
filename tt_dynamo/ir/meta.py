"""The facts that the compiler notes on nodes, one row each, beside those of torch (`val`, `nn_module_stack`).

spec.set(node, Spec(...));    spec(node).dtype;    node in spec;    layout.get(node, "TILE")
"""

from typing import Any, Generic, TypeVar

from torch.fx import Node

from tt_dynamo.ir.spec import Blocks, Columns, Interleaved, Spec
from tt_dynamo.ir.uses import StateUse, WeightUse

T = TypeVar("T")
D = TypeVar("D")


class Fact(Generic[T]):
    """A fact about nodes: where it is in `node.meta`, its type and, as `doc`, what it says."""

    def __init__(self, key: str, doc: str) -> None:
        self.key = key
        self.__doc__ = doc

    def __call__(self, node: Node) -> T:
        """Raises KeyError for a node that it was not noted on."""
        found: T = node.meta[self.key]
        return found

    def get(self, node: Node, default: D) -> T | D:
        return node.meta.get(self.key, default)

    def set(self, node: Node, value: T) -> None:
        node.meta[self.key] = value

    def __contains__(self, node: Node) -> bool:
        return self.key in node.meta


# Of values on the device, in every graph.
spec = Fact[Spec]("ttnn", "What a tensor is on the device.")
layout = Fact[str]("layout", "The layout of what a node gives there, of all its results where there are several.")
memory = Fact[Blocks | Columns | Interleaved]("memory", "Where in L1 its result is to lie.")
dtype = Fact[str]("dtype", "The block float, or float32, that its result is to have there, which else is bfloat16.")
weight_dtype = Fact[str]("weight_dtype", "Of a convolution: the dtype in which TTNN lays out its weight.")
# Of the placeholders of the graph that each chip of a mesh runs.
placement = Fact[tuple[int | None, ...]](
    "placement", "How the input, of which a chip sees its part, is cut over the mesh."
)
# Of the placeholders of an ATen graph: which input of the model each is.
parameter = Fact[bool]("parameter", "Whether it is a parameter, or a buffer that the graph does not write.")
parameter_name = Fact[str]("parameter_name", 'Its name in the model: "encoder.0.weight".')
name = Fact[str]("name", "Its name in the program; also of constants that were folded.")
pointer = Fact[int]("pointer", "The address of its memory, 0 where it has none.")
held = Fact[bool]("held", "Whether it is the host's side of a DeviceTensor.")
# Of the nodes of an ATen graph.
constant = Fact[bool]("constant", "Whether its value depends on parameters and literals alone; known once asked.")
literal = Fact[bool]("literal", "Whether its value depends on literals alone; known once asked.")
value = Fact[Any]("value", "What a literal node gives; computed once asked.")
# Of the output of an ATen graph.
eager = Fact[list[Any]]("eager", "The results as eager torch gives them: fake tensors with its strides and memory.")
kept = Fact[list[int]]("kept", "The positions of the results that are caches, which may stay on the device.")
# Of the nodes of a program.
path = Fact[str]("path", 'The operation of TTNN: "ttnn.transformer.concatenate_heads".')
cost = Fact[Any]("cost", "What the call is estimated to cost: a Cost of `tt_dynamo.estimate`.")
config = Fact[dict[str, Any]]("config", "With what the call was made, of what the option `configs` may say.")
plain_cost = Fact[Any]("plain_cost", "What the call is estimated to cost without its config.")
alias = Fact[Node | None]("alias", "The operand in whose buffer the result lies.")
weight = Fact[WeightUse]("weight", "Which weight a placeholder is: it belongs to the store.")
state = Fact[StateUse]("state", "Which input that stays on the device between calls a placeholder is.")
module = Fact[str]("module", 'The module of the model that it comes from: "encoder.0".')
source = Fact[str]("source", "The name of the node that was lowered to it.")
transferred = Fact[int]("bytes", "The bytes that it brings up or down.")
label = Fact[str]("label", "What it brings up or down.")
choice = Fact[dict[str, Any]]("choice", "The fields of the report's Choice that led to it, less node and module.")
tuning = Fact[Any]("tuning", "What the tuner found of that choice: a Tuning of `tt_dynamo.tuner`.")
