"""Three projections of one input become one linear and one split into heads; other attention keeps its own."""

import operator

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from projections import BATCH, DIM, HEADS, SEQ, WIDTH, heads_of, merged, projections
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants

sdpa = aten.scaled_dot_product_attention.default


@pytest.fixture
def x():
    return random(BATCH, SEQ, WIDTH)


def three(self, x, mask=None, **options):
    """Self-attention as BERT, ViT and SigLIP of transformers spell it."""
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    return merged(F.scaled_dot_product_attention(q, k, v, mask, **options))


def fused(forward, *members, inputs):
    graph = capture(Module(*members, forward=forward), *inputs)
    graph.apply(canonicalize, exact=False)
    graph.apply(fuse_attention, exact=False)
    return graph, graph.apply(fuse_qkv, exact=False)


def assert_fused(graph, heads=HEADS, kv_heads=HEADS, dim=DIM):
    linear, split = graph.only(operators.linear), graph.only(operators.split_heads)
    assert linear.meta["val"].shape[-1] == (heads + 2 * kv_heads) * dim
    rows, *counts = split.args
    assert rows.target is aten.reshape.default and rows.args[0] is linear  # [batch, 1, seq, width], as TTNN wants it
    assert counts == [heads, kv_heads]
    picks = graph.only(sdpa).args[:3]
    assert [(n.target, n.args) for n in picks] == [(operator.getitem, (split, index)) for index in range(3)]


@pytest.mark.parametrize(
    "biases", [(True, True, True), (False, False, False), (True, False, True), (False, True, True)]
)
def test_three_projections_are_one_linear_and_one_split(biases, x):
    graph, changed = fused(three, *projections(*biases), inputs=[x])
    assert changed == 1
    assert_fused(graph)
    assert (graph.only(operators.linear).args[2] is not None) == any(biases)


def test_what_is_left_for_the_device_is_the_linear_the_split_and_the_attention(x):
    graph, _ = fused(three, *projections(True, True, True), inputs=[x])
    graph.apply(fold_constants, exact=False)
    expected = [operators.linear, aten.reshape.default, operators.split_heads, *[operator.getitem] * 3, sdpa]
    assert graph.targets() == [*expected, aten.permute.default, aten.reshape.default]


def timm(self, x):
    qkv = self.p0(x).reshape(BATCH, SEQ, 3, HEADS, DIM).permute(2, 0, 3, 1, 4)
    return merged(F.scaled_dot_product_attention(*qkv.unbind(0)))


def gpt2(self, x):
    return merged(F.scaled_dot_product_attention(*(heads_of(part) for part in self.p0(x).split(WIDTH, dim=2))))


def chunked(self, x):
    return merged(F.scaled_dot_product_attention(*(heads_of(part) for part in self.p0(x).chunk(3, dim=-1))))


def sliced(self, x):
    qkv = self.p0(x)
    parts = (qkv[..., :WIDTH], qkv[..., WIDTH : 2 * WIDTH], qkv[..., 2 * WIDTH :])
    return merged(F.scaled_dot_product_attention(*map(heads_of, parts)))


def value_first(self, x):
    v, q, k = self.p0(x).chunk(3, dim=-1)
    return merged(F.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v)))


def interleaved_by_head(self, x):
    """GPT-NeoX: each head's query, key and value stand together."""
    qkv = self.p0(x).view(BATCH, SEQ, HEADS, 3 * DIM).transpose(1, 2)
    return merged(F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1)))


def interleaved_by_element(self, x):
    qkv = self.p0(x).view(BATCH, SEQ, HEADS, DIM, 3).permute(4, 0, 2, 1, 3)
    return merged(F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "forward", [timm, gpt2, chunked, sliced, value_first, interleaved_by_head, interleaved_by_element]
)
def test_one_projection_that_holds_all_three_is_split_into_heads(forward, bias, x):
    graph, changed = fused(forward, *projections(bias, out=(3 * WIDTH,)), inputs=[x])
    assert changed == 1
    assert_fused(graph)
    graph.apply(fold_constants, exact=False)
    assert not graph.calls(aten.slice.Tensor, aten.select.int, aten.index_select.default, aten.cat.default)


def test_one_projection_in_the_order_of_the_split_keeps_its_weight(x):
    graph, _ = fused(timm, *projections(True, out=(3 * WIDTH,)), inputs=[x])
    graph.apply(fold_constants, exact=False)
    weight = graph.only(operators.linear).args[1]
    value = graph.module.get_submodule(weight.target)(random(3 * WIDTH, WIDTH))
    torch.testing.assert_close(value, random(3 * WIDTH, WIDTH).t())


def test_other_heads_of_the_input_keep_their_linear(x):
    def forward(self, x):
        return timm(self, x), torch.tanh(heads_of(self.p1(x)))

    graph, changed = fused(forward, nn.Linear(WIDTH, 3 * HEADS * DIM), nn.Linear(WIDTH, HEADS * DIM), inputs=[x])
    assert changed == 1
    assert graph.only(operators.split_heads) and len(graph.calls(operators.linear)) == 2


