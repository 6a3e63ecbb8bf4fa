"""Weights that change between calls: the next call computes with what they are now.

One way is out of reach and documented: writing a few elements through `.data` or NumPy, which torch itself cannot see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import assert_same, relative_error
from small_models import Feedforward

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def randomized(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.randn_like(value) * 0.2 for name, value in model.state_dict().items()}


@torch.no_grad()
def load(model: Feedforward) -> None:
    model.load_state_dict(randomized(model))


@torch.no_grad()
def assign(model: Feedforward) -> None:
    model.load_state_dict(randomized(model), assign=True)


@torch.no_grad()
def scale_in_place(model: Feedforward) -> None:
    for parameter in model.parameters():
        parameter.mul_(1.7)


@torch.no_grad()
def write_one_row(model: Feedforward) -> None:
    model.up.weight[3] = 2


def replace_parameter(model: Feedforward) -> None:
    model.up.weight = torch.nn.Parameter(torch.randn(64, 32))


def replace_module(model: Feedforward) -> None:
    model.down = torch.nn.Linear(64, 32)


def swap_data(model: Feedforward) -> None:
    model.up.weight.data = torch.randn(64, 32)


def reset(model: Feedforward) -> None:
    torch.nn.init.normal_(model.down.weight)


def to_half_and_back(model: Feedforward) -> None:
    model.half()
    scale_in_place(model)
    model.float()


def from_vector(model: Feedforward) -> None:
    count = sum(parameter.numel() for parameter in model.parameters())
    torch.nn.utils.vector_to_parameters(torch.randn(count) * 0.3, model.parameters())


def step(optimizer: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[[Feedforward], None]:
    def update(model: Feedforward) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer(model.parameters(), lr=0.3, **options).step()

    return update


class WritesThroughData(torch.optim.Optimizer):
    """As optimizers were written for years."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad, alpha=-group["lr"])


def add_to_data(model: Feedforward) -> None:
    model.up.weight.data += 0.5


def copy_to_data(model: Feedforward) -> None:
    model.down.weight.data.copy_(torch.randn(32, 64))


def average_data(model: Feedforward) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.1).add_(torch.randn_like(parameter), alpha=0.9)


def write_by_numpy(model: Feedforward) -> None:
    model.up.weight.detach().numpy()[:] = 2 * torch.randn(64, 32).numpy()


def prune(model: Feedforward) -> None:
    model.up.weight.data[torch.rand(64, 32) < 0.5] = 0


def write_a_bias(model: Feedforward) -> None:
    model.norm.bias.data[-1] = 7


@torch.inference_mode()
def in_inference_mode(model: Feedforward) -> None:
    for parameter in model.parameters():
        parameter.mul_(1.3)


