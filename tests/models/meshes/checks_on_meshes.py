"""What must hold of compiled models on a mesh; run by `test_models_on_meshes.py` in a process that opens one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from comparison import pcc
from torch import nn

import tt_dynamo
from tt_dynamo.devices import DeviceError, open_device

Check = Callable[["Mesh"], None]
CHECKS: dict[str, Check] = {}
STEPS = 16
IDS = torch.arange(64).reshape(2, 32) % 100
SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 32, "vocab_size": 128, "pad_token_id": 0,
    "eos_token_id": 1, "bos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip


@dataclasses.dataclass
class Mesh:
    """The mesh by its name, and how many chips it has."""

    choice: str

    def compiled(self, model: Any, **options: Any) -> Any:
        torch._dynamo.reset()
        options = {"device": self.choice, "cache": False, **options}
        return torch.compile(model, backend="ttnn", dynamic=False, options=options)

    @property
    def chips(self) -> int:
        return open_device(self.choice).chips


def check(name: str, *arguments: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(function: Callable[..., None]) -> Callable[..., None]:
        CHECKS[name] = lambda mesh: function(mesh, *arguments)
        return function

    return register


def decoder(config: str, **sizes: Any) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, config)(**{**SIZES, **sizes})
    return transformers.AutoModelForCausalLM.from_config(made).eval()


def logits_of(call: Any, config: Any, ids: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """Those of a prompt, then of each step over a static cache."""
    import transformers

    cache = transformers.StaticCache(config=config, max_cache_len=64)
    with torch.no_grad():
        found = [call(ids, past_key_values=cache, use_cache=True).logits]
        for step in range(steps):
            found.append(call(ids[:, step : step + 1], past_key_values=cache, use_cache=True).logits)
    return found


def are_spread(reports: list[Any], word: str = "tensor_parallel") -> None:
    """Nothing falls back, and every graph is spread over the chips."""
    assert [report.fallbacks for report in reports] == [[]] * len(reports)
    for report in reports:
        assert any(note.startswith(f"{word}: ") for note in report.notes), report.notes
        assert not any(note.startswith(("not spread", "whole on every chip")) for note in report.notes), report.notes


def prefill_and_steps(mesh: Mesh, config: str, steps: int = STEPS, **options: Any) -> None:
    model = decoder(config)
    expected = logits_of(model, model.config, IDS, steps)
    with tt_dynamo.record() as reports:
        got = logits_of(mesh.compiled(model, **options), model.config, IDS, steps)
    for step, (ours, eager) in enumerate(zip(got, expected, strict=True)):
        assert pcc(ours, eager) >= 0.99, f"step {step}"
    are_spread(reports)
    step = reports[-1]
    up = sum(t.bytes for t in step.transfers if t.direction == "to_device")
    down = sum(t.bytes for t in step.transfers if t.direction == "to_host")
    assert up <= 64 and down == 2 * 128 * 2, "ids and positions go up, the logits of one replica come down"


for _config in ("LlamaConfig", "Qwen3Config", "Gemma3TextConfig", "Phi3Config", "MistralConfig", "MixtralConfig",
                "Qwen3MoeConfig"):  # fmt: skip
    check(_config, _config)(prefill_and_steps)


@check("few steps of Llama", "LlamaConfig")
def few_steps(mesh: Mesh, config: str) -> None:
    prefill_and_steps(mesh, config, steps=2)


@check("fewer heads of keys than chips")
def grouped_heads(mesh: Mesh) -> None:
    model = decoder("LlamaConfig", num_key_value_heads=1)
    expected = logits_of(model, model.config, IDS, 2)
    with tt_dynamo.record() as reports:
        got = logits_of(mesh.compiled(model), model.config, IDS, 2)
    assert all(pcc(ours, eager) >= 0.99 for ours, eager in zip(got, expected, strict=True))
    are_spread(reports)


@check("trained model")
def tokens_of_a_trained_model(mesh: Mesh) -> None:
    from storyteller import encode, held_out_tales, storyteller

    ids = torch.as_tensor(encode(held_out_tales()[0][:120])).reshape(1, -1)
    expected = storyteller().generate(ids, max_new_tokens=STEPS, do_sample=False)
    model = storyteller()
    model.forward = mesh.compiled(model.forward)
    with tt_dynamo.record() as reports:
        settings = {"cache_implementation": "static", "disable_compile": True}
        got = model.generate(ids, max_new_tokens=STEPS, do_sample=False, **settings)
    assert torch.equal(got, expected)
    are_spread(reports)


def against_eager(
    mesh: Mesh, make: Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]], word: str, **options: Any
):
    torch.manual_seed(0)
    model, inputs = make()
    with torch.no_grad(), tt_dynamo.record() as reports:
        expected = model.eval()(*inputs)
        got = mesh.compiled(model, **options)(*inputs)
    assert pcc(got, expected) >= 0.99
    assert [report.fallbacks for report in reports] == [[]]
    assert any(note.startswith(f"{word}: ") for note in reports[0].notes), reports[0].notes
    return reports[0]


def encoders(mesh: Mesh, name: str) -> None:
    import small_encoders

    against_eager(mesh, getattr(small_encoders, name), "tensor_parallel")


for _name in ("bert", "vit", "t5", "whisper"):
    check(_name, _name)(encoders)


def batches(mesh: Mesh, name: str) -> None:
    import small_encoders

    report = against_eager(mesh, getattr(small_encoders, name), "data_parallel", data_parallel=mesh.chips)
    assert not any(operation.target.startswith("ttnn.all_") for operation in report.operations)


for _name in ("resnet", "vit", "swin", "ssd"):
    check(f"batches of {_name}", _name)(batches)


@check("both at once", "LlamaConfig")
def both_at_once(mesh: Mesh, config: str) -> None:
    rows = open_device(mesh.choice).shape[0]
    model = decoder(config)
    expected = logits_of(model, model.config, IDS, 2)
    with tt_dynamo.record() as reports:
        got = logits_of(mesh.compiled(model, data_parallel=rows), model.config, IDS, 2)
    assert all(pcc(ours, eager) >= 0.99 for ours, eager in zip(got, expected, strict=True))
    are_spread(reports, "data_parallel")
    are_spread(reports, "tensor_parallel")


class Layers(nn.Module):
    """Two linear layers, the first cut by columns and the second by rows, with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)
        self.register_buffer("scale", torch.linspace(0.5, 2, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)) * self.scale)


