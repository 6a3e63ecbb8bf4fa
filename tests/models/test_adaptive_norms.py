"""Blocks whose norms are scaled and shifted for each image, as DiT, SD3 and Flux have them: two images at once."""

import os

import torch
import torch.nn.functional as F
from torch import nn

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
WIDTH = 64


class Block(nn.Module):
    """A block of DiT: Peebles & Xie 2023, https://arxiv.org/abs/2212.09748"""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU("tanh"), nn.Linear(2 * WIDTH, WIDTH))
        self.condition = nn.Linear(WIDTH, 6 * WIDTH)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        rows = self.condition(F.silu(condition)).chunk(6, 1)
        shift, scale, gate, shift_feed, scale_feed, gate_feed = (row.unsqueeze(1) for row in rows)
        qkv = self.qkv(self.norm1(x) * (1 + scale) + shift)
        q, k, v = qkv.view(len(x), -1, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate * self.out(attended)
        return x + gate_feed * self.feed(self.norm2(x) * (1 + scale_feed) + shift_feed)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Linear(16, WIDTH), nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        condition = self.embed(time)
        for block in self.blocks:
            x = block(x, condition)
        return x


def test_a_block_for_two_images_is_twelve_launches_with_eagers_values():
    torch.manual_seed(0)
    model, inputs = Model().eval(), (torch.randn(2, 64, WIDTH), torch.randn(2, 16))
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        output = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(*inputs)
        expected = model(*inputs)
    (report,) = reports
    assert not report.fallbacks, report.fallbacks
    assert report.launches["ttnn.addcmul"] == 8, "scale and shift, or gate and sum, are one call"
    assert list(report.layers().values()) == [15, 12], "the first one computes the condition and both modulations"
    assert torch.corrcoef(torch.stack([output.flatten(), expected.flatten()]))[0, 1] >= 0.999
    torch.testing.assert_close(output, expected, rtol=0.0, atol=0.02 * expected.abs().max().item())
