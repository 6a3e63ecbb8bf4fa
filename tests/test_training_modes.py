"""Gradients, autocast, inference mode, layers in training mode, threads: eager's answer in each."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import assert_close, assert_same, check
from small_models import Attention, Feedforward

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def batch(*, requires_grad: bool = False) -> tuple[torch.Tensor]:
    return (torch.randn(4, 32).requires_grad_(requires_grad),)


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 10, (2, 8)), torch.tensor([[True] * 8, [True] * 5 + [False] * 3])


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requires_grad", [True, False])
def test_gradients_of_inputs_and_weights(requires_grad: bool) -> None:
    check(Feedforward(), lambda: batch(requires_grad=requires_grad), calls=2, backward=True)


def test_gradients_through_attention_and_embedding() -> None:
    check(Attention(), tokens, backward=True)


def test_gradients_with_shapes_that_change() -> None:
    check(Feedforward(), lambda: batch(requires_grad=True), backward=True, dynamic=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_half_precision(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 32)).to(dtype)
    check(model, lambda: (torch.randn(4, 32).to(dtype),), backward=True)


def test_a_view_of_an_input_that_requires_grad() -> None:
    check(lambda x: (x.t(), torch.relu(x)[1:]), lambda: batch(requires_grad=True), backward=True)


def test_no_grad_inside_a_model() -> None:
    def partly(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scale = torch.relu(x)
        return scale * x

    check(partly, lambda: batch(requires_grad=True), backward=True)


def test_a_few_steps_of_training_end_where_eager_ends() -> None:
    model = Feedforward()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(16, 32)
    for candidate, call in ((eager, eager), (model, compiled)):
        optimizer = torch.optim.SGD(candidate.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            (call(x) - 1).pow(2).mean().backward()
            optimizer.step()
    assert_same(dict(model.state_dict()), dict(eager.state_dict()))


# --- modes of torch -------------------------------------------------------------------------------------------------


def test_autocast_around_the_call() -> None:
    check(Feedforward(), batch, context=lambda: torch.autocast("cpu", dtype=torch.bfloat16), calls=2)


def test_autocast_inside_the_model() -> None:
    def lower(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ w).relu()

    check(lower, lambda: (torch.randn(4, 32), torch.randn(32, 32)))


def test_inference_mode_around_the_call() -> None:
    check(Feedforward(), batch, context=torch.inference_mode, calls=2)
    check(Attention(), tokens, context=torch.inference_mode, calls=2)


def test_inference_mode_inside_the_model() -> None:
    def inside(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return torch.relu(x) * 2

    check(inside, batch)


def test_one_model_in_and_out_of_inference_mode() -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    (x,) = batch()
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            assert_same(compiled(x), model(x))


# --- layers that behave differently in training -----------------------------------------------------------------------


def test_dropout_in_training_drops_at_its_rate_and_scales_the_rest() -> None:
    layer = torch.nn.Dropout(0.25).train()
    compiled = torch.compile(layer, backend="ttnn")
    x = torch.ones(200, 200)
    torch.manual_seed(3)
    first = compiled(x)
    assert abs(float((first == 0).float().mean()) - 0.25) < 0.02
    kept = first[first != 0]
    assert_close(kept, torch.full_like(kept, 1 / 0.75))
    assert not torch.equal(first, compiled(x))
    torch.manual_seed(3)
    assert torch.equal(first, compiled(x))


def test_dropout_s_gradient_is_of_the_elements_kept() -> None:
    compiled = torch.compile(torch.nn.Dropout(0.5).train(), backend="ttnn")
    x = torch.ones(50, 50, requires_grad=True)
    y = compiled(x)
    y.sum().backward()
    assert x.grad is not None
    assert_close(x.grad, y.detach())


def test_dropout_in_evaluation_is_nothing() -> None:
    check(torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Dropout(0.5)).eval(), batch)


def test_attention_with_dropout_is_random_and_of_the_right_size() -> None:
    def attend(q: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, q, q.sign(), dropout_p=0.5)

    q = torch.randn(2, 4, 64, 32)
    ours = torch.compile(attend, backend="ttnn")(q)
    assert ours.shape == q.shape
    assert 0.8 < float(ours.std() / attend(q).std()) < 1.25


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3, momentum=None, affine=False)])
@pytest.mark.parametrize("backward", [True, False])
def test_batch_norm_in_training_updates_its_statistics(layer: torch.nn.Module, backward: bool) -> None:
    backward = backward and bool(list(layer.parameters()))
    check(copy.deepcopy(layer).train(), lambda: (torch.randn(2, 3, 4, 4),), calls=3, backward=backward)


def test_a_model_switched_between_training_and_evaluation() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.BatchNorm1d(32))
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn")
    (x,) = batch()
    with torch.no_grad():
        for training in (True, False, True, False):
            model.train(training)
            eager.train(training)
            assert_same(compiled(x), eager(x))
    assert_same(dict(model.state_dict()), dict(eager.state_dict()))


# --- several models, several threads ----------------------------------------------------------------------------------


def test_two_models_at_once() -> None:
    models = [Feedforward(), Feedforward()]
    compiled = [torch.compile(model, backend="ttnn") for model in models]
    (x,) = batch()
    with torch.no_grad():
        for _ in range(3):
            for model, call in zip(models, compiled, strict=True):
                assert_same(call(x), model(x))


def test_one_module_compiled_twice() -> None:
    model = Feedforward()
    (x,) = batch()
    with torch.no_grad():
        for _ in range(2):
            assert_same(torch.compile(model, backend="ttnn")(x), model(x))


def test_a_deep_copy_goes_its_own_way() -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    (x,) = batch()
    with torch.no_grad():
        before = compiled(x)
        other: Any = copy.deepcopy(compiled)
        other.up.weight.add_(1)
        assert_same(other(x), other._orig_mod(x))
        assert torch.equal(compiled(x), before)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in so many threads that start at once; raises what one of them raised."""
    start, failed = threading.Barrier(count), []

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_four_threads() -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    inputs = [torch.randn(4, 32) for _ in range(4)]
    with torch.no_grad():
        expected = [model(x) for x in inputs]

    def call(number: int) -> None:
        for _ in range(10):
            with torch.no_grad():
                assert_same(compiled(inputs[number]), expected[number])

    in_threads(4, call)


