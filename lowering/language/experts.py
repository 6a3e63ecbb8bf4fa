"""Mixtures of experts: fused node → TTNN calls.

Products by chosen experts read these experts' weights alone: `sparse_matmul` is given their numbers. Products by all
experts are one batched product. Nothing on the device checks a number: those that arrive here a ranking gave.
"""

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.spec import Blocks, divisors, tiles
from tt_dynamo.lowering.matmul import product_config, program_config, subblock
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

ROWS = Need("ROW_MAJOR")
MOST_READ = 32  # tiles of the inner dimension that a core takes at once


@lower(operators.expert_linear, experts=Need("ROW_MAJOR", "uint16"), sparsity=ROWS)
def expert_linear(ttnn: TTNN, x: Tensor, weight: Tensor, bias=None, experts=None, sparsity=None):
    """x [rows, in] or [n, rows, in] by weight [E, in, out] of experts [n], plus bias [E, 1, out] → [n, rows, out]."""
    if experts is None:
        out = _by_all(ttnn, x, weight)
        return out if bias is None else ttnn.add(out, bias)
    operands = {"indices": experts, "is_input_a_sparse": len(x.shape) == 3}
    operands |= {"compute_kernel_config": ttnn.settings.weight_kernel_config}
    operands |= {} if bias is None else {"bias": bias}
    rows, wide = math.ceil(x.shape[-2] / 32), tiles(weight.shape)[1]
    inner = tiles(weight.shape[1:])[0]

    def multiply(candidate):
        depth, across, down = candidate
        cores = Blocks(across, down, rows, math.ceil(wide / (across * down)))
        size = subblock(ttnn, cores.height, cores.width)
        config = program_config(ttnn, cores, None, {"in0_block_w": depth, "mcast_in0": True}, size)
        return ttnn.sparse_matmul(x, weight, sparsity=sparsity, program_config=config, **operands)

    ways = [(depth, *grid) for grid in _grids(ttnn, wide)[:3] for depth in divisors(inner, MOST_READ)[:3]]
    return ttnn.choose(("sparse_matmul", x, weight, bias, experts), ways, multiply, costed=True)


def _by_all(ttnn: TTNN, x: Tensor, weight: Tensor):
    """x by the weights of all experts: each reads it anew, or x is repeated and all cores share the products."""
    if len(x.shape) == 3:
        return ttnn.matmul(x, weight, **product_config(ttnn))
    alone = ttnn.reshape(x, (1, *x.shape))

    def multiply(way):
        if way == "read anew":
            return ttnn.matmul(alone, weight, compute_kernel_config=ttnn.settings.compute_kernel_config)
        return ttnn.matmul(ttnn.expand(alone, (weight.shape[0], *x.shape)), weight, **product_config(ttnn))

    return ttnn.choose(("matmul", alone, weight), ["read anew", "expand"], multiply, costed=True)


def _grids(ttnn: TTNN, wide):
    """Rectangles of cores (columns, rows) of which each has as many of `wide` tiles, the largest first."""
    columns, rows = ttnn.settings.grid_size
    counts = sorted({math.ceil(wide / width) for width in range(1, wide + 1)}, reverse=True)
    grids = [(divisors(count, columns)[0], count) for count in counts]
    return [(across, count // across) for across, count in grids if count // across <= rows]


@lower(operators.mix_experts)
def mix_experts(ttnn: TTNN, x: Tensor, weight: Tensor, bias, routing: Tensor):
    """x [E, rows, in], weighted by routing [rows, E], by weight [E, in, out] and summed over experts → [rows, out].

    The rows of all experts side by side make one product, which sums, where cores have room to bring them there.
    """
    count, rows, inner = x.shape
    weighted = ttnn.multiply(x, ttnn.reshape(ttnn.permute(routing, (1, 0)), (count, rows, 1)))

    def multiply(way):
        if way == "each":
            return ttnn.sum(ttnn.matmul(weighted, weight, **product_config(ttnn)), dim=0)
        line = ttnn.transformer.concatenate_heads(ttnn.reshape(weighted, (1, count, rows, inner)))
        table = ttnn.reshape(weight, (count * inner, weight.shape[-1]))
        return ttnn.linear(ttnn.reshape(line, (rows, count * inner)), table, **product_config(ttnn))

    out = ttnn.choose(("mix_experts", weighted, weight), ["all at once", "each"], multiply, costed=True)
    if bias is None:
        return out
    biases = ttnn.linear(routing, ttnn.reshape(bias, (count, bias.shape[-1])), **product_config(ttnn))
    return ttnn.add(out, biases)


@lower(operators.expert_numbers, gives="ROW_MAJOR")
def expert_numbers(ttnn: TTNN, experts: Tensor):
    """experts, integers, as TTNN takes a list of them: [n]."""
    line = ttnn.typecast(ttnn.reshape(experts, (math.prod(experts.shape),)), ttnn.uint16)
    return ttnn.to_layout(line, ttnn.ROW_MAJOR_LAYOUT)


def _require_floats(ttnn: TTNN, *values: Tensor):
    if any(x.dtype != ttnn.bfloat16 for x in values):
        raise Unsupported("picking integers stays on the host")


@lower(operators.gather_ranked, gives="ROW_MAJOR", x=ROWS, index=ROWS)
def gather_ranked(ttnn: TTNN, x: Tensor, dim, index: Tensor):
    """x at the positions `index` along `dim`."""
    _require_floats(ttnn, x)
    return ttnn.gather(x, dim, ttnn.typecast(index, ttnn.uint32))


@lower(operators.scatter_ranked, gives="ROW_MAJOR", x=ROWS, index=ROWS, values=ROWS)
def scatter_ranked(ttnn: TTNN, x: Tensor, dim, index: Tensor, values: Tensor):
    """x with values at the positions `index` along `dim`."""
    _require_floats(ttnn, x, values)
    return ttnn.scatter(x, dim % len(x.shape), index, values)
