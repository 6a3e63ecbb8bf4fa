"""Keep residual streams in L1: assign the shards that their values lie in, blocks or, of a decode step, columns.

Before   n = layer_norm(x);   h = linear(n, w1, b1, "gelu");   y = linear(h, w2, b2) + x
After    the same;   meta.memory of all but x: Blocks(columns=8, rows=8, height=12, width=3), of h width=12

A stream is what norms, sums and elementwise functions tie together: TTNN norms shards into shards, and they are as
many operands as results. A linear reads and writes shards or not as is needed, attention writes them; so streams enter
and leave there for nothing. They leave for the host and as slices, too. What lies between two linears of streams, as
inside a feedforward, takes the cores of its neighbours. Whoever else reads a value of a stream is given a copy in DRAM,
which is a move. A stream is assigned shards if its values are whole tiles over at least half of the cores, and if for
each move at least four linears profit, as many as a layer has. The heads that an attention reads of a stream lie in L1
as well, interleaved; so does what they are split from, or in shards where TTNN can split those.

A decode step's stream is one row of tiles, of which each core has some columns: Columns(columns=8, rows=4, width=4).
Heads of tokens are made of such shards, and what a reshape gives goes into them.

Lowerings ask TTNN, which may refuse: `times_refused` says of a node how many attempts failed. Then at first what heads
are split from leaves its shards, after that the heads there go without, after that what lies between linears, after
that the stream.

Streams may be block floats, and with them what lies between their linears and their heads: meta.dtype of the same
values. Streams that hold or surround a node to which TTNN refused them stay in bfloat16.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, aten, dtype_of, is_call, shape_of
from tt_dynamo.ir.spec import TILE, Blocks, Columns, Interleaved, tiles

NORMS = {aten.layer_norm.default: 1, operators.add_layer_norm: 2, operators.rms_norm: 1}
SUMS = {aten.add.Tensor: 2, aten.mul.Tensor: 2}
ELEMENTWISE = dict.fromkeys(
    (*(getattr(aten, name).default for name in ("gelu", "relu", "silu", "sigmoid", "tanh")), aten.mul.Scalar), 1
)
# What ties its result to operands, and to how many of the first.
TIES = {**NORMS, **SUMS, **ELEMENTWISE, aten.reshape.default: 1}
WRITERS = frozenset({*TIES, operators.linear, operators.attention})
# Who writes shards of operands that are interleaved.
ENTRANCES = WRITERS - ELEMENTWISE.keys() - {aten.reshape.default}
SLICES = (aten.slice.Tensor, aten.select.int)
# For each move of a stream's value into DRAM or out of it, so many linears must read or write the stream.
LINEARS_PER_MOVE = 4
WIDEST = "bfloat16"
# Fewer cores share nothing worth sharing.
FEWEST_CORES = 4


def reads_l1(node: Node, operand: Node) -> bool:
    """Whether a node takes an operand, in TILE layout, in block shards, or interleaved in L1."""
    if isinstance(meta.memory.get(operand, None), Interleaved):
        return True
    if node.target is operators.linear:
        return operand is node.args[0] and operand not in node.args[1:]
    if is_call(node, operators.to_host, operators.split_heads_decode, *SLICES) or operators.splits_shards(node):
        return True
    return operand in tied_operands(node)


def assign_memory(
    graph: Graph,
    sides: Sides,
    cores: tuple[int, int],
    times_refused: Callable[[Node], int] = lambda node: 0,
    is_step: bool = False,
    dtype: str = WIDEST,
    refuses_dtype: Callable[[Node], bool] = lambda node: False,
) -> int:
    """Note `meta.memory` of the values of streams and of their heads, and `meta.dtype`; returns of how many.

    cores: columns and rows of worker cores. is_step: whether it is a graph of decode steps, whose rows lie in columns.
    dtype: of streams.
    """
    streams = _Streams(graph, sides)
    refused = {node: count for node in graph.nodes if (count := times_refused(node))}
    heads = [
        found
        for split in graph.find_nodes(op="call_function", target=operators.split_heads)
        if (found := _heads(split))
    ]
    tries = {node: 1 + any(map(operators.splits_shards, made)) for made, near in heads for node in near}
    of_streams = {node: max(0, count - tries.get(node, 0)) for node, count in refused.items()}
    out_of_shards = {node for made, near in heads if not refused.keys().isdisjoint(near) for node in made}
    assigned: dict[Node, Blocks | Columns] = {}
    for stream in streams.all:
        if stream.is_worth_its_moves() and not streams.is_refused(stream, of_streams):
            shards = _shards_over(cores, shape_of(stream.values[0]), is_step)
            if shards is not None:
                assigned.update(dict.fromkeys(stream.values, shards))
    for stream in streams.all:
        neighbour = next((value for value in stream.neighbours() if value in assigned), None)
        if neighbour is None or not stream.is_between or not out_of_shards.isdisjoint(stream.values):
            continue
        if not streams.is_refused(stream, of_streams):
            assigned.update(_beside(stream, assigned[neighbour], neighbour, cores))
    asked = [
        made
        for made, near in heads
        if made[0].args[0] in assigned and all(refused.get(node, 0) < tries[node] for node in near)
    ]
    places: dict[Node, Blocks | Columns | Interleaved] = {
        **{node: Interleaved() for made in asked for node in made},
        **assigned,
    }
    for node, memory in places.items():
        meta.memory.set(node, memory)
    if dtype != WIDEST:
        wide = {node: 2 for node in graph.nodes if refuses_dtype(node)}  # both what is between and the stream
        narrow = [x for x in streams.all if x.values[0] in assigned and not streams.is_refused(x, wide)]
        values = {value for stream in narrow for value in stream.values}
        split = [made for made, near in heads if made[0].args[0] in values and wide.keys().isdisjoint(near)]
        for node in itertools.chain(values, *split):
            meta.dtype.set(node, dtype)
    return len(places)


def _heads(split: Node) -> tuple[list[Node], list[Node]] | None:
    """What lies between a linear and an attention that alone reads its heads; and the same with the attention."""
    made = [split]
    while made[0].target in (operators.split_heads, aten.reshape.default):
        made.insert(0, made[0].args[0])
    picks = list(split.users)
    readers = {reader for pick in picks for reader in pick.users}
    is_alone = len(readers) == 1 and all(len(node.users) == 1 for node in made[:-1])
    if not is_alone or not is_call(made[0], operators.linear) or not is_call(*readers, operators.attention):
        return None
    made += picks
    return made, [*made, *readers]


def _shards_over(cores: tuple[int, int], shape: Sequence[int], is_step: bool) -> Blocks | Columns | None:
    """The shards of a stream of that shape, None where too few cores would share it."""
    high, wide = tiles(shape)
    if high == 1:
        columns = Columns.over(cores, wide)
        return columns if is_step and columns.columns * columns.rows >= FEWEST_CORES else None
    blocks = Blocks.over(cores, shape)
    return blocks if 2 * blocks.columns * blocks.rows >= cores[0] * cores[1] else None


def _beside(
    stream: "Stream", shards: Blocks | Columns, neighbour: Node, cores: tuple[int, int]
) -> dict[Node, Blocks | Columns]:
    """The shards of what lies between linears, on the cores of a neighbour whose rows it has; none where it has not.

    What heads are made of fills a rectangle of cores where TTNN puts a product.
    """
    shape = shape_of(stream.values[0])
    high, wide = tiles(shape)
    is_row = isinstance(shards, Columns)
    across = shards.columns * shards.rows if is_row else shards.columns
    if high != tiles(shape_of(neighbour))[0] or wide % across or shape[-1] % TILE or (is_row and stream.has_attention):
        return {}
    place = shards.of_width(shape[-1])
    if isinstance(place, Blocks):
        place = dataclasses.replace(place, or_interleaved=stream.is_split)
    elif stream.becomes_heads:
        place = place.on_rectangle(cores[0])
    return dict.fromkeys(stream.values, place)


class Stream:
    """Values that lie in the same shards, or all interleaved.

    moved: those that somebody reads interleaved, and what must be moved to them. is_split: whether heads are split from
    one, in shards or not.
    """

    def __init__(self, values: list[Node], strangers: set[Node]) -> None:
        self.values = values
        readers = [(reader, value) for value in values for reader in value.users]
        self._into = [reader for reader, _ in readers if is_call(reader, operators.linear)]
        self._out = [value for value in values if is_call(value, operators.linear)]
        self._moved = strangers | {value for reader, value in readers if not reads_l1(reader, value)}
        self.is_split = any(operators.splits_shards(reader) for reader, _ in readers)
        self._has_norm = any(value.target in NORMS for value in values)
        self.becomes_heads = any(is_call(reader, operators.split_heads_decode) for reader, _ in readers)
        self.has_attention = any(is_call(value, operators.attention) for value in values)

    @property
    def is_between(self) -> bool:
        """Whether linears, which need no moves, are all around it."""
        return not self._has_norm and not self._moved

    def is_worth_its_moves(self) -> bool:
        """Whether it has norms, in whole tiles, and linears enough that profit."""
        is_whole = not shape_of(self.values[0])[-1] % TILE
        linears = len(self._into) + len(self._out)
        return self._has_norm and is_whole and linears >= max(1, LINEARS_PER_MOVE * len(self._moved))

    def neighbours(self) -> list[Node]:
        """What its linears read, and what the linears give that read it."""
        return [*self._into, *(value.args[0] for value in self._out)]


class _Streams:
    """All streams of a placed graph, in its order, and which holds a value."""

    def __init__(self, graph: Graph, sides: Sides) -> None:
        holding: dict[Node, list[Node]] = {}
        strangers: dict[Node, list[Node]] = {}
        for node in graph.nodes:
            if sides.get(node) != "device" or node.target not in WRITERS or not _is_matrix_of_floats(node):
                continue
            operands = tied_operands(node)
            tied = [x for x in operands if x in holding]
            if tied or (node.target in ENTRANCES and _is_of_rows(node)) or _is_reshaped_row(node):
                _join(holding, [*tied, node])
                strangers[node] = [x for x in operands if x not in tied] if tied and node.target in NORMS else []
        unique = {id(values): values for values in holding.values()}
        self.all = [Stream(values, {x for v in values for x in strangers[v]}) for values in unique.values()]
        self._stream = {value: stream for stream in self.all for value in stream.values}

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


def _is_reshaped_row(node: Node) -> bool:
    """Whether a reshape that moves data gives one row of tiles, which it may write into shards."""
    return is_call(node, aten.reshape.default) and tiles(shape_of(node))[0] == 1 and meta.layout.get(node, "") == "TILE"


def _is_matrix_of_floats(node: Node) -> bool:
    is_tensor = isinstance(node.meta.get("val"), torch.Tensor)
    return is_tensor and dtype_of(node).is_floating_point and len(shape_of(node)) > 1
