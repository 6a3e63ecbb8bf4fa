"""Pixels of several images joined: those that end inside a tile are placed by products, in tiles."""

import torch
from compiled import calls, check, random, rounded
from torch import nn


class Levels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(x).flatten(2) for x in images], 2).sigmoid()


def test_images_are_joined_in_tiles():
    called = calls(check(rounded(Levels()), random(1, 8, 8, 8), random(1, 8, 6, 6), random(1, 8, 3, 5), roundings=4))
    assert called.count("concat") == 1 and called.count("linear") + called.count("matmul") == 2
    assert not {"slice", "to_layout"} & {*called[called.index("concat") :]}
