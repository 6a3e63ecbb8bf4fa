"""What both handwritten encoders are made of: the configs and weights of a device, and the attention block.

Activations are [batch, 1, seq, hidden], which the head operations take without a reshape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

TILE = 32


class Setup:
    """TTNN, an open device, and everything that a forward pass must not build again.

    ttnn: the module, or the emulated namespace of it. device: an open ttnn device.
    """

    def __init__(self, ttnn: Any, device: Any):
        self.ttnn = ttnn
        self.device = device
        self.grid = device.compute_with_storage_grid_size()
        # With no core_grid, an activation is a kernel launch of its own.
        self.core_grid = ttnn.CoreGrid(y=self.grid.y, x=self.grid.x)
        self.compute_config = ttnn.init_device_compute_kernel_config(
            device.arch(),
            math_fidelity=ttnn.MathFidelity.HiFi3,  # HiFi4 with float32 accumulation: tt-metal#38306
            math_approx_mode=False,
            fp32_dest_acc_en=True,
            packer_l1_acc=True,
        )

    def weight(self, value: torch.Tensor, *, tiled: bool = True) -> Any:
        """`value` on the device in bfloat16."""
        layout = self.ttnn.TILE_LAYOUT if tiled else self.ttnn.ROW_MAJOR_LAYOUT
        value = value.detach().to(torch.bfloat16).contiguous()
        return self.ttnn.from_torch(value, dtype=self.ttnn.bfloat16, layout=layout, device=self.device)

    def free(self, *values: Any) -> None:
        """Free the buffers that nothing else views."""
        for value in values:
            self.ttnn.deallocate(value, force=False)

    def attention_config(self, batch: int, heads: int, seq: int) -> Any:
        """Chunk sizes for scaled dot product attention over `seq` queries and keys.

        TTNN's default of 32 by 32 costs up to 3.75 times as much (https://github.com/tenstorrent/tt-metal/issues/51911).
        Keys: one chunk where 256 suffice, more overflow L1 beside a mask. Queries: the largest that still gives every
        core some of the `batch * heads` blocks.
        """
        keys = min(256, 1 << (max(seq, TILE) - 1).bit_length())
        queries = keys
        while queries > 2 * TILE and batch * heads * -(-seq // queries) < self.grid.x * self.grid.y:
            queries //= 2
        return self.ttnn.SDPAProgramConfig(
            compute_with_storage_grid_size=self.grid,
            q_chunk_size=queries,
            k_chunk_size=keys,
            exp_approx_mode=False,
        )


class Linear:
    """x W + b in one kernel launch, with the activation if there is one."""

    def __init__(
        self, setup: Setup, weight: torch.Tensor, bias: torch.Tensor | None = None, *, activation: str | None = None
    ):
        """weight: [out, in] as torch keeps it; bias: [out]."""
        self.setup = setup
        self.weight = setup.weight(weight.T)
        self.bias = None if bias is None else setup.weight(bias[None])
        self.activation = activation

    def __call__(self, x: Any) -> Any:
        return self.setup.ttnn.linear(
            x,
            self.weight,
            bias=self.bias,
            activation=self.activation,
            core_grid=self.setup.core_grid,
            compute_kernel_config=self.setup.compute_config,
        )


class LayerNorm:
    """Layer norm over the last dimension, of x or of x + residual, in one kernel launch."""

    def __init__(self, setup: Setup, weight: torch.Tensor, bias: torch.Tensor, epsilon: float):
        self.setup = setup
        self.weight = setup.weight(weight[None])
        self.bias = setup.weight(bias[None])
        self.epsilon = epsilon

    def __call__(self, x: Any, residual: Any = None) -> Any:
        return self.setup.ttnn.layer_norm(
            x,
            epsilon=self.epsilon,
            weight=self.weight,
            bias=self.bias,
            residual_input_tensor=residual,
            compute_kernel_config=self.setup.compute_config,
        )


class Attention:
    """Multi-head self-attention over [batch, 1, seq, hidden] in four kernel launches."""

    def __init__(self, setup: Setup, projections: Mapping[str, torch.Tensor], heads: int):
        """projections: "{query,key,value,output}.{weight,bias}" as torch keeps them."""
        hidden = projections["query.weight"].shape[0]
        if hidden % (heads * TILE):
            raise ValueError(f"the head operations copy whole tiles: hidden size {hidden} needs {heads} * {TILE} * n")
        self.setup = setup
        self.heads = heads
        # Beside a mask, TTNN multiplies the mask by the inverse of a scale other than 1 in every call: fold it away.
        scale = (hidden // heads) ** -0.5
        names = ("query", "key", "value")
        parts = [projections[f"{name}.weight"] for name in names], [projections[f"{name}.bias"] for name in names]
        self.qkv = Linear(setup, *(torch.cat((query * scale, key, value)) for query, key, value in parts))
        self.output = Linear(setup, projections["output.weight"], projections["output.bias"])

    def __call__(self, x: Any, config: Any, mask: Any = None) -> Any:
        """`config`: of `Setup.attention_config`. `mask`: added to the scores, [batch, 1, seq, seq]."""
        ttnn, free = self.setup.ttnn, self.setup.free
        qkv = self.qkv(x)
        query, key, value = ttnn.experimental.nlp_create_qkv_heads(qkv, num_heads=self.heads, transpose_k_heads=False)
        free(qkv)
        merged = ttnn.transformer.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=False,
            scale=1.0,
            program_config=config,
            compute_kernel_config=self.setup.compute_config,
            output_concat_heads=True,
        )
        free(query, key, value)
        output = self.output(merged)
        free(merged)
        return output
