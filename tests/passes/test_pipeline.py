"""The list of passes: what it holds, and that a whole encoder keeps its answer after each of them and without any."""

import os

import pytest
import torch
from captured import capture, random, same
from torch import nn

import tt_dynamo
from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.options import OptionError, Options
from tt_dynamo.passes import OPTIONAL, PASSES, REQUIRED, STEPS

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Encoder(nn.Module):
    """A patch embedding, a post-norm layer with a mask and a head, in which every pass finds something to do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 64, 8, 8)
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.norm, self.final = nn.LayerNorm(64), nn.LayerNorm(64)
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 64)

    def heads(self, x):
        return x.view(x.shape[0], -1, 2, 32).transpose(1, 2)

    def forward(self, image, allowed):
        x = self.patches(image).flatten(2).transpose(1, 2)
        mask = torch.where(allowed[:, None, None, :], 0.0, -3.0e38)
        scores = self.heads(self.query(x)) @ self.heads(self.key(x)).mT / 32**0.5 + mask
        y = (torch.softmax(scores, -1) @ self.heads(self.value(x))).transpose(1, 2).flatten(2)
        x = self.norm(x + self.out(y))
        return self.final(x + self.down(nn.functional.gelu(self.up(x))))


@pytest.fixture(scope="module")
def model():
    return Encoder().eval()


@pytest.fixture
def inputs():
    return random(2, 3, 24, 16), torch.arange(6)[None] < torch.tensor([[6], [4]])


def test_a_pass_is_named_after_its_file():
    assert all(transform.__module__.startswith("tt_dynamo.passes.") for transform in PASSES)


def test_every_pass_is_required_or_optional():
    names = [transform.__name__ for transform in PASSES]
    assert len(set(names)) == len(names)
    assert set(names) | {"insert_deallocations"} == set(OPTIONAL) | REQUIRED
    assert not REQUIRED.intersection(OPTIONAL)


def test_every_pass_runs_after_those_that_it_needs():
    late = [(s.run, p, why) for i, s in enumerate(STEPS) for p, why in s.after.items() if p not in PASSES[:i]]
    assert not late


def test_constants_are_folded_last():
    assert PASSES[-1].__name__ == "fold_constants"


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_passes_may_be_turned_off(name):
    assert Options.parse({"disable_passes": [name]}).disable_passes == (name,)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_required_passes_may_not_be_turned_off(name):
    with pytest.raises(OptionError, match="unknown pass"):
        Options.parse({"disable_passes": [name]})


# What finds something to do in the model below; each other pass has tests of its own.
FOUND = (
    "canonicalize", "fold_patch_embedding", "fuse_attention", "fuse_qkv", "fuse_merge_heads",
    "fuse_linear_activation", "fuse_residual_norm", "sink_rank3_reshapes", "fold_constants",
)  # fmt: skip


def test_the_graph_keeps_its_answer_after_every_pass(model, inputs):
    graph = capture(model, *inputs)
    before = graph.run()
    for transform in PASSES:
        changed = transform(graph.graph, graph.context)
        graph.graph.lint()
        same(graph.run(), before, exact=False)
        assert changed or transform.__name__ not in FOUND, f"{transform.__name__} found nothing to do"


def test_what_is_left_is_what_one_would_write_by_hand(model, inputs):
    graph = capture(model, *inputs)
    for transform in PASSES:
        transform(graph.graph, graph.context)
    fused = [n.target for n in graph.calls(*vars(operators).values())]
    assert fused.count(operators.linear) == 5 and fused.count(operators.add_layer_norm) == 2
    assert fused.count(operators.split_heads) == fused.count(operators.attention) == 1
    assert fused.count(operators.gather_patches) == fused.count(operators.attention_mask) == 1
    assert not graph.calls(aten.permute.default, aten.softmax.int, aten.convolution.default, aten.layer_norm.default)


@pytest.mark.parametrize("disabled", [(), *((name,) for name in OPTIONAL), OPTIONAL], ids=lambda names: "+".join(names))
def test_the_answer_does_not_depend_on_optional_passes(disabled, model, inputs):
    torch._dynamo.reset()
    options = {"device": BOARD, "disable_passes": list(disabled)}
    with tt_dynamo.record() as reports, torch.no_grad():
        output = torch.compile(model, backend="ttnn", dynamic=False, options=options)(*inputs)
        expected = model(*inputs)
    (report,) = reports
    if "fold_patch_embedding" not in disabled:
        assert not report.fallbacks
    # the last norm gives values of about 1, behind ten results that were rounded to 8 bits
    torch.testing.assert_close(output, expected, rtol=10 * 2.0**-8, atol=10 * 2.0**-8)
