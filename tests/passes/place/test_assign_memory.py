"""Residual streams are assigned block shards; what the cores cannot share evenly, and what pays too little, is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captured import Captured, capture, random, same
from torch import nn
from torch.fx import Node

from tt_dynamo.compiler.stream_costs import StreamCosts
from tt_dynamo.estimate.chip import chip_of
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Blocks, Columns, Interleaved
from tt_dynamo.ir.uses import Settings
from tt_dynamo.passes import PASSES
from tt_dynamo.passes.place.layouts import assign_layouts
from tt_dynamo.passes.place.memory import COSTED, assign_memory
from tt_dynamo.passes.place.place import place
from tt_dynamo.passes.place.streams import reads_l1

CORES = (8, 8)


class Layer(nn.Module):
    """An encoder layer. x [batch, seq, width] -> the same."""

    def __init__(self, width: int, inner: int, post: bool = False, head_dim: int = 32) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.heads, self.post = width // head_dim, post

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, seq, width = x.shape
        query, key, value = self.qkv(x).view(batch, seq, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape))

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.norms
        if self.post:
            x = first(x + self.attend(x))
            return second(x + self.feed(x))
        x = x + self.attend(first(x))
        return x + self.feed(second(x))


def encoder(width: int = 256, inner: int = 512, layers: int = 2, post: bool = False, head_dim: int = 32) -> nn.Module:
    """Layers between a sum, at which the stream begins, and what pools it."""
    made = nn.Sequential(*(Layer(width, inner, post, head_dim) for _ in range(layers)))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = made

        def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            return self.layers(x + positions)[:, 0]

    return Encoder()


SETTINGS = Settings(None, None, CORES, chip=chip_of("n150", CORES))


def on_n150() -> StreamCosts:
    return StreamCosts(SETTINGS)


def assigned(
    model: Any,
    *inputs: torch.Tensor,
    refused: Any = None,
    is_step: bool = False,
    dtype: str = "bfloat16",
    wide: Any = None,
    costs: Any = None,
) -> tuple[Captured, list[Node]]:
    """The placed graph, and its nodes that were assigned shards."""
    graph = capture(model, *inputs)
    before = graph.run()
    for transform in PASSES:
        transform(graph.graph, graph.context)
    sides = place(graph.graph, lambda node: True)
    assign_layouts(graph.graph, sides, lambda node: "TILE", lambda user, operand: ("TILE", None))
    refuses = wide or (lambda node: False)
    never = lambda node: 0  # noqa: E731
    count = assign_memory(graph.graph, sides, CORES, costs or on_n150(), refused or never, is_step, dtype, refuses)
    same(graph.run(), before, exact=False)
    nodes = [node for node in graph.graph.nodes if node in meta.memory]
    assert count == len(nodes)
    return graph, nodes


def rows(batch: int = 8, seq: int = 64, width: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    return random(batch, seq, width), random(1, seq, width)


def blocks(nodes: list[Node]) -> list[Blocks]:
    """Their block shards, of those that lie in such."""
    return [place for node in nodes if isinstance(place := meta.memory(node), Blocks)]


@pytest.mark.parametrize("post", [False, True], ids=["pre-norm", "post-norm"])
def test_a_layer_lies_in_blocks_and_its_heads_interleaved_in_l1(post: bool) -> None:
    graph, nodes = assigned(encoder(post=post), *rows())
    assert {*blocks(nodes)} == {Blocks(8, 8, 2, 1), Blocks(8, 8, 2, 2)}
    wide = [node for node in nodes if meta.memory(node) == Blocks(8, 8, 2, 2)]
    assert [(node.target, node.args[3]) for node in wide] == [(operators.linear, "gelu")] * 2
    norms = graph.calls(aten.layer_norm.default, operators.add_layer_norm)
    attentions = graph.calls(operators.attention)
    assert len(norms) == 4 and len(attentions) == 2
    assert len(blocks([*norms, *attentions])) == 6
    heads = [
        node for split in graph.calls(operators.split_heads) for node in (split, *split.all_input_nodes, *split.users)
    ]
    assert len(heads) == 10 and all(meta.memory(node) == Interleaved() for node in heads)


def narrow(nodes: list[Node]) -> set[Node]:
    """Those of nodes that were assigned block floats."""
    return {node for node in nodes if meta.dtype.get(node, "") == "bfloat8_b"}


def test_streams_and_their_heads_are_block_floats_where_that_is_asked_for() -> None:
    assert not narrow(assigned(encoder(), *rows())[1])
    graph, nodes = assigned(encoder(), *rows(), dtype="bfloat8_b")
    assert narrow(nodes) == set(nodes) == narrow(list(graph.graph.nodes))


def test_what_a_node_reads_and_gives_to_which_block_floats_were_refused_is_bfloat16() -> None:
    def is_attention(node: Node) -> bool:
        return node.target is operators.attention

    graph, nodes = assigned(encoder(), *rows(), dtype="bfloat8_b", wide=is_attention)
    wide = set(nodes) - narrow(nodes)
    attentions, splits = graph.calls(operators.attention), graph.calls(operators.split_heads)
    assert {*attentions, *splits} <= wide
    assert narrow(graph.calls(aten.layer_norm.default))

    def is_norm(node: Node) -> bool:
        return node.target is aten.layer_norm.default

    _, nodes = assigned(encoder(), *rows(), dtype="bfloat8_b", wide=is_norm)
    assert not narrow([node for node in nodes if is_norm(node)])


def test_heads_that_leave_l1_are_block_floats_in_dram() -> None:
    def is_split(node: Node) -> int:
        return int(node.target is operators.split_heads)

    graph, nodes = assigned(encoder(), *rows(), dtype="bfloat8_b", refused=is_split)
    splits = graph.calls(operators.split_heads)
    assert splits and not any(node in meta.memory for node in splits) and narrow(splits) == set(splits)


def test_padded_rows_are_counted_as_they_lie() -> None:
    _, nodes = assigned(encoder(), *rows(seq=50))
    assert Blocks(8, 8, 2, 1) in blocks(nodes)


def test_cores_without_rows_are_left_out() -> None:
    _, nodes = assigned(encoder(), *rows(batch=9, seq=32))
    assert {(place.columns, place.rows, place.height) for place in blocks(nodes)} == {(8, 5, 2)}


def test_what_cores_cannot_share_in_whole_tiles_stays_interleaved() -> None:
    layer = nn.Sequential(nn.LayerNorm(240), nn.Linear(240, 512), nn.Linear(512, 240), nn.LayerNorm(240))
    assert not assigned(layer, random(8, 64, 240))[1]


class Everywhere(StreamCosts):
    """Costs by which shards are free, so that streams lie in them wherever they can."""

    def __call__(self, node: Node, lies: Any, is_copied: bool = False) -> float:
        return float(lies(node)[0] is None)


def seconds(nodes: Any, is_interleaved: bool) -> float:
    """What nodes cost as they were assigned, or all interleaved."""

    def lies(node: Node) -> tuple[Any, str]:
        return (None if is_interleaved else meta.memory.get(node, None)), "bfloat16"

    def is_copied(node: Node) -> bool:
        return node in meta.memory and any(not reads_l1(user, node) for user in node.users)

    costs = on_n150()
    return sum(costs(node, lies, is_copied(node)) for node in nodes if node.target in COSTED)


@pytest.mark.parametrize(("layers", "is_in_shards"), [(0, False), (1, True)])
def test_a_stream_that_leaves_for_others_is_in_shards_where_that_is_cheaper(layers: int, is_in_shards: bool) -> None:
    class Model(nn.Module):
        """Feedforwards beside a stream of which as many sums along its rows are taken, which TTNN reads in DRAM."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(256)
            self.layers = nn.ModuleList(
                [nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 256)) for _ in range(layers)]
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(torch.cumsum(x, 1))
            for layer in self.layers:
                x = x + layer(x)
            return torch.cumsum(x, 1)

    model, rows = Model(), random(8, 64, 256)
    graph, nodes = assigned(model, rows)
    assert bool(nodes) == is_in_shards
    everywhere, _ = assigned(model, rows, costs=Everywhere(SETTINGS))
    in_shards, interleaved = (seconds(everywhere.graph.nodes, each) for each in (False, True))
    assert (in_shards < interleaved) == is_in_shards


