"""A static cache is the model's memory on the device and a tensor to torch: read and written from both sides."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from decoders import build, prefill_and_decode, static_cache, tokens

import tt_dynamo

pytestmark = pytest.mark.usefixtures("board_device")

PROMPT = 20
LENGTH = 64


def assert_like(ours: torch.Tensor, eager: torch.Tensor) -> None:
    assert (ours.shape, ours.dtype, ours.stride()) == (eager.shape, eager.dtype, eager.stride())
    assert pcc(ours, eager) >= 0.99
    assert relative_error(ours, eager) <= 0.1


class Pair:
    """A compiled model with its cache beside the same in eager torch; what is done to one is done to the other."""

    def __init__(self, model: Any, compiled: Any) -> None:
        self.model, self.compiled = model, compiled
        self.ids = tokens(2, LENGTH)
        self.new_caches()

    def new_caches(self) -> None:
        self.eager_cache, self.cache = (static_cache(self.model, LENGTH) for _ in range(2))

    def each(self, change: Callable[[Any], Any]) -> None:
        """`change` the caches of both."""
        for cache in (self.eager_cache, self.cache):
            change(cache)

    def step(self, start: int, end: int) -> None:
        """Both read the tokens from `start` to `end`; their logits are the same."""
        eager, ours = self.logits(self.model, self.eager_cache, start, end), self.ours(start, end)
        assert_like(ours, eager)

    def ours(self, start: int, end: int) -> torch.Tensor:
        return self.logits(self.compiled, self.cache, start, end)

    @torch.no_grad()
    def logits(self, model: Any, cache: Any, start: int, end: int) -> torch.Tensor:
        return model(input_ids=self.ids[:, start:end], past_key_values=cache, use_cache=True).logits

    def assert_caches_alike(self) -> None:
        for layer, other in zip(self.cache.layers, self.eager_cache.layers, strict=True):
            assert_like(layer.keys, other.keys)
            assert_like(layer.values, other.values)
            assert int(layer.cumulative_length) == int(other.cumulative_length)


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[Any, Any]]:
    """A model and its compiled form, which tests share: what is compiled once serves all of the same shapes."""
    torch._dynamo.reset()
    model = build("llama")
    yield model, torch.compile(model, backend="ttnn")
    torch._dynamo.reset()


@pytest.fixture
def new_pair(models: tuple[Any, Any]) -> Pair:
    """With caches that have seen nothing."""
    return Pair(*models)


@pytest.fixture
def pair(new_pair: Pair) -> Pair:
    """After the prompt and three steps."""
    pair = new_pair
    pair.step(0, PROMPT)
    for position in range(PROMPT, PROMPT + 3):
        pair.step(position, position + 1)
    return pair


def saved(keys: torch.Tensor) -> torch.Tensor:
    file = io.BytesIO()
    torch.save(keys, file)
    file.seek(0)
    return torch.load(file)


READINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "clone": torch.clone,
    "numpy": lambda keys: torch.from_numpy(keys.numpy().copy()),
    "list": lambda keys: torch.tensor(keys.tolist()),
    "one row": lambda keys: keys[:, :, PROMPT + 1],
    "transpose": lambda keys: keys.transpose(1, 2).contiguous(),
    "arithmetic": lambda keys: keys * 2 + 1,
    "out": lambda keys: torch.mul(keys, 2, out=torch.empty_like(keys)),
    "copy_": lambda keys: torch.empty(keys.shape).copy_(keys),
    "bfloat16": lambda keys: keys.to(torch.bfloat16),
    "deepcopy": copy.deepcopy,
    "file": saved,
}


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
def test_torch_reads_what_steps_wrote(pair: Pair, read: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for layer, other in zip(pair.cache.layers, pair.eager_cache.layers, strict=True):
        assert_like(read(layer.keys), read(other.keys))
        assert_like(read(layer.values), read(other.values))
    pair.step(PROMPT + 3, PROMPT + 4)


def test_lengths_count_tokens(pair: Pair) -> None:
    assert [int(layer.cumulative_length) for layer in pair.cache.layers] == [PROMPT + 3] * 2
    assert int(pair.cache.get_seq_length()) == PROMPT + 3


def test_what_is_read_between_steps_is_never_stale(pair: Pair) -> None:
    for position in range(PROMPT + 3, PROMPT + 6):
        pair.assert_caches_alike()
        pair.step(position, position + 1)
    pair.assert_caches_alike()


def zero(cache: Any) -> None:
    cache.layers[0].keys.zero_()


def fill_rows(cache: Any) -> None:
    cache.layers[1].values[:, :, 4:9] = 0.5


def scale_one_head(cache: Any) -> None:
    cache.layers[0].keys[:, 1].mul_(-2)


def copy_over(cache: Any) -> None:
    cache.layers[1].keys.copy_(cache.layers[1].keys.flip(2))


def through_a_view(cache: Any) -> None:
    view = cache.layers[0].values[1]
    view[:, 4:12] = 3


def another_tensor(cache: Any) -> None:
    cache.layers[0].keys = cache.layers[0].keys.flip(0).contiguous()


def other_order_of_rows(cache: Any) -> None:
    cache.reorder_cache(torch.tensor([1, 0]))


def other_memory(cache: Any) -> None:
    cache.layers[1].keys.data = cache.layers[1].keys.data * 0.5


WRITINGS = {
    change.__name__: change
    for change in (
        zero, fill_rows, scale_one_head, copy_over, through_a_view, another_tensor, other_order_of_rows, other_memory,
    )
}  # fmt: skip


@pytest.mark.parametrize("change", WRITINGS.values(), ids=WRITINGS)
def test_the_next_step_sees_what_torch_wrote(pair: Pair, change: Callable[[Any], None]) -> None:
    unchanged = copy.deepcopy(pair.eager_cache)
    pair.each(change)
    changed = copy.deepcopy(pair.eager_cache)
    next_token = PROMPT + 3, PROMPT + 4
    difference = relative_error(*(pair.logits(pair.model, cache, *next_token) for cache in (changed, unchanged)))
    assert difference > 0.1, "a step that saw nothing of it would be wrong"
    pair.step(*next_token)
    pair.step(PROMPT + 4, PROMPT + 5)
    pair.assert_caches_alike()


def test_a_cache_that_was_reset_takes_another_text(pair: Pair) -> None:
    pair.each(lambda cache: cache.reset())
    assert all(not layer.keys.any() for layer in pair.cache.layers)
    pair.ids = pair.ids.flip(1)
    pair.step(0, PROMPT)
    pair.step(PROMPT, PROMPT + 1)
    pair.assert_caches_alike()


@pytest.mark.slow
def test_a_cache_initialized_before_the_prompt(new_pair: Pair) -> None:
    pair = new_pair
    pair.each(lambda cache: cache.early_initialization(2, 2, 32, torch.float32, torch.device("cpu")))
    pair.step(0, PROMPT)
    for position in range(PROMPT, PROMPT + 3):
        pair.step(position, position + 1)
    pair.assert_caches_alike()


@pytest.mark.slow
def test_a_cache_that_eager_torch_filled(new_pair: Pair) -> None:
    """Such tensors are marked static, as parameters are; they are no weights."""
    pair = new_pair
    for cache in (pair.cache, pair.eager_cache):
        pair.logits(pair.model, cache, 0, PROMPT)
    for position in range(PROMPT, PROMPT + 4):
        pair.step(position, position + 1)
    pair.assert_caches_alike()


def test_eager_and_compiled_steps_take_turns_on_one_cache(pair: Pair) -> None:
    for position in range(PROMPT + 3, PROMPT + 9):
        if position % 2:
            pair.step(position, position + 1)
        else:
            ours = pair.logits(pair.model, pair.cache, position, position + 1)
            assert_like(ours, pair.logits(pair.model, pair.eager_cache, position, position + 1))
    pair.assert_caches_alike()


@pytest.mark.slow
def test_two_texts_take_turns_on_one_model(clean_dynamo: None, models: tuple[Any, Any]) -> None:
    one, two = Pair(*models), Pair(*models)
    two.ids = two.ids.flip(1)
    with tt_dynamo.record() as reports:
        for pair in (one, two):
            pair.step(0, PROMPT)
        for position in range(PROMPT, PROMPT + 4):
            for pair in (one, two):
                pair.step(position, position + 1)
    assert len(reports) == 2
    for pair in (one, two):
        pair.assert_caches_alike()


def test_a_copy_of_a_cache_goes_its_own_way(pair: Pair) -> None:
    """As when one prompt is continued in several ways."""
    copies = copy.deepcopy(pair.cache), copy.deepcopy(pair.eager_cache)
    pair.step(PROMPT + 3, PROMPT + 4)
    pair.cache, pair.eager_cache = copies
    pair.step(PROMPT + 5, PROMPT + 6)
    pair.assert_caches_alike()


@pytest.mark.slow
def test_a_prompt_in_two_parts(clean_dynamo: None, pair: Pair) -> None:
    pair.step(PROMPT + 3, PROMPT + 15)
    pair.step(PROMPT + 15, PROMPT + 16)
    pair.assert_caches_alike()


@pytest.mark.slow
def test_a_model_in_bfloat16(clean_dynamo: None) -> None:
    model = build("llama").to(torch.bfloat16)
    pair = Pair(model, torch.compile(model, backend="ttnn"))
    pair.step(0, PROMPT)
    for position in range(PROMPT, PROMPT + 4):
        pair.step(position, position + 1)
    assert pair.cache.layers[0].keys.dtype == torch.bfloat16
    pair.assert_caches_alike()


def test_a_weight_that_changes_between_steps(pair: Pair) -> None:
    weight = pair.model.model.layers[1].mlp.down_proj.weight
    for position in (PROMPT + 3, PROMPT + 4):
        with torch.no_grad():
            weight.neg_()
        pair.step(position, position + 1)


# What eager torch refuses: a clear error, and never values.


def test_a_prompt_longer_than_the_cache(pair: Pair) -> None:
    pair.ids = tokens(2, LENGTH + 8)
    pair.new_caches()
    with pytest.raises((IndexError, RuntimeError)):
        pair.logits(pair.model, pair.eager_cache, 0, LENGTH + 8)
    with pytest.raises((IndexError, RuntimeError)):
        pair.ours(0, LENGTH + 8)


def test_a_step_past_the_end_of_the_cache(new_pair: Pair) -> None:
    pair = new_pair
    pair.ids = tokens(2, LENGTH + 2)
    pair.step(0, LENGTH - 1)
    pair.step(LENGTH - 1, LENGTH)
    with pytest.raises((IndexError, RuntimeError)):
        pair.logits(pair.model, pair.eager_cache, LENGTH, LENGTH + 1)
    with pytest.raises((IndexError, RuntimeError)):
        pair.ours(LENGTH, LENGTH + 1)


def test_a_cache_of_another_batch(pair: Pair) -> None:
    pair.step(PROMPT + 3, PROMPT + 4)
    pair.ids = tokens(3, LENGTH)
    with pytest.raises((IndexError, RuntimeError)):
        pair.logits(pair.model, pair.eager_cache, PROMPT + 4, PROMPT + 5)
    with pytest.raises((IndexError, RuntimeError)):
        pair.ours(PROMPT + 4, PROMPT + 5)


@pytest.mark.slow
def test_a_cache_of_another_dtype(clean_dynamo: None) -> None:
    model = build("llama").to(torch.bfloat16)
    pair = Pair(model, torch.compile(model, backend="ttnn"))
    pair.each(lambda cache: cache.early_initialization(2, 2, 32, torch.float32, torch.device("cpu")))
    with pytest.raises(RuntimeError):
        pair.logits(pair.model, pair.eager_cache, 0, PROMPT)
    with pytest.raises(RuntimeError):
        pair.ours(0, PROMPT)


@pytest.mark.slow
@torch.no_grad()
def test_a_longer_cache_is_another_graph_and_right(clean_dynamo: None, models: tuple[Any, Any]) -> None:
    (model, compiled), ids = models, tokens(1, PROMPT + 4)
    for length in (32, 48, 100):
        eager = prefill_and_decode(model, ids, PROMPT, static_cache(model, length))
        ours = prefill_and_decode(compiled, ids, PROMPT, static_cache(model, length))
        for mine, theirs in zip(ours, eager, strict=True):
            assert_like(mine, theirs)
