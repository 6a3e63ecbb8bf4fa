"""Tensors whose contents live on the device between calls: KV caches.

A graph that writes into one of its inputs changes the copy on the device. What torch sees of it depends on the tensor:

- A `DeviceTensor`, which programs give out where a model makes a cache, is fetched when torch reads it, and what torch
  writes into it goes up before the next call. Nothing of it crosses otherwise.
- Any other tensor gets what the call wrote, at each call, so that it never lags behind; the copy on the device serves
  the next call unless torch wrote to the tensor in between.
"""

import contextlib
import dataclasses
import threading
import weakref
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from tt_dynamo.devices import DeviceError
from tt_dynamo.devices.queues import Reading
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.torch_internals import as_plain_tensor, flattens_for_program, storage_of, wrapper_like
from tt_dynamo.ir.ttnn_internals import ttnn_reason
from tt_dynamo.runtime.on_device import argmax, cast_is_exact, shows_all_of
from tt_dynamo.runtime.traces.inputs import Lent
from tt_dynamo.runtime.transfer import Border


class Copy:
    """What a device holds of a host tensor, which it knows weakly.

    tensor: on the device, at `spec`. newer: whether it was written to since both were the same. of_view: whether the
    host tensor is a view, which gets at once what was written: others read the same memory. lost: why the contents can
    no longer be fetched, which raises DeviceError then. borrowed: whether the tensor is another Copy's as well, or a
    trace's. was_read: whether a program read it whose trace could not.
    """

    def __init__(self, host: torch.Tensor, tensor: Any, spec: Spec, border: Border, of_view: bool = False) -> None:
        self.tensor, self.spec, self.of_view, self.newer, self.lost = tensor, spec, of_view, False, ""
        self._host, self._stamp, self.border = weakref.ref(host), _stamp(host), border
        self.borrowed = self.was_read = False
        self._lock = threading.Lock()  # of a fetch: no thread reads what another has half of
        border.device.depend(self)

    def serves(self, host: torch.Tensor, spec: Spec, border: Border) -> bool:
        """Whether this is the copy at `spec` of `host` as it is now, for a program with that border."""
        return self._is_current(host) and (self.spec, self.border.dry_run) == (spec, border.dry_run)

    def renew(self, spec: Spec, border: Border) -> bool:
        """Take what torch wrote to the host tensor at the same place, for traces that read there; whether it did."""
        host = self._host()
        if host is None or (self.spec, self.border.dry_run) != (spec, border.dry_run):
            return False
        stamp, tensor = _stamp(host), self.tensor
        self.tensor = None  # where this fails
        if renewed := border.renew(tensor, host, spec):
            self.newer, self._stamp = False, stamp
        self.tensor = tensor
        return renewed

    def wrote(self, tensor: Any, on_host_as_well: bool) -> None:
        """Note that a program left `tensor` in this one's place, and whether the host tensor has its contents."""
        host = self._host()
        assert host is not None
        self.tensor, self.newer, self._stamp = tensor, not on_host_as_well, _stamp(host)
        if self.of_view:
            self.fetch()

    def fetch(self) -> None:
        """Bring the host tensor up to date, unless torch has written to it since."""
        if not self.newer:
            return
        with self._lock:
            host = self._host()
            if self.lost:
                raise DeviceError(f"the contents of a tensor were on a device that was closed: {self.lost}")
            if host is not None and self.is_only_on_device():
                with torch.inference_mode(False), torch.no_grad():
                    down = self.border.down(self.tensor, host.dtype, self.spec.placement)
                    host.copy_(down.reshape(host.shape))
                self._stamp, self.newer = _stamp(host), False

    def leave(self) -> None:
        """Let go of the tensor on the device: what the host lacks of it is on its way from now on."""
        with self._lock:
            if isinstance(self.tensor, Reading):
                return
            if self.is_only_on_device():
                queues = self.border.device.queues(self.border.namespace, self.border.dry_run)
                self.tensor = queues.read(self.tensor)
                self.spec = dataclasses.replace(self.spec, memory="HOST")
            else:
                self.tensor = None

    def release(self) -> None:
        """Let go of the device, which is being closed, and lose nothing, unless its user has closed it already."""
        if self.tensor is not None:
            try:
                self.fetch()
            except Exception as error:
                self.lost = ttnn_reason(error)
            del self.border
            self.tensor = None

    def is_only_on_device(self) -> bool:
        """Whether the host tensor would have to be fetched to be read."""
        host = self._host()
        return self.newer and host is not None and self._is_current(host)

    def _is_current(self, host: torch.Tensor) -> bool:
        return self.tensor is not None and self._host() is host and _stamp(host) == self._stamp


