"""Windows: one lookup between two attentions in windows, with eager's values."""

import pytest
import torch
from captured import Captured, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.lookups import index_to_embedding
from tt_dynamo.passes.row_orders import order_rows

WIDTH = 8
MOVES = (aten.permute.default, aten.roll.default)


def cut(x: torch.Tensor, size: int) -> torch.Tensor:
    batch, height, width, channels = x.shape
    parts = x.view(batch, height // size, size, width // size, size, channels)
    return parts.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size * size, channels)


def joined(x: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
    parts = x.view(-1, height // size, width // size, size, size, x.shape[-1])
    return parts.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, x.shape[-1])


class Mixer(nn.Module):
    """Tokens of a window mixed by a product of their own with themselves, as attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(x)
        return torch.softmax(y @ y.transpose(1, 2), -1) @ y


class Block(nn.Module):
    """A block of Swin, version 1, or with the norms behind what they norm, version 2."""

    def __init__(self, size: int, shift: int, norm_last: bool = False) -> None:
        super().__init__()
        self.size, self.shift, self.norm_last = size, shift, norm_last
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixer = Mixer()
        self.feed = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[1:3]
        x = x.roll((-self.shift, -self.shift), (1, 2)) if self.shift else x
        x = joined(self.mixer(cut(x, self.size)), self.size, height, width)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm_last:
            x = x + self.norm1(self.attend(x))
            return x + self.norm2(self.feed(x))
        x = x + self.attend(self.norm1(x))
        shape = x.shape
        x = x.reshape(shape[0], -1, WIDTH)
        return (x + self.feed(self.norm2(x))).reshape(shape)


def ordered(model: nn.Module, *inputs: torch.Tensor) -> Captured:
    graph = capture(model, *inputs)
    graph.apply(index_to_embedding, canonicalize, order_rows)
    return graph


def image(batch: int = 2) -> torch.Tensor:
    return random(batch, 8, 8, WIDTH)


@pytest.mark.parametrize("norm_last", [False, True])
def test_a_shift_with_its_windows_is_one_lookup_between_blocks(norm_last):
    blocks = nn.Sequential(*(Block(4, shift, norm_last) for shift in (0, 2, 0, 2)))
    graph = ordered(blocks, image())
    assert len(graph.calls(operators.look_up)) == 5, "into the first windows, between blocks, and out of the last ones"
    assert not graph.calls(aten.roll.default)
    assert all(len(node.args[1]) < 5 for node in graph.calls(aten.permute.default))


def test_equal_windows_of_neighbours_move_nothing_between_them():
    graph = ordered(nn.Sequential(Block(4, 0), Block(4, 0), Block(4, 0)), image())
    assert len(graph.calls(operators.look_up)) == 2


def test_a_window_that_is_the_image_moves_nothing():
    graph = ordered(nn.Sequential(Block(8, 0), Block(8, 0)), image())
    assert not graph.calls(operators.look_up)


def test_what_others_read_has_its_own_order():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Block(4, 0), Block(4, 2)

        def forward(self, x):
            y = self.first(x)
            return self.second(y), y, y.mean((1, 2))

    graph = ordered(Model(), image())
    assert len(graph.calls(operators.look_up)) == 4, "one more, for the image that both outputs show"


def test_what_mixes_rows_of_an_image_ends_the_region():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.conv = Block(4, 0), Block(4, 0), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

        def forward(self, x):
            return self.second(self.conv(self.first(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    assert len(ordered(Model(), image()).calls(operators.look_up)) == 4


def test_positions_are_permuted_with_the_rows_and_a_row_for_all_is_not():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Block(4, 0), Block(4, 0)
            self.position, self.scale = nn.Parameter(random(1, 8, 8, WIDTH)), nn.Parameter(random(WIDTH))

        def forward(self, x):
            return self.second(self.first(x) * self.scale + self.position)

    assert len(ordered(Model(), image(1)).calls(operators.look_up)) == 3, "one of them of the positions"


def test_heads_are_no_windows():
    def model(x):
        heads = torch.relu(x).view(2, 4, 4, 3, 2, 4).permute(3, 0, 1, 2, 4, 5)
        return torch.relu(heads).permute(1, 2, 3, 4, 0, 5).reshape(2, 4, 4, 24)

    assert not ordered(model, random(2, 4, 4, 24)).calls(operators.look_up)


def test_patches_that_merge_end_the_last_windows():
    def model(x):
        x = torch.relu(x).view(2, 4, 2, 4, 2, WIDTH).permute(0, 1, 3, 4, 2, 5)
        return torch.relu(x.flatten(3))

    graph = capture(model, image())
    graph.apply(index_to_embedding, canonicalize, order_rows)
    assert len(graph.calls(operators.look_up)) == 1

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(4, 0), Block(4, 2))

        def forward(self, x):
            return model(self.blocks(x))

    assert len(ordered(Stage(), image()).calls(operators.look_up)) == 3
