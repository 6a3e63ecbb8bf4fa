"""The option `outputs`: results stay on the device, another model takes them there, and torch reads them as any."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_close
from small_models import Feedforward

import tt_dynamo
from tt_dynamo.options import OptionError
from tt_dynamo.runtime.caches import DeviceTensor

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def compiled(model: Any, **options: Any) -> Any:
    return torch.compile(model, backend="ttnn", options={"outputs": "device", **options})


@torch.no_grad()
def test_a_pipeline_of_two_models_crosses_nothing_between_them(uploads: Any, downloads: Any) -> None:
    first, second, x = Feedforward(), torch.nn.Linear(32, 16), torch.randn(4, 32)
    with tt_dynamo.record() as reports:
        models = [compiled(first), compiled(second)]
        models[1](models[0](x))
        uploads.clear()
        result = models[1](models[0](x))
    assert uploads == [(4, 32)] and downloads == []
    assert [transfer.direction for report in reports for transfer in report.transfers] == ["to_device"]
    assert_close(result, second(first(x)))
    result.sum()
    assert downloads == [(4, 16)]


USES: dict[str, Callable[[torch.Tensor], Any]] = {
    "a view": lambda x: x[1:],
    "a write": lambda x: x.add_(1),
    "a write through a view": lambda x: x[0].zero_() * 1 + x,
    "a copy": copy.deepcopy,
    "a file": lambda x: pickle.loads(pickle.dumps(x)),
    "a detached one": lambda x: x.detach(),
    "its transpose": lambda x: x.t().contiguous(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@torch.no_grad()
def test_torch_and_another_model_see_eager_s_values(use: Callable[[torch.Tensor], Any]) -> None:
    first, second, x = Feedforward(), torch.nn.Tanh(), torch.randn(4, 32)
    ours, theirs = compiled(first)(x), first(x)
    assert type(ours) is DeviceTensor
    after, eager = use(ours), use(theirs)
    assert_close(compiled(second)(after), second(eager))
    assert_close(compiled(second)(ours), second(theirs))
    assert_close(ours, theirs)


@torch.no_grad()
def test_results_share_memory_and_have_strides_as_in_eager_torch() -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = F.gelu(x)
        return y, y[0], y.t(), (y * 2).t(), F.relu(y).expand(2, 4, 64)

    x = torch.randn(4, 64)
    ours, theirs = compiled(model)(x), model(x)
    for result, expected in zip(ours, theirs, strict=True):
        assert_close(result, expected)
        assert result.stride() == expected.stride()
    ours[0].zero_()
    assert not ours[1].any() and not ours[2].any() and ours[3].any()


@torch.no_grad()
def test_a_copy_on_the_device_is_no_alias_of_what_a_later_call_writes() -> None:
    def copies(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return cache.clone(), cache * 2  # which has it on the device

    def write(cache: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        cache.index_copy_(2, position, row)
        return row * 2

    def make(x: torch.Tensor) -> torch.Tensor:
        return x.relu()

    cache = compiled(make)(torch.randn(1, 2, 32, 32))
    copied, before = compiled(copies)(cache)[0], cache.clone()
    compiled(write)(cache, torch.full((1, 2, 1, 32), 7.0), torch.tensor([3]))
    assert type(copied) is DeviceTensor
    assert_close(copied, before)
    assert cache[0, 0, 3, 0] == 7


@torch.no_grad()
def test_shapes_that_vary_stay_on_the_device_too(downloads: Any) -> None:
    first, second = Feedforward(), torch.nn.Linear(32, 16)
    models = [compiled(first), compiled(second)]
    for rows in (4, 40, 7):
        x = torch.randn(rows, 32)
        result = models[1](models[0](x))
        assert not downloads
        assert_close(result, second(first(x)))
        downloads.clear()


def test_gradients_come_down_as_ever() -> None:
    model, x = Feedforward(), torch.randn(4, 32)
    eager = copy.deepcopy(model)
    result = compiled(model)(x)
    assert type(result) is torch.Tensor
    result.sum().backward()
    eager(x).sum().backward()
    assert_close(model.norm.weight.grad, eager.norm.weight.grad)


@torch.no_grad()
def test_memory_of_results_comes_back(ttnn: Any, board_device: Any) -> None:
    def allocated() -> int:
        gc.collect()
        view = ttnn.get_memory_view(board_device.handle, ttnn.BufferType.DRAM)
        return view.num_banks * view.total_bytes_allocated_per_bank

    model, x = compiled(torch.nn.Tanh()), torch.randn(64, 64)
    model(x)
    before = allocated()
    held = [model(x) for _ in range(5)]
    assert allocated() > before
    del held
    assert allocated() == before
    for _ in range(50):
        model(x)
    assert allocated() == before


@torch.no_grad()
def test_a_fault_of_the_device_gives_eager_s_answer(board_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Feedforward(), torch.randn(4, 32)
    ours = compiled(model)
    ours(x)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(board_device.namespace(), "layer_norm", fail)
        assert_close(ours(x), model(x))
    assert_close(ours(x), model(x))


def test_another_value_is_refused() -> None:
    with pytest.raises(OptionError, match="outputs"):
        tt_dynamo.options.Options.parse({"outputs": "devcie"})
