"""What torch takes apart as it traces arrives whole in graphs without gradients, and only there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random
from comparison import check

from tt_dynamo.capture.keep_whole import WHOLE

aten = torch.ops.aten
IMAGE = random(1, 3, 8, 8)
ROWS = random(2, 4, 6)
CALLS = {
    aten.linear.default: (lambda x: F.linear(x, torch.ones(5, 6)), ROWS),
    aten.matmul.default: (lambda x: x @ x.mT, ROWS),
    aten.scaled_dot_product_attention.default: (lambda x: F.scaled_dot_product_attention(x, x, x), ROWS[None]),
    aten.layer_norm.default: (lambda x: F.layer_norm(x, [6]), ROWS),
    aten.group_norm.default: (lambda x: F.group_norm(x, 2), ROWS),
    aten.softmax.int: (lambda x: torch.softmax(x, -1), ROWS),
    aten.log_softmax.int: (lambda x: torch.log_softmax(x, -1), ROWS),
    aten.upsample_nearest1d.vec: (lambda x: F.interpolate(x, scale_factor=2), ROWS),
    aten.upsample_nearest2d.vec: (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    aten.upsample_nearest3d.vec: (lambda x: F.interpolate(x, scale_factor=2), IMAGE[None]),
    aten._upsample_nearest_exact1d.vec: (lambda x: F.interpolate(x, 9, mode="nearest-exact"), ROWS),
    aten._upsample_nearest_exact2d.vec: (lambda x: F.interpolate(x, 9, mode="nearest-exact"), IMAGE),
    aten._upsample_nearest_exact3d.vec: (lambda x: F.interpolate(x, 9, mode="nearest-exact"), IMAGE[None]),
    aten.upsample_linear1d.vec: (lambda x: F.interpolate(x, 9, mode="linear"), ROWS),
    aten.upsample_bilinear2d.vec: (lambda x: F.interpolate(x, 9, mode="bilinear"), IMAGE),
    aten.upsample_bicubic2d.vec: (lambda x: F.interpolate(x, 9, mode="bicubic"), IMAGE),
    aten.upsample_trilinear3d.vec: (lambda x: F.interpolate(x, 9, mode="trilinear"), IMAGE[None]),
}


def test_every_operation_has_a_call() -> None:
    assert CALLS.keys() == set(WHOLE)


@pytest.mark.parametrize("target", WHOLE, ids=str)
def test_the_operation_arrives_whole(target: object) -> None:
    function, x = CALLS[target]
    assert len(capture(function, x).calls(target)) == 1


@pytest.mark.parametrize("target", WHOLE, ids=str)
def test_torch_takes_it_apart_as_before_afterwards(target: object) -> None:
    function, x = CALLS[target]
    capture(function, x)
    made = torch.fx.experimental.proxy_tensor.make_fx(function)(x)
    assert target not in {node.target for node in made.graph.nodes}
    torch.testing.assert_close(made(x), function(x))


@pytest.mark.usefixtures("clean_dynamo", "board_device")
def test_a_graph_with_gradients_trains() -> None:
    x = random(1, 3, 8, 8).requires_grad_()
    compiled = torch.compile(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear").sum(), backend="ttnn")
    compiled(x).backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 4.0), rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("clean_dynamo", "board_device")
def test_attention_that_ttnn_refuses_is_computed_by_parts_on_the_device() -> None:
    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    wide = lambda: (random(1, 2, 32, 64), random(1, 2, 32, 64), random(1, 2, 32, 96))  # noqa: E731
    (report,) = check(model, wide)
    assert not report.fallbacks and report.device_programs > 1
