"""Values of TTNN's minimal products, of heads in two parts and of joint attention: TTNN has no golden for them."""

import torch
from torch.nn import functional

from .references import reference, rms_norm, scaled_dot_product_attention


@reference("ttnn.experimental.minimal_matmul")
def minimal_matmul(a, b, *, bias_tensor=None, fuse_swiglu=False, result, engine):
    """a b + bias; of a SwiGLU's columns, which are a tile's gate and a tile's up by turns, silu(gate) up."""
    output = _product(a, b, bias_tensor, engine)
    if fuse_swiglu:
        gate, up = output.unflatten(-1, (-1, 2, 32)).unbind(-2)
        output = (functional.silu(gate) * up).flatten(-2)
    return output.reshape(tuple(result.shape))


@reference("ttnn.experimental.minimal_matmul_split")
def minimal_matmul_split(a, b, *, chunks=3, dim=-1, bias_tensor=None, result, engine):
    """a b + bias, its columns in so many parts."""
    output = _product(a, b, bias_tensor, engine)
    return [part.reshape(tuple(made.shape)) for part, made in zip(output.chunk(chunks, -1), result, strict=True)]


@reference("ttnn.experimental.dit_minimal_matmul_addcmul_fused")
def dit_minimal_matmul_addcmul_fused(a, b, scalar, residual, gate, *, bias_tensor=None, result, engine):
    """residual + scalar (a b + bias) gate, of the gate's first row: TTNN reads no other."""
    output = _product(a, b, bias_tensor, engine)
    row = gate.flatten(0, -2)[0]
    return (residual + scalar * output.reshape(residual.shape) * row).reshape(tuple(result.shape))


def _product(a, b, bias, engine):
    return engine.product(a, b.flatten(0, -2)) + (0 if bias is None else bias.flatten())


@reference("ttnn.experimental.nlp_create_q_heads_split")
def nlp_create_q_heads_split(x, *, num_heads, split_head_dim):
    """[batch, 1, seq, heads * head_dim] → the first columns of each head [batch, heads, seq, split], and the others."""
    heads = x[:, 0].unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return heads[..., :split_head_dim], heads[..., split_head_dim:]


@reference("ttnn.transformer.joint_scaled_dot_product_attention")
def joint_scaled_dot_product_attention(q1, k1, v1, q2, k2, v2, *, joint_strategy="rear", scale=None, engine):
    """softmax(q k^T * scale) v of two streams [batch, heads, rows, head_dim] to both, the second behind the first."""
    query, key, value = (torch.cat(both, 2) for both in ((q1, q2), (k1, k2), (v1, v2)))
    output = scaled_dot_product_attention(query, key, value, is_causal=False, scale=scale, engine=engine)
    return output.split([q1.shape[2], q2.shape[2]], 2)


@reference("ttnn.experimental.dit_fused_distributed_rmsnorm")
def dit_fused_distributed_rmsnorm(
    x, cluster_axis, mesh_device, semaphores, *, epsilon=1e-5, num_heads_per_device=1, per_head_norm=False, weight=None,
    transformation_mat=None, rope_cos=None, rope_sin=None, engine,
):  # fmt: skip
    """[1, 1, rows, heads * head_dim] on one chip → each head's norm times its weight, x cos + (x matrix) sin of it."""
    if cluster_axis is not None or not per_head_norm or transformation_mat is None:
        raise NotImplementedError("dit_fused_distributed_rmsnorm has a reference for heads on one chip, turned, alone")
    heads = rms_norm(x.unflatten(-1, (num_heads_per_device, -1)), epsilon=epsilon, engine=engine)
    heads = (heads * weight.unflatten(-1, (num_heads_per_device, -1)))[0].transpose(1, 2)
    crossed = engine.product(heads.unflatten(-1, (-1, 32)), transformation_mat[0, 0]).flatten(-2)
    return heads * rope_cos + crossed * rope_sin
