"""Parameters that are tensor subclasses, as quantized weights are: weights like all others, made whole once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import assert_same, check
from torch.utils._pytree import tree_map

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


class Quantized(torch.Tensor):
    """A matrix as int8 with one scale a row; every operation reads it as floats."""

    data8: torch.Tensor
    scale: torch.Tensor

    @staticmethod
    def __new__(cls, data8: torch.Tensor, scale: torch.Tensor) -> Quantized:
        made = torch.Tensor._make_wrapper_subclass(cls, data8.shape, dtype=scale.dtype)  # type: ignore[attr-defined]
        made.data8, made.scale = data8, scale
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["data8", "scale"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> Quantized:
        return Quantized(inner["data8"], inner["scale"])

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Quantized{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return Quantized(func(args[0].data8), func(args[0].scale))
        args, kwargs = tree_map(
            lambda x: x.data8.to(x.dtype) * x.scale if isinstance(x, Quantized) else x, (args, kwargs or {})
        )
        return func(*args, **kwargs)


def quantize(layer: torch.nn.Linear) -> None:
    weight = layer.weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 127
    quantized = Quantized((weight / scale).round().to(torch.int8), scale)
    layer.weight = torch.nn.Parameter(quantized, requires_grad=False)


@pytest.fixture
def model() -> torch.nn.Sequential:
    """Of its two linear layers, the first is quantized."""
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
    quantize(model[0])
    return model


def test_only_the_input_goes_up_at_each_call(model: torch.nn.Sequential, uploads: list) -> None:
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad(), tt_dynamo.record() as reports:
        compiled(x)
        uploads.clear()
        assert_same(compiled(x), model(x))
    (report,) = reports
    assert uploads == [(4, 32)]
    assert [transfer.direction for transfer in report.transfers] == ["to_device", "to_host"]
    assert report.weight_bytes == 2 * (2 * 32 * 64 + 32 + 64)
    assert not report.fallbacks and report.host_nodes == 0


def test_its_weight_has_the_name_and_the_dtype_of_the_parameter(model: torch.nn.Sequential) -> None:
    compiled = torch.compile(model, backend="ttnn", options={"weight_dtype": {"0.weight": "bfloat8_b"}})
    x = torch.randn(4, 32)
    with torch.no_grad(), tt_dynamo.record() as reports:
        assert_same(compiled(x), model(x))
    (report,) = reports
    assert report.weight_dtypes["bfloat8_b"] == 64 * 32 * 8.5 / 8
    assert "0_weight" in report.code and "2_weight" in report.code


@pytest.mark.parametrize("inner", ["data8", "scale"])
def test_a_write_into_either_of_its_tensors_is_seen(model: torch.nn.Sequential, uploads: list, inner: str) -> None:
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad():
        before = compiled(x)
        getattr(model[0].weight, inner).neg_()
        assert not torch.equal(model(x), before)
        uploads.clear()
        assert_same(compiled(x), model(x))
    assert sorted(uploads) == [(4, 32), (32, 64)]


def test_a_write_through_data_into_its_tensors_is_seen_and_a_refresh_reaches_them(model: torch.nn.Sequential) -> None:
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad():
        compiled(x)
        model[0].weight.data8.data.neg_()
        assert_same(compiled(x), model(x))
        model[0].weight.data8.data[2].zero_()
        assert tt_dynamo.refresh(model) == 4
        assert_same(compiled(x), model(x))


def test_two_graphs_share_its_weight(model: torch.nn.Sequential, uploads: list) -> None:
    compiled = torch.compile(model, backend="ttnn", dynamic=False)
    with torch.no_grad():
        compiled(torch.randn(4, 32))
        uploads.clear()
        compiled(torch.randn(8, 32))
    assert uploads == [(8, 32)]


def test_training_beside_it_gives_eager_s_gradients(model: torch.nn.Sequential) -> None:
    check(model, lambda: [torch.randn(4, 32, requires_grad=True)], calls=2, backward=True)