@check("weights that change")
def changed_weights(mesh: Mesh) -> None:
    model, x = Layers().eval(), torch.randn(8, 64)
    compiled = mesh.compiled(model)
    with torch.no_grad():
        for _ in range(2):
            assert pcc(compiled(x), model(x)) >= 0.999
            model.up.weight.mul_(-1)
            model.scale.add_(1)


@check("programs that are kept")
def kept_programs(mesh: Mesh) -> None:
    model, x = Layers().eval(), torch.randn(8, 64)
    with torch.no_grad(), tt_dynamo.record() as reports:
        results = [mesh.compiled(model, cache=True)(x) for _ in range(2)]
    assert [report.from_cache for report in reports][1]
    assert torch.equal(*results)


@check("a dumped program runs")
def dumped_program(mesh: Mesh) -> None:
    import tempfile
    from pathlib import Path

    model, x = Layers().eval(), torch.randn(8, 64)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        first = mesh.compiled(model, dump=folder)(x)
        (program,) = Path(folder).rglob("program.py")
        assert "ttnn.open_mesh_device(ttnn.MeshShape" in program.read_text()
        again = mesh.compiled(model, program=str(program.parent))(x)
    assert torch.equal(first, again)


@check("a batch that does not divide")
def odd_batch(mesh: Mesh) -> None:
    model, x = Layers().eval(), torch.randn(3, 64)
    with torch.no_grad(), tt_dynamo.record() as reports:
        assert pcc(mesh.compiled(model, data_parallel=mesh.chips)(x), model(x)) >= 0.999
    assert any("that are cut off again" in note for note in reports[0].notes)


@check("an operation that TTNN has not")
def fallback(mesh: Mesh) -> None:
    """Its operand is cut, so that every chip computes the whole, and the host the one operation."""

    class WithMode(Layers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(torch.special.bessel_j1(torch.relu(self.up(x)) * self.scale))

    model, x = WithMode().eval(), torch.randn(8, 64)
    with torch.no_grad(), tt_dynamo.record() as reports:
        assert pcc(mesh.compiled(model)(x), model(x)) >= 0.999
    assert len(reports[0].fallbacks) == 1
    assert any(note.startswith("not spread over the chips") for note in reports[0].notes)


@check("traces")
def traces(mesh: Mesh) -> None:
    model = decoder("LlamaConfig")
    expected = logits_of(model, model.config, IDS, 4)
    with tt_dynamo.record() as reports:
        got = logits_of(mesh.compiled(model, trace=True), model.config, IDS, 4)
    assert all(pcc(ours, eager) >= 0.99 for ours, eager in zip(got, expected, strict=True))
    are_spread(reports)


@check("results on the device")
def held_results(mesh: Mesh) -> None:
    """What one model leaves there, cut over the chips, another one takes."""
    model, x = Layers().eval(), torch.randn(8, 64)
    first, second = mesh.compiled(model.up, outputs="device"), mesh.compiled(model.down)
    with torch.no_grad():
        assert pcc(second(first(x)), model.down(model.up(x))) >= 0.999
        assert pcc(first(x) + 1, model.up(x) + 1) >= 0.999


@check("a mesh of the user's")
def adopted_mesh(mesh: Mesh) -> None:
    """A part of a mesh that is open."""
    import ttnn

    whole = open_device(mesh.choice)
    rows, columns = whole.shape
    part = whole.handle.create_submesh(ttnn.MeshShape(rows, columns // 2)) if columns > 2 else whole.handle
    model, x = Layers().eval(), torch.randn(8, 64)
    with torch.no_grad(), tt_dynamo.record() as reports:
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="ttnn", options={"device": part, "cache": False})
        assert pcc(compiled(x), model(x)) >= 0.999
    assert reports[0].fallbacks == []


@check("a mesh that is closed")
def closed_mesh(mesh: Mesh) -> None:
    """The last check of a process."""
    model, x = Layers().eval(), torch.randn(8, 64)
    compiled = mesh.compiled(model)
    with torch.no_grad():
        compiled(x)
        open_device(mesh.choice).close()
        try:
            compiled(x)
        except DeviceError as error:
            assert "was closed" in str(error)
        else:
            raise AssertionError("a closed mesh answered")
