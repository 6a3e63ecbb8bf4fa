"""Whole encoders on the emulated board: nothing falls back, values are eager's, the cost is an expert's.

Two layers of each by default, all of them in the tests marked slow. Batch 1, and 8 of the smallest: the tests of peak
memory compile 8 of others, and the tests marked slow run them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import assert_same, pcc, relative_error
from encoders import ENCODERS, Encoder, enliven, outputs_of
from live_values import largest_live_set

import tt_dynamo
from tt_dynamo.runtime.program import Program


def row(name: str, batch: int) -> Any:
    usual = batch == 1 or name == "minilm"
    return pytest.param(name, batch, id=f"{name}-{batch}", marks=() if usual else pytest.mark.slow)


TABLE = [row(name, batch) for name in ENCODERS for batch in (1, 8)]
WHOLE = [pytest.param(*row.values, id=row.id, marks=pytest.mark.slow) for row in TABLE]

# Where a layer's attention is added to its residual.
ATTENTION_ENDS = (
    "attention.output.dense",
    "attention.o_proj",
    "attn.proj",
    "self_attention.out_proj",
    "self_attn.out_proj",
)


@dataclasses.dataclass
class Run:
    """What one compiled encoder did."""

    encoder: Encoder
    inputs: dict[str, torch.Tensor]
    eager: list[torch.Tensor]
    ours: list[torch.Tensor]
    again: list[torch.Tensor]
    report: tt_dynamo.GraphReport
    first_uploads: list[tuple[int, ...]]
    second_uploads: list[tuple[int, ...]]
    weight_bytes: int  # by TTNN's allocator


@pytest.fixture(scope="module")
def run(board_device: Any) -> Any:
    """run(name, batch, layers): compile and call twice; results are kept for the tests of this file."""
    kept: dict[Any, Run] = {}

    def run(name: str, batch: int, layers: int) -> Run:
        key = (name, batch, layers)
        if key not in kept:
            kept[key] = _run(board_device, ENCODERS[name], batch, layers)
        return kept[key]

    yield run
    torch._dynamo.reset()


def _run(device: Any, encoder: Encoder, batch: int, layers: int) -> Run:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = encoder.build(layers).eval()
    inputs = encoder.inputs(batch)
    uploads: list[tuple[int, ...]] = []
    namespace, ttnn = device.namespace(), device.namespace(dry_run=True)
    from_torch = namespace.from_torch

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        uploads.append(tuple(tensor.shape))
        return from_torch(tensor, *args, **kwargs)

    def dram() -> int:
        view = ttnn.get_memory_view(device.handle, ttnn.BufferType.DRAM)
        return view.num_banks * view.total_bytes_allocated_per_bank

    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), tt_dynamo.record() as reports:
        patch.setattr(namespace, "from_torch", counted)
        eager = outputs_of(model(**inputs))
        compiled = torch.compile(model, backend="ttnn")
        before = dram()
        ours = outputs_of(compiled(**inputs))
        weight_bytes = dram() - before
        first = uploads[:]
        uploads.clear()
        again = outputs_of(compiled(**inputs))
    (report,) = reports
    return Run(encoder, inputs, eager, ours, again, report, first, uploads, weight_bytes)


def check_table(done: Run, layers: int) -> None:
    """What must hold for one row of the table."""
    report = done.report
    assert report.fallbacks == []
    assert report.host_nodes <= 4, "moves and casts that are all but free on their way up or down"
    for ours, eager in zip(done.ours, done.eager, strict=True):
        assert (ours.shape, ours.dtype, ours.stride()) == (eager.shape, eager.dtype, eager.stride())
        assert ours.isfinite().all()
        assert pcc(ours, eager) >= 0.99
        assert relative_error(ours, eager) <= 0.05
    launches = report.layers()
    assert len(launches) == layers and max(launches.values()) <= done.encoder.launches


@pytest.mark.parametrize(("name", "batch"), TABLE)
def test_an_encoder_runs_whole_and_gives_eager_s_values(run: Any, name: str, batch: int) -> None:
    check_table(run(name, batch, 2), 2)


@pytest.mark.parametrize(("name", "batch"), WHOLE)
def test_a_whole_encoder_runs_and_gives_eager_s_values(run: Any, name: str, batch: int) -> None:
    layers = ENCODERS[name].layers
    check_table(run(name, batch, layers), layers)


@pytest.mark.parametrize(("name", "batch"), TABLE)
def test_only_inputs_go_up_and_only_outputs_come_down(run: Any, name: str, batch: int) -> None:
    done = run(name, batch, 2)
    up = [transfer.bytes for transfer in done.report.transfers if transfer.direction == "to_device"]
    down = [transfer.bytes for transfer in done.report.transfers if transfer.direction == "to_host"]
    joined = batch * done.encoder.joined
    assert sorted(up) == sorted(done.inputs[key].numel() * size + joined for key, size in done.encoder.up.items())
    assert sorted(down) == sorted(output.numel() * 2 for output in done.eager)
    assert done.report.transfer_bytes == sum(up) + sum(down)


@pytest.mark.parametrize(("name", "batch"), TABLE)
def test_weights_cross_once(run: Any, name: str, batch: int) -> None:
    done = run(name, batch, 2)
    assert len(done.second_uploads) == len(done.inputs)
    assert len(done.first_uploads) > len(done.second_uploads)
    for first, second in zip(done.ours, done.again, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("name", "batch"), [row for row in TABLE if ENCODERS[row.values[0]].patches])
def test_a_move_of_patches_and_one_linear_embed_them(run: Any, name: str, batch: int) -> None:
    code = run(name, batch, 2).report.code
    assert code.count(" = gather_patches(") == 1 and "torch.ops.tt_dynamo" not in code
    assert "conv2d" not in code and "convolution" not in code
    move, linear = code.index(" = gather_patches("), code.index("ttnn.linear(")
    between = code[move:linear]
    assert between.count(" = ttnn.") <= 2, "the upload and the linear"


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_take_little_more_memory_than_their_elements(run: Any, name: str) -> None:
    done = run(name, 1, 2)
    assert done.report.weight_bytes <= done.weight_bytes <= 1.2 * done.report.weight_bytes


# One of text and one of images by default, and a wide one with deallocations.
PEAKS = [
    pytest.param(name, batch, disabled, id=f"{name}-{batch}-{label}", marks=() if usual else pytest.mark.slow)
    for name, batch in [("minilm", 8), ("bert-base", 8), ("vit-base", 1), ("siglip-base", 8)]
    for label, disabled in [("deallocations", []), ("no deallocations", ["insert_deallocations"])]
    for usual in [name in ("minilm", "vit-base") or (name == "bert-base" and not disabled)]
]


@pytest.mark.parametrize(("name", "batch", "disabled"), PEAKS)
def test_peak_memory_is_weights_and_live_values(
    board_device: Any, monkeypatch: pytest.MonkeyPatch, name: str, batch: int, disabled: list[str]
) -> None:
    torch._dynamo.reset()
    programs: list[Program] = []
    made = Program.__post_init__
    monkeypatch.setattr(Program, "__post_init__", lambda self: (made(self), programs.append(self))[0])
    encoder = ENCODERS[name]
    model, inputs = encoder.build(2).eval(), encoder.inputs(batch)
    with torch.no_grad(), tt_dynamo.record() as reports:
        options = {"dry_run": True, "disable_passes": disabled}
        torch.compile(model, backend="ttnn", options=options)(**inputs)
    (report,), (program,) = reports, programs
    assert program._uploaded is not None
    arguments = [*inputs.values(), *program._uploaded.tensors]
    live = largest_live_set(report.code, board_device.namespace(dry_run=True), board_device.handle, arguments)
    assert live > 0
    assert report.peak_dram_bytes <= 1.2 * (report.weight_bytes + live)
    # Weights are most of that, so the values are held to it alone as well.
    assert report.peak_dram_bytes - report.weight_bytes <= 1.2 * live
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ENCODERS)
def test_every_part_of_a_layer_counts(board_device: Any, name: str) -> None:
    """With weights that make attention and feedforward as loud as the residual, nothing wrong in them is drowned."""
    torch._dynamo.reset()
    encoder = ENCODERS[name]
    model = enliven(encoder.build(2)).eval()
    inputs = encoder.inputs(2)
    with torch.no_grad():
        eager = outputs_of(model(**inputs))
        ours = outputs_of(torch.compile(model, backend="ttnn")(**inputs))
        quiet = copy.deepcopy(model)
        heads = [module for part, module in quiet.named_modules() if part.endswith(ATTENTION_ENDS)]
        assert len(heads) == 2
        for module in heads:
            module.weight.zero_()  # type: ignore[operator, union-attr]
        without_attention = outputs_of(quiet(**inputs))
    for mine, theirs, other in zip(ours, eager, without_attention, strict=True):
        assert pcc(mine, theirs) >= 0.99
        assert relative_error(mine, theirs) <= 0.1
        assert pcc(other, theirs) < 0.95, "attention is heard"
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["minilm", pytest.param("bert-base", marks=pytest.mark.slow)])
def test_what_is_masked_changes_nothing(run: Any, name: str) -> None:
    torch._dynamo.reset()
    encoder = ENCODERS[name]
    model = encoder.build(2).eval()
    inputs = encoder.inputs(2)
    padding = inputs["attention_mask"] == 0
    assert padding.any()
    other = {**inputs, "input_ids": torch.where(padding, 7, inputs["input_ids"])}
    compiled = torch.compile(model, backend="ttnn")
    with torch.no_grad():
        one, two = (compiled(**given).last_hidden_state[~padding] for given in (inputs, other))
    assert_same(one, two)
    assert torch.equal(one, two)
    torch._dynamo.reset()


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_minilm_sentence_embeddings_point_where_eager_s_do(run: Any, batch: int) -> None:
    done = run("minilm", batch, 6)
    mask = done.inputs["attention_mask"][..., None].float()

    def embed(states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    cosines = (embed(done.ours[0]) * embed(done.eager[0])).sum(1)
    assert cosines.min() >= 0.995
    check_table(done, 6)


def relative_times(build: Callable[[int], torch.nn.Module], layers: list[int]) -> list[float]:
    from encoders import tokens

    inputs = tokens(1, seq=32)
    inputs["input_ids"] %= 100
    seconds = []
    for count in layers:
        torch._dynamo.reset()
        with torch.no_grad(), tt_dynamo.record() as reports:
            torch.compile(build(count).eval(), backend="ttnn", options={"dry_run": True})(**inputs)
        (report,) = reports
        assert report.fallbacks == []
        seconds.append(sum(report.seconds.values()))
    return seconds


@pytest.mark.slow
def test_compile_time_grows_linearly_with_layers(board_device: Any) -> None:
    from encoders import narrow_bert

    relative_times(narrow_bert, [2])  # fills the kernel cache
    six, twelve, twenty_four, forty_eight = relative_times(narrow_bert, [6, 12, 24, 48])
    assert forty_eight / twelve <= 4 * 1.5
    assert twenty_four / six <= 4 * 1.5
