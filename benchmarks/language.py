"""Language models in `run.py`: a prompt's prefill, then decode, one token at a time against a cache on the device.

What is counted is TTNN's answer: kernel launches, transfers, memory. What a call would take on the board, and what it
takes at least (`roofline.py`), are estimates, never measured on an emulated device. What it takes the host is measured,
in a dry run.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import roofline
import torch
from measuring import WARM_UP, describe_times, figures, pcc, say, summary
from published import published

import tt_dynamo
from tt_dynamo.devices import Device
from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS
from tt_dynamo.lowering.workarounds import math_fidelity
from tt_dynamo.options import Options

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # checked by the hub's client when it is imported

SEED = 0
PROMPT = 128  # tokens, unless --prompt says otherwise
STEPS = 32  # tokens that are decoded where values count
TILE = 32
TALES = Path(__file__).parent.parent / "tests" / "data" / "tales"

# Kernel launches of a Llama layer as Tenstorrent's experts write it: tt-metal, models/tt_transformers/tt/decoder.py.
EXPERTS = {"prefill": 20, "decode": 22}

# By the names of --weight-dtype; "experts" is what the published figures were measured with.
WEIGHT_DTYPES: dict[str, roofline.WeightDtype] = {
    "bfloat16": "bfloat16",
    "bfloat8_b": "bfloat8_b",
    "bfloat4_b": "bfloat4_b",
    "experts": {"*.mlp.*": "bfloat4_b", "*": "bfloat8_b"},
}


@dataclasses.dataclass(frozen=True)
class LanguageCase:
    """build: layers or None for all of them → model, and ids [1, tokens] or None for any.

    values: values are computed and compared with eager torch. checked: too large to run, `tt_dynamo.check` compiles it.
    weight_dtype: unless --weight-dtype says otherwise. opt_in: measured only where it is named.
    """

    name: str
    about: str
    build: Callable[[int | None], tuple[Any, torch.Tensor | None]]
    values: bool = False
    checked: bool = False
    weight_dtype: str = "bfloat16"
    opt_in: bool = False


def tales(layers: int | None) -> tuple[Any, torch.Tensor]:
    """A Llama of 0.5 million parameters that was trained on tales, and the end of its text, which it has not seen."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # with fewer layers it lists the weights that are left over
    config = LlamaConfig.from_pretrained(TALES, local_files_only=True)
    config.num_hidden_layers = layers or config.num_hidden_layers
    model = LlamaForCausalLM.from_pretrained(TALES, config=config, dtype=torch.float32, local_files_only=True)
    text = (TALES / "tales.txt").read_text()[-4 * PROMPT :]
    return model.eval(), torch.tensor([list(text.encode("ascii"))])


def llama(factor: float, layers_of_all: int, **sizes: Any) -> Callable[[int | None], tuple[Any, None]]:
    """A Llama 3 of these sizes, in bfloat16; its weights have memory and no contents, which a dry run never reads."""

    def build(layers: int | None) -> tuple[Any, None]:
        from transformers import LlamaConfig, LlamaForCausalLM
        from transformers.initialization import no_init_weights

        rope = {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        config = LlamaConfig(
            vocab_size=128256, num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072,
            rms_norm_eps=1e-5, rope_parameters=rope, num_hidden_layers=layers or layers_of_all, **sizes,
        )  # fmt: skip
        with no_init_weights():
            model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
        model.tie_weights()
        return model.eval(), None

    return build


LANGUAGE_CASES = {
    case.name: case
    for case in (
        LanguageCase("tales", "a small Llama trained on tales, one token a byte, with values", tales, values=True),
        LanguageCase(
            "llama-1b",
            "Llama-3.2-1B's geometry, dry run: 4 GB of host memory, a minute or two",
            llama(32.0, 16, hidden_size=2048, intermediate_size=8192, head_dim=64, tie_word_embeddings=True),
            opt_in=True,
        ),
        LanguageCase(
            "llama-8b",
            "Llama-3.1-8B's geometry, compiled without its data: some minutes",
            llama(8.0, 32, hidden_size=4096, intermediate_size=14336, head_dim=128, tie_word_embeddings=False),
            checked=True,
            weight_dtype="bfloat8_b",
            opt_in=True,
        ),
    )
}


@dataclasses.dataclass
class Calls:
    """Prefill of a new cache, then one token after another: logits and seconds of each call."""

    logits: list[torch.Tensor] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)


