"""T5 and Whisper: an encoder once, then a decoder whose cross-attention reads what the encoder left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from decoders import VOCABULARY, enliven, tokens

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

FRAMES = 64  # of audio, after the encoder's convolution with stride 2
NEW_TOKENS = 12


def t5() -> Any:
    """Relative positions as a bias of the scores, RMS norms, no scaling."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    return enliven(T5ForConditionalGeneration(config)).eval()


def whisper() -> Any:
    """Convolutions over audio, learned and sine positions."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=VOCABULARY, num_mel_bins=80, d_model=128, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=256, decoder_ffn_dim=256,
        max_source_positions=FRAMES, max_target_positions=128, decoder_start_token_id=1, pad_token_id=0,
        bos_token_id=1, eos_token_id=None, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    return enliven(WhisperForConditionalGeneration(config)).eval()


def inputs(name: str, batch: int) -> dict[str, torch.Tensor]:
    """What the encoder reads; T5's second text is shorter."""
    if name == "whisper":
        generator = torch.Generator().manual_seed(batch)
        return {"input_features": torch.randn(batch, 80, 2 * FRAMES, generator=generator)}
    mask = torch.ones(batch, 40, dtype=torch.int64)
    mask[1:, 30:] = 0
    return {"input_ids": tokens(batch, 40), "attention_mask": mask}


MODELS = {"t5": t5, "whisper": whisper}


@pytest.mark.slow  # a whole text, below, runs the encoder too
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_an_encoder_runs_whole(name: str, batch: int) -> None:
    encoder, given = MODELS[name]().get_encoder(), inputs(name, batch)
    eager = encoder(**given).last_hidden_state
    with tt_dynamo.record() as reports:
        ours = torch.compile(encoder, backend="ttnn")(**given).last_hidden_state
    assert [report.fallbacks for report in reports] == [[]]
    assert pcc(ours, eager) >= 0.99
    assert relative_error(ours, eager) <= 0.1


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_decoder_gives_eager_s_logits_for_a_whole_text(name: str) -> None:
    model, given = MODELS[name](), inputs(name, 2)
    given["decoder_input_ids"] = tokens(2, 32).flip(1)
    eager = model(**given, use_cache=False).logits
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(**given, use_cache=False).logits
    assert [report.fallbacks for report in reports] == [[]]
    assert pcc(ours, eager) >= 0.99
    assert relative_error(ours, eager) <= 0.1


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_steps_with_a_static_cache_give_eager_s_logits(name: str) -> None:
    from transformers import EncoderDecoderCache, StaticCache

    model, given, ids = MODELS[name](), inputs(name, 2), tokens(2, NEW_TOKENS)
    compiled = torch.compile(model, backend="ttnn")
    encoded = model.get_encoder()(**given)
    config = model.config.get_text_config(decoder=True)

    def logits(model: Any) -> list[torch.Tensor]:
        lengths = NEW_TOKENS, encoded.last_hidden_state.shape[1]
        cache = EncoderDecoderCache(*(StaticCache(config=config, max_cache_len=length) for length in lengths))
        mask = {"attention_mask": given["attention_mask"]} if name == "t5" else {}
        steps = []
        for position in range(NEW_TOKENS):
            step = ids[:, position : position + 1]
            out = model(encoder_outputs=encoded, decoder_input_ids=step, past_key_values=cache, use_cache=True, **mask)
            steps.append(out.logits)
        return steps

    eager = logits(model)
    with tt_dynamo.record() as reports:
        ours = logits(compiled)
    for mine, theirs in zip(ours, eager, strict=True):
        assert mine.shape == theirs.shape
        assert pcc(mine, theirs) >= 0.99
    assert relative_error(torch.cat(ours, 1), torch.cat(eager, 1)) <= 0.1
    assert len(reports) == 2, "the first token, with the encoder's keys and values, and all others"
    assert [report.fallbacks for report in reports] == [[], []]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_generate_gives_eager_s_logits_along_its_tokens(name: str) -> None:
    """Random weights waver between tokens, so eager torch judges the logits of the tokens that came out."""
    model, given = MODELS[name](), inputs(name, 2)
    compiled = MODELS[name]()
    compiled.compile(backend="ttnn")
    compiled.get_encoder().compile(backend="ttnn")
    settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "cache_implementation": "static"}
    ours = compiled.generate(**given, **settings, return_dict_in_generate=True, output_logits=True)
    assert ours.sequences.shape[1] >= NEW_TOKENS
    eager = model(**given, decoder_input_ids=ours.sequences[:, :-1]).logits[:, -len(ours.logits) :]
    assert pcc(torch.stack(ours.logits, 1), eager) >= 0.99
    best = eager.max(-1).values - eager.gather(-1, ours.sequences[:, -len(ours.logits) :, None])[..., 0]
    assert best.max() <= 0.1 * eager.abs().max(), "each token is eager's best, or close to it"
