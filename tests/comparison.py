"""Hold compiled models against eager torch.

Eager's answer means: the same structure, shapes, dtypes and strides, the same memory shared between outputs and inputs,
the same inputs and buffers afterwards, and values within what bfloat16 costs. `RELATIVE` bounds the largest error by
the largest value, so it sees a wrong scale, to which PCC is blind; PCC sees what is wrong in small values.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves

import tt_dynamo

RELATIVE = 0.03
PCC = 0.99


def pcc(ours: torch.Tensor, eager: torch.Tensor) -> float:
    """Pearson correlation of all elements; 1.0 where there are too few or too equal elements to have one."""
    a, b = (x.detach().double().flatten() for x in (ours, eager))
    if a.numel() < 2 or a.std() == 0 or b.std() == 0:
        return 1.0
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def relative_error(ours: torch.Tensor, eager: torch.Tensor) -> float:
    """Largest difference over the largest value of `eager`; 0.0 for tensors with no elements."""
    if not eager.numel():
        return 0.0
    difference = (ours.detach() - eager.detach()).abs().max().double()
    return float(difference / eager.detach().abs().max().double().clamp(min=1e-6))


def assert_close(ours: torch.Tensor, eager: torch.Tensor) -> None:
    """Values within what bfloat16 costs; exact for integers and booleans; infinities and NaNs in the same places."""
    if not (eager.is_floating_point() or eager.is_complex()):
        assert torch.equal(ours, eager)
        return
    assert torch.equal(ours.isnan(), eager.isnan())
    assert torch.equal(ours.isinf(), eager.isinf())
    ours, eager = (torch.where(eager.isfinite(), x.detach(), torch.zeros_like(eager)) for x in (ours, eager))
    assert relative_error(ours, eager) <= RELATIVE
    if eager.is_floating_point():
        assert pcc(ours, eager) >= PCC


def assert_same(ours: Any, eager: Any) -> None:
    """Equal structures of equal leaves; tensors alike in everything that eager torch promises."""
    our_leaves, our_structure = tree_flatten(ours)
    leaves, structure = tree_flatten(eager)
    assert our_structure == structure
    for mine, theirs in zip(our_leaves, leaves, strict=True):
        assert type(mine) is type(theirs)
        if not isinstance(theirs, torch.Tensor):
            assert mine == theirs
            continue
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        assert mine.stride() == theirs.stride()
        # A part of a value may come down by itself.
        if mine.untyped_storage().nbytes() == theirs.untyped_storage().nbytes():
            assert mine.storage_offset() == theirs.storage_offset()
        assert mine.requires_grad == theirs.requires_grad
        assert_close(mine, theirs)


def shared_memory(outputs: Any, inputs: Any) -> set[tuple[str, int, int]]:
    """Which outputs lie in the memory of which inputs and of which other outputs, by position."""
    results, given = (tensors_of(tree) for tree in (outputs, inputs))
    shared = set()
    for number, result in enumerate(results):
        if result.numel():
            shared |= {("input", number, i) for i, other in enumerate(given) if _same_memory(result, other)}
            shared |= {("output", number, i) for i, other in enumerate(results[:number]) if _same_memory(result, other)}
    return shared


def tensors_of(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def check(
    model: Callable[..., Any],
    make: Callable[[], Sequence[Any]],
    *,
    calls: int = 1,
    backward: bool = False,
    context: Callable[[], Any] = contextlib.nullcontext,
    options: dict[str, Any] | None = None,
    dynamic: bool | None = None,
) -> list[tt_dynamo.GraphReport]:
    """Call `model` compiled and in eager torch on the inputs of `make`, `calls` times each, and assert the same.

    Compared are outputs, memory shared, the inputs and buffers afterwards and, with `backward`, all gradients of a
    weighted sum of the outputs. Without `backward` the calls run under `torch.no_grad`. Returns the reports.
    """
    eager_model = copy.deepcopy(model) if isinstance(model, torch.nn.Module) else model
    compiled = torch.compile(model, backend="ttnn", options=options, dynamic=dynamic)
    inputs, eager_inputs = _seeded(make), _seeded(make)
    with tt_dynamo.record() as reports:
        for _ in range(calls):
            with torch.enable_grad() if backward else torch.no_grad(), context():
                eager = eager_model(*eager_inputs)
                ours = compiled(*inputs)
            assert_same(ours, eager)
            assert shared_memory(ours, inputs) == shared_memory(eager, eager_inputs)
            if backward:
                _weighted_sum(ours).backward()
                _weighted_sum(eager).backward()
            assert_same(inputs, eager_inputs)
            assert_same(_gradients(inputs, model), _gradients(eager_inputs, eager_model))
            if isinstance(model, torch.nn.Module):
                assert_same(dict(model.state_dict()), dict(eager_model.state_dict()))
    return reports


def _seeded(make: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    torch.manual_seed(0)
    return make()


def _weighted_sum(outputs: Any) -> torch.Tensor:
    """A number whose gradients differ from element to element."""
    generator = torch.Generator().manual_seed(1)
    differentiable = [tensor for tensor in tensors_of(outputs) if tensor.requires_grad]
    return sum((t.float() * torch.randn(t.shape, generator=generator)).sum() for t in differentiable)  # type: ignore


def _gradients(inputs: Any, model: Any) -> list[torch.Tensor | None]:
    parameters = list(model.parameters()) if isinstance(model, torch.nn.Module) else []
    return [tensor.grad for tensor in (*tensors_of(inputs), *parameters) if tensor.is_leaf]
