"""The benchmarks: handwritten encoders are right and as lean as they claim, and `run.py` measures and labels.

`benchmarks/` is no package that gets installed: its modules are imported from its folder here, as its scripts do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tt_dynamo.devices import Device, open_device

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BATCH, SEQ, LAYERS = 2, 40, 2  # a sequence length that is no multiple of a tile


@pytest.fixture(scope="module")
def device() -> Device:
    return open_device("n150")


@pytest.fixture
def handwritten(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import handwritten

    return handwritten


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def bert(layers: int) -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=100, hidden_size=128, num_attention_heads=2, intermediate_size=256, num_hidden_layers=layers
    )
    mask = torch.ones(BATCH, SEQ, dtype=torch.int64)
    mask[0, 30:] = 0
    inputs = {
        "input_ids": torch.randint(0, config.vocab_size, (BATCH, SEQ)),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, (BATCH, SEQ)),
    }
    return spread(BertModel(config)), inputs


def vit(layers: int) -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=64, hidden_size=128, num_attention_heads=2, intermediate_size=256, num_hidden_layers=layers
    )
    config.num_labels = 10
    return spread(ViTForImageClassification(config)), {"pixels": torch.randn(BATCH, 3, 64, 64)}


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """`model` for inference with weights and biases large enough that each part of it shows in the result."""
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.1 if parameter.ndim > 1 else 0.3))
    return model.eval()


def build_bert(handwritten: ModuleType, ttnn: Any, device: Device, model: Any) -> Any:
    return handwritten.Bert(ttnn, device.handle, model.state_dict(), model.config, batch=BATCH, seq=SEQ)


def build_vit(handwritten: ModuleType, ttnn: Any, device: Device, model: Any) -> Any:
    return handwritten.Vit(ttnn, device.handle, model.state_dict(), model.config, batch=BATCH)


def pcc(ours: torch.Tensor, expected: torch.Tensor) -> float:
    assert ours.shape == expected.shape
    assert ours.isfinite().all()
    return torch.corrcoef(torch.stack((ours.flatten().float(), expected.flatten())))[0, 1].item()


def captured(ttnn: Any, call: Callable[[], Any]) -> list[dict[str, Any]]:
    """The nodes of TTNN's graph capture of `call`."""
    ttnn.graph.begin_graph_capture(ttnn.graph.RunMode.NORMAL)
    try:
        call()
    finally:
        nodes = ttnn.graph.end_graph_capture()
    return nodes


def kernel_launches(nodes: list[dict[str, Any]]) -> int:
    return sum(node["node_type"] == "program_execution" for node in nodes)


def peak_dram(nodes: list[dict[str, Any]]) -> int:
    sizes = [0]
    for node in nodes:
        sign = {"buffer_allocate": 1, "buffer_deallocate": -1}.get(node["node_type"], 0)
        if sign and node["params"]["type"] == "DRAM":
            sizes.append(sizes[-1] + sign * int(node["params"]["size"]))
    return max(sizes)


def test_handwritten_bert_computes_what_transformers_does(device: Device, handwritten: ModuleType) -> None:
    model, inputs = bert(LAYERS)
    hidden, pooled = build_bert(handwritten, device.namespace(), device, model)(**inputs)
    expected = model(**inputs)
    tokens = inputs["attention_mask"].bool()
    assert pcc(hidden, expected.last_hidden_state) > 0.999
    assert pcc(pooled, expected.pooler_output) > 0.999
    torch.testing.assert_close(hidden[tokens].float(), expected.last_hidden_state[tokens], atol=0.1, rtol=0.1)


def test_handwritten_bert_does_not_attend_to_padding(device: Device, handwritten: ModuleType) -> None:
    model, inputs = bert(LAYERS)
    encoder = build_bert(handwritten, device.namespace(), device, model)
    padding = ~inputs["attention_mask"].bool()
    other = {**inputs, "input_ids": torch.where(padding, 7, inputs["input_ids"])}
    assert torch.equal(encoder(**inputs)[0][~padding], encoder(**other)[0][~padding])


