"""The streams of a placed graph: values that lie in the same shards, or all interleaved. What ties them is in TIES."""

from collections.abc import Mapping

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, aten, dtype_of, is_call, shape_of
from tt_dynamo.ir.spec import TILE, Interleaved, tiles

NORMS = {aten.layer_norm.default: 1, operators.add_layer_norm: 2, operators.rms_norm: 1}
SUMS = {
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), 2),
    **dict.fromkeys((operators.activated_product, operators.scaled_sum), 2),
    **dict.fromkeys((aten.addcmul.default, aten.lerp.Tensor), 3),
}
ELEMENTWISE = dict.fromkeys(
    (*(getattr(aten, name).default for name in ("gelu", "relu", "silu", "sigmoid", "tanh")), aten.mul.Scalar), 1
)
# What ties its result to operands, and to how many of the first.
TIES = {**NORMS, **SUMS, **ELEMENTWISE, aten.reshape.default: 1}
LINEARS = (operators.linear, operators.gated_linear)
GIVES_ANY_DTYPE = (*LINEARS, *SUMS)
WRITERS = frozenset({*TIES, *LINEARS, operators.attention})
# Who writes shards of operands that are interleaved.
ENTRANCES = WRITERS - ELEMENTWISE.keys() - {aten.reshape.default}
SLICES = (aten.slice.Tensor, aten.select.int)
CUTS = frozenset({aten.slice.Tensor})
# What leaves shards, or a copy of them in DRAM where TTNN refuses that.
EXITS = (*SLICES, operators.to_layout)


def reads_l1(node: Node, operand: Node) -> bool:
    """Whether a node takes an operand, in TILE layout, in block shards, or interleaved in L1."""
    if isinstance(meta.memory.get(operand, None), Interleaved):
        return True
    if is_call(node, *LINEARS):
        return operand is node.args[0] and operand not in node.args[1:]
    if is_call(node, operators.to_layout):  # of whole tiles alone
        return not any(size % TILE for size in shape_of(operand)[-2:])
    if is_call(node, operators.to_host, operators.split_heads_decode, *SLICES) or operators.splits_shards(node):
        return True
    return operand in tied_operands(node)


class Stream:
    """Values that lie in the same shards, or all interleaved.

    copied: those that somebody reads in DRAM. is_split: whether heads are split from one, in shards or not. splits:
    those of the heads of a decode step.
    """

    def __init__(self, values: list[Node]) -> None:
        self.values = values
        readers = [(reader, value) for value in values for reader in value.users]
        self._into = [reader for reader, _ in readers if is_call(reader, *LINEARS)]
        self._out = [value for value in values if is_call(value, *LINEARS)]
        self.copied = {value for reader, value in readers if not reads_l1(reader, value)}
        self.is_split = any(operators.splits_shards(reader) for reader, _ in readers)
        self.has_norm = any(value.target in NORMS for value in values)
        self.splits = [reader for reader, _ in readers if is_call(reader, operators.split_heads_decode)]
        self.has_attention = any(is_call(value, operators.attention) for value in values)

    @property
    def is_between(self) -> bool:
        """Whether linears, which need no moves, are all around it."""
        return not self.has_norm and not self.copied

    def of_any_dtype(self) -> list[Node]:
        """The values that are written in any dtype without a cast, unless heads or copies are made of the stream.

        Sums and linears write any; others write that of their operand.
        """

        def is_free(value: Node) -> bool:
            while value in values and not is_call(value, *GIVES_ANY_DTYPE):
                value = value.args[0]
            return value in values

        values = set() if self.copied or self.splits else set(self.values)
        return [value for value in self.values if is_free(value)]

    def neighbours(self) -> list[Node]:
        """What its linears read, and what the linears give that read it."""
        return [*self._into, *(value.args[0] for value in self._out)]


class Streams:
    """All streams of a placed graph, in its order, and which holds a value.

    exits: rows that are computed of shards for readers of interleaved values alone, and the operand in such.
    """

    def __init__(self, graph: Graph, sides: Sides) -> None:
        self.exits: dict[Node, Node] = {}
        holding: dict[Node, list[Node]] = {}
        for node in graph.nodes:
            if sides.get(node) != "device" or node.target not in WRITERS | CUTS or not _is_matrix_of_floats(node):
                continue
            tied = [x for x in tied_operands(node) if x in holding]
            if tied and _leaves_row(node):
                self.exits[node] = tied[0]
            elif tied or (node.target in ENTRANCES and _is_of_rows(node)) or _is_row_put(node, holding):
                _join(holding, [*tied, node])
        unique = {id(values): values for values in holding.values()}
        self.all = [Stream(values) for values in unique.values()]
        self._stream = {value: stream for stream in self.all for value in stream.values}

    def of(self, node: Node) -> Stream | None:
        return self._stream.get(node)

    def is_refused(self, stream: Stream, refused: dict[Node, int]) -> bool:
        """Whether TTNN refused the shards of a stream."""
        for node, count in refused.items():
            around = [self._stream[x] for x in (node, *node.all_input_nodes) if x in self._stream]
            between = [x for x in around if x.is_between]
            if count and stream in (between if count == 1 and between else around):
                return True
        return False


def _join(holding: dict[Node, list[Node]], nodes: list[Node]) -> None:
    """Have one list hold these nodes and all that are in one with any of them."""
    held = holding.setdefault(nodes[0], [nodes[0]])
    for node in nodes[1:]:
        values = holding.get(node, [node])
        if values is not held:
            smaller, held = sorted((values, held), key=len)
            held += smaller
            holding.update(dict.fromkeys(smaller, held))


def tied_operands(node: Node) -> list[Node]:
    """The operands that lie where its result does."""
    if node.target not in TIES:
        return []
    operands = [x for x in node.args[: TIES[node.target]] if isinstance(x, Node)]
    shape = shape_of(node)
    if node.target is aten.reshape.default:
        return [x for x in operands if shape_of(x)[-2:] == shape[-2:]]
    return [x for x in operands if shape_of(x) == shape and _is_of_rows(node)]


def _is_of_rows(node: Node) -> bool:
    if node.target is operators.rms_norm:
        return tiles(shape_of(node))[0] == 1  # TTNN norms those alone in shards of columns
    return node.target is not aten.layer_norm.default or len(node.args[1]) == 1


def _is_row_put(node: Node, holding: Mapping[Node, list[Node]]) -> bool:
    """Whether a move gives one row of tiles, which it may write into shards: a reshape, or a cut of no shards."""
    is_move = is_call(node, aten.reshape.default) or (is_call(node, *CUTS) and node.args[0] not in holding)
    return is_move and tiles(shape_of(node))[0] == 1 and meta.layout.get(node, "") == "TILE"


def _leaves_row(node: Node) -> bool:
    """Whether a sum of one row of tiles has readers, none of which reads it in shards."""
    is_row = node.target in SUMS and tiles(shape_of(node))[0] == 1
    return is_row and bool(node.users) and not any(reads_l1(user, node) for user in node.users)


def _is_matrix_of_floats(node: Node) -> bool:
    is_tensor = isinstance(node.meta.get("val"), torch.Tensor)
    return is_tensor and dtype_of(node).is_floating_point and len(shape_of(node)) > 1
