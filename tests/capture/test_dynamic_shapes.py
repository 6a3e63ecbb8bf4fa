"""Sizes that change between calls: one compilation for each set of sizes, whichever way Dynamo is told of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import assert_same, check
from small_models import Attention, Feedforward

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def tokens(batch: int, seq: int) -> tuple[torch.Tensor, torch.Tensor]:
    keep = torch.ones(batch, seq, dtype=torch.bool)
    keep[0, seq // 2 :] = False
    return torch.randint(0, 10, (batch, seq)), keep


@pytest.mark.parametrize("dynamic", [True, None, False], ids=["dynamic", "automatic", "static"])
def test_each_batch_size_is_compiled_once_and_right(dynamic: bool | None) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", dynamic=dynamic)
    with torch.no_grad(), tt_dynamo.record() as reports:
        for batch in (3, 2, 1, 8, 3, 2, 1, 8):
            x = torch.randn(batch, 32)
            assert_same(compiled(x), model(x))
    # With automatic dynamic shapes the first size is compiled by itself, and met again by the graph that has symbols.
    assert len(reports) == (5 if dynamic is None else 4)


def test_marked_batches_of_one_to_eight_give_eight_right_answers_each_compiled_once() -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", options={"warn_after_shapes": 8})
    with torch.no_grad(), tt_dynamo.record() as reports:
        for _ in range(2):
            for batch in range(8, 0, -1):
                x = torch.randn(batch, 32)
                if batch > 1:  # a size of one is never symbolic
                    torch._dynamo.mark_dynamic(x, 0)
                assert_same(compiled(x), model(x))
    assert len(reports) == 8


def test_batch_and_sequence_length_change_together() -> None:
    model = Attention()
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options={"warn_after_shapes": 4})
    with torch.no_grad(), tt_dynamo.record() as reports:
        for sizes in [(2, 8), (4, 8), (2, 33), (2, 8)]:
            inputs = tokens(*sizes)
            assert_same(compiled(*inputs), model(*inputs))
    assert len(reports) == 3


def test_gradients_of_every_size() -> None:
    model = Feedforward()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn", dynamic=True)
    with tt_dynamo.record() as reports:
        for batch in (4, 6, 4, 6):
            x = torch.randn(batch, 32)
            for candidate, call in ((model, compiled), (eager, eager)):
                candidate.zero_grad()
                (call(x) * torch.arange(32.0)).sum().backward()
            assert_same([p.grad for p in model.parameters()], [p.grad for p in eager.parameters()])
    assert len(reports) == 4, "a forward and a backward graph of each size"


def test_the_threshold_of_the_warning_is_an_option(warnings_logged: Any) -> None:
    for threshold in (1, 3):
        torch._dynamo.reset()
        compiled = torch.compile(torch.relu, backend="ttnn", dynamic=True, options={"warn_after_shapes": threshold})
        for rows in range(2, 2 + threshold):
            compiled(torch.randn(rows, 32))
        assert not warnings_logged()
        compiled(torch.randn(9, 32))
        (warning,) = warnings_logged()
        assert f"set of shapes number {threshold + 1}" in warning


# --- sizes and numbers that depend on values -----------------------------------------------------------------------


def scale_by_a_sum(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) * x.sum().item()


def make_as_many(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count = int(x[0].sum().item())
    torch._check(count >= 0)
    return torch.zeros(count) + 1, torch.relu(x)


def choose(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.nonzero(), torch.relu(x)[x > 0] * 2


CAPTURED = {"capture_scalar_outputs": True, "capture_dynamic_output_shape_ops": True}


@pytest.mark.parametrize("dynamic", [True, None, False], ids=["dynamic", "automatic", "static"])
@pytest.mark.parametrize("model", [scale_by_a_sum, make_as_many, choose])
def test_what_depends_on_values_is_eager_s(model: Callable[..., Any], dynamic: bool | None) -> None:
    with torch._dynamo.config.patch(CAPTURED):
        compiled = torch.compile(model, backend="ttnn", dynamic=dynamic, fullgraph=True)
        for rows in (4, 5, 4):
            x = torch.ones(rows, 8)
            x[1:, ::2] = 0
            assert_same(compiled(x), model(x))


def test_a_graph_with_sizes_that_depend_on_values_is_reported() -> None:
    with torch._dynamo.config.patch(CAPTURED), tt_dynamo.record() as reports:
        torch.compile(choose, backend="ttnn", dynamic=False)(torch.ones(4, 8))
    (report,) = reports
    assert report.nodes == report.host_nodes > 0
    assert any("nonzero" in fallback.node for fallback in report.fallbacks)
    assert all("depends on values" in fallback.reason for fallback in report.fallbacks)


def test_a_number_that_depends_on_values_leaves_the_rest_on_the_device() -> None:
    with torch._dynamo.config.patch(CAPTURED), tt_dynamo.record() as reports:
        torch.compile(scale_by_a_sum, backend="ttnn", dynamic=True)(torch.ones(4, 8))
    assert reports[0].device_nodes > 0


def scaled_by_a_count(x: torch.Tensor) -> torch.Tensor:
    count = (x > 0).sum().item()
    torch._check(count >= 0)
    return torch.relu(x) * (count + 1)


def returned_with_a_count(x: torch.Tensor) -> tuple[torch.Tensor, Any]:
    count = (x > 0).sum().item()
    torch._check(count >= 0)
    return x @ x + count, count


@pytest.mark.parametrize("model", [scaled_by_a_count, returned_with_a_count])
@pytest.mark.parametrize("dynamic", [None, True], ids=["static", "dynamic"])
def test_what_reads_a_number_of_the_run_is_eager_s_and_the_rest_is_not(model, dynamic: bool | None) -> None:
    with torch._dynamo.config.patch(CAPTURED):
        (report,) = check(model, lambda: (torch.randn(8, 8),), dynamic=dynamic)
    assert any("reads a number that only a run knows" in fallback.reason for fallback in report.fallbacks)
    assert report.device_nodes


def test_forbidden_fallback_names_the_size_that_depends_on_values() -> None:
    with torch._dynamo.config.patch(CAPTURED), pytest.raises(Exception, match="nonzero.*depends on values.*error"):
        torch.compile(choose, backend="ttnn", dynamic=False, options={"fallback": "error"})(torch.ones(4, 8))
