"""One layer of a model, estimated: ours in each preset, beside the program that experts wrote, by the same estimate.

    python benchmarks/layers.py [LAYER ...] [--device n150] [--presets balanced performance]

A layer is what a model of three takes longer than one of two, gaps between kernels included; convolutional networks,
whose layers differ, are estimated whole. The experts' programs are those of `tt_dynamo/estimate/published_models.py`,
whose estimates stand beside published times in `python -m tt_dynamo.estimate --check`. Nothing is measured here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from cases import CASES
from language import llama
from tables import print_table

import tt_dynamo
from tt_dynamo.estimate.chip import Chip, chip_of
from tt_dynamo.estimate.published_models import decoder_seconds, encoder_seconds, prefill_seconds, resnet_seconds
from tt_dynamo.options import presets

CONTEXT = 1024  # rows of a cache, or tokens of a prompt
LLAMA = {"hidden_size": 4096, "intermediate_size": 14336, "head_dim": 128, "tie_word_embeddings": False}
LLAMA_LAYER = {"hidden": 4096, "mlp": 14336, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocabulary": 128256}
BASE_LAYER = {"hidden": 768, "heads": 12, "gaps": "yes"}


def encoder(name: str, batch: int, layers: int | None, board: str, preset: str, on_device: bool = False) -> float:
    """Estimated seconds of a call of a model of `cases.py`, or without what crosses to the host."""
    work = CASES[name].build(batch, layers)
    torch.compiler.reset()
    compiled = torch.compile(
        work.model, backend="ttnn", options={"device": board, "dry_run": True, "preset": preset, "fallback": "error"}
    )
    with tt_dynamo.record() as reports, torch.no_grad():
        compiled(**work.inputs)
    return sum(report.estimated_seconds - on_device * report.transfer_seconds for report in reports)


def decoder(batch: int, tokens: int, layers: int, board: str, preset: str) -> float:
    """Estimated seconds of a step of Llama-3.1-8B's layers: a prompt, or a token against a full cache.

    After a prompt the cache lies on the device and nothing of it crosses. That of a check is a plain one, of which a
    step would bring down what it wrote: so what crosses in a step is left out.
    """
    from transformers import StaticCache

    with torch.device("meta"):
        model, _ = llama(8.0, layers, **LLAMA)(layers)
    cache = StaticCache(config=model.config, max_cache_len=CONTEXT)
    if tokens == 1:
        heads, head_dim = model.config.num_key_value_heads, model.config.head_dim
        cache.early_initialization(batch, heads, head_dim, model.dtype, torch.device("meta"))
    ids = torch.zeros(batch, tokens, dtype=torch.int64)
    given = {"input_ids": ids, "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
    result = tt_dynamo.check(model, given, board, preset=preset)
    if not result.fits:
        raise SystemExit(str(result))
    crosses = tokens > 1
    return sum(report.estimated_seconds - (0.0 if crosses else report.transfer_seconds) for report in result.reports)


def expert_encoder(variant: str, batch: int, seq: int, layers: int, chip: Chip) -> float:
    return encoder_seconds(chip, batch=batch, seq=seq, layers=layers, variant=variant, **BASE_LAYER)


def expert_decoder(batch: int, layers: int, chip: Chip) -> float:
    return decoder_seconds(chip, batch=batch, context=CONTEXT, layers=layers, **LLAMA_LAYER)


def expert_prefill(layers: int, chip: Chip) -> float:
    return prefill_seconds(chip, seq=CONTEXT, layers=layers, **LLAMA_LAYER)


# By name: what ours takes with so many layers on a board in a preset, and the experts' with so many on a chip.
LAYERS: dict[str, tuple[Callable[[int, str, str], float], Callable[[int, Chip], float]]] = {
    "bert-base, batch 8 x 384": (
        partial(encoder, "bert-base-384", 8),
        partial(expert_encoder, "sentence_bert", 8, 384),
    ),
    "vit-base, batch 8": (partial(encoder, "vit-base", 8), partial(expert_encoder, "vit", 8, 197)),
    "llama-8b, decode, batch 1": (partial(decoder, 1, 1), partial(expert_decoder, 1)),
    "llama-8b, decode, batch 32": (partial(decoder, 32, 1), partial(expert_decoder, 32)),
    "llama-8b, prefill of 1,024": (partial(decoder, 1, CONTEXT), expert_prefill),
}
# By name: what ours takes as a whole on a board in a preset, without what crosses, and the experts' on a chip.
NETWORKS: dict[str, tuple[Callable[[str, str], float], Callable[[Chip], float]]] = {
    "resnet-50, batch 16, whole": (
        partial(encoder, "resnet-50", 16, None, on_device=True),
        partial(resnet_seconds, batch=16),
    ),
}


def one_layer(of_layers: Callable[..., float]) -> Callable[..., float]:
    """What a model of three layers takes longer than one of two."""
    return lambda *where: of_layers(3, *where) - of_layers(2, *where)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    compared = {**{name: tuple(map(one_layer, both)) for name, both in LAYERS.items()}, **NETWORKS}
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=f"the beginning of: {'; '.join(compared)}")
    parser.add_argument("--device", default="n150")
    parser.add_argument("--presets", nargs="+", choices=presets(), default=list(presets()))
    given = parser.parse_args()
    chosen = [name for name in compared if not given.layers or name.startswith(tuple(given.layers))]
    if not chosen:
        parser.error(f"no layer begins with {' or '.join(given.layers)}; there are: {'; '.join(compared)}")
    chip = chip_of(given.device)
    rows = []
    for name in chosen:
        ours, experts = compared[name]
        theirs = experts(chip)
        for preset in given.presets:
            seconds = ours(given.device, preset)
            rows.append([name, preset, f"{seconds * 1e6:,.0f}", f"{theirs * 1e6:,.0f}", f"{seconds / theirs:.2f}"])
    print(f"\n{given.device}: estimates, nothing is measured\n")
    print_table(["layer", "preset", "estimated µs", "experts' µs, estimated", "ours / theirs"], rows)


if __name__ == "__main__":
    main()
