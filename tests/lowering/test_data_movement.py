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

MOVES = {
    "flattened": (lambda x: x.reshape(-1), "reshape"),
    "rows joined": (lambda x: x.reshape(6, 33), "reshape"),
    "columns split": (lambda x: x.reshape(2, 3, 3, 11), "reshape"),
    "in six dimensions": (lambda x: x.reshape(1, 2, 3, 1, 3, 11), "reshape"),
    "a dimension more": (lambda x: x[:, None], "reshape"),
    "dimensions permuted": (lambda x: x.permute(2, 0, 1), "permute"),
    "moved to the end": (lambda x: x.movedim(0, -1), "permute"),
    "copied in another order": (lambda x: torch.transpose_copy(x, 0, 2), "permute"),
    "rows and columns exchanged": (lambda x: x.mT, "permute"),
    "repeated along a dimension of one": (lambda x: x[:, :1].expand(2, 4, 33), "expand"),
    "repeated along a new dimension": (lambda x: x.expand(5, 2, 3, 33), "expand"),
    "repeated one by one": (lambda x: x.repeat_interleave(2, 1), "expand"),
    "rows cut off": (lambda x: x[:, 1:], "slice"),
    "every second column": (lambda x: x[..., ::2], "slice"),
    "columns counted from the end": (lambda x: x[..., -5:-1], "slice"),
    "beyond the end": (lambda x: x[:, 1:100], "slice"),
    "narrowed": (lambda x: torch.narrow_copy(x, 2, 1, 30), "slice"),
    "one row": (lambda x: x[:, 1], "slice"),
    "the last column": (lambda x: x[..., -1], "slice"),
    "repeated": (lambda x: x.repeat(1, 2, 3), "repeat"),
    "repeated with a dimension more": (lambda x: x.repeat(2, 1, 1, 1), "repeat"),
    "tiled": (lambda x: x.tile(2, 1), "repeat"),
    "padded behind": (lambda x: F.pad(x, (0, 2)), "pad"),
    "padded in two dimensions": (lambda x: F.pad(x, (0, 31, 0, 2), value=1.5), "pad"),
    "padded in front": (lambda x: F.pad(x, (1, 2), value=-1.0), "pad"),
    "padded on all sides": (lambda x: F.pad(x, (1, 2, 3, 0, 1, 1)), "pad"),
    "padded in five dimensions": (lambda x: F.pad(x[None, None], (1, 0, 2, 2, 1, 1, 1, 0, 0, 1)), "pad"),
    "padded here and cut off there": (lambda x: F.pad(x, (1, -2, -1, 3)), "slice"),
    "cut off on both sides": (lambda x: F.pad(x, (-1, -2)), "slice"),
    "padded around": (lambda x: F.pad(x, (2, 1), mode="circular"), "concat"),
    "stacked": (lambda x: torch.stack([x, x], 1), "concat"),
    "stacked at the end": (lambda x: torch.stack([x, x], -1), "concat"),
    "above a diagonal": (lambda x: x.triu(-1), "where"),
    "below a diagonal": (lambda x: x.tril(2), "where"),
    "along a diagonal": (lambda x: torch.diag_embed(x, 1), "where"),
    "along a diagonal of other dimensions": (lambda x: torch.diag_embed(x, -2, 0, 2), "where"),
    "shuffled channels": (lambda x: F.channel_shuffle(x.reshape(1, 6, 3, 11), 2), "permute"),
    "pixels to channels": (lambda x: F.pixel_unshuffle(x.reshape(1, 6, 3, 11)[..., :2, :10], 2), "permute"),
    "channels to pixels": (lambda x: F.pixel_shuffle(x.reshape(1, 18, 1, 11)[:, :12], 2), "permute"),
    "a row written": (lambda x: torch.select_scatter(x, x[:, 0], 1, 2), "concat"),
    "rows written": (lambda x: torch.slice_scatter(x, x[:, :2], 1, 1), "concat"),
}


@pytest.mark.parametrize("name", MOVES)
def test_elements_are(name):
    move, call = MOVES[name]
    report = check(lambda x: torch.relu(move(torch.relu(x))), random(2, 3, 33), roundings=0)
    assert call in calls(report)


SPLITS = {
    "unbind": lambda x: x.unbind(1),
    "split": lambda x: x.split(10, -1),
    "split with sizes": lambda x: x.split([3, 10, 20], 2),
    "split where memory may be shared": lambda x: torch.unsafe_split(x, 2, 1),
    "split with sizes where memory may be shared": lambda x: torch.unsafe_split_with_sizes(x, [1, 2], 1),
    "chunk": lambda x: x.chunk(2, -1),
    "tensor_split": lambda x: x.tensor_split([1, 3], -1),
    "split along the first dimension": lambda x: x.split(1),
}


@pytest.mark.parametrize("name", SPLITS)
def test_parts_are_eagers(name):
    check(lambda x: [torch.relu(part) for part in SPLITS[name](torch.relu(x))], random(2, 3, 33), roundings=0)


@pytest.mark.parametrize("shape", [(2, 3, 33), (2, 32, 64), (1, 5), (4,)], ids=str)
@pytest.mark.parametrize("dim", [0, -1])
def test_tensors_are_joined_along_a_dimension(shape, dim):
    report = check(lambda x: torch.relu(torch.cat([torch.relu(x), torch.tanh(x).abs(), x], dim)), random(*shape))
    assert "concat" in calls(report)


@pytest.mark.parametrize(("shape", "dim"), [((2, 32, 64), 1), ((2, 3, 33), 0), ((2, 3, 33), 2)])
def test_tiles_are_joined_without_a_change_of_layout(shape, dim):
    report = check(lambda x: torch.relu(torch.cat([torch.relu(x), x], dim)), random(*shape), roundings=0)
    assert calls(report).count("concat") == 1 and "to_layout" not in calls(report)


