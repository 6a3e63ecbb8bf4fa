"""Graphs spread over a mesh: every chip's values, all chips in lockstep on the host, against eager torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captured import capture
from lockstep_models import Calling, Logits, collectives, differ, outputs_of_chips, spread
from torch.fx import GraphModule

from tt_dynamo.ir import meta
from tt_dynamo.ir.errors import OptionError
from tt_dynamo.ir.parts import Placement, part_of, places
from tt_dynamo.passes.shard.walk import Walk

EXACT = 5e-6  # of the largest value: float32, whose sums are taken in another order
IDS = torch.arange(64).reshape(2, 32) % 100


@pytest.mark.parametrize("mesh", [(1, 2), (1, 8), (2, 4)])
@pytest.mark.parametrize("config", ["LlamaConfig", "Qwen3Config", "Gemma3TextConfig", "Phi3Config", "MistralConfig"])
def test_a_decoder_sums_twice_a_layer(config: str, mesh: tuple[int, int]) -> None:
    captured = capture(Logits(config), IDS)
    module, notes = spread(captured, mesh, data_parallel=mesh[0])
    assert differ(module, captured, mesh) < EXACT
    assert collectives(module) == {"all_reduce": 4}
    assert any("by the plan of the model's class" in note for note in notes)


@pytest.mark.parametrize("mesh", [(1, 2), (1, 8), (2, 4)])
@pytest.mark.parametrize("config", ["MixtralConfig", "Qwen3MoeConfig"])
def test_experts_have_their_inner_dimension_cut(config: str, mesh: tuple[int, int]) -> None:
    """Each chip has columns of every expert's gate and up and rows of its down; tokens are summed over chips, not
    pairs of a token and an expert."""
    captured = capture(Logits(config, moe_intermediate_size=64), IDS)
    module, notes = spread(captured, mesh)
    assert differ(module, captured, mesh) < EXACT
    axes = sum(size > 1 for size in mesh)
    assert collectives(module) == {"all_reduce": 4 * axes}
    sums = module.graph.find_nodes(op="call_function", target=torch.ops.tt_dynamo.all_reduce.default)
    assert all(node.meta["val"].numel() == IDS.numel() * 64 for node in sums)
    assert len(notes) == 1


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_fewer_heads_of_keys_than_chips_are_whole_and_each_chip_reads_its_own(heads: int) -> None:
    captured = capture(Logits("LlamaConfig", num_key_value_heads=heads), IDS)
    module, notes = spread(captured, (1, 8))
    assert differ(module, captured, (1, 8)) < EXACT
    assert f"tensor_parallel: {heads} heads do not divide among 8 chips (4 parameters)" in notes


@pytest.mark.parametrize("config", ["LlamaConfig", "Gemma3TextConfig", "Phi3Config"])
@pytest.mark.parametrize("tokens", [32, 1])
def test_caches_on_the_device_are_cut_by_heads(config: str, tokens: int) -> None:
    model = Logits(config, length=128, prompt=IDS)
    captured = capture(model, IDS[:, :tokens])
    for node in captured.graph.find_nodes(op="placeholder"):
        meta.held.set(node, len(node.meta["val"].shape) == 4)  # as what a program of ours made
    module, _ = spread(captured, (1, 4))
    assert differ(module, captured, (1, 4)) < EXACT
    assert collectives(module) == {"all_reduce": 4}
    caches = [n for n in module.graph.find_nodes(op="placeholder") if len(n.meta["val"].shape) == 4]
    assert len(caches) == 4 and all(node.meta["placement"] == (None, 1) for node in caches)
    assert all(node.meta["val"].shape[1] == 2 for node in caches)


def test_caches_of_the_caller_are_whole_on_every_chip() -> None:
    """The caller reads them after each call."""
    captured = capture(Logits("LlamaConfig", length=128, prompt=IDS), IDS[:, :1])
    module, _ = spread(captured, (1, 4))
    assert differ(module, captured, (1, 4)) < EXACT
    assert not any("placement" in node.meta for node in module.graph.find_nodes(op="placeholder"))


def bert() -> Any:
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
    model = transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=128))
    mask = torch.ones(2, 32)
    mask[1, 20:] = 0
    return Calling(model, lambda m, ids, mask: m(ids, attention_mask=mask).last_hidden_state), (IDS, mask)


def vit() -> Any:
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
    model = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=64))
    return Calling(model, lambda m, x: m(x).last_hidden_state), (torch.randn(2, 3, 64, 64),)


def t5() -> Any:
    import transformers

    sizes = {"d_model": 64, "d_ff": 128, "d_kv": 8, "num_layers": 2, "num_heads": 8, "vocab_size": 128}
    model = transformers.T5Model(transformers.T5Config(**sizes))
    call = lambda m, ids, decoded: m(input_ids=ids, decoder_input_ids=decoded, use_cache=False).last_hidden_state  # noqa: E731
    return Calling(model, call), (IDS, IDS[:, :8])


def whisper() -> Any:
    import transformers

    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 8}
    sizes |= {"decoder_attention_heads": 8, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 128}
    sizes |= {"num_mel_bins": 16, "max_source_positions": 50}
    sizes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    model = transformers.WhisperModel(transformers.WhisperConfig(**sizes))
    call = lambda m, x, ids: m(input_features=x, decoder_input_ids=ids, use_cache=False).last_hidden_state  # noqa: E731
    return Calling(model, call), (torch.randn(2, 16, 100), IDS[:, :8])


@pytest.mark.parametrize(("make", "sums"), [(bert, 4), (vit, 4), (t5, 10), (whisper, 10)])
def test_models_whose_classes_have_no_plan_get_one(make: Any, sums: int) -> None:
    """Two sums a layer, three where there is cross-attention."""
    torch.manual_seed(0)
    model, inputs = make()
    captured = capture(model, *inputs)
    module, notes = spread(captured, (1, 8))
    assert differ(module, captured, (1, 8)) < EXACT
    assert collectives(module) == {"all_reduce": sums}
    assert any("derived" in note for note in notes)


def resnet() -> Any:
    import torchvision

    return torchvision.models.resnet18(), (torch.randn(8, 3, 64, 64),)


def swin() -> Any:
    import timm

    sizes = {"embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "img_size": 56, "num_classes": 10}
    return timm.create_model("swin_tiny_patch4_window7_224", **sizes), (torch.randn(8, 3, 56, 56),)


@pytest.mark.parametrize("mesh", [(2, 1), (1, 8), (2, 4)])
@pytest.mark.parametrize("make", [resnet, swin, bert, vit])
def test_a_batch_is_shared_by_all_chips(make: Any, mesh: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    chips = mesh[0] * mesh[1]
    inputs = tuple(x.repeat(4, *[1] * (x.ndim - 1))[:8] for x in inputs)
    captured = capture(model.eval(), *inputs)
    module, notes = spread(captured, mesh, data_parallel=chips)
    assert differ(module, captured, mesh) < EXACT
    assert f"data_parallel: a batch of 8 over {chips} parts of the mesh" in notes
    assert set(collectives(module)) <= {"all_gather"}


@pytest.mark.parametrize(("mesh", "batch"), [((1, 2), 3), ((2, 4), 5), ((2, 4), 1)])
@pytest.mark.parametrize("make", [resnet, swin, bert, vit])
def test_a_batch_that_does_not_divide_is_filled_up_and_cut(make: Any, mesh: tuple[int, int], batch: int) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    inputs = tuple(x.repeat(8, *[1] * (x.ndim - 1))[:batch] for x in inputs)
    captured = capture(model.eval(), *inputs)
    chips = mesh[0] * mesh[1]
    module, notes = spread(captured, mesh, data_parallel=chips)
    assert differ(module, captured, mesh) < EXACT
    assert any(f"filled up with {-batch % chips} that are cut off again" in note for note in notes)


@pytest.mark.parametrize("before", [(0, 0), (0, None), (None, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("after", [(0, 0), (0, None), (None, 0), (0, 1), (1, 0), (None, None)])
def test_parts_are_cut_in_another_way(before: Placement, after: Placement) -> None:
    """Also along one dimension over both axes, where each cuts the parts of the one before."""
    mesh = (2, 4)
    captured = capture(torch.neg, torch.randn(16, 24))
    walk = Walk(captured.module, mesh)
    walk.known[captured.graph.find_nodes(op="placeholder")[0]] = x = walk.graph.node_copy(
        captured.graph.find_nodes(op="placeholder")[0]
    )
    walk.cut[x] = (None, None)
    cut = walk.to(walk.emit(torch.ops.aten.neg.default, (x,), {}, (None, None)), before)
    negated = walk.emit(torch.ops.aten.neg.default, (cut,), {}, before)  # cannot be taken from before it was cut
    walk.graph.output((walk.to(negated, after),))
    value = captured.arguments[0]
    parts = outputs_of_chips(GraphModule(captured.module, walk.graph), [[value] * 8], mesh)
    for part, place in zip(parts, places(mesh), strict=True):
        assert torch.equal(part[0], part_of(value, after, mesh, place))


class Parts(torch.nn.Module):
    """A function of layers and the parameters of two experts, each as a plan may name it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.a, self.b = (torch.nn.Parameter(torch.randn(2, 8, 8)) for _ in range(2))
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


