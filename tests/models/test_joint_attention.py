"""Diffusion transformers of two streams, text and image: attention over both, split into the streams behind it."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
HEADS, HEAD_DIM, TEXT, IMAGE = 2, 32, 32, 64
WIDTH = HEADS * HEAD_DIM

PARTS = {
    "slices": lambda x: (x[:, :TEXT], x[:, TEXT:]),
    "split_with_sizes": lambda x: x.split_with_sizes([TEXT, IMAGE], 1),
    "split": lambda x: (x.split(TEXT, 1)[0], torch.cat(x.split(TEXT, 1)[1:], 1)),
    "chunk": lambda x: (x.chunk(3, 1)[0], torch.cat(x.chunk(3, 1)[1:], 1)),
    "tensor_split": lambda x: x.tensor_split([TEXT], 1),
    "of heads": lambda x: (x[:, :TEXT].unflatten(-1, (HEADS, -1)).unbind(2)[1].repeat(1, 1, HEADS), x[:, TEXT:]),
}


def turned(x, cos, sin):
    """Rotary embedding of neighbours, x [batch, seq, heads, head_dim]."""
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    crossed = torch.stack([-imaginary, real], -1).flatten(3)
    return x * cos[None, :, None] + crossed * sin[None, :, None]


class Stream(nn.Module):
    def __init__(self):
        super().__init__()
        self.modulation, self.norm = nn.Linear(WIDTH, 6 * WIDTH), nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.query_norm, self.key_norm = nn.RMSNorm(HEAD_DIM), nn.RMSNorm(HEAD_DIM)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def heads(self, x):
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)) for part in (self.query, self.key, self.value))
        return self.query_norm(q), self.key_norm(k), v

    def finish(self, x, attention, gate, shift, scale, second_gate):
        x = x + gate * self.out(attention)
        y = self.norm(x) * (1 + scale) + shift
        return x + second_gate * self.down(F.gelu(self.up(y), approximate="tanh"))


class JointBlock(nn.Module):
    def __init__(self, parts, merge_first):
        super().__init__()
        self.text, self.image = Stream(), Stream()
        self.parts, self.merge_first = parts, merge_first

    def forward(self, image, text, condition, cos, sin):
        streams, gates, heads = ((self.text, text), (self.image, image)), [], []
        for stream, x in streams:
            shift, scale, *rest = stream.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
            heads.append(stream.heads(stream.norm(x) * (1 + scale) + shift))
            gates.append(rest)
        q, k, v = (torch.cat(both, 1) for both in zip(*heads, strict=True))
        q, k, v = (x.transpose(1, 2) for x in (turned(q, cos, sin), turned(k, cos, sin), v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        parts = self.parts(out.flatten(2)) if self.merge_first else [part.flatten(2) for part in self.parts(out)]
        finished = [s.finish(x, a, *g) for (s, x), a, g in zip(streams, parts, gates, strict=True)]
        return finished[1], finished[0]


def inputs():
    torch.manual_seed(0)
    angles = torch.arange(TEXT + IMAGE)[:, None] * torch.logspace(0, -2, HEAD_DIM // 2)
    tables = (angles.repeat_interleave(2, 1).cos(), angles.repeat_interleave(2, 1).sin())
    return torch.randn(1, IMAGE, WIDTH), torch.randn(1, TEXT, WIDTH), torch.randn(1, WIDTH), *tables


def compiled(model, *given):
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        outputs = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(*given)
    return outputs, reports[0]


# By default one way of splitting in a whole block; all of them behind attention alone, below.
BLOCKS = [
    pytest.param(name, marks=() if name == "slices" else pytest.mark.slow) for name in PARTS if name != "of heads"
]


@pytest.mark.parametrize("merge_first", [True, False], ids=["heads merged first", "streams split first"])
@pytest.mark.parametrize("parts", BLOCKS)
def test_a_joint_block_runs_on_the_device(parts, merge_first):
    torch.manual_seed(1)
    given, block = inputs(), JointBlock(PARTS[parts], merge_first).eval()
    outputs, report = compiled(block, *given)
    assert not report.fallbacks and not report.notes
    if merge_first and parts == "slices":
        assert report.launches["ttnn.transformer.joint_scaled_dot_product_attention"] == 1
        assert (
            report.launches["ttnn.experimental.dit_fused_distributed_rmsnorm"] == 4
            and "ttnn.concat" not in report.launches
        )
    with torch.no_grad():
        for output, wanted in zip(outputs, block(*given), strict=True):
            torch.testing.assert_close(output, wanted, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("parts", PARTS)
def test_what_attention_gives_may_be_split_in_any_way(parts):
    def split(q):
        return [part + 1 for part in PARTS[parts](F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2))]

    q = torch.randn(1, HEADS, TEXT + IMAGE, HEAD_DIM)
    outputs, report = compiled(split, q)
    assert not report.fallbacks
    for output, wanted in zip(outputs, split(q), strict=True):
        torch.testing.assert_close(output, wanted, rtol=0.02, atol=0.02)