def test_two_layers_are_fused_each(x):
    def forward(self, x):
        first = Module(self.p0, self.p1, self.p2, forward=three)(x)
        return Module(self.p3, self.p4, self.p5, forward=three)(first)

    graph, changed = fused(forward, *projections(True, True, True), *projections(True, True, True), inputs=[x])
    assert changed == 2


def test_fewer_key_heads_than_query_heads_are_fused(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x), 4), heads_of(self.p1(x), 2), heads_of(self.p2(x), 2)
        return merged(F.scaled_dot_product_attention(q, k, v, enable_gqa=True))

    graph, changed = fused(forward, *projections(True, False, True, out=(32, 16, 16)), inputs=[x])
    assert changed == 1
    assert_fused(graph, 4, 2, 8)


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_is_fused(batch_first, x):
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first).eval()
    x = x if batch_first else x[:1].transpose(0, 1).contiguous()
    graph, changed = fused(lambda s, x: s.p0(x, x, x, need_weights=False)[0], attention, inputs=[x])
    assert changed == 1
    assert len(graph.calls(operators.split_heads)) == 1


# --- scale and mask -------------------------------------------------------------------------------------------------


def test_without_a_mask_the_scale_stays_with_the_attention(x):
    graph, _ = fused(lambda s, x: three(s, x, scale=0.3), *projections(True, True, True), inputs=[x])
    assert graph.only(sdpa).kwargs["scale"] == 0.3


@pytest.mark.parametrize("biases", [(True, True, True), (False, True, False), (False, False, False)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_with_a_mask_the_scale_moves_into_the_querys_columns(biases, scale, x):
    def forward(self, x, mask):
        return three(self, x, mask, scale=scale)

    graph, changed = fused(forward, *projections(*biases), inputs=[x, random(BATCH, 1, SEQ, SEQ)])
    assert changed == 1
    assert_fused(graph)
    assert graph.only(sdpa).kwargs["scale"] == 1.0


def test_with_a_mask_and_a_scale_of_one_nothing_is_multiplied(x):
    inputs = [x, random(BATCH, 1, SEQ, SEQ)]
    graph, changed = fused(lambda s, x, m: three(s, x, m, scale=1.0), *projections(True, True, True), inputs=inputs)
    assert changed == 1
    assert not graph.calls(aten.mul.Tensor)


def test_a_query_that_is_the_key_as_well_is_not_scaled_as_a_key(x):
    def forward(self, x, mask):
        shared = heads_of(self.p0(x))
        return merged(F.scaled_dot_product_attention(shared, shared, heads_of(self.p1(x)), mask))

    fused(forward, *projections(True, True, out=(WIDTH, WIDTH)), inputs=[x, random(BATCH, 1, SEQ, SEQ)])


# --- other readers --------------------------------------------------------------------------------------------------


def assert_one_split(forward, *members, inputs, heads=(HEADS, HEADS)):
    graph, changed = fused(forward, *members, inputs=inputs)
    assert changed == 1
    assert len(graph.calls(operators.linear)) == 1
    assert graph.only(operators.split_heads).args[1:] == heads
    return graph


def test_keys_and_values_that_are_returned_are_fused(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
        return merged(F.scaled_dot_product_attention(q, k, v)), k, v

    assert_one_split(forward, *projections(True, True, True), inputs=[x])


def test_heads_that_two_attentions_read_are_fused(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
        return F.scaled_dot_product_attention(q, k, v) + F.scaled_dot_product_attention(v, k, q)

    assert_one_split(forward, *projections(True, True, True), inputs=[x])


def test_heads_that_are_computed_on_are_fused(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
        return merged(F.scaled_dot_product_attention(torch.tanh(q), k, v))

    assert_one_split(forward, *projections(True, True, True), inputs=[x])


def test_the_scale_of_one_of_two_attentions_stays_with_it(x):
    def forward(self, x, mask):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
        return F.scaled_dot_product_attention(q, k, v, mask) + F.scaled_dot_product_attention(q, k, v)

    graph = assert_one_split(forward, *projections(True, True, True), inputs=[x, random(BATCH, 1, SEQ, SEQ)])
    assert [n.kwargs["scale"] for n in graph.calls(sdpa)] == [None, None]


def test_heads_that_go_into_a_cache_are_fused(x):
    def forward(self, x, keys, values, positions):
        q, k, v = heads_of(self.p0(x), 4), heads_of(self.p1(x), 2), heads_of(self.p2(x), 2)
        keys, values = keys.index_copy(2, positions, k), values.index_copy(2, positions, v)
        return merged(F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)), keys, values

    caches = [random(BATCH, 2, 16, 8), random(BATCH, 2, 16, 8) + 1, torch.arange(SEQ) + 3]
    assert_one_split(forward, *projections(True, False, True, out=(32, 16, 16)), inputs=[x, *caches], heads=(4, 2))


def test_keys_and_values_alone_tell_which_is_the_query(x):
    """Heads that no attention reads: of unequal numbers of them, the two that are equal are keys and values."""

    def forward(self, x):
        return heads_of(self.p0(x), 2), heads_of(self.p1(x), 4), heads_of(self.p2(x), 2)

    assert_one_split(forward, *projections(True, True, True, out=(16, 32, 16)), inputs=[x], heads=(4, 2))


# --- left alone -----------------------------------------------------------------------------------------------------


def assert_left_alone(forward, *members, inputs):
    graph, _ = fused(forward, *members, inputs=inputs)
    assert graph.calls(sdpa) and not graph.calls(operators.split_heads)
    return graph


def test_cross_attention_keeps_its_projections(x):
    def forward(self, x, memory):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(memory)), heads_of(self.p2(memory))
        return merged(F.scaled_dot_product_attention(q, k, v))

    for memory in (x + 1, random(BATCH, SEQ + 2, WIDTH)):
        graph = assert_left_alone(forward, *projections(True, True, True), inputs=[x, memory])
        assert len(graph.calls(operators.linear)) == 3


def test_multihead_cross_attention_gets_its_heads_by_reshape_and_permute(x):
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    forward = lambda s, x, m: s.p0(x, m, m, need_weights=False)[0]  # noqa: E731
    graph = assert_left_alone(forward, attention, inputs=[x, x + 1])
    for operand in graph.only(sdpa).args[:3]:
        assert operand.target is aten.permute.default and operand.args[1] == [0, 2, 1, 3]
        assert operand.args[0].target is aten.reshape.default


def test_a_projection_that_is_read_elsewhere_keeps_its_linear(x):
    def forward(self, x):
        q, k, v = self.p0(x), self.p1(x), self.p2(x)
        return merged(F.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v))) + torch.relu(v)

    assert_left_alone(forward, *projections(True, True, True), inputs=[x])


def test_a_projection_with_a_computed_weight_keeps_its_linear(x):
    def forward(self, x, factor):
        q = heads_of(F.linear(x, self.p0.weight * factor))
        return merged(F.scaled_dot_product_attention(q, heads_of(self.p1(x)), heads_of(self.p2(x))))

    assert_left_alone(forward, *projections(True, True, True), inputs=[x, random(1)])


def test_values_of_another_head_dim_keep_their_linear(x):
    graph, _ = fused(three, *projections(True, True, True, out=(WIDTH, WIDTH, 2 * WIDTH)), inputs=[x])
    assert len(graph.calls(operators.linear)) == 3


def test_heads_made_in_another_order_keep_their_linears(x):
    def forward(self, x):
        q, k, v = (p(x).view(BATCH, HEADS, SEQ, DIM) for p in (self.p0, self.p1, self.p2))
        return F.scaled_dot_product_attention(q, k, v)

    assert_left_alone(forward, *projections(True, True, True), inputs=[x])


def test_queries_of_fewer_rows_keep_their_linear(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x[:, :1])), heads_of(self.p1(x)), heads_of(self.p2(x))
        return merged(F.scaled_dot_product_attention(q, k, v))

    assert_left_alone(forward, *projections(True, True, True), inputs=[x])


