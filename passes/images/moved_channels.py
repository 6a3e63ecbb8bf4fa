"""Convolutions that read channels where they were made: slices, splits and shuffles become columns of weights.

Before   a, b = y.chunk(2, 1);   z = shuffle(cat(a, relu(conv(b, v)), 1));   c, d = z.chunk(2, 1);   …   conv(d, w)
After    s = relu(conv(y, v'));   …   conv(cat(y, s, 1), w')         v' and w' are 0 for channels that are not read

A move of channels is several kernels, which untilize and tilize; columns of zeros cost a product next to nothing.
ShuffleNet's units and the halves of YOLO's stages are such. Convolutions by channel and activations in between take
channels as they lie. Where anything else reads a moved channel, it moves as before. The convolutions that make the
parts of a join fill them up to tiles, so that they are joined on the cores where they lie.
Source: Ma et al. 2018, https://arxiv.org/abs/1807.11164
"""

import dataclasses
import itertools
import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.fuse.linears import take
from tt_dynamo.passes.images.split_convolutions import ACTIVATIONS
from tt_dynamo.passes.movement import SPLITS_BY_SIZE, cut_of, joined_along
from tt_dynamo.passes.rewrite import emit, is_constant

# Zeros may cost as much as the kernels of a move: a few µs of multiplying them, and of reading them.
MOST_PRODUCTS = 1 << 27
MOST_WEIGHTS = 1 << 19
WIDEST = 6  # times as many tiles of channels as are read of a join, by a convolution by channel


@dataclasses.dataclass(frozen=True)
class Channels:
    """Of each channel of a value, of which source it is and which channel there. is_moved: by more than joins."""

    sources: tuple[Node, ...]
    of: torch.Tensor
    at: torch.Tensor
    is_moved: bool = False

    def picked(self, numbers: torch.Tensor) -> "Channels":
        """Some of the channels. Several sources stay all: what is joined once is read, and joined to more."""
        of, at = self.of[numbers], self.at[numbers]
        if len(of.unique()) == 1:
            return Channels((self.sources[int(of[0])],), torch.zeros_like(of), at, True)
        return Channels(self.sources, of, at, True)


def read_moved_channels(graph: Graph, context: Context) -> int:
    """Rewrite every such convolution; returns how many."""
    refused: set[Node] = set()
    while True:
        found = _Found(graph, refused)
        costly = {node for node in found.rewritten() if found.is_costly(node)}
        if not costly:
            break
        refused |= costly
    writer = _Writer(found)
    readers = [node for node in found.rewritten() if is_dense(node)]
    for node in readers:
        with graph.inserting_before(node):
            replace(node, writer.reading(node))
    dead_code(graph)
    return len(readers)


def is_dense(node: Node) -> bool:
    """Whether a node is a convolution by constants that mixes all channels."""
    return _is_convolution(node) and node.args[8] == 1


def _is_convolution(node: Node) -> bool:
    if not is_call(node, aten.convolution.default) or len(shape_of(node)) != 4 or node.args[6]:
        return False
    return is_constant(node.args[1]) and is_constant(node.args[2])


def _is_by_channel(node: Node) -> bool:
    """Whether channels of the first operand become the same channels, whatever order they have."""
    if is_call(node, *ACTIVATIONS):
        return True
    return _is_convolution(node) and node.args[8] == shape_of(node)[1] == shape_of(node.args[0])[1]


