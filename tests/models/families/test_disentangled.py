"""DeBERTa v3 attends to content and to distances: values, and kernel launches of two layers."""

from __future__ import annotations

import pytest
import torch
import transformers

import tt_dynamo

WIDTHS = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "position_buckets": 32, "relative_attention": True, "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm",
}  # fmt: skip


@pytest.mark.parametrize(("seq", "launches", "seconds"), [(64, 35, 203e-6), (40, 46, 212e-6)])
def test_deberta_v3_looks_distances_up_in_tiles_and_keeps_its_values(seq: int, launches: int, seconds: float) -> None:
    """Of 64 tokens it launched 64 kernels before, in 359 µs by the estimate; of 40, whose rows end inside a tile, the
    lookup fills and cuts tiles.
    """
    torch.manual_seed(0)
    torch._dynamo.reset()
    config = transformers.DebertaV2Config(
        **WIDTHS, vocab_size=300, position_biased_input=False, type_vocab_size=0, initializer_range=0.1
    )
    model = transformers.DebertaV2Model(config).eval()
    mask = (torch.arange(seq)[None] < seq - 7).long()
    inputs = {"input_ids": torch.randint(5, 300, (1, seq)), "attention_mask": mask}
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        compiled = torch.compile(model, backend="ttnn", dynamic=False, options={"device": "n150"})
        with tt_dynamo.record() as reports:
            out = compiled(**inputs).last_hidden_state
    (report,) = reports
    assert not report.fallbacks and out.isfinite().all() and out.dtype == expected.dtype
    pcc = torch.corrcoef(torch.stack([out[:, : seq - 7].flatten(), expected[:, : seq - 7].flatten()]))[0, 1]
    assert pcc > 0.999
    assert report.device_programs <= launches
    assert report.estimated_seconds <= seconds * 1.05
