"""Keep residual streams in L1: assign the shards that their values lie in, blocks or, of a decode step, columns.

Before   n = layer_norm(x);   h = linear(n, w1, b1, "gelu");   y = linear(h, w2, b2) + x
After    the same;   meta.memory of all but x: Blocks(columns=8, rows=8, height=12, width=3), of h width=12

A stream is what norms, sums and elementwise functions tie together: TTNN norms shards into shards, and they are as
many operands as results. A linear reads and writes shards or not as is needed, attention writes them; so streams enter
and leave there for nothing. They leave for the host, as slices and as rows, too. What lies between two linears of
streams, as inside a feedforward, takes the cores of its neighbours. Whoever else reads a value of a stream is given a
copy in DRAM, which is a move. The heads that an attention reads of a stream lie in L1 as well, interleaved; so does
what they are split from, or in shards where TTNN can split those.

Where each stream lies, on which cores or in DRAM, costs decide: of all operations around them, moves included, the sum
of estimated seconds is to be least. A cost depends on the streams that one operation reads and gives, so a graph of
layers is chains and trees of them, of which `search` finds the best in time that grows with their number.

A decode step's stream is one row of tiles, of which each core has some columns: Columns(columns=8, rows=4, width=4).
On how many cores, costs decide as well. Heads of tokens are made of such shards, and what a reshape gives, or a slice,
goes into them. A sum that nobody reads in shards is written interleaved.

Lowerings ask TTNN, which may refuse: `times_refused` says of a node how many attempts failed. Then at first what heads
are split from leaves its shards, after that the heads there go without, after that what lies between linears, after
that the stream.

Streams may be block floats, and with them what lies between their linears and their heads: meta.dtype of the same
values. Streams that hold or surround a node to which TTNN refused them stay in bfloat16. In a decode step nothing is
cast for that: heads, of which TTNN takes no block floats there, and what is reshaped into a stream stay in bfloat16.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, aten, is_call, shape_of
from tt_dynamo.ir.spec import TILE, Blocks, Columns, Interleaved, tiles
from tt_dynamo.passes.place.search import Scope, Table, cheapest
from tt_dynamo.passes.place.streams import EXITS, WRITERS, Stream, Streams, reads_l1

# Whose cost depends on where a stream lies.
COSTED = WRITERS | {operators.split_heads, operators.split_heads_decode, *EXITS}
# Fewer cores share nothing worth sharing.
FEWEST_CORES = 4
# About as many share a decode step's row: norms are faster on more, what TTNN splits and moves may be on fewer.
CORES_OF_ROWS = (32, 64)
WIDEST = "bfloat16"
Place = Blocks | Columns | Interleaved
# Where in L1 a value lies, None in DRAM, and its dtype.
Lies = Callable[[Node], tuple[Place | None, str]]


class Costs(Protocol):
    def __call__(self, node: Node, lies: Lies, is_copied: bool = False) -> float:
        """Estimated seconds of a node, moves of its operands included, and of a copy of its result in DRAM."""


def assign_memory(
    graph: Graph,
    sides: Sides,
    cores: tuple[int, int],
    costs: Costs,
    times_refused: Callable[[Node], int] = lambda node: 0,
    is_step: bool = False,
    dtype: str = WIDEST,
    refuses_dtype: Callable[[Node], bool] = lambda node: False,
) -> int:
    """Note `meta.memory` of the values of streams and of their heads, and `meta.dtype`; returns of how many.

    cores: columns and rows of worker cores. is_step: whether it is a graph of decode steps, whose rows lie in columns.
    dtype: of streams.
    """
    streams = Streams(graph, sides)
    refused = {node: count for node in graph.nodes if (count := times_refused(node))}
    heads = [
        found
        for split in graph.find_nodes(op="call_function", target=operators.split_heads)
        if (found := _heads(split))
    ]
    tries = {node: 1 + any(map(operators.splits_shards, made)) for made, near in heads for node in near}
    of_streams = {node: max(0, count - tries.get(node, 0)) for node, count in refused.items()}
    out_of_shards = {node for made, near in heads if not refused.keys().isdisjoint(near) for node in made}
    options: dict[Stream, list[Place]] = {}
    for stream in streams.all:
        if stream.has_norm and not streams.is_refused(stream, of_streams):
            # Block floats are for encoders that fill the cores: rows of short prompts, which are cached, are bfloat16.
            fewest = FEWEST_CORES if dtype == WIDEST or is_step else cores[0] * cores[1] / 2
            options[stream] = _shards_over(cores, fewest, shape_of(stream.values[0]), is_step)
    for stream in streams.all:
        if stream.is_between and out_of_shards.isdisjoint(stream.values) and not streams.is_refused(stream, of_streams):
            near = [(value, place) for value in stream.neighbours() for place in options.get(streams.of(value), [])]
            beside = [_beside(stream, place, value, cores) for value, place in near]
            options[stream] = [*dict.fromkeys(place for place in beside if place is not None)]
    asked = [made for made, near in heads if all(refused.get(node, 0) < tries[node] for node in near)]
    # Both what is between and the stream.
    wide = {node: 2 for node in graph.nodes if dtype != WIDEST and refuses_dtype(node)}
    narrow = {
        value: stream
        for stream in streams.all
        if not streams.is_refused(stream, wide)
        for value in (stream.of_any_dtype() if is_step else stream.values)
    }
    for made, near in heads:
        if made[0].args[0] in narrow and wide.keys().isdisjoint(near):
            narrow.update(dict.fromkeys(made, streams.of(made[0].args[0])))
    within = {node: streams.of(made[0].args[0]) for made in asked for node in made}
    within |= {node: streams.of(operand) for node, operand in streams.exits.items()}
    choice = _Choice(streams, options, within, narrow, dtype)
    choice.choose([node for node in graph.nodes if sides.get(node) == "device"], costs)
    count = 0
    for node in graph.nodes:
        place, dtype = choice.lies(node)
        if place is not None:
            meta.memory.set(node, place)
            count += 1
        if dtype != WIDEST:
            meta.dtype.set(node, dtype)
    return count


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


def _shards_over(cores: tuple[int, int], fewest: float, shape: Sequence[int], is_step: bool) -> list[Place]:
    """The shards that a stream of that shape may lie in: none where few cores would share it, or tiles are cut."""
    high, wide = tiles(shape)
    if shape[-1] % TILE or (high == 1 and not is_step):
        return []
    rows = [Columns.over(cores, wide, about) for about in CORES_OF_ROWS] if high == 1 else []
    places = dict.fromkeys(rows) or [Blocks.over(cores, shape)]
    return [shards for shards in places if shards.columns * shards.rows >= fewest]


def _beside(stream: Stream, shards: Place, neighbour: Node, cores: tuple[int, int]) -> Place | None:
    """The shards of what lies between linears, on the cores of a neighbour whose rows it has; None where it has not.

    What heads are made of fills a rectangle of cores where TTNN puts a product; where keys are split apart, no core has
    parts of two heads.
    """
    assert not isinstance(shards, Interleaved)
    shape = shape_of(stream.values[0])
    high, wide = tiles(shape)
    is_row = isinstance(shards, Columns)
    across = shards.columns * shards.rows if is_row else shards.columns
    if high != tiles(shape_of(neighbour))[0] or wide % across or shape[-1] % TILE or (is_row and stream.has_attention):
        return None
    place = shards.of_width(shape[-1])
    if isinstance(place, Blocks):
        return dataclasses.replace(place, or_interleaved=stream.is_split)
    for split in stream.splits:
        _, heads, kv_heads, *apart = split.args
        part, rest = divmod(wide, heads + 2 * kv_heads)
        whole = Columns.of_parts(cores, wide, part) if any(apart) and not rest else None
        place = whole or place.on_rectangle(cores[0])
    return place


class _Choice:
    """Where streams lie, of which each has options, and what lies where its stream does.

    within: of heads, the stream whose shards have them lie in L1. narrow: of values, the stream whose shards have them
    be of `dtype`.
    """

    def __init__(
        self,
        streams: Streams,
        options: Mapping[Stream, list[Place]],
        within: Mapping[Node, Stream | None],
        narrow: Mapping[Node, Stream | None],
        dtype: str,
    ) -> None:
        self._streams, self._within, self._narrow, self._dtype = streams, within, narrow, dtype
        self._having = [stream for stream, places in options.items() if places]
        self._places = [[None, *options[stream]] for stream in self._having]
        self._positions = {stream: position for position, stream in enumerate(self._having)}
        self._chosen: dict[Stream | None, Place | None] = {}

    def lies(self, node: Node) -> tuple[Place | None, str]:
        """Where a value lies, None in DRAM, and in which dtype."""
        is_within = self._chosen.get(self._within.get(node)) is not None
        place = self._chosen.get(self._streams.of(node)) or (Interleaved() if is_within else None)
        is_narrow = self._chosen.get(self._narrow.get(node)) is not None
        return place, self._dtype if is_narrow else WIDEST

    def choose(self, nodes: Iterable[Node], costs: Costs) -> None:
        """Have streams lie where the sum of what these nodes cost is least."""
        self._choose(range(len(self._having)), cheapest([*map(len, self._places)], self._tables(nodes, costs)))

    def _choose(self, scope: Iterable[int], picked: Iterable[int]) -> None:
        self._chosen = {
            self._having[position]: self._places[position][option]
            for position, option in zip(scope, picked, strict=True)
        }

    def _tables(self, nodes: Iterable[Node], costs: Costs) -> Iterator[tuple[Scope, Table]]:
        """What nodes cost by where the streams lie that they read or give."""
        for node in nodes:
            near = {f(x) for x in (node, *node.all_input_nodes) for f in (self._streams.of, self._within.get)}
            scope = tuple(sorted(self._positions[stream] for stream in near & self._positions.keys()))
            stream, table = self._streams.of(node), {}
            if not scope or node.target not in COSTED:
                continue
            for picked in itertools.product(*(range(len(self._places[position])) for position in scope)):
                self._choose(scope, picked)
                table[picked] = costs(node, partial(self._read, node), stream is not None and node in stream.copied)
            yield scope, table

    def _read(self, reader: Node, value: Node) -> tuple[Place | None, str]:
        """Where a node finds a value, or leaves its own: what it does not read in shards is copied to DRAM."""
        place, dtype = self.lies(value)
        is_copied = isinstance(place, (Blocks, Columns)) and value is not reader and not reads_l1(reader, value)
        return (None, WIDEST) if is_copied else (place, dtype)
