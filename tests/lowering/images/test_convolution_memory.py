"""Where convolutions find room: in L1 as their image lies, sharded anew, in blocks, or slice by slice in DRAM."""

import pytest
import torch
from compiled import BOARD, check, compiled, random, rounded, unsharded
from torch import nn

import tt_dynamo
from tt_dynamo.compiler.choices import Choices, choices_path
from tt_dynamo.compiler.fit import l1


def test_an_image_that_does_not_fit_into_l1_whole_is_convolved_in_blocks():
    report = check(rounded(nn.Conv2d(3, 16, 3, padding=1)), random(1, 3, 512, 512), cancels=True)
    assert "act_block_h_override=64" in report.code


@pytest.mark.parametrize("batch, layer", [(4, nn.Conv2d(3, 64, 3)), (2, nn.ConvTranspose2d(3, 64, 2, 2))], ids=str)
def test_images_in_slices_leave_neither_their_number_nor_their_blocks_to_ttnn(batch, layer):
    """It would choose by what is free in L1 at each call, and blocks that are wrong on silicon (tt-metal#35852)."""
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        torch.compile(layer, backend="ttnn", options={"device": BOARD, "dry_run": True})(
            torch.zeros(batch, 3, 512, 512)
        )
    assert "num_slices=" in reports[0].code and "slice_config=None" not in reports[0].code
    assert "act_block_h_override=0" not in reports[0].code


@pytest.mark.slow
def test_images_that_do_not_fit_into_l1_whole_are_pooled_in_slices():
    model = rounded(nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.MaxPool2d(2)))
    report = check(model, random(8, 3, 224, 224), cancels=True)
    assert unsharded(report) == ["conv2d", "max_pool2d", "reshape"]


class Narrowing(nn.ModuleList):
    """A sum of two convolutions, and at last one that has so many weights that it takes its image in blocks."""

    def __init__(self, *between):
        sides = [nn.Conv2d(128, 512, 1) for _ in range(2)]
        super().__init__([nn.Conv2d(3, 128, 3, padding=1), *sides, *between, nn.Conv2d(512, 1024, 1, stride=2)])

    def forward(self, x):
        first, left, right, *others = self
        x = first(x)
        x = torch.relu(left(x) + right(x))
        for other in others:
            x = other(x)
        return x


@pytest.mark.parametrize("between", [[], [nn.Conv2d(512, 512, 1)]], ids=["read", "convolved and then read"])
def test_a_sum_lies_in_blocks_where_a_convolution_needs_it_so(between):
    model = rounded(Narrowing(*between))
    report = check(model, random(1, 3, 28, 28), roundings=3 + len(between), cancels=True)
    convolutions = ["conv2d"] * (1 + len(between))
    assert unsharded(report) == [*["conv2d"] * 3, "add", *convolutions]
    *_, narrow = [operation for operation in report.operations if operation.target == "ttnn.conv2d"]
    assert narrow.programs == 2  # the halo picks every second pixel; nothing is sharded anew
    assert "reshard_if_not_optimal" not in report.code


def test_what_fits_is_searched_once_for_each_shape(board_device, monkeypatch):
    """An image too large for L1 whole: the second compilation asks TTNN for what the first one found."""
    ttnn = board_device.namespace(dry_run=True)
    tried = []
    convolve = ttnn.conv2d

    def counted(*args, **options):
        config = options["conv_config"]
        tried.append((config.act_block_h_override, config.enable_act_double_buffer))
        return convolve(*args, **options)

    monkeypatch.setattr(ttnn, "conv2d", counted)
    board_device.resource(Choices, choices_path(board_device)).clear()
    model = rounded(nn.Conv2d(3, 16, 3, padding=1))
    traced = []
    for _ in range(2):
        tried.clear()
        compiled(model, random(1, 3, 512, 512))
        traced.append(list(tried))
    first, second = traced
    assert first[:3] == [(0, True), (0, False), (64, True)]
    assert second == [config for config in first if config == (64, True)]


def test_a_program_does_not_depend_on_what_was_compiled_before(board_device, monkeypatch):
    """An image beside others that fill L1, and alone: the room that is left is part of what is remembered."""
    ttnn = board_device.namespace(dry_run=True)
    model, x = rounded(nn.Conv2d(32, 32, 3, padding=1)), random(1, 32, 128, 128)

    def code():
        return compiled(model, x, dry_run=True)[1].code

    board_device.resource(Choices, choices_path(board_device)).clear()
    alone = code()
    board_device.resource(Choices, choices_path(board_device)).clear()
    place = {"dtype": ttnn.bfloat16, "layout": ttnn.TILE_LAYOUT, "device": board_device.handle}
    rows = l1(ttnn, board_device.handle).free * 9 // 10 // 2048
    filler = ttnn.empty((rows - rows % 32, 1024), **place, memory_config=ttnn.L1_MEMORY_CONFIG)
    full = code()
    del filler
    assert full != alone and code() == alone
