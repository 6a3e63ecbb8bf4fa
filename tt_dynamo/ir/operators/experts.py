"""Mixtures of experts: products by the weights of several experts, their mixture, and places that a ranking gave."""

import torch

from tt_dynamo.ir.operators.definition import FUSED, define


@define("Tensor x, Tensor weight, Tensor? bias=None, Tensor? experts=None, Tensor? sparsity=None", FUSED)
def expert_linear(x, weight, bias=None, experts=None, sparsity=None):
    """x times the weights of experts, plus their biases -> [n, rows, out].

    x [rows, in], which all experts read, or [n, rows, in]; weight [E, in, out]; bias [E, 1, out]. experts: integers [n]
    in [0, E), those to compute; all E where it is None. sparsity [E]: what TTNN asks for beside `experts`, not read.
    """
    if experts is not None:
        weight = weight[experts]
        bias = None if bias is None else bias[experts]
    out = torch.matmul(x, weight)
    return out if bias is None else out + bias


@define("Tensor x, Tensor weight, Tensor? bias, Tensor routing", FUSED)
def mix_experts(x, weight, bias, routing):
    """The sum over all experts of routing [rows, E] times (x [E, rows, in] @ weight [E, in, out] + bias [E, 1, out]).

    -> [rows, out]. An expert's rows are weighted before the product, so that sums over experts are sums of one product.
    """
    weighted = x * routing.to(x.dtype).t().unsqueeze(-1)
    out = weighted.transpose(0, 1).flatten(1) @ weight.flatten(0, 1)
    return out if bias is None else out + routing.to(x.dtype) @ bias.squeeze(1)


@define("Tensor experts", FUSED)
def expert_numbers(experts):
    """experts, integers, one after another [n]."""
    return experts.reshape(-1)


@define("Tensor x, int dim, Tensor index", FUSED)
def gather_ranked(x, dim, index):
    """x.gather(dim, index) with an index that a ranking along `dim` gave: it needs no checks against bounds."""
    return x.gather(dim, index)


@define("Tensor x, int dim, Tensor index, Tensor values", FUSED)
def scatter_ranked(x, dim, index, values):
    """x.scatter(dim, index, values) with such an index, no two of its numbers along `dim` alike."""
    return x.scatter(dim, index, values)
