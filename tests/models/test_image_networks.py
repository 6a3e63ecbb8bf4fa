"""Convolutional networks whole: all on the device, eager torch's answer, and no call that moves what another moved."""

import os
import re

import pytest
import torch
from torch import nn

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
MOVES = ("ttnn.permute", "ttnn.to_layout", "ttnn.to_memory_config", "ttnn.tilize", "ttnn.untilize", "ttnn.transpose")


def network(name: str) -> nn.Module:
    """A network of torchvision with random weights and statistics of batch norm that are not 0 and 1."""
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(4, 3, 64, 64) * 1.5 + 0.3)
    return model.eval()


def compiled(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, tt_dynamo.GraphReport]:
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        found = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(x)
    (report,) = reports
    return found, report


def answers(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape and found.isfinite().all()
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99
    assert (found - expected).norm() < 0.1 * expected.norm()


def there_and_back(code: str) -> list[str]:
    """Calls that move what a move made: one of the two is not needed, or both are not."""
    made = dict(re.findall(r"^    (\w+) = (ttnn\.\w+)\(", code, re.MULTILINE))
    calls = re.findall(r"^    (\w+) = (ttnn\.\w+)\((\w+)", code, re.MULTILINE)
    return [name for name, call, operand in calls if call in MOVES and made.get(operand) in MOVES]


def launches(report: tt_dynamo.GraphReport) -> dict[str, int]:
    """Kernel launches by block: "layer1.0"."""
    found: dict[str, int] = {}
    for operation in report.operations:
        block = ".".join(operation.module.split(".")[:2])
        found[block] = found.get(block, 0) + operation.programs
    return found


def test_a_move_of_a_move_is_found():
    code = "    a = ttnn.permute(x, (0, 2, 3, 1))\n    b = ttnn.to_layout(a, t)\n    c = ttnn.add(b, b)\n"
    assert there_and_back(code) == ["b"]


def test_resnet_50_launches_what_it_computes():
    model = network("resnet50")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    found, report = compiled(model, x)
    with torch.no_grad():
        answers(found, model(x))
    assert not report.fallbacks
    assert not there_and_back(report.code)
    targets = [operation.target for operation in report.operations]
    last = len(targets) - targets[::-1].index("ttnn.conv2d")
    assert not set(targets[targets.index("ttnn.conv2d") : last]).intersection(MOVES)
    blocks = {name: count for name, count in launches(report).items() if re.fullmatch(r"layer\d\.\d", name)}
    assert all(count <= 5 for name, count in blocks.items() if not name.endswith(".0"))
    assert all(count <= 8 for name, count in blocks.items() if name.endswith(".0"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_0", "vgg11_bn", "regnet_y_400mf"])
def test_a_network_runs_on_the_device(name):
    model = network(name)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    found, report = compiled(model, x)
    with torch.no_grad():
        answers(found, model(x))
    assert not report.fallbacks
    assert not there_and_back(report.code)
