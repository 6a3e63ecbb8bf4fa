"""Training through compiled models: eager's gradients, eager's loss curve, every step with the weights of that step."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_close, assert_same, check
from small_models import Feedforward
from torch import nn

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

# A loss is a mean over outputs that are off by bfloat16's 2^-8 each, in either direction.
LOSS_TOLERANCE = 0.02


class SmallViT(nn.Module):
    """A vision transformer with one encoder layer. images [batch, 3, 16, 16] -> logits [batch, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, stride=8)
        self.position = nn.Parameter(torch.randn(1, 4, 32) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.position
        batch, seq, width = x.shape
        query, key, value = self.qkv(self.norms[0](x)).view(batch, seq, 3, 2, 16).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(heads.transpose(1, 2).reshape(batch, seq, width))
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x).mean(1))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.GELU(), nn.AvgPool2d(2), nn.Conv2d(8, 4, 1), nn.Flatten()
    )


def images() -> tuple[torch.Tensor]:
    return (torch.randn(4, 3, 16, 16),)


class Classifier(nn.Module):
    """Token ids to a loss, as Hugging Face's models give it: the loss is part of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 32, padding_idx=0)
        self.head = nn.Linear(32, 5)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.head(torch.tanh(self.embedding(ids))).flatten(0, 1), labels.flatten())


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 4))


def masked_attention(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    scores = (x @ x.transpose(-1, -2) * 0.1).masked_fill(~keep[:, None, :], float("-inf"))
    return scores.softmax(-1) @ x


# --- gradients -------------------------------------------------------------------------------------------------------

MODELS: dict[str, tuple[Callable[[], Any], Callable[[], tuple[torch.Tensor, ...]]]] = {
    "MLP": (mlp, lambda: (torch.randn(8, 16, requires_grad=True),)),
    "ViT": (SmallViT, images),
    "convolutions and batch norm in training": (convolutions, images),
    "embedding and cross entropy": (Classifier, lambda: (torch.randint(0, 10, (2, 6)), torch.randint(0, 5, (2, 6)))),
    "masked attention": (
        lambda: masked_attention,
        lambda: (torch.randn(2, 8, 32, requires_grad=True), torch.tensor([[True] * 8, [True] * 5 + [False] * 3])),
    ),
    "recurrent": (lambda: nn.GRUCell(16, 32), lambda: (torch.randn(4, 16, requires_grad=True), torch.zeros(4, 32))),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_eager_s_and_computed_on_the_device(name: str) -> None:
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    forward, backward = check(make(), inputs, calls=2, backward=True)
    assert forward.device_nodes > 0 and backward.device_nodes > 0


def test_backward_graphs_take_the_same_passes() -> None:
    _, backward = check(mlp(), lambda: (torch.randn(8, 16),), backward=True)
    targets = [operation.target for operation in backward.operations]
    assert "ttnn.linear" in targets or "ttnn.matmul" in targets
    assert re.search(r"\n    \w+(\.deallocate\(\)| = None)\n", backward.code)


def test_forbidden_fallback_holds_for_backward_graphs() -> None:
    compiled = torch.compile(lambda x: x.cummax(0).values, backend="ttnn", options={"fallback": "error"})
    with pytest.raises(Exception, match='fallback="error" forbids it'):
        compiled(torch.randn(4, 8, requires_grad=True)).sum().backward()


def test_dropout_with_a_seed_drops_in_the_gradient_what_it_dropped_in_the_value() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5), nn.Linear(32, 8))
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(16, 32)
    for seed in (1, 2):
        for candidate, call in ((model, compiled), (eager, eager)):
            candidate.zero_grad()
            torch.manual_seed(seed)
            (call(x) * torch.arange(8.0)).sum().backward()
        assert_same([p.grad for p in model.parameters()], [p.grad for p in eager.parameters()])


def test_gradients_accumulate_over_calls() -> None:
    model = Feedforward()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn")
    for _ in range(3):
        x = torch.randn(4, 32)
        (compiled(x) * torch.arange(32.0)).sum().backward()
        (eager(x) * torch.arange(32.0)).sum().backward()
    assert_same([p.grad for p in model.parameters()], [p.grad for p in eager.parameters()])


def test_frozen_parameters_get_no_gradient() -> None:
    model = mlp()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    check(model, lambda: (torch.randn(8, 16),), backward=True)


def test_hooks_of_modules_and_gradients_run() -> None:
    model = Feedforward()
    eager = copy.deepcopy(model)
    for candidate in (model, eager):
        candidate.up.register_forward_hook(lambda module, args, output: output * 0.5)
        candidate.down.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        candidate.up.weight.register_hook(lambda gradient: gradient * 2)
    x = torch.randn(4, 32)
    compiled = torch.compile(model, backend="ttnn")
    for call in (compiled, eager):
        (call(x) * torch.arange(32.0)).sum().backward()
    with torch.no_grad():
        assert_same(compiled(x), eager(x))
    assert_same([p.grad for p in model.parameters()], [p.grad for p in eager.parameters()])


def test_training_under_autocast() -> None:
    check(mlp(), lambda: (torch.randn(8, 16),), backward=True, context=lambda: torch.autocast("cpu", torch.bfloat16))


# --- steps -----------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


def losses(model: nn.Module, call: Callable[..., Any], optimizer: torch.optim.Optimizer, x: torch.Tensor) -> Any:
    targets, found = torch.arange(len(x)) % 4, []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(call(x), targets)
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make, shape", [(mlp, (8, 16)), (SmallViT, (8, 3, 16, 16))])
def test_a_few_steps_follow_eager_s_losses(make: Callable[[], nn.Module], shape: tuple[int], optimizer: str) -> None:
    model, x = make(), torch.randn(shape)
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn")
    with tt_dynamo.record() as reports:
        ours = losses(model, compiled, OPTIMIZERS[optimizer](model.parameters()), x)
    theirs = losses(eager, eager, OPTIMIZERS[optimizer](eager.parameters()), x)
    assert len(reports) == 2, "a forward and a backward graph, for all steps"
    assert theirs[-1] < 0.9 * theirs[0], "training that shows"
    assert (ours - theirs).abs().max() < LOSS_TOLERANCE * theirs[0], (ours, theirs)
    with torch.no_grad():
        assert_close(compiled(x), model(x))


def test_weights_go_up_once_a_step_and_not_again_without_one(uploads: list) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 32)

    def uploads_of_a_call() -> int:
        uploads.clear()
        compiled(x).square().sum().backward()
        return len(uploads)

    first = uploads_of_a_call()
    again = uploads_of_a_call()
    assert uploads_of_a_call() == again
    optimizer.step()
    assert uploads_of_a_call() == first
    assert uploads_of_a_call() == again
    # Weights of a layer lie one way for the forward and the other way for the backward graph, vectors only one way.
    weights = {shape for shape in uploads if 32 in shape and 64 in shape}
    assert not weights and first - again == 2 + 4 + 1
