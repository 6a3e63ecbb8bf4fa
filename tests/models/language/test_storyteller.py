"""The small trained Llama is what its training script says, and sure enough of itself for bfloat16 arithmetic.

What a device gets right cannot be told from a model that wavers: these tests hold the model itself, in eager torch.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from storyteller import decode, encode, held_out_tales, storyteller
from tales import text
from train import CONTEXT, FOLDER, LOSS, held_out_loss, split


@pytest.fixture(scope="module")
def model() -> Any:
    return storyteller()


def opening(number: int) -> torch.Tensor:
    """The first six lines of a held-out tale: ids [1, seq]."""
    return encode("\n".join(held_out_tales()[number].split("\n")[:6]) + "\n")[None]


def continuation(model: Any, ids: torch.Tensor) -> str:
    options: dict[str, Any] = {"max_new_tokens": 128, "do_sample": False, "eos_token_id": None}
    return decode(model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0])


def test_the_text_is_what_the_grammar_gives() -> None:
    assert (FOLDER / "tales.txt").read_text() == text()


def test_no_tale_that_is_held_out_was_trained_on() -> None:
    trained, _ = split(text())
    assert not [tale for tale in held_out_tales() if tale in trained]


def test_the_loss_on_held_out_tales_is_what_the_training_reached(model: Any) -> None:
    _, held_out = split(text())
    assert held_out_loss(model, encode(held_out)) == pytest.approx(LOSS, abs=0.002)


@torch.no_grad()
def test_next_tokens_follow_from_more_than_the_last_word(model: Any) -> None:
    """With the last 8 bytes alone the model often continues otherwise. It looks back some 30, hardly further."""
    ids = encode("".join(held_out_tales()))[: CONTEXT * 2].view(2, CONTEXT)
    whole = model(ids).logits[:, 7:].argmax(-1)
    windows = ids.unfold(1, 8, 1)
    alone = model(windows.flatten(0, 1)).logits[:, -1].argmax(-1).view_as(whole)
    assert (whole == alone).float().mean() < 0.95


@pytest.mark.parametrize("number", range(4))
def test_bfloat16_leaves_128_greedy_tokens_alone(model: Any, number: int) -> None:
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    assert continuation(rounded, opening(number)) == continuation(model, opening(number))


@pytest.mark.parametrize("digits", [8, 7])
@torch.no_grad()
def test_rounding_weights_and_activations_leaves_next_tokens_alone(model: Any, digits: int) -> None:
    """To 8 bits of mantissa, as bfloat16 has, and to 7, as a block of bfloat8_b has for its largest value."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.copy_(shortened(parameter, digits))
    for module in rounded.modules():
        module.register_forward_hook(lambda _module, _given, result: shortened(result, digits))
    ids = encode("".join(held_out_tales()))[: 8 * CONTEXT].view(8, CONTEXT)
    agreement = (rounded(ids).logits.argmax(-1) == model(ids).logits.argmax(-1)).float().mean()
    assert agreement >= 0.99


def shortened(value: Any, digits: int) -> Any:
    """Floats with `digits` bits of mantissa, the one that is not stored included."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    mantissa, exponent = value.frexp()
    return torch.ldexp((mantissa * 2**digits).round() / 2**digits, exponent)