def test_a_linear_that_is_read_in_parts_that_are_no_heads_is_left_alone(x):
    def forward(self, x):
        gate, up = self.p0(x).chunk(2, -1)
        return F.silu(gate) * up

    graph, changed = fused(forward, *projections(True, out=(24,)), inputs=[x])
    assert changed == 0
    assert not graph.calls(operators.split_heads)


def test_attention_of_inputs_is_left_alone(x):
    q = random(BATCH, HEADS, SEQ, DIM)
    _, changed = fused(lambda s, q: F.scaled_dot_product_attention(q, q, q), inputs=[q])
    assert changed == 0


def test_attention_of_one_projection_to_itself(x):
    """Query, key and value are the same columns, which are made once."""

    def forward(self, x):
        y = self.p0(x)
        return torch.softmax(y @ y.mT / 8, -1) @ y

    graph, _ = fused(forward, nn.Linear(WIDTH, WIDTH), inputs=[x])
    assert graph.only(operators.linear).meta["val"].shape[-1] == WIDTH
    assert len(set(graph.only(sdpa).args[:3])) == 1


def test_heads_that_other_moves_make_as_well_are_made_once(x):
    """As DeBERTa's keys meet queries and positions, by moves of their own each."""

    def forward(self, x, table):
        q, k, v = (project(x) for project in (self.p0, self.p1, self.p2))
        positions = k.mT.reshape(BATCH, HEADS, DIM, SEQ).mT @ table
        out = merged(F.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v)))
        return out, positions

    graph = capture(Module(*projections(True, True, True), forward=forward), x, random(BATCH, HEADS, DIM, SEQ))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_qkv, exact=False)
    assert_fused(graph)


def test_heads_of_other_columns_are_no_twins(x):
    def forward(self, x):
        q, k, v = (project(x) for project in (self.p0, self.p1, self.p2))
        out = merged(F.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v)))
        return out, k.view(BATCH, SEQ, DIM, HEADS).permute(0, 3, 1, 2) + 1

    graph = capture(Module(*projections(True, True, True), forward=forward), x)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_qkv, exact=False) == 0
    assert not graph.calls(operators.split_heads)
