"""Parameters on the device: each uploaded once, shared by every program that reads it, and never stale.

A weight is a constant expression of parameters at one spec. Programs hold their weights; the store knows them weakly,
by the memory of the parameters and the expression, so two graphs of one model (or two models of one parameter) hold
one copy, and a weight goes with the last program that reads it. What was uploaded carries the parameters' version
counters and a fingerprint; before each call a program compares them with the present ones.
"""

import dataclasses
import functools
import operator
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tt_dynamo.devices import open_devices
from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.uses import WeightUse
from tt_dynamo.runtime.fingerprint import Fingerprint
from tt_dynamo.runtime.transfer import Border


class Stamps:
    """Whether tensors are still what they were: same memory, same version counter, same fingerprint.

    Tensors made under `torch.inference_mode` have no counter; their contents are kept and compared. Steps of optimizers
    make stamps expire, since fused ones do not count what they write. Other writes that go around the counter (through
    `.data` or NumPy) are seen by the fingerprint, where they touch what it reads; `refresh` is for all others.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.pointers, self._versions = _addresses_and_versions(tensors)
        self._uncounted = {i: tensor.clone() for i, tensor in enumerate(tensors) if tensor.is_inference()}
        # It holds the memory, so that no other tensor is given the same address.
        self._fingerprint = Fingerprint(tensors)
        self.expired = False

    def current(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the tensors that were stamped, unchanged since."""
        if self.expired or _addresses_and_versions(tensors) != (self.pointers, self._versions):
            return False
        return self._fingerprint.is_current() and all(torch.equal(tensors[i], t) for i, t in self._uncounted.items())


def _addresses_and_versions(tensors: Sequence[torch.Tensor]) -> tuple[list[int], list[int | None]]:
    pointers = list(map(torch.Tensor.data_ptr, tensors))
    try:
        return pointers, list(map(operator.attrgetter("_version"), tensors))
    except RuntimeError:  # of inference tensors, which have none
        return pointers, [None if tensor.is_inference() else tensor._version for tensor in tensors]


@dataclasses.dataclass(eq=False)
class Weight:
    """A constant where a program reads it, and the stamps of the parameters that it was computed from."""

    tensor: Any
    stamps: Stamps


class WeightStore:
    """The weights on one device."""

    def __init__(self) -> None:
        self._weights: weakref.WeakValueDictionary[Any, Weight] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._stamps: weakref.WeakSet[Stamps] = weakref.WeakSet()
        hook = register_optimizer_step_post_hook(functools.partial(_stepped, weakref.ref(self)))
        weakref.finalize(self, hook.remove)

    def stamp(self, tensors: Sequence[torch.Tensor]) -> Stamps:
        """Stamps of `tensors` as they are now."""
        stamps = Stamps(tensors)
        with self._lock:
            self._stamps.add(stamps)
        return stamps

    def written(self, tensors: Iterable[torch.Tensor]) -> int:
        """Note that `tensors` were written to, whatever their counters say; how many weights are made of them."""
        pointers = {part.data_ptr() for tensor in tensors for part in _parts(tensor)}
        with self._lock:
            for stamps in self._stamps:
                stamps.expired = stamps.expired or not pointers.isdisjoint(stamps.pointers)
            return sum(not pointers.isdisjoint(weight.stamps.pointers) for weight in self._weights.values())

    def find(self, spec: Spec, pointers: list[int]) -> Any:
        """A weight at `spec` that lies on the device, of the parameters at these addresses; None where there is none.

        For lowering, which reads no contents: so the second graph of a model needs no memory for its weights.
        """
        with self._lock:
            for (_, _, its_spec, _), weight in list(self._weights.items()):
                if its_spec == spec and weight.stamps.pointers == pointers and weight.tensor is not None:
                    return getattr(weight.tensor, "tensor", weight.tensor)  # without its emulated values
        return None

    def get(self, sources: Sequence[torch.Tensor], use: WeightUse, border: Border) -> Weight:
        """The weight `use.evaluate(*sources)` at `use.spec`, uploaded unless it is there and current.

        Equal texts `use.expression` are taken to compute the same. One for the host is not shared.
        """
        stamps = self.stamp(sources)  # before the contents are read: a write from then on is seen
        if use.spec is None:
            return Weight(use.evaluate(*sources), stamps)
        memory = tuple((s.data_ptr(), tuple(s.shape), s.stride(), s.dtype) for s in sources)
        with self._lock:
            key = memory, use.expression, use.spec, border.dry_run
            weight = self._weights.setdefault(key, Weight(None, stamps))
            if weight.tensor is None or not weight.stamps.current(sources):
                up = border.up_first if weight.tensor is None else border.up
                value = use.values(sources)
                old, weight.tensor = weight.tensor, None  # where what follows fails, it is tried again
                if border.renew(old, value, use.spec):
                    weight.tensor = old
                else:
                    del old  # freed before its successor is allocated
                    weight.tensor = up(value, use.spec)
                    border.traces.allocated()
                weight.stamps = stamps
            return weight


def _stepped(store: weakref.ref[WeightStore], optimizer: torch.optim.Optimizer, *_: Any) -> None:
    found = store()
    if found is not None:
        found.written(parameter for group in optimizer.param_groups for parameter in group["params"])


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that a tensor subclass is made of; any other tensor itself."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    else:
        yield tensor


def refresh(model: torch.nn.Module) -> int:
    """Have the next calls upload the weights of `model` again; returns how many there are on open devices.

    For writes through `.data` or NumPy that change a few elements: such writes advance no version counter, and the few
    bytes of each parameter that every call compares may not be among those written. All other changes are seen without.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return sum(device.resource(WeightStore).written(tensors) for device in open_devices())
