"""What the estimate chooses: larger blocks of a product, and many cores for a norm of one row of tiles."""

import pytest
import torch
from compiled import calls, check, compiled, random, rounded
from encoders import bert, tokens
from torch import nn


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm], ids=lambda norm: norm.__name__)
@pytest.mark.parametrize("rows", [1, 32])
def test_a_wide_norm_of_one_row_of_tiles_runs_on_many_cores(norm, rows):
    report = check(rounded(norm(2048)), random(1, rows, 2048))
    assert [call.removesuffix("_1") for call in calls(report)] == [
        "to_memory_config", "rms_norm" if norm is nn.RMSNorm else "layer_norm", "to_memory_config",
    ]  # fmt: skip
    assert "WIDTH_SHARDED" in report.code and "cores=(8, 8)" in report.choice_table()


@pytest.mark.parametrize(
    "shape",
    [(1, 33, 2048), (2, 1, 2048), (1, 1, 64), (1, 1, 2040)],
    ids=["two rows of tiles", "two matrices", "narrow", "no whole tiles"],
)
def test_any_other_norm_takes_one_launch(shape):
    report = check(rounded(nn.LayerNorm(shape[-1])), random(*shape))
    assert calls(report) == ["layer_norm"]


def test_a_norm_of_a_vector_is_right():
    norm = rounded(nn.LayerNorm(2048))
    check(lambda x: norm(x), random(2048))


def test_a_residual_is_spread_over_the_same_cores():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(1024)

        def forward(self, x, y):
            return self.norm(x + y)

    report = check(rounded(Residual()), random(1, 8, 1024), random(1, 8, 1024))
    assert calls(report) == ["to_memory_config", "to_memory_config", "layer_norm", "to_memory_config"]


def test_a_product_takes_larger_blocks_where_that_is_faster():
    linear = rounded(nn.Linear(2048, 2048))
    _, plain = compiled(linear, random(1, 2048, 2048), dry_run=True, optimize="off")
    _, searched = compiled(linear, random(1, 2048, 2048), dry_run=True)
    assert "in0_block_w" in searched.code and "in0_block_w" not in plain.code
    assert searched.estimated_seconds < plain.estimated_seconds * 0.96
    check(linear, random(1, 96, 2048))


def test_the_least_products_are_left_to_ttnn():
    report = check(rounded(nn.Linear(64, 64)), random(4, 64))
    assert "program_config" not in report.code


def test_memory_takes_less_l1_than_latency_and_computes_the_same():
    model, x = nn.Sequential(rounded(nn.Linear(1024, 1024)), nn.LayerNorm(1024)), random(1, 512, 1024)
    fast, quick = compiled(model, x)
    small, spare = compiled(model, x, optimize="memory")
    assert spare.peak_l1_bytes < quick.peak_l1_bytes
    assert spare.estimated_seconds >= quick.estimated_seconds and not spare.fallbacks
    assert torch.corrcoef(torch.stack((fast.flatten(), small.flatten())))[0, 1] > 0.9999


def test_memory_leaves_no_stream_in_l1():
    model, inputs = bert(1).eval(), tokens(8, seq=64)
    reports = [compiled(lambda: model(**inputs)[0], dry_run=True, optimize=what)[1] for what in ("latency", "memory")]
    assert "BLOCK_SHARDED" in reports[0].code and "SHARDED" not in reports[1].code
    assert reports[1].peak_l1_bytes < reports[0].peak_l1_bytes


def test_memory_takes_attention_in_the_smallest_chunks():
    heads = random(1, 8, 512, 64)
    chunks = [
        compiled(nn.functional.scaled_dot_product_attention, heads, heads, heads, dry_run=True, optimize=what)[1]
        for what in ("latency", "memory")
    ]
    assert chunks[1].peak_l1_bytes < chunks[0].peak_l1_bytes
    assert "k_chunk_size=32" in chunks[1].code and "k_chunk_size=32" not in chunks[0].code