def test_four_threads_compile_four_models_at_once() -> None:
    models = [Feedforward(), Attention(), torch.nn.Linear(32, 8), torch.nn.Sequential(torch.nn.Linear(32, 32))]
    inputs = [batch(), tokens(), batch(), batch()]
    with torch.no_grad():
        expected = [model(*x) for model, x in zip(models, inputs, strict=True)]

    def compile_and_call(number: int) -> None:
        compiled = torch.compile(models[number], backend="ttnn")
        for _ in range(3):
            with torch.no_grad():
                assert_same(compiled(*inputs[number]), expected[number])

    in_threads(4, compile_and_call)


def test_four_threads_train_four_copies_at_once() -> None:
    models = [Feedforward() for _ in range(4)]
    eager = copy.deepcopy(models)
    (x,) = batch()

    def train(number: int) -> None:
        for call in (torch.compile(models[number], backend="ttnn"), eager[number]):
            (call(x) * torch.arange(32.0)).sum().backward()
        assert_same([p.grad for p in models[number].parameters()], [p.grad for p in eager[number].parameters()])

    in_threads(4, train)


def test_weights_that_change_while_other_threads_call(warnings_logged: Any) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    (x,) = batch()
    stop, failed = threading.Event(), []

    def call() -> None:
        try:
            while not stop.is_set():
                with torch.no_grad():
                    assert compiled(x).isfinite().all()
        except BaseException as error:
            failed.append(error)

    with torch.no_grad():
        compiled(x)
    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    with torch.no_grad():
        for _ in range(20):
            for parameter in model.parameters():
                parameter.add_(0.01)
            compiled(x)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed and not warnings_logged()
    with torch.no_grad():
        assert_same(compiled(x), model(x))
