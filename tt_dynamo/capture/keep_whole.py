"""Operations that torch takes apart as it traces and TTNN has whole: in graphs without gradients they arrive whole.

Before   view, t, addmm, view           expand, view, bmm, view     _softmax, …
After    linear                         matmul                      softmax.int

torch decomposes a composite operation unless its kernel declines. With gradients most comes decomposed: autograd knows
the parts.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.export.exported_program import _override_composite_implicit_decomp
from torch.fx import GraphModule
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tt_dynamo.capture.higher_order import DENSE

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

_tables = threading.RLock()  # torch's kernel tables are one for all threads


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


def asks_for_gradients(inputs: Sequence[Any]) -> bool:
    """Whether gradients by any of a graph's inputs, its parameters among them, may be asked for."""
    return torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in inputs)


@contextlib.contextmanager
def kept_whole(module: GraphModule, inputs: Sequence[Any]) -> Iterator[None]:
    """Trace with `WHOLE` left whole; with inputs of which gradients can be asked, `UPSAMPLINGS`.

    Gradients and batches inside of a graph, and tensor subclasses, need the parts: what declines has none of these.
    """
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    tables: AbstractContextManager[Any] = contextlib.nullcontext()
    if asks_for_gradients(tensors):
        tables = _without_decompositions()
    elif not _transforms(module) and not any(map(is_traceable_wrapper_subclass, tensors)):
        tables = _override_composite_implicit_decomp(dict.fromkeys(WHOLE, lambda *args, **kwargs: NotImplemented))
    with _tables, tables:
        yield


def _transforms(module: GraphModule) -> bool:
    """Whether a Dynamo graph, or one that it calls, takes gradients or batches operations, or calls what does."""
    graphs = [part.graph for part in module.modules() if isinstance(part, GraphModule)]
    targets = {node.target for graph in graphs for node in graph.nodes}
    names = (f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', '')}" for target in targets)
    is_dense = not targets.isdisjoint(DENSE.values())
    return is_dense or any("functorch" in name or "autograd" in name for name in names)
