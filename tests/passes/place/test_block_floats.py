"""Images between convolutions are block floats; what anything else reads is not."""

import pytest
import torch
from captured import capture, random
from torch import nn

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import is_call
from tt_dynamo.passes.fuse.epilogues import fuse_image_activation
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.place.block_floats import READERS, assign_image_dtypes


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x):
        y = torch.relu(self.first(x))
        s = torch.relu(y + self.second(y))
        return self.last(s).sigmoid()


def assigned(refused=(), host=()):
    graph = capture(Block(), random(2, 4, 8, 8))
    graph.apply(channels_last, fuse_image_activation, exact=False)
    images = [node for node in graph.graph.nodes if is_call(node, *READERS)]
    sides = {node: "host" if number in host else "device" for number, node in enumerate(images)}
    refuses = {images[number] for number in refused}
    count = assign_image_dtypes(graph.graph, sides, "bfloat8_b", refuses.__contains__)
    found = [number for number, node in enumerate(images) if meta.dtype.get(node, "") == "bfloat8_b"]
    assert count == len(found)
    return found


def test_what_convolutions_and_sums_read_and_not_the_last():
    assert assigned() == [0, 1, 2]


@pytest.mark.parametrize(("refused", "expected"), [([0], [1, 2]), ([2], []), ([3], [0, 1])])
def test_what_ttnn_refused_stays_wide_around_it(refused, expected):
    assert assigned(refused) == expected


def test_what_the_host_reads_stays_wide():
    assert assigned(host=[3]) == [0, 1]
