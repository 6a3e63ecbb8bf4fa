"""Whether a compiled function's results are eager's, as far as bfloat16 can tell.

The reference is eager torch in float32 on inputs that bfloat16 represents. What bfloat16 costs is measured, not
assumed: the same ATen graph runs in eager torch with every float that it computes rounded to bfloat16, and `deviation`
is the largest difference of that run from the reference over a tensor. A float result is right where

    |result - reference| <= FACTOR * deviation + ULPS * 2^-8 * |reference|

since a lowering may round in other places than between ATen operations, but not in many more. Integers and booleans
are exact, but for those elements that bfloat16 changed in that run too (a comparison of values that were computed).
Infinities and NaNs stand where they stand in the reference, or in the rounded run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter
from torch.utils._pytree import tree_leaves, tree_map

FACTOR = 4
ULPS = 2
UNIT_ROUNDOFF = 2.0**-8
# A run that is off by this much of the largest value says nothing of the operation: the judge says so.
MEANINGLESS = 0.25


def representable(value: Any) -> Any:
    """Every float tensor in a tree with its elements rounded to bfloat16, in its own dtype and strides."""

    def rounded(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point() or leaf.layout != torch.strided:
            return leaf
        if leaf.dtype not in (torch.float32, torch.float64):
            return leaf
        return torch.empty_like(leaf).copy_(_finite(leaf.bfloat16(), leaf))

    return tree_map(rounded, value)


def _finite(rounded: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Finite numbers beyond bfloat16's range are its largest, on the device as here."""
    largest = torch.finfo(torch.bfloat16).max
    return torch.where(exact.isfinite() & ~rounded.isfinite(), exact.clamp(-largest, largest).bfloat16(), rounded)


class RoundedRun(Interpreter):
    """A graph in eager torch with every float that it computes rounded to bfloat16."""

    def run_node(self, node: Any) -> Any:
        result = super().run_node(node)
        return representable(result) if node.op == "call_function" else result


def rounded_run(graph: GraphModule, tensors: Sequence[Any], expected: Sequence[Any] | None = None) -> list[Any]:
    """What an ATen graph gives with every intermediate rounded to bfloat16: what it writes into inputs, its results.

    expected: the same exactly. Where the graph takes or gives more than that (tokens that order effects), the answer is
    what is expected, rounded.
    """
    if expected is not None and len(graph.graph.find_nodes(op="placeholder")) != len(tensors):
        return representable(list(expected))
    with torch.no_grad():
        results = list(RoundedRun(graph).run(*tensors))
    if expected is None or list(map(_shape, results)) == list(map(_shape, expected)):
        return results
    return representable(list(expected))


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, torch.Tensor) else None


def by_elements(tree: Any, x: torch.Tensor, dim: int) -> Any:
    """A tree of results with indices along `dim` replaced by the elements of `x` that they name.

    Equal elements may be sorted in any order, so the places that a sort gives are right where they name the right
    elements, each once.
    """

    def named(leaf: Any) -> Any:
        is_index = isinstance(leaf, torch.Tensor) and leaf.dtype == torch.int64 and leaf.ndim == x.ndim
        if not is_index or not leaf.numel() or not x.ndim:
            return leaf
        once = (leaf.sort(dim).values.diff(dim=dim) > 0).all()
        inside = leaf.min() >= 0 and leaf.max() < x.shape[dim]
        return x.gather(dim, leaf) if once and inside else leaf

    return tree_map(named, tree)


def complaint(results: Any, eager: Any, references: Any, rounded: Sequence[Any]) -> str:
    """What is wrong with `results`; empty where nothing is.

    eager: the function's own results, whose structure, shapes, dtypes and Python values must be met. references: the
    same computed in float32. rounded: the leaves of the rounded run.
    """
    ours, theirs, exact = (tree_leaves(tree) for tree in (results, eager, references))
    if len(ours) != len(theirs):
        return f"{len(ours)} results, eager torch gives {len(theirs)}"
    for position, (mine, their, reference, run) in enumerate(zip(ours, theirs, exact, rounded, strict=True)):
        if not isinstance(their, torch.Tensor):
            if type(mine) is not type(their) or (mine != their and their == their):
                return f"result {position} is {mine!r}, eager torch gives {their!r}"
            continue
        found = _tensor_complaint(mine, their, reference, run)
        if found:
            return f"result {position}: {found}"
    return ""


def _tensor_complaint(mine: Any, their: torch.Tensor, reference: torch.Tensor, run: torch.Tensor) -> str:
    if not isinstance(mine, torch.Tensor):
        return f"{type(mine).__name__}, eager torch gives a tensor"
    if mine.shape != their.shape or mine.dtype != their.dtype or mine.layout != their.layout:
        return f"{mine.dtype} {tuple(mine.shape)}, eager torch gives {their.dtype} {tuple(their.shape)}"
    if their.layout != torch.strided or not their.numel():
        return ""
    if not their.is_floating_point():
        return _discrete_complaint(mine, their, run)
    mine, reference, run = (x.detach().double() for x in (mine, reference, run))
    return _float_complaint(mine, reference, run)


def _discrete_complaint(mine: torch.Tensor, their: torch.Tensor, run: torch.Tensor) -> str:
    wrong = (mine != their) & (mine == mine) & (run == their)
    if not wrong.any():
        return ""
    first, eager = mine[wrong][:3].tolist(), their[wrong][:3].tolist()
    return f"{int(wrong.sum())} of {wrong.numel()} elements differ: {first}, eager torch gives {eager}"


def _float_complaint(mine: torch.Tensor, reference: torch.Tensor, run: torch.Tensor) -> str:
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        wrong = (kind(mine) != kind(reference)) & (kind(mine) != kind(run))
        if wrong.any():
            return f"{int(wrong.sum())} elements differ in {kind.__name__}"
    finite = mine.isfinite() & reference.isfinite()
    known = finite & run.isfinite()
    deviation = (run - reference)[known].abs().max().item() if known.any() else 0.0
    allowed = FACTOR * deviation + ULPS * UNIT_ROUNDOFF * reference.abs()
    error = (mine - reference).abs()
    wrong = finite & (error > allowed)
    if not wrong.any():
        return ""
    worst = torch.where(wrong, error - allowed, torch.zeros_like(error)).argmax()
    return (
        f"{int(wrong.sum())} of {wrong.numel()} elements are off, the worst {mine.flatten()[worst]:.6g}, "
        f"eager torch gives {reference.flatten()[worst]:.6g}, allowed {allowed.flatten()[worst]:.3g}"
    )


def meaningless(references: Any, rounded: Sequence[Any]) -> bool:
    """Whether bfloat16 alone destroys the result, so that the comparison proves nothing."""
    exact = tree_leaves(references)
    if len(exact) != len(rounded):
        return False
    for reference, run in zip(exact, rounded, strict=True):
        if not isinstance(reference, torch.Tensor) or reference.layout != torch.strided:
            continue
        if reference.is_floating_point() and reference.numel():
            known = reference.isfinite() & run.isfinite()
            difference = (run.double() - reference.double())[known].abs()
            if known.any() and difference.max() > MEANINGLESS * reference[known].abs().max().double():
                return True
    return False
