"""The trained model of `train.py`, as tests and benchmarks load it, and the tales that it has not seen."""

from __future__ import annotations

import os
from typing import Any

import torch
from train import FOLDER, decode, encode, split

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

__all__ = ["decode", "encode", "held_out_tales", "padded", "storyteller"]


def storyteller() -> Any:
    """A LlamaForCausalLM, float32, whose weights are exact in bfloat16."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, local_files_only=True).eval()


def held_out_tales() -> list[str]:
    _, text = split((FOLDER / "tales.txt").read_text())
    return [tale + "\n\n" for tale in text.split("\n\n") if tale]


def padded(prompts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts [seq] of different lengths, padded on the left: ids and mask [batch, longest]."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
