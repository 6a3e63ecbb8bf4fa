"""Tensors that live on a device: fetched when torch reads them, sent up when torch wrote them, never lost."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tt_dynamo.devices import DeviceError
from tt_dynamo.ir.spec import Spec
from tt_dynamo.runtime.caches import Copy, DeviceTensor, Residents, copy_of, give
from tt_dynamo.runtime.traces.traces import Traces

SPEC = Spec((2, 4), "bfloat16", "TILE")


class Board:
    """A device whose tensors are torch's; it counts what crosses."""

    dry_run = False

    def __init__(self) -> None:
        self.dependents: list[Any] = []
        self.uploads = self.downloads = 0
        self.residents, self.traces = Residents(), Traces()
        self.border: Any = self  # whose device it is, too
        self.device = self

    def depend(self, dependent: Any) -> None:
        self.dependents.append(dependent)

    def up(self, tensor: torch.Tensor, spec: Spec) -> torch.Tensor:
        self.uploads += 1
        return tensor.clone()

    def renew(self, *_: Any) -> bool:
        return False  # no trace reads it

    def down(self, tensor: torch.Tensor, dtype: torch.dtype, placement: Any = ()) -> torch.Tensor:
        self.downloads += 1
        return tensor.to(dtype)

    def give(self, value: float) -> DeviceTensor:
        """A cache that a program made."""
        return give(torch.full((2, 4), value), SPEC, torch.empty(2, 4), self.border)

    def take(self, host: torch.Tensor, held: bool) -> Copy:
        return self.residents.take(host, SPEC, held, self.border)


@pytest.fixture
def board() -> Board:
    return Board()


def test_reading_fetches_once(board: Board) -> None:
    cache = board.give(7.0)
    assert board.downloads == 0
    assert cache.sum() == 56 and cache.tolist() == [[7.0] * 4] * 2 and (cache.numpy() == 7).all()
    assert board.downloads == 1


def test_what_a_program_wrote_is_read_through_views_taken_before(board: Board) -> None:
    cache = board.give(7.0)
    view = cache[0]
    held = copy_of(cache._host)
    assert held is not None
    held.wrote(torch.full((2, 4), 9.0), on_host_as_well=False)
    assert view.tolist() == [9.0] * 4
    assert isinstance(view, DeviceTensor) and type(cache.clone()) is torch.Tensor


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("through_a_view", [False, True])
def test_what_torch_writes_goes_up_before_the_next_call(board: Board, inference: bool, through_a_view: bool) -> None:
    cache = board.give(7.0)
    with torch.inference_mode(inference):
        (cache[1:] if through_a_view else cache).fill_(3.0)
    taken = board.take(cache._host, held=True)
    assert board.uploads == 1
    assert taken.tensor.tolist() == [[7.0 if through_a_view else 3.0] * 4, [3.0] * 4]


def test_other_data_goes_up_as_well(board: Board) -> None:
    cache = board.give(7.0)
    cache.data = cache.data * 2
    assert board.take(cache._host, held=True).tensor[0, 0] == 14
    with pytest.raises(RuntimeError, match="make another cache"):
        cache.data = torch.zeros(3)


def test_nothing_crosses_where_nothing_was_written(board: Board) -> None:
    cache = board.give(7.0)
    for _ in range(3):
        taken = board.take(cache._host, held=True)
        taken.wrote(taken.tensor + 1, on_host_as_well=False)
    assert (board.uploads, board.downloads) == (0, 0)
    assert cache[0, 0] == 10


def test_a_tensor_of_the_user_s_own_goes_up_when_it_was_written(board: Board) -> None:
    tensor = torch.zeros(2, 4)
    assert board.take(tensor, held=False) is board.take(tensor, held=False)
    tensor.add_(1)
    assert board.take(tensor, held=False).tensor[0, 0] == 1
    assert board.uploads == 2


def test_inference_tensors_have_no_counters_and_always_go_up(board: Board) -> None:
    with torch.inference_mode():
        tensor = torch.zeros(2, 4)
    for _ in range(2):
        board.take(tensor, held=False)
    assert board.uploads == 2


def test_closing_the_device_loses_nothing(board: Board) -> None:
    cache = board.give(7.0)
    for dependent in board.dependents:
        dependent.release()
    assert cache.tolist() == [[7.0] * 4] * 2


def test_what_a_device_took_with_it_is_an_error_and_not_stale(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, other = board.give(7.0), board.give(8.0)

    def fail(*_: Any) -> Any:
        raise RuntimeError("the device is gone")

    with monkeypatch.context() as patch:
        patch.setattr(board, "down", fail)
        with pytest.raises(RuntimeError, match="gone"):
            cache.sum()
    assert cache.sum() == 56  # it was not taken for fetched
    monkeypatch.setattr(board, "down", fail)
    for dependent in board.dependents:
        dependent.release()
    assert cache.sum() == 56
    with pytest.raises(DeviceError, match="closed: the device is gone"):
        other.sum()


def test_copies_and_files_hold_plain_tensors(board: Board) -> None:
    cache = board.give(7.0)
    file = io.BytesIO()
    torch.save({"keys": cache}, file)
    file.seek(0)
    for other in (copy.deepcopy(cache), torch.load(file)["keys"]):
        assert type(other) is torch.Tensor
        other.zero_()
    assert cache.sum() == 56


def test_another_compiler_reads_the_contents(board: Board) -> None:
    cache = board.give(7.0)
    compiled = torch.compile(lambda x: x * 2, backend="aot_eager")
    assert compiled(cache)[0, 0] == 14
    held = copy_of(cache._host)
    assert held is not None
    held.wrote(torch.full((2, 4), 9.0), on_host_as_well=False)
    assert compiled(cache)[0, 0] == 18


READINGS: dict[str, Callable[[torch.Tensor], Any]] = {
    "arithmetic": lambda x: x * 2,
    "a view": lambda x: x[0],
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "data": lambda x: x.data,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
def test_dynamo_traces_what_it_does_of_any_tensor(board: Board, read: Callable[[torch.Tensor], Any]) -> None:
    def model(x: torch.Tensor) -> Any:
        torch._dynamo.graph_break()
        return read(x)

    graphs = []
    for x in (torch.full((2, 4), 7.0), board.give(7.0)):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        torch.compile(model, backend="eager")(x)
        graphs.append(dict(torch._dynamo.utils.counters["frames"]))
    assert graphs[0] == graphs[1]
