"""Language models read prompts of ten lengths in a few programs, and continue each as eager torch does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from comparison import pcc, relative_error
from decoders import DECODERS, build, enliven, static_cache, tokens
from storyteller import decode, encode, held_out_tales, storyteller

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

LENGTHS = (150, 33, 47, 128, 90, 61, 100, 139, 75, 40)
CACHE = 192
OPTIONS = {"prompt_buckets": "auto"}


def bucketed(reports: list[tt_dynamo.GraphReport]) -> list[str]:
    return [note for report in reports for note in report.notes if note.startswith("prompt_buckets")]


@pytest.mark.slow
def test_ten_prompts_run_four_programs_and_give_eager_s_texts() -> None:
    eager, model = storyteller(), storyteller()
    model.compile(backend="ttnn", dynamic=True, options=OPTIONS)
    with tt_dynamo.record() as reports:
        for number, length in enumerate(LENGTHS):
            ids = encode(held_out_tales()[number % 4])[None, :length]
            texts = []
            for each in (eager, model):
                settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "cache_implementation": "static"}
                made = each.generate(
                    ids, attention_mask=torch.ones_like(ids), eos_token_id=None, output_logits=True,
                    return_dict_in_generate=True, **settings,
                )  # fmt: skip
                texts.append(made)
            assert decode(texts[1].sequences[0]) == decode(texts[0].sequences[0])
            assert pcc(*(torch.stack(made.logits) for made in texts)) >= 0.99
    assert len(bucketed(reports)) <= 4 and all("padded at the end" in note for note in bucketed(reports))
    assert len(reports) == len(bucketed(reports)) + 1, "and a step"
    assert not any(report.fallbacks for report in reports)


NAMES = ("gpt2", "mistral, window of 48", "opt", "gemma2")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_and_caches_after_padded_prompts_are_eager_s(name: str) -> None:
    """Behind the prompt, too; and steps go on from there."""
    model = build(name)
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options=OPTIONS)
    caches = static_cache(model, 96), static_cache(model, 96)
    ids = tokens(2, 48)
    with tt_dynamo.record() as reports:
        for length in (46, 37, 41):
            for first, last in ((0, length), (length, length + 1)):
                given = given_to(name, first, last)
                eager, ours = (
                    each(input_ids=ids[:, first:last], past_key_values=cache, use_cache=True, **given).logits
                    for each, cache in zip((model, compiled), caches, strict=True)
                )
                assert ours.shape == eager.shape and ours.stride() == eager.stride()
                assert pcc(ours, eager) >= 0.99
                assert relative_error(ours, eager) <= 0.1
            for layer, other in zip(caches[1].layers, caches[0].layers, strict=True):
                assert relative_error(layer.keys, other.keys) <= 0.05
                assert relative_error(layer.values, other.values) <= 0.05
                assert int(layer.cumulative_length) == int(other.cumulative_length) == length + 1
            for cache in caches:
                start_again(cache)
    assert len(bucketed(reports)) == 2, "one makes its cache, the other has one"
    assert all("padded at the end" in note for note in bucketed(reports))


def start_again(cache: Any) -> None:
    """From the first row; without a window, with the old rows still there, which a prompt leaves behind its own."""
    if any(layer.is_sliding for layer in cache.layers):
        cache.reset()
    for layer in cache.layers:
        layer.cumulative_length.zero_()


def given_to(name: str, first: int, last: int) -> dict[str, Any]:
    """The mask over the whole cache and the positions that generate() makes, for the models that need them."""
    positions = torch.arange(first, last)
    mask = torch.arange(96).le(positions[:, None]).expand(2, 1, -1, -1)
    masked = DECODERS[name].masked
    return {"position_ids": positions.expand(2, -1), "attention_mask": mask} if masked else {}


@pytest.mark.slow
def test_prompts_of_a_batch_that_are_padded_in_front() -> None:
    """With the dynamic cache that generate() makes by itself."""
    eager, model = storyteller(), storyteller()
    model.compile(backend="ttnn", dynamic=True, options=OPTIONS)
    with tt_dynamo.record() as reports:
        for length in (60, 51):
            ids = torch.stack([encode(held_out_tales()[number])[:length] for number in range(2)])
            mask = torch.ones_like(ids)
            mask[1, :20] = 0
            settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
            texts = [each.generate(ids * mask, attention_mask=mask, **settings) for each in (eager, model)]
            assert torch.equal(*texts)
    assert len([note for note in bucketed(reports) if "padded at the end" in note]) == 1


@torch.no_grad()
def test_an_encoder_that_spells_out_attention_is_compiled_for_each_length() -> None:
    config = transformers.BertConfig(
        vocab_size=320, hidden_size=128, num_hidden_layers=1, num_attention_heads=4, intermediate_size=256,
        attn_implementation="eager",
    )  # fmt: skip
    model = enliven(transformers.BertModel(config)).eval()
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options=OPTIONS)
    with tt_dynamo.record() as reports:
        for length in (20, 27):
            ids = tokens(2, length)
            assert pcc(compiled(ids).last_hidden_state, model(ids).last_hidden_state) >= 0.99
    assert len(reports) == 2 and all("compiled for one length" in note for note in bucketed(reports))