def _stamp(host: torch.Tensor) -> object:
    """What is another one after a write; always for inference tensors, whose writes nobody counts."""
    return object() if host.is_inference() else (host.data_ptr(), host._version)


_programs = threading.local()


@contextlib.contextmanager
def unfetched() -> Iterator[None]:
    """While a program of ours is called, AOTAutograd takes DeviceTensors apart and nothing is to be fetched for it."""
    before = getattr(_programs, "called", False)
    _programs.called = True
    try:
        yield
    finally:
        _programs.called = before


class DeviceTensor(torch.Tensor):
    """A tensor whose contents are on the device until torch asks for them.

    It is a wrapper around a tensor on the host, as `torch.compile` traces them: graphs see that tensor. Views of one
    share its contents. Dynamo calls for what runs between two graphs, and is told to trace none of this.
    """

    _host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> "DeviceTensor":
        with torch.inference_mode(False):  # an ordinary tensor, as its host is
            made: DeviceTensor = wrapper_like(cls, host)
        made._host = host
        return made

    __torch_function__ = as_plain_tensor

    @property
    def host(self) -> torch.Tensor:
        """The tensor on the host, up to date unless a program of ours is about to take it."""
        if not getattr(_programs, "called", False):
            fetch(self._host)
        return self._host

    @torch.compiler.disable
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """The attribute with the contents, for AOTAutograd, whose programs of any backend compute with them.

        Dynamo's guards read what they are told here at every call; they look at shapes, for which nothing is fetched.
        """
        return ["host" if flattens_for_program() else "_host"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> "DeviceTensor":
        return DeviceTensor(*inner.values())

    @classmethod
    @torch.compiler.disable
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        answer = _answer_on_device(func, args, kwargs)
        if answer is not None:
            return answer
        given, written = _device_tensors((args, kwargs)), list(_written(func, args, kwargs))
        host = attrgetter("_host" if _is_view(func) else "host")  # a view is fetched when it is read
        args, kwargs = tree_map_only(DeviceTensor, host, (args, kwargs))
        result = func(*args, **kwargs)
        torch.autograd.graph.increment_version(written)  # which autograd, above this, did not

        def held(value: torch.Tensor) -> torch.Tensor:
            for tensor in given:
                if value is tensor._host:
                    return tensor
                if storage_of(value) == storage_of(tensor._host):
                    owner = owner_of(tensor._host)
                    if value is not owner:
                        value._tt_dynamo_owner = owner  # type: ignore[attr-defined]
                    return DeviceTensor(value)
            return value

        return tree_map_only(torch.Tensor, held, result)

    @torch.compiler.disable
    def plain(self) -> torch.Tensor:
        """The contents as an ordinary tensor that shares this one's memory on the host, as it is now."""
        return self.host

    @property
    @torch.compiler.disable
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    @torch.compiler.disable
    def data(self, value: torch.Tensor) -> None:
        if (value.shape, value.dtype) != (self.shape, self.dtype):
            raise RuntimeError(
                f"a cache of shape {tuple(self.shape)} and {self.dtype} lives on the device and takes no data of shape "
                f"{tuple(value.shape)} and {value.dtype}; make another cache"
            )
        with torch.no_grad():
            self.copy_(value)

    @torch.compiler.disable
    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.host!r})"

    @torch.compiler.disable
    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return self.host.clone()

    @torch.compiler.disable
    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.host.clone().__reduce_ex__(protocol)


def _of_host(name: str) -> Any:
    """A method that asks the tensor on the host: what reads memory goes around `__torch_dispatch__`."""

    def method(self: DeviceTensor, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.host, name)(*args, **kwargs)

    method.__name__ = method.__qualname__ = name
    return torch.compiler.disable(method)


