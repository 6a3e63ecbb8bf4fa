"""A small convolutional network, trained: it reads scikit-learn's digits as well as eager torch does."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
TRAINED_ON = 1197  # of 1,797; the other 600 are for testing
EPOCHS = 12


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [1797, 1, 8, 8] from 0 to 1, and what they show."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.images / 16, dtype=torch.float32)[:, None], torch.tensor(found.target)


def network() -> nn.Module:
    def block(channels: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 10))


def trained(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = network().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.usefixtures("clean_dynamo", "board_device")
def test_a_trained_network_reads_digits_as_well_as_in_eager_torch():
    images, labels = digits()
    model = trained(images[:TRAINED_ON], labels[:TRAINED_ON])
    images, labels = images[TRAINED_ON:], labels[TRAINED_ON:]

    def right(scores: torch.Tensor) -> float:
        return 100 * (scores.argmax(1) == labels).float().mean().item()

    with torch.no_grad(), tt_dynamo.record() as reports:
        eager = right(model(images))
        ours = right(torch.compile(model, backend="ttnn", options={"device": BOARD})(images))
    (report,) = reports
    assert not report.fallbacks
    assert eager > 95  # it has learned
    assert abs(ours - eager) <= 0.3, (ours, eager)