def measure_language(
    name: str,
    device: Device,
    *,
    batch: int,
    runs: int,
    layers: int | None,
    preset: str,
    prompt: int,
    weight_dtype: str | None,
) -> dict[str, Any]:
    """All figures of one case, as written to the JSON file; seconds and bytes, for prefill and for decode."""
    torch.manual_seed(SEED)
    case = LANGUAGE_CASES[name]
    chosen = weight_dtype or case.weight_dtype
    options: dict[str, Any] = {"preset": preset, "weight_dtype": WEIGHT_DTYPES[chosen]}
    say(name, "building the model")
    with torch.device("meta" if case.checked else "cpu"):
        model, ids = case.build(layers)
    if ids is not None and ids.shape[1] < prompt + STEPS:
        raise SystemExit(f"{name} has {ids.shape[1]} tokens, of which {STEPS} are decoded: --prompt is {prompt}")
    accuracy: dict[str, float] | None = None
    host: dict[str, Any] | None = None
    if case.checked:
        reports = checked(name, model, device, batch, prompt, options)
    else:
        if case.values:
            assert ids is not None
            say(name, f"prefill of {prompt} tokens and {STEPS} more, beside eager torch")
            accuracy = compare(model, ids[:, : prompt + STEPS].expand(batch, -1), prompt, device, options)
        reports, host = dry_run(name, model, device, batch, runs, prompt, options)
    parsed = Options.parse(options)
    fidelity = math_fidelity(device.architecture, parsed.math_fidelity, parsed.fp32_accumulation is True)
    return {
        "case": name,
        "about": case.about,
        "batch": batch,
        "layers": layers,
        "tokens": prompt,
        "device": device.description,
        "preset": preset,
        "emulated": device.emulated,
        "times_are": describe_times(device),
        "weight_dtype": chosen,
        "accuracy": accuracy,
        "steps": {
            step: {
                **figures([report]),
                "weight_dtypes": report.weight_dtypes,
                "cache_bytes": report.cache_bytes,
                "experts_launches_per_layer": EXPERTS[step],
                "host_seconds": host and host[step],
                # What bytes and FLOPs say of a model this small is nothing: its kernels take longer to start.
                "roofline": None
                if case.values
                else at_least(step, model, batch, prompt, chosen, device.board, fidelity),
                "published": published(name, step, device.board, batch, prompt, layers),
            }
            for step, report in zip(EXPERTS, reports, strict=True)
        },
    }


