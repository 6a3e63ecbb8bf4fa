"""A pass that raises costs its own rewrites, never the compilation and never the answer."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tt_dynamo
import tt_dynamo.compiler.compile
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.passes import NEEDED_FOR_VALUES, PASSES

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Model(nn.Module):
    """Attention, a convolution, a gather, a cache's index and reductions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 32, 4, 4)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.norm, self.down = nn.LayerNorm(32), nn.Linear(32, 8)

    def forward(self, image, rows):
        x = self.convolution(image).flatten(2).transpose(1, 2)
        q, k, v = (part(x).view(1, 16, 1, 32).transpose(1, 2) for part in (self.query, self.key, self.value))
        x = self.norm(x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = F.gelu(self.down(x))[:, rows].tril()
        return x, (x > 0).sum(-1), torch.stack((x, x * rows[:, None]))


def run(**options):
    torch._dynamo.reset()
    model, inputs = Model().eval(), (torch.randn(1, 3, 16, 16), torch.tensor([3, 1, 2]))
    with tt_dynamo.record() as reports, torch.no_grad():
        outputs = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD, **options})(*inputs)
        expected = model(*inputs)
    for output, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, wanted, rtol=0.02, atol=0.02)
    return reports[0]


def raising(name):
    """The passes, of which one raises after it changed the graph."""

    def wrapped(transform):
        def fail(graph, context):
            transform(graph, context)
            raise AttributeError("list has no shape")

        fail.__name__, fail.__module__ = transform.__name__, transform.__module__
        return fail

    return tuple(wrapped(transform) if transform.__name__ == name else transform for transform in PASSES)


# By default those that values need and every third other.
NAMES = [transform.__name__ for transform in PASSES]
USUAL = NEEDED_FOR_VALUES | set(NAMES[::3])
ROWS = [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", ROWS)
def test_a_pass_that_raises_is_left_out_and_named(name, monkeypatch, passes_that_raised):
    monkeypatch.setattr(tt_dynamo.compiler.compile, "PASSES", raising(name))
    report = run()
    (note,) = report.notes
    assert note == f"the pass {name} was left out: it raised AttributeError: list has no shape"
    (logged,) = passes_that_raised
    assert f"the pass {name} raised" in logged and "Traceback" in logged
    passes_that_raised.clear()
    assert (report.device_nodes == 0) == (name in NEEDED_FOR_VALUES)


def test_what_one_leaves_half_done_is_undone(monkeypatch, passes_that_raised):
    expected = run(disable_passes=["fuse_attention"]).code
    monkeypatch.setattr(tt_dynamo.compiler.compile, "PASSES", raising("fuse_attention"))
    assert run().code == expected
    passes_that_raised.clear()


def test_a_graph_that_may_not_fall_back_needs_the_passes_for_right_values(monkeypatch, passes_that_raised):
    monkeypatch.setattr(tt_dynamo.compiler.compile, "PASSES", raising("keep_strides"))
    with pytest.raises(Exception, match="the pass keep_strides, without which") as error:
        run(fallback="error")
    assert isinstance(error.value, FallbackError) or isinstance(error.value.inner_exception, FallbackError)
    passes_that_raised.clear()