def test_moves_inside_tiles_change_the_layout_once():
    """Patch merging of Swin: four strided slices, joined."""

    def merge(x):
        corners = [torch.relu(x)[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return torch.relu(torch.cat(corners, 2))

    report = check(merge, random(1, 6, 6, 5), roundings=0)
    assert calls(report).count("to_layout") == 2


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


def test_channels_that_fill_no_tiles_are_joined_interleaved():
    report = check(rounded(Joining(16, 48)), random(2, 3, 9, 11), roundings=3, cancels=True)
    called = calls(report)
    assert called[called.index("concat") - 2 :][:3] == ["to_memory_config", "to_memory_config", "concat"]


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


def test_parts_of_different_sizes_are_joined():
    check(lambda x, y: torch.relu(torch.cat([x, torch.relu(y)], 1)), random(2, 1, 33), random(2, 5, 33), roundings=0)


def test_parts_without_elements_join_nothing():
    report = check(lambda x: torch.relu(torch.cat([torch.empty(0), x, x[:0]], 0)), random(3, 5), roundings=0)
    assert calls(report) == ["relu"]


def test_parts_of_different_dtypes_are_joined_in_the_wider_one():
    inputs = random(2, 3), torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]])
    check(lambda x, i, b: torch.relu(torch.cat([torch.relu(x), i, b], 0)), *inputs, roundings=0)


LARGE = torch.tensor([[2**24 + 1, -(2**24) - 1, 2**31 - 1], [-(2**31), 0, 7]])


@pytest.mark.parametrize(
    "move",
    [
        lambda i: i[:, 1:],
        lambda i: i.reshape(3, 2),
        lambda i: torch.cat([i, i]),
        lambda i: torch.cat([i, i], 1),
        lambda i: i.permute(1, 0),
        lambda i: i.repeat(2, 1),
        lambda i: F.pad(i, (1, 1), value=5),
        lambda i: F.pad(i, (1, 1), value=2**24 + 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_integers_are_moved_exactly_wherever_they_are(move, dtype):
    i = LARGE.to(dtype)
    moved, _ = compiled(move, i, placement="device")
    assert moved.dtype == dtype and torch.equal(moved, move(i))


@pytest.mark.parametrize("move", [lambda i: i.permute(1, 0), lambda i: torch.cat([i, i], 1)])
def test_integers_are_not_moved_by_what_gets_them_wrong_on_silicon(move):
    _, report = compiled(move, LARGE, placement="device")
    assert "19950" in report.fallbacks[0].reason


def test_integers_are_not_padded_with_a_number_that_float32_lacks():
    _, report = compiled(lambda i: F.pad(i, (1, 1), value=2**24 + 1), LARGE, placement="device")
    assert "16777217" in report.fallbacks[0].reason


@pytest.mark.parametrize("make", [torch.zeros_like, torch.ones_like, lambda x: x.new_full((3, 5), 2.0)])
def test_what_takes_only_a_shape_is_a_constant(make):
    report = check(lambda x: torch.relu(x) + make(torch.relu(x)), random(3, 5))
    assert calls(report) == ["relu", "add"]


def test_a_slice_is_written_in_place():
    def model(x):
        y = torch.relu(x)
        y[:, 1] = 0
        y[..., :2] = y[..., 2:4]
        return y * 1

    check(model, random(2, 3, 33), roundings=0)


def test_a_number_is_written_where_a_mask_says_so():
    def model(x, mask):
        y = torch.relu(x)
        y[mask] = 3.0
        return y * 1

    report = check(model, random(2, 3, 33), torch.tensor([[True, False, True], [False, False, True]]), roundings=0)
    assert "where" in calls(report)


@pytest.mark.parametrize("view", [lambda x: x.view(3, 5), lambda x: x.transpose(-1, 1), lambda x: x.squeeze(0)])
def test_a_view_of_an_input_costs_nothing(view):
    _, report = compiled(view, random(3, 5))
    assert not report.operations and not report.fallbacks


@pytest.mark.parametrize(
    "view", [lambda x: x.view(3, 5), lambda x: x.transpose(-1, 1), lambda x: x.squeeze(0), lambda x: x.squeeze((0, 1))]
)
def test_views_of_inputs_may_be_made_on_the_device(view):
    x = random(3, 5)
    output, report = compiled(view, x, placement="device")
    assert torch.equal(output, view(x)) and not report.fallbacks


def test_values_without_dimensions_are_moved():
    def model(x):
        y = torch.relu(x)
        return y.expand([]) * 1, y.repeat([]) * 1, y.roll(2) * 1, y.index_fill(0, torch.tensor(0), 3.0) * 1

    check(model, torch.tensor(2.5), roundings=0)


def test_a_copy_that_is_returned_beside_what_it_copies_is_a_tensor_of_its_own():
    def model(x):
        y = torch.relu(x)
        return y, y.clone()

    (y, copy), _ = compiled(model, random(3, 5))
    copy.zero_()
    assert y.any()


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.relu(x).permute(1, 0),
        lambda x: torch.relu(x).permute(1, 0).contiguous(),
        lambda x: torch.relu(x)[:, ::2],
        lambda x: torch.relu(x)[:1].expand(3, 5),
        lambda x: torch.relu(x).unsqueeze(1).transpose(0, 2),
        lambda x: torch.relu(x).flip(0),
        lambda x: torch.stack([torch.relu(x), x], -1),
        lambda x: torch.relu(x).diagonal(),
    ],
)
def test_outputs_have_eagers_strides(model):
    check(model, random(3, 5), roundings=0)