def test_handwritten_vit_computes_what_transformers_does(device: Device, handwritten: ModuleType) -> None:
    model, inputs = vit(LAYERS)
    logits = build_vit(handwritten, device.namespace(), device, model)(**inputs)
    expected = model(inputs["pixels"]).logits
    assert pcc(logits, expected) > 0.999
    torch.testing.assert_close(logits.float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(("make", "build", "per_layer", "around"), [(bert, build_bert, 8, 9), (vit, build_vit, 10, 9)])
def test_handwritten_layers_make_the_fewest_kernel_launches(
    device: Device, handwritten: ModuleType, make: Any, build: Any, per_layer: int, around: int
) -> None:
    launches = []
    for layers in (1, 2):
        model, inputs = make(layers)
        ttnn = device.namespace(dry_run=True)
        encoder = build(handwritten, ttnn, device, model)
        launches.append(kernel_launches(captured(ttnn, partial(encoder, **inputs))))
    assert launches == [around + per_layer, around + 2 * per_layer]


def test_a_handwritten_layer_holds_only_what_its_largest_step_needs(device: Device, handwritten: ModuleType) -> None:
    model, inputs = bert(LAYERS)
    ttnn = device.namespace(dry_run=True)
    encoder = build_bert(handwritten, ttnn, device, model)
    hidden, mask = BATCH * 64 * 128 * 2, BATCH * 64 * 64 * 2  # bytes, with tile padding
    # The split into heads: the layer's input, the joint projection of three times its size, and the heads.
    assert peak_dram(captured(ttnn, partial(encoder, **inputs))) == (1 + 3 + 3) * hidden + mask


def test_handwritten_heads_that_are_no_whole_tiles_are_refused(device: Device, handwritten: ModuleType) -> None:
    # TTNN takes them and copies whole tiles, which puts heads together wrongly.
    model, _inputs = bert(1)
    model.config.num_attention_heads = 8
    with pytest.raises(ValueError, match="whole tiles"):
        build_bert(handwritten, device.namespace(dry_run=True), device, model)


# --- run.py ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """(folder of the files, what was printed, the one result) of the smallest case, run as a user runs it."""
    folder = tmp_path_factory.mktemp("results")
    arguments = ["minilm", "--layers", "2", "--batch", "2", "--runs", "2", "--device", "n150", "--output", str(folder)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((folder / "results.json").read_text())
    return folder, done.stdout, result


def test_a_case_is_measured_in_full(finished: tuple[Path, str, dict[str, Any]]) -> None:
    _folder, _printed, result = finished
    assert (result["case"], result["batch"], result["layers"]) == ("minilm", 2, 2)
    assert result["fallbacks"] == []
    assert result["pcc"] > 0.99
    assert 0.8 < result["device_share"] <= 1.0  # the mask is made on the host
    assert result["transfers"] == 5  # three inputs up, two outputs down
    assert 0 < result["kernel_launches_per_layer"] <= 10
    assert result["kernel_launches"] >= 2 * result["kernel_launches_per_layer"]
    assert result["peak_dram_bytes"] > result["weight_bytes"] > 0
    assert sum(result["compile_seconds"].values()) > 0
    for times in (result["eager_seconds"], result["compiled_seconds"]):
        assert 0 < times["p50"] <= times["p95"]
        assert times["runs"] == 2


def test_host_time_is_compared_with_the_handwritten_encoder(finished: tuple[Path, str, dict[str, Any]]) -> None:
    _folder, printed, result = finished
    host = result["host_time"]
    assert host["dry_run"]
    assert host["handwritten_kernel_launches"] > 2 * 8
    assert 0 < host["handwritten_estimated_kernel_seconds"] < 2 * result["estimated_kernel_seconds"]
    assert 0 < result["estimated_kernel_seconds"] < 2 * host["handwritten_estimated_kernel_seconds"]
    ratio = host["compiled_seconds"]["p50"] / host["handwritten_seconds"]["p50"]
    assert host["ratio_of_medians"] == pytest.approx(ratio)
    assert 0 < host["torch_compile_seconds"]["p50"] < host["compiled_seconds"]["p50"]
    assert host["ratio_without_torch_compile"] < ratio
    assert f"minilm: host time per call, dry run: {ratio:.2f} x handwritten" in printed


def test_emulated_times_are_labelled_everywhere(
    finished: tuple[Path, str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, printed, result = finished
    assert "n150 (emulated): times of the emulation" in printed
    assert "estimate of the time on n150 (emulated), not measured" in printed
    assert "compiled ms, emulated" in printed
    assert result["emulated"] and result["compiled_seconds"]["emulated"]
    assert "never of a device" in result["times_are"]
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import chart

    with chart.matplotlib.rc_context({"svg.fonttype": "none"}):  # letters as text
        chart.draw([result], tmp_path / "chart.svg")
    text = (tmp_path / "chart.svg").read_text()
    for label in ("never of a device", "compiled (emulated)", "emulated: no device times", "dry run on the emulated"):
        assert label in text


def test_times_on_hardware_are_not_called_emulated(
    finished: tuple[Path, str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tables

    result = finished[2]
    real = {"device": "n150", "emulated": False, "times_are": "times on n150", "host_time": None}
    tables.print_results([{**result, **real}])
    assert "emulated" not in capsys.readouterr().out


def test_an_unknown_case_names_the_nearest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import run

    with pytest.raises(SystemExit):
        run.main(["bert-bsae"])
    assert "unknown case 'bert-bsae'; did you mean 'bert-base'?" in capsys.readouterr().err


def test_the_cases_can_be_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import run

    run.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    encoders, images = (
        ["minilm", "bert-base", "bert-base-384", "vit-base", "siglip-base"],
        ["resnet-50", "mobilenet-v2", "unet"],
    )
    assert names == [*encoders, *images, "tales", "llama-1b", "llama-8b"]
    opt_in = [name for name, line in zip(names, lines, strict=True) if "only where it is named" in line]
    assert opt_in == ["bert-base-384", "llama-1b", "llama-8b"] == [name for name in names if name not in run.DEFAULT]