def test_each_distinct_operation_of_equal_layers_is_estimated_once() -> None:
    few, many = on_n150(), on_n150()
    assigned(encoder(64, 128, layers=2), *rows(batch=4, seq=32, width=64), costs=few)
    nodes = assigned(encoder(64, 128, layers=50), *rows(batch=4, seq=32, width=64), costs=many)[1]
    assert len(nodes) > 500 and few.known.keys() == many.known.keys()


def test_single_numbers_and_vectors_are_no_streams() -> None:
    assert not assigned(lambda x, y: torch.tanh(x + y) * 2, torch.tensor(1.5), random(256))[1]


def test_a_norm_over_several_dimensions_is_no_stream() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(256, 256), nn.Linear(256, 256)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(F.layer_norm(self.up(x), (64, 256)))

    assert not assigned(Model(), random(8, 64, 256))[1]


@pytest.mark.parametrize(
    ("times", "widths", "heads"), [(0, {1, 2}, True), (1, {1}, True), (2, set(), False)], ids=["never", "once", "twice"]
)
def test_a_refusal_costs_what_lies_between_linears_and_then_the_stream(
    times: int, widths: set[int], heads: bool
) -> None:
    def refused(node: Node) -> int:
        return times if node.target is operators.linear and node.args[-1] == "gelu" else 0

    nodes = assigned(encoder(), *rows(), refused=refused)[1]
    assert {place.width for place in blocks(nodes)} == widths
    assert (Interleaved() in [meta.memory(node) for node in nodes]) == heads


