"""Calls of TTNN as programs make them: real tensors of the board, costed while a model is compiled."""

import time

import pytest
import torch
from compiled import BOARD, compiled
from small_models import Attention, Feedforward

from tt_dynamo.estimate.calls import estimate_call
from tt_dynamo.estimate.chip import chip_of
from tt_dynamo.estimate.tensor import Tensor, describe


@pytest.fixture(scope="module")
def make(ttnn, device):
    def make(*shape, dtype="bfloat16", layout="TILE"):
        where = {"layout": getattr(ttnn, f"{layout}_LAYOUT"), "device": device.handle}
        return ttnn.empty(shape, dtype=getattr(ttnn, dtype), **where)

    return make


def test_a_tensor_of_ttnn_is_described_as_it_lies(make):
    assert describe(make(2, 33, 64, dtype="bfloat8_b")) == Tensor((2, 33, 64), "bfloat8_b")


def test_a_sharded_tensor_is_described_with_its_cores(ttnn, make):
    grid = ttnn.CoreGrid(x=4, y=2)
    order = ttnn.ShardOrientation.ROW_MAJOR
    config = ttnn.create_sharded_memory_config((64, 128), grid, ttnn.ShardStrategy.BLOCK, order)
    found = describe(ttnn.to_memory_config(make(64, 128), config))
    assert (found.memory, found.sharding, found.cores) == ("L1", "BLOCK_SHARDED", 8)


def test_a_linear_reads_its_precision_and_grid(ttnn, make):
    x, weight = make(512, 1024), make(1024, 1024)
    chip = chip_of(BOARD)

    def cost(fidelity):
        config = ttnn.WormholeComputeKernelConfig(math_fidelity=getattr(ttnn.MathFidelity, fidelity))
        given = {"core_grid": ttnn.CoreGrid(x=8, y=8), "compute_kernel_config": config}
        return estimate_call("ttnn.linear", (x, weight), given, ttnn.linear(x, weight, **given), chip)

    assert cost("HiFi4").seconds > cost("LoFi").seconds
    assert cost("HiFi4").family == "2D product" and cost("HiFi4").bound == "compute"


def test_a_gelu_from_the_table_costs_less_than_the_accurate_one(ttnn, make):
    x, weight = make(512, 1024), make(1024, 1024)

    def seconds(**fused):
        given = {"core_grid": ttnn.CoreGrid(x=8, y=8), **fused}
        return estimate_call("ttnn.linear", (x, weight), given, ttnn.linear(x, weight, **given), chip_of(BOARD)).seconds

    accurate, table = (ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, number) for number in (0.0, 1.0))
    assert seconds() < seconds(activation=table) < seconds(activation=accurate)


def test_a_view_costs_nothing(ttnn, make):
    x = make(4, 32, 64)
    view = ttnn.reshape(x, (128, 64))
    assert estimate_call("ttnn.reshape", (x, (128, 64)), {}, view, chip_of(BOARD)).seconds == 0.0


def test_an_unknown_operation_and_strange_arguments_never_raise(make, caplog):
    chip, x = chip_of(BOARD), make(32, 32)
    assert estimate_call("ttnn.no_such_operation", (x,), {"dim": object()}, x, chip).bound == "unknown"
    assert estimate_call("ttnn.linear", (x,), {}, x, chip).bound == "unknown"  # one operand is missing
    assert estimate_call("ttnn.add", (), {}, None, chip).seconds == 0.0
    assert "ttnn.linear could not be estimated" in caplog.text


def test_costing_a_call_takes_little_time(ttnn, make):
    x, weight = make(512, 1024), make(1024, 1024)
    given = {"core_grid": ttnn.CoreGrid(x=8, y=8)}
    result, chip = ttnn.linear(x, weight, **given), chip_of(BOARD)
    started = time.process_time()
    for _ in range(200):
        estimate_call("ttnn.linear", (x, weight), given, result, chip)
    assert (time.process_time() - started) / 200 < 500e-6  # some 50 µs; machines differ


FEEDFORWARD = Feedforward, [torch.ones(64, 32)]
ATTENTION = Attention, [torch.zeros(2, 48, dtype=torch.int64), torch.ones(2, 48, dtype=torch.bool)]


@pytest.mark.parametrize(("model", "inputs"), [FEEDFORWARD, ATTENTION], ids=["feedforward", "attention"])
def test_a_compiled_model_reports_what_its_calls_are_estimated_to_cost(model, inputs):
    _, report = compiled(model(), *inputs)
    launching = [operation for operation in report.operations if operation.programs]
    assert launching and all(one.estimated_seconds > 0 and one.bound not in ("", "unknown") for one in launching)
    assert report.estimated_seconds > report.kernel_seconds > 0
    assert sum(report.estimated_modules().values()) == pytest.approx(report.kernel_seconds)
    assert "estimate" in str(report)
