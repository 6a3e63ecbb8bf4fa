"""The benchmarks of language models: what a board needs for them at least, and what `run.py` prints of them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import roofline

    return roofline


def small_llama() -> Any:
    """Elements of weights: query, output 64 x 64, key, value 64 x 32, MLP 3 x 64 x 128: 36,864; the last one 6,400."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("weight_dtype", "expected"),
    [
        ("bfloat16", 43264 * 2),
        ("bfloat8_b", 43264 * 1.0625),
        ({"*.mlp.*": "bfloat4_b", "*": "bfloat8_b"}, 24576 * 0.5625 + 18688 * 1.0625),
        ({"*.mlp.*": "bfloat8_b"}, 24576 * 1.0625 + 18688 * 2),
    ],
)
def test_bytes_of_weights(roofline: ModuleType, weight_dtype: Any, expected: float) -> None:
    assert roofline.weight_bytes(small_llama(), weight_dtype) == expected


def test_the_cost_of_prefill(roofline: ModuleType) -> None:
    cost = roofline.prefill(small_llama(), batch=2, seq=3)
    # The last projection sees one token of each sequence; 1 + 2 + 3 keys in two products of two heads of 32.
    assert cost.flops == 2 * 36864 * 6 + 2 * 6400 * 2 + 2 * 2 * (2 * 32) * 2 * 6
    assert cost.cache_bytes == 2 * (2 * 3 * 32) * 2
    assert cost.weight_bytes == 43264 * 2


def test_the_cost_of_decode(roofline: ModuleType) -> None:
    cost = roofline.decode(small_llama(), batch=2, context=5)
    assert cost.flops == 2 * 43264 * 2 + 2 * 2 * (2 * 32) * 2 * 5
    assert cost.cache_bytes == 2 * (2 * 5 * 32) * 2
    assert cost.weight_bytes == 43264 * 2


@pytest.mark.parametrize(
    ("board", "fidelity", "expected"),
    [("n150", "HiFi2", 2.0), ("n150", "HiFi4", 4.0), ("p150", "HiFi2", 1.125), ("p150", "HiFi3", 296 / 332 * 1.5)],
)
def test_the_slower_of_memory_and_arithmetic_counts(
    roofline: ModuleType, board: str, fidelity: str, expected: float
) -> None:
    cost = roofline.Cost(weight_bytes=500e9, cache_bytes=76e9, flops=296e12)
    assert cost.seconds(BOARD_DESCRIPTIONS[board], fidelity) == pytest.approx(expected)


def test_a_token_of_llama_1b_takes_as_long_as_reading_its_weights(roofline: ModuleType) -> None:
    import language

    with torch.device("meta"):
        model, _ids = language.LANGUAGE_CASES["llama-1b"].build(None)
    estimate = language.at_least("decode", model, 1, 128, "bfloat16", "n150", "HiFi2")
    layer = 2048 * 3072 + 2048 * 2048 + 3 * 2048 * 8192
    assert estimate["weight_bytes"] == (16 * layer + 128256 * 2048) * 2 == 2_471_493_632
    assert estimate["cache_bytes"] == 16 * 2 * 8 * 129 * 64 * 2
    assert estimate["bound_by"] == "DRAM"
    assert estimate["seconds"] == pytest.approx((2_471_493_632 + 4_227_072) / 288e9)
    assert estimate["tokens_per_second_per_user"] == pytest.approx(116.3, abs=0.1)
    assert estimate["label"] == "estimate (roofline), not measured"


@pytest.fixture(scope="module")
def language_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What was printed, and the results of a case with values and of one that is only checked, two layers each.

    In this process, which has imported all of it: `test_benchmarks.py` runs the script by itself.
    """
    folder = tmp_path_factory.mktemp("language")
    arguments = ["tales", "llama-8b", "--layers", "2", "--runs", "2", "--weight-dtype", "bfloat8_b", "--device", "n150"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.syspath_prepend(str(BENCHMARKS))
        import run

        run.main([*arguments, "--output", str(folder)])
    assert not (folder / "results.png").exists()
    tales, llama = json.loads((folder / "results.json").read_text())
    return printed.getvalue(), tales, llama


@pytest.mark.slow
def test_prefill_and_decode_are_counted_beside_the_experts(language_run: Any) -> None:
    for result in language_run[1:]:
        assert list(result["steps"]) == ["prefill", "decode"]
        # A step of 23 has moves around products on all cores, estimated to be faster than on those of its shards.
        for step, experts, most in (("prefill", 20, 20), ("decode", 22, 23)):
            figures = result["steps"][step]
            assert figures["experts_launches_per_layer"] == experts
            assert 10 < figures["kernel_launches_per_layer"] <= most
            assert figures["kernel_launches"] > 2 * figures["kernel_launches_per_layer"]
            assert figures["fallbacks"] == []
            assert figures["cache_bytes"] > 0


@pytest.mark.slow
def test_values_are_compared_with_eager_torch(language_run: Any) -> None:
    printed, tales, llama = language_run
    assert llama["accuracy"] is None
    assert tales["accuracy"]["calls"] == 33
    assert tales["accuracy"]["pcc"] > 0.99
    assert tales["accuracy"]["top1_agreement"] > 0.9
    assert "tales: lowest PCC of 33 calls 0.99" in printed


@pytest.mark.slow
def test_bytes_of_weights_are_those_that_go_up(language_run: Any, roofline: ModuleType) -> None:
    import language

    for result in language_run[1:]:
        with torch.device("meta" if result["case"] == "llama-8b" else "cpu"):
            model, _ids = language.LANGUAGE_CASES[result["case"]].build(2)
        for figures in result["steps"].values():
            assert figures["weight_dtypes"]["bfloat8_b"] == roofline.weight_bytes(model, "bfloat8_b")


@pytest.mark.slow
def test_estimates_and_host_times_are_labelled(language_run: Any) -> None:
    printed, tales, llama = language_run
    assert "a call on n150 at least: estimate (roofline), not measured" in printed
    assert "estimate of the time on n150 (emulated), not measured" in printed and "estimate ms" in printed
    assert "estimated ms" in printed
    assert "tales: host time of decode, dry run on this computer" in printed
    assert "emulated ms" not in printed
    assert tales["steps"]["decode"]["host_seconds"]["runs"] == 2
    assert llama["steps"]["decode"]["host_seconds"] is None, "it was not run"
    assert tales["steps"]["decode"]["roofline"] is None
    decode = llama["steps"]["decode"]
    assert decode["roofline"]["bound_by"] == "DRAM"
    assert decode["roofline"]["seconds"] < decode["estimated_kernel_seconds"] < decode["estimated_seconds"]
    assert decode["published"] == [], "two layers of it were published nowhere"