class _Found:
    """What a graph does to channels. refused: convolutions that read channels as they did.

    passing: moves and what works by channel, of which convolutions alone read the results.
    """

    def __init__(self, graph: Graph, refused: set[Node]) -> None:
        self._graph, self._refused = graph, refused
        self._picks = {node: pick for node in graph.nodes if (pick := _picked(node)) is not None}
        within = {inner for _, _, inners in self._picks.values() for inner in inners}
        self.passing: set[Node] = set()
        for node in reversed(graph.nodes):
            is_move = node in self._picks or node in within or _is_join(node)
            passes = is_move or (_is_by_channel(node) and node not in refused)
            if passes and node.users and all(self._takes(user, node) for user in node.users):
                self.passing.add(node)
        moving = {x for node, (x, _, _) in self._picks.items() if node not in self.passing}
        self.passing -= {node for node, (x, _, _) in self._picks.items() if x in moving}
        self._filled: dict[Node, bool] = {}  # as long as nothing is rewritten
        self._channels: dict[Node, Channels] = {}
        for node in graph.nodes:
            if node in self.passing and (channels := self._made(node)) is not None:
                self._channels[node] = channels

    def _takes(self, user: Node, x: Node) -> bool:
        return user in self.passing or (user not in self._refused and is_dense(user) and user.args[0] is x)

    def _made(self, node: Node) -> Channels | None:
        if node in self._picks:
            x, numbers, _ = self._picks[node]
            return self.channels(x).picked(numbers)
        if _is_join(node):
            parts = [self.channels(x) for x in node.args[0]]
            sources = tuple(dict.fromkeys(source for part in parts for source in part.sources))
            of = [torch.tensor([sources.index(source) for source in part.sources])[part.of] for part in parts]
            moved = any(part.is_moved for part in parts)
            return Channels(sources, torch.cat(of), torch.cat([part.at for part in parts]), moved)
        if _is_by_channel(node) and node.args[0] in self._channels:
            x = self.channels(node.args[0])
            return Channels((node,), torch.zeros_like(x.of), self.positions(x), x.is_moved)
        return None

    def channels(self, node: Node) -> Channels:
        """Where the channels of a value come from."""
        count = shape_of(node)[1]
        own = Channels((node,), torch.zeros(count, dtype=torch.long), torch.arange(count))
        return self._channels.get(node, own)

    def is_carried(self, source: Node) -> bool:
        """Whether a source is made by channel of moved channels."""
        return source in self._channels

    def width(self, source: Node) -> int:
        """How many channels a source has, those included that fill it up to tiles or that it takes along."""
        if self.is_carried(source):
            return sum(map(self.width, self.channels(source.args[0]).sources))
        count = shape_of(source)[1]
        return -(-count // TILE) * TILE if self.is_filled(source) else count

    def is_filled(self, source: Node) -> bool:
        """Whether the convolution of a source makes it fill its tiles: parts of joins, which nothing else reads."""
        if source not in self._filled:
            self._filled[source] = self._fills(source)
        return self._filled[source]

    def _fills(self, source: Node) -> bool:
        users = [user for user in source.users if not is_dense(user)]
        joined = bool(users) and all(user in self.passing and not _is_by_channel(user) for user in users)
        return joined and all(self._takes(user, source) for user in source.users) and convolved(source) is not None

    def positions(self, channels: Channels) -> torch.Tensor:
        """Where the channels stand in their sources joined."""
        widths = [self.width(source) for source in channels.sources]
        return torch.tensor([0, *itertools.accumulate(widths)])[channels.of] + channels.at

    def rewritten(self) -> list[Node]:
        """The convolutions that read moved channels, or filled parts."""
        nodes = [node for node in self._graph.nodes if _is_convolution(node) and node not in self._refused]
        return [node for node in nodes if (node in self._channels or is_dense(node)) and self._is_other(node.args[0])]

    def _is_other(self, x: Node) -> bool:
        channels = self.channels(x)
        return channels.is_moved or any(self.width(source) != shape_of(source)[1] for source in channels.sources)

    def is_costly(self, node: Node) -> bool:
        """Whether zeros cost more than moves do, or a channel is read twice."""
        channels = self.channels(node.args[0])
        width, read = sum(map(self.width, channels.sources)), len(channels.of)
        if len(self.positions(channels).unique()) < read:
            return True
        tiles, tiles_read = (-(-count // TILE) for count in (width, read))
        if not is_dense(node):
            return tiles > (WIDEST if len(channels.sources) > 1 else 1) * tiles_read
        weights = (tiles - tiles_read) * TILE * math.prod(shape_of(node.args[1])) // read
        return weights > MOST_WEIGHTS or weights * math.prod(shape_of(node)[2:]) * shape_of(node)[0] > MOST_PRODUCTS


def _is_join(node: Node) -> bool:
    return is_call(node, aten.cat.default) and len(shape_of(node)) == 4 and joined_along(node) == -3


def _picked(node: Node) -> tuple[Node, torch.Tensor, list[Node]] | None:
    """A value of which a node has some channels, which ones in their order, and the nodes in between."""
    if not isinstance(node.meta.get("val"), torch.Tensor) or len(shape_of(node)) != 4:
        return None
    if (cut := cut_of(node, -3)) is not None:
        x, start = cut
        between = [node.args[0]] if is_call(node.args[0], *SPLITS_BY_SIZE) and node.args[0] is not x else []
        return x, start + torch.arange(shape_of(node)[1]), between
    if not is_call(node, aten.reshape.default) or not is_call(node.args[0], aten.permute.default):
        return None
    moved = node.args[0]
    split, order = moved.args
    x = split.args[0] if is_call(split, aten.reshape.default) else None
    if x is None or shape_of(x) != shape_of(node) or not _divides_channels(shape_of(x), shape_of(split)):
        return None
    parts = len(order) - 3
    if [*order][:1] + [*order][parts + 1 :] != [0, parts + 1, parts + 2]:
        return None
    numbers = torch.arange(shape_of(x)[1]).reshape(shape_of(split)[1:-2])
    return x, numbers.permute([dim - 1 for dim in order[1:-2]]).flatten(), [split, moved]


def _divides_channels(shape: tuple[int, ...], parts: tuple[int, ...]) -> bool:
    return len(parts) > 4 and parts[0] == shape[0] and parts[-2:] == shape[-2:]


def convolved(source: Node) -> list[Node] | None:
    """The convolution by constants that makes a source, and the activations behind it, which alone read it."""
    chain = [source]
    while is_call(chain[0], *ACTIVATIONS) and only_user(chain[0].args[0]) is not None:
        chain.insert(0, chain[0].args[0])
    return chain if is_dense(chain[0]) else None


class _Writer:
    """Writes what reads channels as they lie."""

    def __init__(self, found: _Found) -> None:
        self._found = found
        self._made: dict[Node, Node] = {}
        self._joins: dict[tuple[Node, ...], Node] = {}
        self._read: dict[Node, Node] = {}  # what stands for the convolutions that were written

    def reading(self, node: Node) -> Node:
        """A convolution that mixes channels, of the sources joined."""
        x, numbers = self._joined(node)
        new = emit(node, node.target, x, take(node.args[1], numbers, node, 1), *node.args[2:])
        self._read[node] = new
        return new

    def _joined(self, node: Node) -> tuple[Node, torch.Tensor]:
        """The sources of what a node reads, and of each channel there which one it is of those that the node reads."""
        channels = self._found.channels(node.args[0])
        sources, length = channels.sources, len(channels.sources)
        made = [self._source(source) for source in sources]
        known = next((n for n in range(length, 1, -1) if sources[:n] in self._joins), 1)
        x = self._joins.get(sources[:known], made[0])
        if known < length:
            x = emit(node, aten.cat.default, [x, *made[known:]], 1)
            self._joins[sources] = x
        positions = self._found.positions(channels)
        numbers = torch.full((shape_of(x)[1],), -1)
        numbers[positions] = torch.arange(len(positions))
        return x, numbers

    def _source(self, source: Node) -> Node:
        if source not in self._made:
            self._made[source] = self._new_source(source)
        return self._made[source]

    def _new_source(self, source: Node) -> Node:
        if self._found.is_carried(source):
            x, numbers = self._joined(source)
            return _by_channel(source, x, numbers)
        now = self._read.get(source, source)
        if not self._found.is_filled(source):
            return now
        first, *rest = convolved(now) or []
        numbers = torch.arange(self._found.width(source))
        numbers[shape_of(source)[1] :] = -1
        with now.graph.inserting_before(now.next):
            new = emit(first, first.target, first.args[0], *_taken(first, numbers), *first.args[3:])
            for step in rest:
                new = _by_channel(step, new, numbers)
        return new


def _by_channel(node: Node, x: Node, numbers: torch.Tensor) -> Node:
    """What a node does to each channel, of other channels: those of these numbers, -1 for zeros."""
    if not _is_convolution(node):
        return emit(node, node.target, x, *node.args[1:], **node.kwargs)
    return emit(node, node.target, x, *_taken(node, numbers), *node.args[3:8], len(numbers))


def _taken(convolution: Node, numbers: torch.Tensor) -> list[Node | None]:
    """Weight and bias of the results of these numbers."""
    return [x and take(x, numbers, convolution, 0) for x in convolution.args[1:3]]
