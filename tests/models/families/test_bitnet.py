"""BitNet: plain weights, weights made ternary at each call, and packed ones; activations are rounded to 8 bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

SIZES = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}


def bitnet(mode: str) -> Any:
    """mode: "bf16" for plain weights, or as `BitNetQuantConfig` names modes of quantization."""
    from transformers import BitNetConfig, BitNetForCausalLM
    from transformers.integrations.bitnet import replace_with_bitnet_linear
    from transformers.utils.quantization_config import BitNetQuantConfig

    model = BitNetForCausalLM(BitNetConfig(**SIZES, **HEADS))
    if mode == "bf16":
        return model
    linear = {"online": "autobitlinear", "offline": "bitlinear"}[mode]
    config = BitNetQuantConfig(linear_class=linear, quantization_mode=mode)
    model = replace_with_bitnet_linear(model, modules_to_not_convert=["lm_head"], quantization_config=config)
    for module in model.modules():
        if type(module).__name__ == "BitLinear":
            digits = torch.randint(0, 3, (4, *module.weight.shape), dtype=torch.uint8)  # ternary, four to a byte
            module.weight.copy_(sum(digit << (2 * place) for place, digit in enumerate(digits)))
            module.weight_scale.fill_(10.0)
        elif type(module).__name__ == "AutoBitLinear":
            torch.nn.init.normal_(module.weight, std=0.1)
    return model.float()


@pytest.mark.parametrize("mode", ["bf16", "online", pytest.param("offline", marks=pytest.mark.slow)])
@torch.no_grad()
def test_nothing_of_it_falls_back(mode: str) -> None:
    model, ids = bitnet(mode).eval(), torch.randint(0, 128, (1, 32))
    eager = model(ids).logits
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(ids).logits
    (report,) = reports
    assert report.fallbacks == []
    assert pcc(ours, eager) >= 0.99