def test_a_refused_attention_costs_the_heads_first() -> None:
    nodes = assigned(encoder(), *rows(), refused=lambda node: int(node.target is operators.attention))[1]
    assert len(blocks(nodes)) == len(nodes)
    assert operators.attention in [node.target for node in nodes]


@pytest.mark.parametrize(
    ("times", "places"),
    [(0, {Blocks(8, 8, 1, 9, or_interleaved=True), Interleaved()}), (1, {Interleaved()}), (2, {None})],
    ids=["never", "once", "twice"],
)
def test_twelve_heads_of_64_are_split_from_shards_that_leave_first(times: int, places: set[Any]) -> None:
    def refused(node: Node) -> int:
        return times if node.target is operators.split_heads else 0

    graph, nodes = assigned(encoder(768, 768, head_dim=64), *rows(seq=32, width=768), refused=refused)
    near = [node for split in graph.calls(operators.split_heads) for node in (split, *split.all_input_nodes)]
    assert {meta.memory.get(node, None) for node in near} == places
    assert Blocks(8, 8, 1, 3) in blocks(nodes)


def test_other_heads_of_as_many_elements_are_split_interleaved() -> None:
    graph, _ = assigned(encoder(768, 768, head_dim=32), *rows(seq=32, width=768))
    splits = graph.calls(operators.split_heads)
    assert splits and {meta.memory(split.args[0]) for split in splits} == {Interleaved()}


class GatedLayer(nn.Module):
    """What a decode step does to a row [1, batch, width] without its attention."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.out, self.gate, self.up = nn.Linear(width, width), nn.Linear(width, inner), nn.Linear(width, inner)
        self.down, self.norms = nn.Linear(inner, width), nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.norms
        x = x + self.out(first(x))
        rows = second(x)
        return x + self.down(F.silu(self.gate(rows)) * self.up(rows))


STEP = nn.Sequential(GatedLayer(1024, 2048), GatedLayer(1024, 2048))


@pytest.mark.parametrize("batch", [1, 32])
def test_a_row_of_a_decode_step_lies_in_columns(batch: int) -> None:
    nodes = assigned(STEP, random(1, batch, 1024), is_step=True)[1]
    lies = [meta.memory(node) for node in nodes]
    assert {*lies} == {Columns(8, 4, 1), Columns(8, 4, 2)}
    assert lies.count(Columns(8, 4, 2)) == 6, "gate, up and their product"


def test_a_step_is_block_floats_from_its_first_sum_on_without_a_cast() -> None:
    assert not narrow(assigned(STEP, random(1, 32, 1024), is_step=True)[1])
    _, nodes = assigned(STEP, random(1, 32, 1024), is_step=True, dtype="bfloat8_b")
    wide = [node for node in nodes if node not in narrow(nodes)]
    assert len(nodes) > 16 and [node.target for node in wide] == [operators.rms_norm]  # of what went up in bfloat16


def test_what_a_step_s_attention_and_other_readers_take_stays_in_bfloat16() -> None:
    class Reading(nn.Module):
        """A layer of which something besides reads the stream in DRAM."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = GatedLayer(1024, 2048)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.layer(x)
            return x, x.cumsum(-1)

    _, nodes = assigned(Reading(), random(1, 32, 1024), is_step=True, dtype="bfloat8_b")
    assert narrow(nodes) == {node for node in nodes if meta.memory(node) == Columns(8, 4, 2)} != set()