@pytest.mark.parametrize("mesh", [(1, 2), (2, 2)])
@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.first(x).t() @ m.first(x),  # a sum over the batch
        lambda m, x: torch.softmax(m.first(x).t(), -1) @ m.first(x).exp(),
        lambda m, x: m.norm(m.second(x)),  # columns as many as a batch that is filled up
        lambda m, x: torch.frexp(m.first(x))[0],
        lambda m, x: m.first(x).mean(0) + x,
        lambda m, x: torch.cat([m.first(x), x], 0).sum(1),
        lambda m, x: (m.first(x).reshape(-1), m.first.weight * 1),  # made of a weight alone
    ],
)
def test_what_meets_a_batch_that_is_filled_up(function: Any, mesh: tuple[int, int]) -> None:
    captured = capture(Parts(function), torch.randn(3, 8))
    module, _ = spread(captured, mesh, data_parallel=2)
    assert differ(module, captured, mesh) < EXACT


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x, ends: grouped(x, m.a, ends) * grouped(x, m.b, ends),
        lambda m, x, ends: grouped(x, m.a, ends) * m.first(x),
        lambda m, x, ends: (grouped(x, m.a, ends) * 2).reshape(16, 2, 4).sum(1),
        lambda m, x, ends: grouped(x, m.a, ends) + x,
    ],
)
def test_sums_of_experts_wait_for_what_is_linear_alone(function: Any) -> None:
    ends = torch.tensor([7, 16], dtype=torch.int32)
    captured = capture(Parts(function), torch.randn(16, 8), ends)
    plan = (("a", "rowwise"), ("b", "rowwise"), ("first", "colwise"))
    module, _ = spread(captured, (1, 2), tensor_parallel=plan)
    assert differ(module, captured, (1, 2)) < EXACT
    assert collectives(module)["all_reduce"] >= 1