UPDATES = {
    "load_state_dict": load,
    "load_state_dict that assigns": assign,
    "in place": scale_in_place,
    "one row": write_one_row,
    "a new parameter": replace_parameter,
    "a new module": replace_module,
    "other memory": swap_data,
    "initialization": reset,
    "half and back": to_half_and_back,
    "one vector": from_vector,
    "adding through .data": add_to_data,
    "copying through .data": copy_to_data,
    "averaging through .data": average_data,
    "NumPy": write_by_numpy,
    "pruning": prune,
    "one element of a bias": write_a_bias,
    "in inference mode": in_inference_mode,
    "SGD": step(torch.optim.SGD),
    "Adam, foreach": step(torch.optim.Adam, foreach=True),
    "Adam, fused": step(torch.optim.Adam, fused=True),
    "an optimizer that writes through .data": step(WritesThroughData),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_the_next_call_sees(update: Callable[[Feedforward], None], uploads: list) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad():
        before = compiled(x)
        update(model)
        assert relative_error(before, model(x)) > 0.1, "an update that shows"
        assert_same(compiled(x), model(x))
        uploads.clear()
        assert_same(compiled(x), model(x))
    assert uploads == [(4, 32)]


@pytest.mark.parametrize("write", [write_one_row, lambda model: model.up.weight.mul_(2), swap_data])
def test_only_what_changed_goes_up(write: Callable[[Feedforward], None], uploads: list) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad():
        compiled(x)
        write(model)
        uploads.clear()
        assert_same(compiled(x), model(x))
    assert sorted(uploads) == [(4, 32), (32, 64)]


def test_every_graph_of_a_model_sees() -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", dynamic=False)
    inputs = [torch.randn(rows, 32) for rows in (4, 8)]
    with torch.no_grad():
        for update in (load, scale_in_place, load):
            for x in inputs:
                assert_same(compiled(x), model(x))
            update(model)
        for x in reversed(inputs):
            assert_same(compiled(x), model(x))


def test_a_model_made_in_inference_mode_has_no_counters_and_is_compared_by_content() -> None:
    with torch.inference_mode():
        model = Feedforward()
        compiled = torch.compile(model, backend="ttnn")
        x = torch.randn(4, 32)
        assert_same(compiled(x), model(x))
        model.up.weight.add_(1)
        assert_same(compiled(x), model(x))
        model.up.weight.data.add_(1)
        assert_same(compiled(x), model(x))


def test_a_parameter_moved_into_inference_mode() -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.inference_mode():
        assert_same(compiled(x), model(x))
        model.up.weight = torch.nn.Parameter(torch.randn(64, 32), requires_grad=False)
        for _ in range(2):
            assert_same(compiled(x), model(x))
            model.up.weight.mul_(1.5)
    with torch.no_grad():
        assert_same(compiled(x), model(x))


def test_tied_weights_change_together() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(32, 64)
            self.head = torch.nn.Linear(64, 32, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.embedding(ids)))

    model = Tied()
    compiled = torch.compile(model, backend="ttnn")
    ids = torch.arange(8)[None]
    with torch.no_grad():
        for _ in range(3):
            assert_same(compiled(ids), model(ids))
            model.embedding.weight.mul_(-1.2)


def test_a_buffer_set_from_outside() -> None:
    model = torch.nn.BatchNorm1d(32).eval()
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad():
        for mean in (0.0, 2.0, -1.0):
            model.running_mean.fill_(mean)  # type: ignore[union-attr]
            assert_same(compiled(x), model(x))


def test_a_few_elements_written_through_data_are_seen_after_a_refresh(uploads: list) -> None:
    """The documented limit: the write advances no counter and misses what each call compares."""
    model, other = Feedforward(), torch.nn.Linear(32, 32)
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad():
        before = compiled(x)
        torch.compile(other, backend="ttnn")(x)
        model.up.weight.data[2, :] = 9
        assert torch.equal(compiled(x), before)
        assert tt_dynamo.refresh(model) == 6
        uploads.clear()
        assert_same(compiled(x), model(x))
        assert sorted(uploads) == [(4, 32), (32,), (32,), (32,), (32, 64), (64,), (64, 32)]
        uploads.clear()
        assert_same(compiled(x), model(x))
    assert uploads == [(4, 32)]


def test_a_refresh_reaches_every_graph_and_the_weights_that_the_host_reads() -> None:
    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(32, 32)
            self.register_buffer("rows", torch.arange(256))
            self.rows: torch.Tensor

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.linear(x), self.rows * 2

    model = Positions()
    compiled = torch.compile(model, backend="ttnn", dynamic=False)
    with torch.no_grad():
        for rows in (4, 8):
            compiled(torch.randn(rows, 32))
        model.linear.weight.data[2] = 9
        model.rows.data[40] = 9
        assert tt_dynamo.refresh(compiled) == 2
        for rows in (4, 8):
            x = torch.randn(rows, 32)
            assert_same(compiled(x), model(x))


def test_a_refresh_of_what_was_never_compiled_finds_nothing() -> None:
    assert tt_dynamo.refresh(Feedforward()) == 0
