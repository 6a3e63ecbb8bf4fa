"""Tensors whose contents live on the device between calls: KV caches.

A graph that writes into one of its inputs changes the copy on the device. What torch sees of it depends on the tensor:

- A `DeviceTensor`, which programs give out where a model makes a cache, is fetched when torch reads it, and what torch
  writes into it goes up before the next call. Nothing of it crosses otherwise.
- Any other tensor gets what the call wrote, at each call, so that it never lags behind; the copy on the device serves
  the next call unless torch wrote to the tensor in between.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.torch_internals import as_plain_tensor, flattens_for_program, storage_of, wrapper_like

Upload = Callable[[torch.Tensor, Spec], Any]
Download = Callable[[Any, torch.dtype], torch.Tensor]


class Copy:
    """What a device holds of a host tensor, which it knows weakly.

    tensor: on the device, at `spec`. newer: whether it was written to since both were the same. owner: what else tells
    tensors of one spec apart, as whether they have values. version: the host tensor's counter when both were the same.
    of_view: whether the host tensor is a view, which gets at once what was written: others read the same memory.
    """

    of_view = False

    def __init__(self, host: torch.Tensor, tensor: Any, spec: Spec, owner: Any, download: Download) -> None:
        self.tensor, self.spec, self.owner = tensor, spec, owner
        self.newer = False
        self._host = weakref.ref(host)
        self._download = download
        self._version, self._pointer = _version(host), host.data_ptr()

    def serves(self, host: torch.Tensor, spec: Spec, owner: Any) -> bool:
        """Whether this is the copy at `spec` of `host` as it is now."""
        return (self.spec, self.owner) == (spec, owner) and self._is_current(host)

    def wrote(self, tensor: Any, on_host_as_well: bool) -> None:
        """Note that a program left `tensor` in this one's place, and whether the host tensor has its contents."""
        host = self._host()
        assert host is not None
        self.tensor = tensor
        self.newer = not on_host_as_well
        self._version, self._pointer = _version(host), host.data_ptr()
        if self.of_view:
            self.fetch()

    def fetch(self) -> None:
        """Bring the host tensor up to date, unless torch has written to it since."""
        host = self._host()
        if host is None or not self.newer or not self._is_current(host):
            return
        self.newer = False
        with torch.inference_mode(False), torch.no_grad():
            host.copy_(self._download(self.tensor, host.dtype))
        self._version = _version(host)

    def release(self) -> None:
        """Let go of the device, which is being closed, and lose nothing."""
        if self.tensor is not None:
            self.fetch()
            del self._download
            self.tensor = None

    def _is_current(self, host: torch.Tensor) -> bool:
        if self.tensor is None or self._host() is not host or host.is_inference():
            return False
        return _version(host) == self._version and host.data_ptr() == self._pointer


def _version(host: torch.Tensor) -> int:
    return 0 if host.is_inference() else host._version  # which inference tensors have none of


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
    _owner: torch.Tensor  # the tensor on the host that owns the memory, and has the copy

    @staticmethod
    def __new__(cls, host: torch.Tensor, base: torch.Tensor | None = None) -> DeviceTensor:
        with torch.inference_mode(False):  # an ordinary tensor, as its host is
            made: DeviceTensor = wrapper_like(cls, host)
        made._host = host
        made._owner = host if base is None else base
        if made._owner is not host:
            host._tt_dynamo_owner = base  # type: ignore[attr-defined]
        return made

    def __init__(self, host: torch.Tensor, base: torch.Tensor | None = None) -> None:
        pass

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
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> DeviceTensor:
        (host,) = inner.values()
        return DeviceTensor(host)

    @classmethod
    @torch.compiler.disable
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given: list[DeviceTensor] = []

        def host(value: Any) -> Any:
            if not isinstance(value, DeviceTensor):
                return value
            given.append(value)
            return value.host

        written = list(_written(func, args, kwargs or {}))
        args, kwargs = tree_map(host, (args, kwargs or {}))
        result = func(*args, **kwargs)
        for tensor in written:
            torch.autograd.graph.increment_version(tensor._owner)  # which autograd, above this, did not

        def held(value: Any) -> Any:
            for tensor in given if isinstance(value, torch.Tensor) else ():
                if value is tensor._host:
                    return tensor
                if storage_of(value) == storage_of(tensor._host):
                    return DeviceTensor(value, tensor._owner)
            return value

        return tree_map(held, result)

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


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[DeviceTensor]:
    """The DeviceTensors that a call writes into."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            yield from (v for v in (value if isinstance(value, (list, tuple)) else [value]) if _is_real(v))


def _is_real(value: Any) -> bool:
    return isinstance(value, DeviceTensor) and not isinstance(value._owner, FakeTensor)


def copy_of(host: torch.Tensor) -> Copy | None:
    """What a device holds of the host tensor of a DeviceTensor."""
    return getattr(host, "_tt_dynamo_copy", None)


def owner_of(host: torch.Tensor) -> torch.Tensor:
    """The tensor whose memory the host tensor of a DeviceTensor shows: its own, or that of what it is a view of."""
    return getattr(host, "_tt_dynamo_owner", host)


def note_views(hosts: Sequence[torch.Tensor]) -> None:
    """Count as written what the views among `hosts` show, after a call that may have written into them."""
    for host in hosts:
        if owner_of(host) is not host:
            torch.autograd.graph.increment_version(owner_of(host))


def fetch(host: torch.Tensor) -> None:
    """Bring the host tensor of a DeviceTensor up to date."""
    copy = copy_of(owner_of(host))
    if copy is not None:
        copy.fetch()


class Residents:
    """Takes host tensors to one device, where their copies stay between calls."""

    def __init__(self, device: Any) -> None:
        self._device = weakref.ref(device)
        self._plain: Any = WeakTensorKeyDictionary()  # of tensors that are the user's own

    def take(self, host: torch.Tensor, spec: Spec, owner: Any, held: bool, upload: Upload, download: Download) -> Copy:
        """The copy of `host` at `spec`, uploaded unless it is there and current. held: it is a DeviceTensor's.

        A view of a DeviceTensor goes up at each call: nobody tells it when the tensor that it shows was written to.
        """
        if held and owner_of(host) is not host:
            fetch(host)
            fresh = self._new(host, upload(host, spec), spec, owner, download)
            fresh.of_view = True
            return fresh
        copy = copy_of(host) if held else self._plain.get(host)
        if copy is not None and copy.serves(host, spec, owner):
            return copy
        if copy is not None:
            copy.fetch()
            copy.tensor = None  # freed before its successor is allocated
        copy = self._new(host, upload(host, spec), spec, owner, download)
        if held:
            host._tt_dynamo_copy = copy  # type: ignore[attr-defined]
        elif not host.is_inference():  # whose writes nobody counts
            self._plain[host] = copy
        return copy

    def give(self, tensor: Any, spec: Spec, owner: Any, like: torch.Tensor, download: Download) -> DeviceTensor:
        """A DeviceTensor of the shape, strides and dtype of `like` with the contents of `tensor`."""
        with torch.inference_mode(False):
            host = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
            copy = self._new(host, tensor, spec, owner, download)
            copy.newer = True
            host._tt_dynamo_copy = copy  # type: ignore[attr-defined]
            return DeviceTensor(host)

    def _new(self, host: torch.Tensor, tensor: Any, spec: Spec, owner: Any, download: Download) -> Copy:
        copy = Copy(host, tensor, spec, owner, download)
        device = self._device()
        assert device is not None
        device.depend(copy)
        return copy