def run(model: Callable[..., Any], config: Any, ids: torch.Tensor, prompt: int, count: int, length: int) -> Calls:
    """Call `model` on the first `prompt` tokens of ids [batch, seq], then on `count` tokens by themselves.

    length: rows of the cache.
    """
    from transformers import StaticCache

    cache = StaticCache(config=config, max_cache_len=length)
    calls = Calls()
    for start, end in [(0, prompt), *((place, place + 1) for place in range(prompt, prompt + count))]:
        given = {"input_ids": ids[:, start:end], "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        began = time.perf_counter()
        calls.logits.append(model(**given).logits)
        calls.seconds.append(time.perf_counter() - began)
    return calls


def compare(model: Any, ids: torch.Tensor, prompt: int, device: Device, options: dict[str, Any]) -> dict[str, float]:
    """The lowest PCC with eager torch of the logits of any call, and the share with the same most likely token."""
    compiled = compile_for(model, device, options)
    ours, eager = (run(called, model.config, ids, prompt, STEPS, ids.shape[1]).logits for called in (compiled, model))
    same = [(a.argmax(-1) == b.argmax(-1)).float().mean().item() for a, b in zip(ours, eager, strict=True)]
    return {
        "pcc": min(pcc(a, b) for a, b in zip(ours, eager, strict=True)),
        "top1_agreement": sum(same) / len(same),
        "calls": len(same),
    }


def dry_run(
    name: str, model: Any, device: Device, batch: int, runs: int, prompt: int, options: dict[str, Any]
) -> tuple[list[tt_dynamo.GraphReport], dict[str, Any]]:
    """The reports of prefill and decode, and what a call of each takes the host, where no values are computed.

    With one torch thread: waking a pool costs more than these calls do when other processes use the cores.
    """
    options = {
        **options,
        "dry_run": True,
        "fallback": "error",
    }  # a call that recovers from a failure is not to be timed
    compiled = compile_for(model, device, options)
    ids = torch.zeros(batch, prompt + WARM_UP + runs, dtype=torch.int64)
    length = -(-ids.shape[1] // TILE) * TILE
    threads = torch.get_num_threads()
    say(name, f"dry run on {device.description}: compiling prefill and decode")
    with tt_dynamo.record() as reports:
        torch.set_num_threads(1)  # before the first call: Dynamo's guards look at it
        try:
            first, then = run(compiled, model.config, ids, prompt, 1, length).seconds
            say(name, f"first calls: prefill {first:.1f} s, decode {then:.1f} s; {runs} calls of each")
            prefill = [run(compiled, model.config, ids, prompt, 0, length).seconds[0] for _ in range(WARM_UP + runs)]
            decode = run(compiled, model.config, ids, prompt, WARM_UP + runs, length).seconds[1:]
        finally:
            torch.set_num_threads(threads)
    assert len(reports) == 2, "what is timed compiles nothing"
    return reports, {"prefill": summary(prefill[WARM_UP:]), "decode": summary(decode[WARM_UP:])}


def compile_for(model: Any, device: Device, options: dict[str, Any]) -> Callable[..., Any]:
    torch.compiler.reset()  # guards of what was compiled before would be tried first, in every call
    options = {**options, "device": device.choice}
    return torch.compile(model, backend="ttnn", options=options)


def checked(
    name: str, model: Any, device: Device, batch: int, prompt: int, options: dict[str, Any]
) -> list[tt_dynamo.GraphReport]:
    """The reports of prefill and decode of a model without data."""
    from transformers import StaticCache

    reports = []
    for step, seq in (("prefill", prompt), ("decode", 1)):
        say(name, f"compiling {step} for {device.description}, without data")
        cache = StaticCache(config=model.config, max_cache_len=-(-prompt // TILE) * TILE + TILE)
        if seq == 1:
            heads, head_dim = model.config.num_key_value_heads, model.config.head_dim
            cache.early_initialization(batch, heads, head_dim, model.dtype, torch.device("meta"))
        ids = torch.zeros(batch, seq, dtype=torch.int64)
        given = {"input_ids": ids, "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        result = tt_dynamo.check(model, given, device.choice, **options)
        if not result.fits:
            raise SystemExit(f"{name} {result}")
        reports += result.reports
    return reports


def at_least(
    step: str, model: Any, batch: int, prompt: int, weight_dtype: str, board: str, fidelity: str
) -> dict[str, Any]:
    """What `board` needs for the step at least: the prompt, or the token after it."""
    dtypes = WEIGHT_DTYPES[weight_dtype]
    if step == "prefill":
        cost = roofline.prefill(model, batch, prompt, dtypes)
    else:
        cost = roofline.decode(model, batch, prompt + 1, dtypes)
    facts = BOARD_DESCRIPTIONS[board]
    seconds = cost.seconds(facts, fidelity)
    return {
        "label": roofline.LABEL,
        "board": board,
        "math_fidelity": fidelity,
        "weight_bytes": cost.weight_bytes,
        "cache_bytes": cost.cache_bytes,
        "flops": cost.flops,
        "bound_by": "DRAM" if seconds == cost.memory_seconds(facts) else "FLOPs",
        "seconds": seconds,
        "tokens_per_second_per_user": 1 / seconds if step == "decode" else None,
    }
