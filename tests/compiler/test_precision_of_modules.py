"""The options fp32_accumulation, by module, and gelu: what reaches the calls of a program."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import pcc
from torch import nn

import tt_dynamo
from tt_dynamo.options import OptionError, Options

pytestmark = pytest.mark.usefixtures("clean_dynamo")
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Attention(nn.Module):
    """One head. x [batch, rows, 64] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.q_proj(x)[:, None]
        return self.o_proj(F.scaled_dot_product_attention(heads, heads, heads)[:, 0])


class Layer(nn.Module):
    """x [batch, rows, 64] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.self_attn(x))


def compiled(**options: Any) -> tuple[torch.Tensor, torch.Tensor, tt_dynamo.GraphReport]:
    """What the layer gives on the device and in eager torch, and the report."""
    torch.manual_seed(0)
    layer, x = Layer().eval(), torch.randn(2, 40, 64)
    with torch.no_grad(), tt_dynamo.record() as reports:
        ours = torch.compile(layer, backend="ttnn", options={"device": BOARD, **options})(x)
        expected = layer(x)
    (report,) = reports
    assert not report.fallbacks
    return ours, expected, report


def accumulation(report: tt_dynamo.GraphReport) -> dict[str, bool]:
    """Whether the products of each module accumulate in float32."""
    found = {}
    configs = dict(re.findall(r"^(\w+) = .*fp32_dest_acc_en=(True|False)", report.code, re.MULTILINE))
    for operation in report.operations:
        if operation.target.endswith(("linear", "attention")):
            (line,) = re.findall(rf"^    {operation.name} = (ttnn.*)$", report.code, re.MULTILINE)
            used = re.search(r"compute_kernel_config=(\w+)", line)
            found[operation.module] = configs[used[1]] == "True" if used else True
    return found


def test_modules_accumulate_as_the_first_pattern_that_fits_says() -> None:
    report = compiled(fp32_accumulation={"*.o_proj": False, "*self_attn*": True, "mlp.0": False, "*": True})[2]
    assert accumulation(report) == {
        "self_attn.q_proj": True, "self_attn": True, "self_attn.o_proj": False, "mlp.2": True,
        "mlp.1": False,  # the activation, in the linear of mlp.0
    }  # fmt: skip


def test_what_fits_no_pattern_accumulates_in_float32() -> None:
    assert set(accumulation(compiled(fp32_accumulation={"nowhere": False})[2]).values()) == {True}
    assert set(accumulation(compiled(fp32_accumulation=False)[2]).values()) == {False}


def test_accumulation_by_module_gives_values_between_those_of_all_and_of_none() -> None:
    every, expected, _ = compiled(fp32_accumulation=True)
    some, _, _ = compiled(fp32_accumulation={"*self_attn*": True, "*": False})
    none, _, _ = compiled(fp32_accumulation=False)
    assert not torch.equal(some, every) and not torch.equal(some, none)
    assert all(pcc(found, expected) > 0.999 for found in (every, some, none))


def test_gelu_from_the_table_is_nearly_exact_gelu() -> None:
    exact, expected, _ = compiled()
    table, _, report = compiled(gelu="FastLut")
    assert "ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 1.0)" in report.code
    assert 0.99 < pcc(table, expected) < pcc(exact, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fp32_accumulation": {"*": "yes"}}, "'fp32_accumulation' is True or False, or a mapping"),
        ({"fp32_accumulation": {3: True}}, "maps name patterns to True or False; 3 is no pattern"),
        ({"gelu": "fast"}, "unknown gelu 'fast'; .*'FastLut'"),
        ({"activation_dtype": "bfloat8"}, "unknown activation_dtype 'bfloat8'; did you mean"),
        ({"activation_dtype": "bfloat4_b"}, "unknown activation_dtype 'bfloat4_b'"),
    ],
)
def test_bad_values_raise_with_what_is_valid(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options.parse(given)
