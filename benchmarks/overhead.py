"""A torch.compile backend whose programs do nothing: what is left of a call is what torch.compile itself takes.

That is its guards, the parts of the model's Python that stay outside the graph, and AOTAutograd's wrappers. A backend
cannot change it, and code written by hand does not pay it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.fx import GraphModule


def _nothing(graph: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
    """A program that returns the same tensors in every call, of the shapes and dtypes that `graph` computes."""
    values = [node.meta["val"] for node in graph.graph.output_node().args[0]]
    outputs = [torch.empty(value.shape, dtype=value.dtype) for value in values]
    return make_boxed_func(lambda *_: outputs)


nothing = aot_autograd(fw_compiler=_nothing)
