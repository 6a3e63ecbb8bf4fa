"""Adapters of peft: added, merged into the weights, taken out again, and switched between, at any time.

peft writes a merged weight through `.data`, which advances no version counter.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import assert_same, relative_error
from small_models import Feedforward

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


@pytest.fixture
def adapted() -> Any:
    """A model with two adapters, "default" and "other", which change what it computes."""
    import peft  # takes seconds, which each process would pay while it collects tests

    model = Feedforward().eval()
    config = peft.LoraConfig(r=4, target_modules=["up", "down"], init_lora_weights=False)
    found = peft.get_peft_model(model, config)
    found.add_adapter("other", config)
    return found.eval()


@torch.no_grad()
def test_adapters_merged_and_unmerged_and_switched_in_turn(adapted: Any) -> None:
    compiled = torch.compile(adapted, backend="ttnn")
    x = torch.randn(4, 32)
    seen = []

    def assert_seen() -> None:
        seen.append(adapted(x))
        assert_same(compiled(x), seen[-1])

    assert_seen()
    for name in ("other", "default", "other"):
        adapted.set_adapter(name)
        assert_seen()
        adapted.merge_adapter([name])
        assert_seen()
        adapted.unmerge_adapter()
        assert_seen()
    with adapted.disable_adapter():
        assert_seen()
    assert all(relative_error(one, other) > 0.1 for one, other in zip(seen[1::3], seen[4::3], strict=False))


@torch.no_grad()
@pytest.mark.parametrize("safe", [False, True], ids=["in place", "through a copy"])
def test_merging_changes_the_weights_of_the_graph_that_reads_them(adapted: Any, safe: bool, uploads: list) -> None:
    """The layers below the adapters are compiled by themselves: nothing but the contents of their weights changes."""
    layers = [module for module in adapted.modules() if hasattr(module, "lora_A")]
    compiled = [torch.compile(layer.get_base_layer(), backend="ttnn") for layer in layers]
    x = [torch.randn(4, layer.in_features) for layer in layers]

    def assert_seen() -> None:
        for ours, layer, operand in zip(compiled, layers, x, strict=True):
            assert_same(ours(operand), layer.get_base_layer()(operand))

    assert_seen()
    for name in ("default", "other"):
        before = layers[0].get_base_layer()(x[0])
        adapted.merge_adapter([name], safe_merge=safe)
        assert relative_error(layers[0].get_base_layer()(x[0]), before) > 0.1
        assert_seen()
        adapted.unmerge_adapter()
        uploads.clear()
        assert_seen()
        assert sorted(uploads) == [(4, 32), (4, 64), (32, 64), (64, 32)], "the weights, and no bias"


@torch.no_grad()
def test_a_merged_model_without_peft_around_it(adapted: Any) -> None:
    x = torch.randn(4, 32)
    compiled = torch.compile(adapted, backend="ttnn")
    assert_same(compiled(x), adapted(x))
    merged = adapted.merge_and_unload()
    assert isinstance(merged, Feedforward)
    assert_same(torch.compile(merged, backend="ttnn")(x), merged(x))
