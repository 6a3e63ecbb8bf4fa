"""Operations that torch takes apart as it traces and TTNN has whole: in graphs without gradients they arrive whole.

Before   view, t, addmm, view           expand, view, bmm, view     _softmax, …
After    linear                         matmul                      softmax.int

torch decomposes a composite operation before a graph is written down, unless its composite kernel declines. What
declines here is put back when the tracing ends. With gradients most comes decomposed: autograd knows the parts.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.export.exported_program import _override_composite_implicit_decomp
from torch.fx import GraphModule
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

aten = torch.ops.aten

UPSAMPLINGS = (
    aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d, aten._upsample_nearest_exact1d,
    aten._upsample_nearest_exact2d, aten._upsample_nearest_exact3d, aten.upsample_linear1d, aten.upsample_bilinear2d,
    aten.upsample_bicubic2d, aten.upsample_trilinear3d,
)  # fmt: skip
WHOLE = (
    aten.linear.default, aten.matmul.default, aten.scaled_dot_product_attention.default, aten.layer_norm.default,
    aten.group_norm.default, aten.softmax.int, aten.log_softmax.int, *(packet.vec for packet in UPSAMPLINGS),
)  # fmt: skip

_tables = threading.Lock()  # torch's kernel tables are one for all threads


def _decline(*args: Any, **kwargs: Any) -> Any:
    return NotImplemented


@contextlib.contextmanager
def _without_decompositions() -> Iterator[None]:
    """Have torch trace, by kernels and gradients of its own, the upsamplings that it would decompose in Python."""
    overloads = [overload for packet in UPSAMPLINGS for overload in (packet.default, packet.vec)]
    saved = [(overload, overload.py_kernels.copy()) for overload in overloads]
    for overload in overloads:
        overload.py_kernels.clear()
        overload._dispatch_cache.clear()
    try:
        yield
    finally:
        for overload, kernels in saved:
            overload.py_kernels.update(kernels)
            overload._dispatch_cache.clear()


@contextlib.contextmanager
def kept_whole(module: GraphModule, inputs: Sequence[Any]) -> Iterator[None]:
    """Trace with `WHOLE` left whole; with inputs of which gradients can be asked, `UPSAMPLINGS`.

    Gradients and batches inside of a graph, and tensor subclasses, need the parts: what declines has none of these.
    """
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    with contextlib.ExitStack() as tables:
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            tables.enter_context(_tables)
            tables.enter_context(_without_decompositions())
        elif not _transforms(module) and not any(map(is_traceable_wrapper_subclass, tensors)):
            tables.enter_context(_tables)
            tables.enter_context(_override_composite_implicit_decomp(dict.fromkeys(WHOLE, _decline)))
        yield


def _transforms(module: GraphModule) -> bool:
    """Whether a Dynamo graph, or one that it calls, takes gradients or batches operations (torch.func)."""
    names = (f"{getattr(n.target, '__module__', '')}.{getattr(n.target, '__name__', '')}" for n in module.graph.nodes)
    if any("functorch" in name or "autograd" in name for name in names):
        return True
    return any(_transforms(part) for part in module.children() if isinstance(part, GraphModule))
