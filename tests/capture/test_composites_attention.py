"""Encoder layers and attention's gradient, which torch has as one operation each, run on the device in pieces."""

from __future__ import annotations

import pytest
import torch
from comparison import check
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("clean_dynamo")

SEQ, WIDTH, HEADS = 5, 128, 4
CAUSAL = torch.ones(SEQ, SEQ, dtype=torch.bool).triu(1)
PADDING = torch.arange(SEQ).expand(2, SEQ) >= torch.tensor([[SEQ], [3]])


def encoder(**options) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False).eval()


def tokens(requires_grad: bool = False):
    return lambda: (torch.randn(2, SEQ, WIDTH, requires_grad=requires_grad),)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_in_evaluation_runs_on_the_device(activation, norm_first):
    (report,) = check(encoder(activation=activation, norm_first=norm_first), tokens())
    assert not report.fallbacks
    targets = [operation.target.rpartition(".")[2] for operation in report.operations]
    assert targets.count("nlp_create_qkv_heads") == targets.count("scaled_dot_product_attention") == 2


@pytest.mark.parametrize(
    "masks",
    [
        {"mask": CAUSAL, "is_causal": False},
        {"mask": torch.zeros(SEQ, SEQ).masked_fill(CAUSAL, float("-inf")), "is_causal": False},
        {"src_key_padding_mask": PADDING},
    ],
    ids=["boolean", "additive", "padding"],
)
def test_an_encoder_leaves_out_what_is_masked(masks):
    model = encoder()
    (report,) = check(lambda x: model(x, **masks), tokens())
    assert not report.fallbacks
    assert any(operation.target.endswith("scaled_dot_product_attention") for operation in report.operations)


@pytest.mark.parametrize(
    "mask_type, mask", [(None, None), (0, CAUSAL), (1, PADDING), (2, CAUSAL & PADDING[:, None, None])]
)
@pytest.mark.parametrize("average", [True, False])
def test_attention_gives_its_weights_where_they_are_needed(mask_type, mask, average):
    torch.manual_seed(0)
    weights = [torch.randn(size) * 0.1 for size in ((3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,))]
    if mask_type == 2:
        mask = mask.expand(2, HEADS, SEQ, SEQ)

    def attend(x):
        return torch._native_multi_head_attention(x, x, x, WIDTH, HEADS, *weights, mask, True, average, mask_type)

    (report,) = check(attend, tokens())
    assert not report.fallbacks


class Attention(nn.Module):
    """Attention of three linear functions of its input, over [batch, heads, seq, head_dim]."""

    def __init__(self, kv_heads: int = HEADS, **options) -> None:
        super().__init__()
        self.kv_heads, self.options = kv_heads, options
        self.projections = nn.ModuleList(nn.Linear(WIDTH // HEADS, WIDTH // HEADS, bias=False) for _ in range(3))

    def forward(self, x):
        x = x.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        query, key, value = (projection(x) for projection in self.projections)
        key, value = key[:, : self.kv_heads], value[:, : self.kv_heads]
        return functional.scaled_dot_product_attention(query, key, value, **self.options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": ~CAUSAL},
        {"attn_mask": torch.linspace(-2, 2, SEQ * SEQ).reshape(SEQ, SEQ)},
        {"kv_heads": 2, "enable_gqa": True},
    ],
    ids=["plain", "causal", "scale", "boolean mask", "additive mask", "shared heads"],
)
def test_attention_trains_on_the_device(options):
    torch.manual_seed(0)
    reports = check(Attention(**options), tokens(requires_grad=True), backward=True)
    assert len(reports) == 2
    assert not [fallback for report in reports for fallback in report.fallbacks]


def test_an_encoder_layer_trains_on_the_device():
    torch.manual_seed(0)
    # not relu, whose gradient jumps where the last bit of its input decides the sign
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, 0.0, functional.gelu, batch_first=True)
    reports = check(layer, tokens(requires_grad=True), backward=True)
    assert not [fallback for report in reports for fallback in report.fallbacks]