for _name in ("numpy", "__array__", "tolist", "data_ptr"):
    setattr(DeviceTensor, _name, _of_host(_name))


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[torch.Tensor]:
    """The memory of DeviceTensors that a call writes into, by its owner."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            hosts = (tensor._host for tensor in _device_tensors(value))
            yield from (owner_of(host) for host in hosts if not isinstance(host, FakeTensor))


def _is_view(func: Any) -> bool:
    """Whether a call always gives a view; `reshape`, which may copy, does not."""
    return func.is_view and not func.has_kernel_for_dispatch_key(torch.DispatchKey.CompositeImplicitAutograd)


def _answer_on_device(func: Any, args: Any, kwargs: Any) -> torch.Tensor | None:
    """What `runtime/on_device.py` computes of a DeviceTensor that was not fetched yet; None for everything else."""
    if func not in (aten._to_copy.default, aten.argmax.default) or not isinstance(args[0], DeviceTensor):
        return None
    host = args[0]._host
    owner, copy = owner_of(host), copy_of(host)
    if (
        isinstance(host, FakeTensor)
        or copy is None
        or copy.spec.memory == "HOST"
        or copy.spec.is_cut
        or not shows_all_of(host, owner)
    ):
        return None
    with copy.border.traces.turn():  # no replay writes to it meanwhile
        if not copy.is_only_on_device():
            return None
        if func is aten.argmax.default:
            return argmax(copy.tensor, copy.border, host, *args[1:], **kwargs)
        if not cast_is_exact(copy.spec.dtype, owner.dtype, kwargs):
            return None
        copy.borrowed = True
        return give(Lent(copy.tensor), copy.spec, torch.empty_like(host, dtype=torch.float32), copy.border)


def _device_tensors(values: Any) -> list[DeviceTensor]:
    return [value for value in tree_leaves(values) if isinstance(value, DeviceTensor)]


def owner_of(host: torch.Tensor) -> torch.Tensor:
    """The tensor whose memory the host tensor of a DeviceTensor shows: its own, or that of what it is a view of."""
    return getattr(host, "_tt_dynamo_owner", host)


def copy_of(host: torch.Tensor) -> Copy | None:
    """What a device holds of the memory that the host tensor of a DeviceTensor shows."""
    return getattr(owner_of(host), "_tt_dynamo_copy", None)


def fetch(host: torch.Tensor) -> None:
    """Bring the host tensor of a DeviceTensor up to date."""
    copy = copy_of(host)
    if copy is not None:
        copy.fetch()


def give(tensor: Any, spec: Spec, like: torch.Tensor, border: Border) -> DeviceTensor:
    """A DeviceTensor of the shape, strides and dtype of `like` with the contents of `tensor`, or of a `Reading`."""
    is_lent = isinstance(tensor, Lent)
    if isinstance(tensor, Reading):
        spec = dataclasses.replace(spec, memory="HOST")  # which no program takes where it is
    elif is_lent:
        tensor = tensor.tensor
    with torch.inference_mode(False):
        host = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
        copy = host._tt_dynamo_copy = Copy(host, tensor, spec, border)  # type: ignore[attr-defined]
        copy.newer, copy.borrowed = True, is_lent
        if is_lent or border.traces.captured:
            border.traces.lend(copy)
        return DeviceTensor(host)


class Residents(WeakTensorKeyDictionary):
    """The copies of the user's own tensors that stay on one device between calls."""

    def take(self, host: torch.Tensor, spec: Spec, held: bool, border: Border, written: bool = False) -> Copy:
        """The copy of `host` at `spec`, uploaded unless it is there and current. held: it is a DeviceTensor's.

        written: whether it is to be written to in place, which no other copy may see.

        A view of a DeviceTensor goes up at each call: nobody tells it when the tensor that it shows was written to.
        """
        of_view = held and owner_of(host) is not host
        known = copy_of(host) if held else self.get(host)
        if known is not None:
            is_others = written and known.borrowed
            if known.serves(host, spec, border) and not is_others:
                if written:
                    border.traces.keep(known)
                return known
            known.fetch()
            if not of_view and not is_others and known.renew(spec, border):
                return known
            if not of_view:
                known.tensor = None  # freed before its successor is allocated
        copy = Copy(host, border.up(host, spec), spec, border, of_view)
        if held and not written and border.traces.captured:
            border.traces.lend(copy)
        else:
            border.traces.allocated()
        if held and not of_view:
            host._tt_dynamo_copy = copy  # type: ignore[attr-defined]
        elif not held and not host.is_inference():  # whose writes nobody counts
            self[host] = copy
        return copy
