"""Audio codecs: what they look up by their own nearest codes stays on the device, and so does all else."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from comparison import pcc

import tt_dynamo

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported


def dac() -> Any:
    """Codes at each of two levels, of 64 vectors in 8 dimensions."""
    from transformers import DacConfig, DacModel

    sizes = {"encoder_hidden_size": 8, "hidden_size": 64, "decoder_hidden_size": 32}
    rates = {"downsampling_ratios": [4], "upsampling_ratios": [4]}
    return DacModel(DacConfig(**sizes, **rates, n_codebooks=2, codebook_size=64, codebook_dim=8))


@pytest.fixture(scope="module")
def run() -> Any:
    """Eager's results in float32 and in bfloat16, ours, and the reports of its graphs."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, sound = dac().eval(), torch.randn(8, 1, 256)
    with torch.no_grad(), tt_dynamo.record() as reports:
        eager = model(sound)
        ours = torch.compile(model, backend="ttnn", options={"preset": "accuracy"})(sound)
        rounded = model.bfloat16()(sound.bfloat16())
    yield eager, rounded, ours, reports
    torch._dynamo.reset()


def test_nothing_of_it_falls_back(run: Any) -> None:
    (report,) = run[3]
    assert report.fallbacks == []
    assert sum(operation.target == "ttnn.embedding" for operation in report.operations) == 2


def test_codes_are_eager_s_as_often_as_bfloat16_s_are(run: Any) -> None:
    """But for two standard deviations of so many codes: which of two vectors about as near wins is a matter of luck."""
    eager, rounded, ours, _ = run
    equal, expected = ((codes.audio_codes == eager.audio_codes).double().mean() for codes in (ours, rounded))
    deviation = (expected * (1 - expected) / eager.audio_codes.numel()).sqrt()
    assert equal >= min(0.99, expected) - 2 * deviation


def test_its_sound_is_eager_s(run: Any) -> None:
    eager, _, ours, _ = run
    assert pcc(ours.audio_values, eager.audio_values) >= 0.99


def encodec() -> Any:
    """Codes at each of three levels, of 64 vectors in 32 dimensions; an LSTM behind the encoder and one before the
    decoder."""
    from transformers import EncodecConfig, EncodecModel

    sizes = {"num_filters": 4, "hidden_size": 32, "codebook_dim": 32, "codebook_size": 64}
    rates = {"upsampling_ratios": [2, 2], "sampling_rate": 2400, "target_bandwidths": [12.0]}
    return EncodecModel(EncodecConfig(**sizes, **rates, num_lstm_layers=1, num_residual_layers=1))


@pytest.mark.slow
def test_encodec_runs_on_the_device_between_the_breaks_of_its_own() -> None:
    """It asks tensors how far to pad, where Dynamo divides the graph for any backend: each width is a graph."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, sound = encodec().eval(), torch.randn(1, 1, 128)
    with (
        torch.no_grad(),
        tt_dynamo.record() as reports,
        torch._dynamo.config.patch(allow_rnn=True, recompile_limit=64),
    ):
        eager = model(sound)
        ours = torch.compile(model, backend="ttnn", dynamic=False, options={"preset": "accuracy"})(sound)
    torch._dynamo.reset()
    assert [report.fallbacks for report in reports if report.fallbacks] == []
    launches = [operation.target for report in reports for operation in report.operations]
    assert {"ttnn.embedding", "ttnn.argmax", "ttnn.conv2d", "ttnn.conv_transpose2d"} <= {*launches}
    assert torch.equal(ours.audio_codes, eager.audio_codes)
    assert pcc(ours.audio_values, eager.audio_values) >= 0.99
