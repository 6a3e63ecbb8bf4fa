"""Moves of data on the device, to the last bit."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from compiled import BOARD, calls, check, compiled, random, rounded
from torch import nn

import tt_dynamo
from tt_dynamo.ir.errors import Refused
from tt_dynamo.lowering import data_movement
from tt_dynamo.runtime.program import Program


class Joining(nn.Module):
    """Channels of an image, of its convolutions and of its pool, joined and convolved."""

    def __init__(self, *channels, pooled=False):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.parts = nn.ModuleList(nn.Conv2d(32, count, 1) for count in channels)
        self.pooled = pooled
        self.last = nn.Conv2d(sum(channels) + 32 * pooled, 8, 3)

    def forward(self, x):
        x = self.first(x)
        if self.pooled:
            x = F.max_pool2d(x, 2)
        return self.last(torch.cat([part(x) for part in self.parts] + [x] * self.pooled, 1))


@pytest.mark.parametrize("channels", [(32, 64), (32, 64, 32)], ids=str)
def test_channels_are_joined_in_shards(channels):
    report = check(rounded(Joining(*channels)), random(2, 3, 9, 11), roundings=3, cancels=True)
    called = calls(report)
    join = called.index("concat")
    assert called[join - len(channels) - 1 : join + 2] == ["conv2d"] * (len(channels) + 1) + ["concat", "conv2d"]


def test_channels_that_lie_elsewhere_move_to_the_others():
    report = check(rounded(Joining(32, 32, pooled=True)), random(2, 3, 24, 24), roundings=3, cancels=True)
    called = calls(report)
    join = called.index("concat")
    assert called[join - 2 : join + 2] == ["conv2d", "to_memory_config", "concat", "conv2d"]


@pytest.mark.parametrize(("channels", "moves"), [((256, 256), 0), ((256, 288), 2)], ids=str)
def test_channels_that_cores_share_unevenly_are_joined_interleaved(channels, moves):
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv2d(8, count, 3, padding=1) for count in channels)
            self.last = nn.Conv2d(sum(channels), 8, 3, padding=1)

        def forward(self, x):
            return self.last(torch.cat([part(x) for part in self.parts], 1))

    called = calls(check(rounded(Blocks()), random(8, 8, 4, 4), roundings=3, cancels=True))
    second = called.index("conv2d") + 2
    assert called[second:][: moves + 1] == [*["to_memory_config"] * moves, "concat"]


def test_channels_that_had_to_leave_l1_are_joined_where_they_went():
    moved = SimpleNamespace(shape=(1, 1, 64, 32), node=SimpleNamespace(meta={"path": "ttnn.to_memory_config"}))
    with pytest.raises(Refused, match="leave L1"):
        data_movement._joined_in_shards(None, [moved, moved], 3)


def test_channels_that_fill_no_tiles_are_filled_and_joined_where_they_lie():
    report = check(rounded(Joining(16, 48)), random(2, 3, 9, 11), roundings=3, cancels=True)
    called = calls(report)
    assert called[called.index("concat") - 2 :][:3] == ["conv2d", "conv2d", "concat"]


class Beside(nn.Module):
    """The channels of a convolution beside those of its image, which lies in no shards."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        return torch.cat([self.convolution(x), x.relu()], 1).relu()


AGAIN = {
    "interleaved": (lambda x: torch.cat([x, x.relu()], 1).exp(), random(2, 33)),
    "beside shards": (rounded(Beside()), random(2, 32, 4, 8)),
}


@pytest.mark.parametrize("name", AGAIN)
def test_parts_are_joined_again_where_a_call_failed(name, monkeypatch):
    torch._dynamo.reset()
    model, x = AGAIN[name]
    run = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})
    with tt_dynamo.record() as reports, torch.no_grad():
        expected = run(x)

        def fail(*_):
            raise RuntimeError("the device is busy")

        monkeypatch.setattr(Program, "_current", fail)
        assert torch.equal(run(x), expected)
    assert not reports[0].fallbacks


@pytest.mark.parametrize("view", [lambda x: x.view(3, 5), lambda x: x.transpose(-1, 1), lambda x: x.squeeze(0)])
def test_a_view_of_an_input_costs_nothing(view):
    _, report = compiled(view, random(3, 5))
    assert not report.operations and not report.fallbacks


def test_a_copy_that_is_returned_beside_what_it_copies_is_a_tensor_of_its_own():
    def model(x):
        y = torch.relu(x)
        return y, y.clone()

    (y, copy), _ = compiled(model, random(3, 5))
    copy.zero_()
    assert y.any()
