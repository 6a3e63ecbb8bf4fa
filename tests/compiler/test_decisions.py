"""What the report says was decided: which nodes fall back and where the model has them, and what was decomposed."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.fx import Graph

import tt_dynamo
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.graph import source_line
from tt_dynamo.lowering import registry

pytestmark = pytest.mark.usefixtures("clean_dynamo")
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j1(x)


class Attention(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.proj, self.inner = nn.Linear(32, 32), inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.proj(x)[:, None]
        return self.inner(F.scaled_dot_product_attention(q, q, q)[:, 0])


def report_of(model: nn.Module, **options: Any) -> tt_dynamo.GraphReport:
    x = torch.randn(2, 32, 32)
    with tt_dynamo.record() as reports, torch.no_grad():
        ours = torch.compile(model.eval(), backend="ttnn", options={"device": BOARD, **options})(x)
        torch.testing.assert_close(ours, model(x), rtol=0.03, atol=0.03)
    return reports[0]


def test_a_fallback_names_its_module_and_the_line_of_the_model() -> None:
    report = report_of(nn.Sequential(nn.Linear(32, 32), nn.Sequential(Bessel())))
    (fallback,) = report.fallbacks
    assert fallback.module == "1.0"
    assert fallback.line.startswith("test_decisions.py:")
    assert fallback.line.endswith(" in forward: return torch.special.bessel_j1(x)")
    assert f"    {fallback.module}, {fallback.line}" in str(report)


def test_a_line_of_torch_s_own_modules_is_no_line_of_the_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.groups = nn.ConvTranspose3d(2, 2, 1, groups=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.groups(x[None, :, None])

    (fallback,) = report_of(Model()).fallbacks
    assert fallback.module == "groups"
    assert fallback.line.startswith("test_decisions.py:") and "return self.groups(x[None, :, None])" in fallback.line


def test_a_forbidden_fallback_names_them_too() -> None:
    with pytest.raises(
        BackendCompilerFailed, match=r"\(of 1\.0, test_decisions\.py:\d+ in forward: return torch\.spec"
    ):
        report_of(nn.Sequential(nn.Linear(32, 32), nn.Sequential(Bessel())), fallback="error")


TRACES = {
    'File "/models/bert.py", line 7, in forward\n    x = self.layer(x)\n': "bert.py:7 in forward: x = self.layer(x)",
    'File "/models/a.py", line 7, in f\n  File "/models/b.py", line 9, in g\n    y = x\n': "b.py:9 in g: y = x",
    f'File "/models/a.py", line 7, in f\n    y = x\n  File "{nn.__file__}", line 9, in g\n': "a.py:7 in f: y = x",
    f'File "{nn.__file__}", line 9, in forward\n    return input': "",
    'File "<string>", line 1, in <module>\n': "<string>:1 in <module>",
    "": "",
}


@pytest.mark.parametrize("text", TRACES)
def test_the_line_is_the_innermost_that_is_not_torch_s(text: str) -> None:
    node = Graph().placeholder("x")
    assert source_line(node) == ""
    node.meta["stack_trace"] = text
    assert source_line(node) == TRACES[text]


def test_a_fused_operation_that_is_refused_is_decomposed_and_the_report_says_so(monkeypatch: Any) -> None:
    def refuse(ttnn: Any, *args: Any, **kwargs: Any) -> Any:
        raise Refused("ttnn.attention: no heads of 32")

    found = registry.find(operators.attention)
    assert found is not None
    monkeypatch.setitem(registry._lowerings, operators.attention, dataclasses.replace(found, function=refuse))
    report = report_of(nn.Sequential(Attention(nn.ReLU()), Attention(nn.ReLU())))
    assert [(each.module, each.reason) for each in report.decomposed] == [
        ("0", "ttnn.attention: no heads of 32"),
        ("1", "ttnn.attention: no heads of 32"),
    ]
    (target,) = {each.target for each in report.decomposed}
    assert f"decomposed        2 of {target}: ttnn.attention: no heads of 32" in str(report)
    facts = report.to_dict()["decomposed"]
    assert isinstance(facts, list) and facts[1]["module"] == "1"
    assert not report.fallbacks


def test_the_parts_of_a_decomposed_operation_come_from_its_line(monkeypatch: Any) -> None:
    def refuse(ttnn: Any, *args: Any, **kwargs: Any) -> Any:
        raise Refused("no")

    for target in (operators.rms_norm, torch.ops.aten.rsqrt.default):
        monkeypatch.setitem(registry._lowerings, target, registry.Lowering(refuse, {}, "TILE"))
    report = report_of(nn.Sequential(nn.Linear(32, 32), nn.RMSNorm(32)))
    assert {each.module for each in report.fallbacks} == {each.module for each in report.decomposed} == {"1"}


def test_nothing_decomposed_prints_nothing() -> None:
    report = report_of(nn.Linear(32, 32))
    assert not report.decomposed and "decomposed" not in str(report)
