"""Train the small Llama of these tests on the tales, and write its weights.

    python tests/models/language/train.py [folder]

Three layers of width 128, four heads and two key-value heads of 32, llama3 rotary embedding, one token a byte, context
512: 0.5 million parameters, written as bfloat16 in safetensors. It takes some four minutes on one core that is free.

The weights shipped reached a loss of 0.1312 nats a byte on the tales held out. They know sentences and sums and tell
the likeliest tale; names and goods of earlier lines they do not repeat: what they write depends on some 30 bytes.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / "data" / "tales"
CONTEXT = 512
STEPS = 800
WARM_UP = 20
BATCH = 2
LOSS = 0.1312  # nats a byte on what is held out, of the weights shipped
HELD_OUT = 0.05  # share of the text, its end, that is never trained on


def config() -> object:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def encode(text: str) -> torch.Tensor:
    """Token ids [seq], int64: the bytes of ASCII text."""
    return torch.tensor(list(text.encode("ascii")))


def decode(ids: torch.Tensor) -> str:
    """The text of token ids [seq]."""
    return bytes(ids.tolist()).decode("ascii")


def split(text: str) -> tuple[str, str]:
    """(what is trained on, what is held out), parted between two tales."""
    end = text.index("\n\n", int(len(text) * (1 - HELD_OUT))) + 2
    return text[:end], text[end:]


def rate(step: int) -> float:
    """Share of the peak learning rate: up in a line, down in a cosine."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP))) / 2


def loss_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of next tokens in nats. ids [batch, seq]."""
    logits = model(ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalized momentum of matrices; torch's own does it in bfloat16, which is slow on a CPU.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon
    """

    def __init__(self, parameters: object, lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                average = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalize(parameter.grad.lerp(average, group["momentum"]))
                scale = max(1, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonalize(x: torch.Tensor) -> torch.Tensor:
    """The matrix with the singular vectors of `x` and singular values near one: five Newton-Schulz iterations."""
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


def held_out_loss(model: torch.nn.Module, ids: torch.Tensor) -> float:
    rows = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    with torch.no_grad():
        return float(loss_of(model.eval(), rows))


def train(folder: Path) -> None:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    trained, held_out = map(encode, split((FOLDER / "tales.txt").read_text()))
    model = LlamaForCausalLM(config())
    projections = [p for name, p in model.named_parameters() if name.endswith("_proj.weight")]
    others = [p for name, p in model.named_parameters() if not name.endswith("_proj.weight")]
    optimizers = [
        Muon(projections, lr=0.02, weight_decay=0.05),
        torch.optim.AdamW(others, lr=0.004, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    started = time.monotonic()
    for step in range(STEPS):
        starts = torch.randint(len(trained) - CONTEXT, (BATCH, 1), generator=generator)
        loss = loss_of(model.train(), trained[starts + torch.arange(CONTEXT + 1)])
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % 50 == 49:
            seconds = time.monotonic() - started
            other = held_out_loss(model, held_out)
            print(f"step {step + 1}: loss {loss.item():.3f}, held out {other:.3f}, {seconds:.0f} s", flush=True)
    model.to(torch.bfloat16).eval().save_pretrained(folder)
    print(f"held out, weights in bfloat16: {held_out_loss(model.float(), held_out):.4f}")


if __name__ == "__main__":
    train(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
