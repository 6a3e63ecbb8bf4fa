"""The small trained Llama writes on device what it writes in eager torch, from text that it was not trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc
from decoders import prefill_and_decode, static_cache
from storyteller import decode, encode, held_out_tales, padded, storyteller

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

NEW_TOKENS = 128


@pytest.fixture(scope="module")
def model() -> Any:
    return storyteller()


def opening(number: int, lines: int = 6) -> torch.Tensor:
    """The first lines of a held-out tale, where all that follows from them is still to come: ids [seq]."""
    return encode("\n".join(held_out_tales()[number].split("\n")[:lines]) + "\n")


def generate(model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
    """Greedy continuation [batch, seq + NEW_TOKENS]."""
    mask = torch.ones_like(ids) if mask is None else mask
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "cache_implementation": "static", **options}
    return model.generate(ids, attention_mask=mask, eos_token_id=None, **settings)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_generate_gives_eager_s_text(number: int) -> None:
    eager, model = storyteller(), storyteller()
    model.compile(backend="ttnn")
    ids = opening(number)[None]
    with tt_dynamo.record() as reports:
        ours = generate(model, ids)
    assert decode(ours[0]) == decode(generate(eager, ids)[0])
    assert [report.fallbacks for report in reports] == [[], []]


@pytest.mark.slow
def test_a_compiled_forward_gives_eager_s_text() -> None:
    eager, model = storyteller(), storyteller()
    model.forward = torch.compile(model.forward, backend="ttnn")
    ids = opening(3)[None]
    assert decode(generate(model, ids)[0]) == decode(generate(eager, ids)[0])


@pytest.mark.slow
def test_a_second_text_compiles_nothing_anew(model: Any) -> None:
    compiled = storyteller()
    compiled.compile(backend="ttnn")
    with tt_dynamo.record() as reports:
        for number in range(2):
            ids = opening(number)[None, :200]
            assert torch.equal(generate(compiled, ids, max_new_tokens=16), generate(model, ids, max_new_tokens=16))
    assert len(reports) == 2


@pytest.mark.slow
def test_prompts_of_different_lengths_give_eager_s_texts(model: Any) -> None:
    """Shorter prompts are padded on the left, and attention must not see it."""
    compiled = storyteller()
    compiled.compile(backend="ttnn")
    prompts = [opening(0), opening(1, lines=4), opening(2, lines=5)]
    ids, mask = padded(prompts)
    assert mask.sum(1).unique().numel() == 3
    ours = generate(compiled, ids, mask)
    assert torch.equal(ours, generate(model, ids, mask))
    for row, prompt in enumerate(prompts):
        alone = generate(model, prompt[None])[0]
        assert decode(ours[row, -NEW_TOKENS:]) == decode(alone[-NEW_TOKENS:])


@pytest.mark.slow
def test_beams_give_eager_s_text(model: Any) -> None:
    """Beam search puts rows of the cache in another order between steps."""
    compiled = storyteller()
    compiled.compile(backend="ttnn")
    ids = opening(4)[None]
    options = {"num_beams": 3, "max_new_tokens": 40}
    assert decode(generate(compiled, ids, **options)[0]) == decode(generate(model, ids, **options)[0])


GROWING = {"cache_implementation": None, "max_new_tokens": 16}  # the dynamic cache of generate() without arguments


@pytest.mark.parametrize(
    ("tales", "options"),
    [
        pytest.param([0], {}, id="greedy", marks=pytest.mark.slow),
        pytest.param([4], {"num_beams": 3}, id="beams", marks=pytest.mark.slow),
        pytest.param([0, 1, 2], {}, id="left_padding", marks=pytest.mark.slow),
    ],
)
def test_growing_caches_give_eager_s_text_in_few_programs(tales: list[int], options: Any, model: Any) -> None:
    compiled = storyteller()
    compiled.compile(backend="ttnn")
    ids, mask = padded([opening(number, lines=6 - at) for at, number in enumerate(tales)])
    with tt_dynamo.record() as reports:
        ours = generate(compiled, ids, mask, **GROWING, **options)
    assert torch.equal(ours, generate(model, ids, mask, **GROWING, **options))
    programs = [report for report in reports if report.device_nodes]
    assert len(programs) <= 2 + 2 + model.config.num_hidden_layers  # a prompt, a step, and parts of steps of any length


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=32)  # both models are calls of one function to Dynamo
def test_a_draft_model_gives_eager_s_text_in_few_programs(model: Any) -> None:
    """There is a program for each number of guessed tokens, and none for each length of the cache."""
    settings = {"num_assistant_tokens_schedule": "constant", "num_assistant_tokens": 4}
    models = []
    for compiles in (True, False):
        target, draft = storyteller(), storyteller()
        draft.model.layers = draft.model.layers[:1]
        draft.config.num_hidden_layers = 1
        draft.generation_config.update(**settings, assistant_confidence_threshold=0)
        if compiles:
            target.compile(backend="ttnn")
            draft.compile(backend="ttnn")
        models.append((target, {"assistant_model": draft}))
    ids, programs = opening(0)[None], []
    for tokens in (16, 48):
        options = {**GROWING, "max_new_tokens": tokens}
        with tt_dynamo.record() as reports:
            ours, theirs = (generate(target, ids, **options, **assistant) for target, assistant in models)
        assert torch.equal(ours, theirs)
        assert torch.equal(ours, generate(model, ids, **options))
        programs.append(sum(report.device_nodes > 0 for report in reports))
    parts = 6 * (2 + model.config.num_hidden_layers) + 3 * (2 + 1)  # of steps of up to 6 tokens, and of the draft's
    assert sum(programs) <= 2 * 2 + parts


@torch.no_grad()
def test_next_tokens_of_a_held_out_text_are_eager_s_in_prefill(model: Any) -> None:
    ids = encode("".join(held_out_tales()))[: 4 * 512].view(4, 512)
    eager = model(ids).logits
    ours = torch.compile(model, backend="ttnn")(ids).logits
    assert (ours.argmax(-1) == eager.argmax(-1)).float().mean() >= 0.99
    assert pcc(ours, eager) >= 0.99


@pytest.mark.slow
@torch.no_grad()
def test_next_tokens_of_a_held_out_text_are_eager_s_in_decode(model: Any) -> None:
    ids = encode("".join(held_out_tales()))[: 2 * 320].view(2, 320)
    eager = model(ids).logits[:, 191:]
    logits = prefill_and_decode(torch.compile(model, backend="ttnn"), ids, 192, static_cache(model, 320))
    ours = torch.cat([logits[0][:, -1:], *logits[1:]], 1)
    assert (ours.argmax(-1) == eager.argmax(-1)).float().mean() >= 0.99
    assert pcc(ours, eager) >= 0.99
