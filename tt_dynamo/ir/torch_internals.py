"""What we use of torch that torch promises nobody, behind functions that say what it is for.

`tests/capture/test_torch_internals.py` names what an upgrade broke. More: `ir/fake.py`, `capture/higher_order.py`.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch._C._dynamo.guards import compute_overlapping_tensors as compute_overlapping_tensors
from torch._dynamo.backends.common import aot_autograd as aot_autograd
from torch._functorch._aot_autograd.descriptors import PlainAOTInput as PlainAOTInput
from torch._functorch._aot_autograd.descriptors import SubclassGetAttrAOTInput as SubclassGetAttrAOTInput
from torch._guards import detect_fake_mode, tracing
from torch._prims_common import compute_elementwise_output_logical_to_physical_perm
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import is_fake as is_fake
from torch.fx import Graph, Interpreter, Node
from torch.utils._python_dispatch import _disable_current_modes

# As `__torch_function__` of a subclass of tensors: functions of torch see it as any other tensor.
as_plain_tensor: Any = torch._C._disabled_torch_function_impl


def is_static_input(placeholder: Node) -> bool:
    """Whether an input of a Dynamo graph is a parameter, a buffer, or marked to lie at one address."""
    return bool(placeholder.meta.get("tensor_dict", {}).get("_dynamo_static_input_type"))


def tracing_mode() -> FakeTensorMode:
    """The mode of the fake tensors that are being traced; a new one where none are."""
    return detect_fake_mode() or FakeTensorMode()


def without_modes() -> AbstractContextManager[Any]:
    """Operations compute real values inside, whatever traces outside."""
    return _disable_current_modes()  # type: ignore[no-any-return]


def outside_tracing() -> AbstractContextManager[Any]:
    """`torch.load` gives tensors with contents inside, also while AOTAutograd traces: it asks for a traced mode."""
    return tracing(None)


def storage_of(tensor: torch.Tensor) -> int:
    """Which storage a tensor lies in, fake or real, while that lives; 0 for a tensor without one, as a sparse one."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else 0


def order_in_memory(tensor: torch.Tensor) -> list[int]:
    """The dimensions in the order of their strides, the widest first."""
    return list(compute_elementwise_output_logical_to_physical_perm(tensor)[0])


def wrapper_like(kind: type[torch.Tensor], tensor: torch.Tensor) -> Any:
    """A tensor of the subclass `kind` without memory of its own, of the shape, strides and dtype of `tensor`."""
    return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
        kind, tensor.shape, strides=tensor.stride(), storage_offset=tensor.storage_offset(), dtype=tensor.dtype,
        device=tensor.device,
    )  # fmt: skip


def flattens_for_program() -> bool:
    """Whether AOTAutograd calls for the parts of a tensor subclass, and not Dynamo's guards.

    For `__tensor_flatten__` under `torch.compiler.disable`, which stands between it and its caller.
    """
    return sys._getframe(3).f_globals.get("__name__", "").startswith("torch._functorch.")


def last_node(graph: Graph) -> Node:
    return graph._root._prev


def nodes_after(before: Node) -> Iterator[Node]:
    """The nodes behind one, to the end of its graph."""
    node = before._next
    while node is not before.graph._root:
        yield node
        node = node._next


def erase(node: Node) -> None:
    """Erase a node that nothing reads, and let the next one have its name."""
    names = node.graph._graph_namespace
    node.graph.erase_node(node)
    names._used_names.discard(node.name)
    base, _, number = node.name.rpartition("_")
    if number == str(names._base_count.get(base)):
        names._base_count[base] -= 1


class Run(Interpreter):
    """Runs a graph beside threads that trace: torch's record of the node that runs is one for all of them."""

    def _set_current_node(self, node: Node) -> AbstractContextManager[Any]:
        return nullcontext()