def grouped(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    return torch._grouped_mm(x, weight.transpose(-2, -1), ends)


@pytest.mark.parametrize("function", [torch.nn.functional.hardswish, torch.special.expit, torch.sigmoid])
def test_what_computes_each_element_by_itself_stays_cut(function: Any) -> None:
    captured = capture(Parts(lambda m, x: function(m.first(x)).to(torch.float64)), torch.randn(4, 8))
    module, notes = spread(captured, (1, 2), data_parallel=2)
    assert differ(module, captured, (1, 2)) < EXACT
    assert not collectives(module) and len(notes) == 1


def test_what_the_caller_finds_written_is_whole() -> None:
    def function(m: Parts, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        kept.add_(m.first(x))
        return kept * 2

    captured = capture(Parts(function), torch.randn(4, 8), torch.randn(4, 8))
    module, _ = spread(captured, (1, 2), data_parallel=2)
    assert differ(module, captured, (1, 2)) < EXACT


def test_a_plan_of_the_user_s() -> None:
    captured = capture(Logits("LlamaConfig"), IDS)
    plan = (("*.up_proj", "colwise"), ("*.gate_proj", "colwise"), ("*.down_proj", "rowwise"))
    module, notes = spread(captured, (1, 4), tensor_parallel=plan)
    assert differ(module, captured, (1, 4)) < EXACT
    assert collectives(module) == {"all_reduce": 2}
    assert notes == ["tensor_parallel: 6 parameters over 4 chips, by the plan given"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tensor_parallel": (("*.nothing", "colwise"),)}, r"no parameter is cut by the plan.*lm_head"),
        ({"tensor_parallel": (("*.up_proj", "columns"),)}, r"unknown style of tensor_parallel 'columns'"),
        ({"data_parallel": 3}, r"data_parallel is 3, and a mesh of 1x4 chips has 1, 4 along its axes"),
    ],
)
def test_what_cannot_be_spread_says_what_would_work(options: dict[str, Any], said: str) -> None:
    captured = capture(Logits("LlamaConfig"), IDS)
    with pytest.raises(OptionError, match=said):
        spread(captured, (1, 4), **options)


def test_heads_that_do_not_divide_and_a_batch_that_does_not_either() -> None:
    sizes = {"hidden_size": 60, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 12}
    captured = capture(Logits("LlamaConfig", **sizes, intermediate_size=100, vocab_size=100), IDS)
    with pytest.raises(OptionError, match=r"60 columns do not divide among 8 chips.*nor does a batch of 2 divide"):
        spread(captured, (1, 8))