def test_a_wide_row_takes_as_many_cores_as_norms_are_fastest_on() -> None:
    lies = [meta.memory(node) for node in assigned(GatedLayer(2048, 4096), random(1, 1, 2048), is_step=True)[1]]
    assert {*lies} == {Columns(8, 8, 1), Columns(8, 8, 2)}


@pytest.mark.parametrize(("batch", "is_step"), [(33, True), (1, False)], ids=["two rows of tiles", "no decode step"])
def test_no_other_rows_lie_in_columns(batch: int, is_step: bool) -> None:
    assert not assigned(STEP, random(1, batch, 1024), is_step=is_step)[1]


def test_a_refused_norm_costs_a_step_its_stream() -> None:
    refused = lambda node: int(node.target is operators.rms_norm)  # noqa: E731
    assert not assigned(STEP, random(1, 1, 1024), refused=refused, is_step=True)[1]


@pytest.mark.parametrize(
    ("wide", "shape"),
    [(128, (8, 4, 4)), (448, (8, 4, 14)), (28, (7, 4, 1)), (4, (4, 1, 1))],
    ids=["Llama-8B", "its feedforward", "Qwen2-0.5B", "few"],
)
def test_columns_are_shared_evenly_by_about_32_cores(wide: int, shape: tuple[int, int, int]) -> None:
    assert Columns.over(CORES, wide) == Columns(*shape)


@pytest.mark.parametrize(
    ("given", "blocks"),
    [
        ((8, 4, 4), [32, 16, 8, 4, 2, 1]),
        ((8, 4, 14), [28, 14, 7, 2, 1]),
        ((4, 2, 3), [24, 12, 6, 3, 1]),
        ((1, 1, 64), [32, 16, 8, 4, 2, 1]),
    ],
    ids=["of several shards", "or parts of one", "as many from each sender", "no more than are sent at once"],
)
def test_products_send_whole_shards_around_or_even_parts(given: tuple[int, int, int], blocks: list[int]) -> None:
    assert Columns(*given).blocks() == blocks


@pytest.mark.parametrize(
    ("cores", "wide", "part", "shape"),
    [((8, 8), 192, 4, (8, 6, 4)), ((11, 10), 192, 4, (8, 6, 4)), ((8, 8), 6, 3, (2, 1, 3)), ((2, 2), 192, 4, None)],
    ids=["N150", "P150", "odd heads", "too few cores"],
)
def test_columns_of_heads_that_are_split_apart_have_no_parts_of_two_on_a_core(
    cores: tuple[int, int], wide: int, part: int, shape: tuple[int, int, int] | None
) -> None:
    assert Columns.of_parts(cores, wide, part) == (shape and Columns(*shape))


@pytest.mark.parametrize(
    ("most", "shape"),
    [(8, (8, 4, 6)), (11, (8, 1, 24)), (13, (12, 1, 16)), (32, (8, 4, 6))],
    ids=["full rows", "11 columns", "13 columns", "one row"],
)
def test_columns_of_which_heads_are_made_fill_a_rectangle_row_by_row(most: int, shape: tuple[int, int, int]) -> None:
    assert Columns(8, 4, 6).on_rectangle(most) == Columns(*shape)
