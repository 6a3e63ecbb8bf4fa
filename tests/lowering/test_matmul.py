"""Matrix products: linear layers with bias and activation in one kernel, and batched products."""

import pytest
import torch
from compiled import calls, check, compiled, random, rounded
from torch import nn

from tt_dynamo.ir import operators


@pytest.mark.parametrize("shape", [(3, 33), (2, 3, 33), (1, 33), (2, 2, 3, 33), (33,), (64, 33)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_any_rank_is_one_call(shape, bias):
    report = check(rounded(nn.Linear(33, 17, bias=bias)), random(*shape))
    assert calls(report).count("linear") == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (33, 32), (64, 96), (5, 1)], ids=str)
def test_widths_of_any_size_are_multiplied(shape):
    check(rounded(nn.Linear(*shape)), random(2, shape[0]))


@pytest.mark.parametrize("name", operators.ACTIVATIONS)
def test_an_activation_joins_the_kernel_of_its_linear(name):
    linear = rounded(nn.Linear(33, 17))
    report = check(lambda x: operators.ACTIVATIONS[name](linear(x)), random(2, 3, 33), cancels=True)
    assert calls(report) == ["linear"]
    assert report.device_programs == 1


def test_the_core_grid_and_the_fidelity_are_always_given():
    code = check(rounded(nn.Linear(33, 17)), random(2, 33)).code
    assert "core_grid=" in code and "compute_kernel_config=" in code


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 33), (33, 5)),
        ((4, 3, 33), (4, 33, 5)),
        ((2, 4, 3, 33), (2, 4, 33, 5)),
        ((2, 4, 3, 33), (4, 33, 5)),
        ((2, 4, 3, 33), (33, 5)),
        ((1, 3, 33), (1, 33, 1)),
    ],
    ids=str,
)
def test_products_of_computed_matrices(shapes):
    report = check(lambda a, b: torch.relu(a) @ b, random(*shapes[0]), random(*shapes[1]))
    assert set(calls(report)) & {"matmul", "linear"}


def test_a_bias_may_be_an_input():
    check(torch.addmm, random(5), random(3, 33), random(33, 5))


@pytest.mark.parametrize(
    "shapes",
    [
        ((33,), (33,)),
        ((33,), (33, 5)),
        ((7, 33), (33,)),
        ((2, 3, 33), (33,)),
        ((33,), (2, 33, 5)),
        ((1, 1), (1,)),
        ((3, 33), (2, 33, 5)),
        ((1, 3, 33), (2, 33, 5)),
        ((2, 1, 3, 33), (4, 33, 5)),
        ((2, 1, 3, 33), (1, 4, 33, 5)),
        ((2, 2, 2, 2, 3, 4), (2, 2, 2, 2, 4, 3)),
    ],
    ids=str,
)
def test_products_of_any_two_ranks_with_batches_broadcast_from_either_side(shapes):
    check(lambda a, b: torch.relu(a) @ b, random(*shapes[0]), random(*shapes[1]))


@pytest.mark.parametrize(
    "function, shapes",
    [
        (torch.dot, ((33,), (33,))),
        (torch.vdot, ((33,), (33,))),
        (torch.mv, ((7, 33), (33,))),
        (torch.inner, ((2, 33), (3, 33))),
        (torch.outer, ((7,), (33,))),
        (torch.kron, ((3, 4), (5, 2))),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_products_of_vectors(function, shapes):
    check(lambda a, b: function(torch.relu(a), b), *(random(*shape) for shape in shapes))


def test_a_vector_is_a_row_that_is_not_moved():
    report = check(torch.mv, random(7, 33), random(33))
    assert report.device_programs == 1


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("ij,jk->ik", ((3, 33), (33, 5))),
        ("bqhd,bkhd->bhqk", ((2, 3, 4, 8), (2, 5, 4, 8))),
        ("i,j->ij", ((3,), (5,))),
        ("...ij,jk->...ik", ((2, 3, 4, 33), (33, 5))),
        ("bij,bij->bij", ((2, 3, 4), (2, 3, 4))),
    ],
)
def test_einsum_is_its_products(equation, shapes):
    check(lambda a, b: torch.einsum(equation, torch.relu(a), b), *(random(*shape) for shape in shapes))


def test_contractions_of_several_dimensions():
    check(lambda a, b: torch.tensordot(torch.relu(a), b, dims=([1, 0], [0, 1])), random(3, 4, 5), random(4, 3, 2))


SUMS = {
    "addmm": (torch.addmm, (3, 5), (3, 33), (33, 5)),
    "addmm with a row": (torch.addmm, (5,), (3, 33), (33, 5)),
    "addmm with a column": (torch.addmm, (3, 1), (3, 33), (33, 5)),
    "addmm with a number": (torch.addmm, (), (3, 33), (33, 5)),
    "baddbmm": (torch.baddbmm, (4, 3, 5), (4, 3, 33), (4, 33, 5)),
    "baddbmm with a row": (torch.baddbmm, (5,), (4, 3, 33), (4, 33, 5)),
    "addbmm": (torch.addbmm, (3, 5), (4, 3, 33), (4, 33, 5)),
    "addmv": (torch.addmv, (3,), (3, 33), (33,)),
    "addmv with a number": (torch.addmv, (), (3, 33), (33,)),
    "addr": (torch.addr, (3, 5), (3,), (5,)),
}


@pytest.mark.parametrize("beta, alpha", [(1, 1), (0.5, 2), (1, -3)])
@pytest.mark.parametrize("name", SUMS)
def test_a_sum_and_a_product_each_with_its_factor(name, beta, alpha):
    function, *shapes = SUMS[name]
    addend, a, b = (random(*shape) for shape in shapes)
    check(lambda c: function(torch.relu(c), a, b, beta=beta, alpha=alpha), addend, roundings=2, cancels=True)


@pytest.mark.parametrize("name", SUMS)
def test_with_beta_0_the_addend_counts_for_nothing(name):
    function, *shapes = SUMS[name]
    addend, a, b = (random(*shape) for shape in shapes)
    check(lambda c, a: function(c, torch.neg(a), b, beta=0), addend * float("nan"), a)


@pytest.mark.parametrize("name", ["addmm", "baddbmm", "addbmm", "addmv", "addr"])
def test_products_of_integers_are_exact(name):
    function, *shapes = SUMS[name]
    generator = torch.Generator().manual_seed(0)
    integers = [torch.randint(-(2**26), 2**26, shape, generator=generator) for shape in shapes]
    outputs, _ = compiled(function, *integers)
    assert torch.equal(outputs, function(*integers))


def test_a_bilinear_layer():
    layer = rounded(nn.Bilinear(33, 5, 7))
    check(layer, random(2, 3, 33), random(2, 3, 5), roundings=3, cancels=True)
