"""Of several calls that would do, the first that TTNN accepts is taken, remembered, and said in the report."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import BOARD, compiled, random
from torch.fx import Graph

from tt_dynamo.compiler.recorder import NONE, Recorder
from tt_dynamo.devices import open_device
from tt_dynamo.estimate.chip import chip_of
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.spec import Value
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering.choose import first_accepted
from tt_dynamo.report.report import Choice
from tt_dynamo.runtime.recovery import LoweringNamespace

CONFIG = SimpleNamespace(math_fidelity="HiFi4", fp32_dest_acc_en=True, packer_l1_acc=True)


@pytest.fixture(scope="module")
def device() -> Any:
    return open_device(BOARD)


@pytest.fixture
def recorder(device: Any) -> Recorder:
    settings = Settings(core_grid=None, compute_kernel_config=CONFIG, grid_size=(8, 8), device=device.handle)
    return Recorder(device.namespace(dry_run=True), Graph(), settings)


@pytest.fixture
def tiles(recorder: Recorder, device: Any) -> Callable[..., Value]:
    def made(*shape: int) -> Value:
        ttnn = device.namespace(dry_run=True)
        tensor = ttnn.empty(shape, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device.handle)
        return Value(recorder._graph.placeholder("x"), tensor)

    return made


class Sizes:
    """A call that wants a slice of some size, of which TTNN refuses those that are too large; counts what it asks."""

    def __init__(self, recorder: Recorder, x: Value) -> None:
        self.recorder, self.x = recorder, x
        self.asked: list[int] = []

    def __call__(self, size: int) -> Any:
        self.asked.append(size)
        y = self.recorder.relu(self.x)
        return self.recorder.slice(y, (0, 0), (size, 32))

    def choose(self, *sizes: int) -> Any:
        return self.recorder.choose(("slice", self.x), sizes, self)


def written(recorder: Recorder) -> list[str]:
    return [node.name for node in recorder._graph.nodes if node.op == "call_function"]


def chosen(recorder: Recorder) -> tuple[str, str, int]:
    choice = list(recorder._graph.nodes)[-1].meta["choice"]
    return choice["operation"], choice["candidate"], choice["refused"]


def test_the_first_that_ttnn_accepts_is_taken_and_the_others_leave_nothing_behind(recorder: Any, tiles: Any) -> None:
    call = Sizes(recorder, tiles(64, 32))
    assert call.choose(256, 128, 32, 64).shape == (32, 32)
    assert call.asked == [256, 128, 32] and len(written(recorder)) == 2
    assert chosen(recorder) == ("slice", "32", 2)


@pytest.fixture
def costing(recorder: Recorder) -> Recorder:
    recorder.settings = dataclasses.replace(recorder.settings, chip=chip_of("n150"), searches=True)
    return recorder


def test_of_costed_candidates_the_cheapest_that_ttnn_accepts_is_taken(costing: Any, tiles: Any) -> None:
    x = tiles(1, 1, 64, 64)

    def call(times: int) -> Any:
        if times == 0:
            raise Refused("ttnn.relu: no times")
        y = x
        for _ in range(times):
            y = costing.relu(y)
        return y

    costing.choose(("relu", x), (3, 0, 1, 2), call, costed=True)
    assert written(costing) == ["relu"] and chosen(costing) == ("relu", "1", 0)
    tried: list[int] = []
    costing.choose(("relu", x), (3, 0, 1, 2), lambda times: tried.append(times) or call(times), costed=True)
    assert tried == [1] and written(costing) == ["relu", "relu_1"]


def test_of_candidates_that_cost_about_the_same_the_first_is_taken(costing: Any, tiles: Any) -> None:
    x = tiles(64, 64)
    costing.choose(("relu", x), ("relu", "neg"), lambda name: getattr(costing, name)(x), costed=True)
    assert written(costing) == ["relu"]


def test_of_each_group_the_first_that_ttnn_accepts_is_compared(costing: Any, tiles: Any) -> None:
    x, tried = tiles(1, 1, 64, 64), []

    def call(candidate: tuple[str, int]) -> Any:
        tried.append(candidate)
        if candidate[1] == 0:
            raise Refused("ttnn.relu: no times")
        return [costing.relu(x) for _ in range(candidate[1])][-1]

    def group(candidate: tuple[str, int]) -> str | None:
        return candidate[0] or None

    costing.choose(("relu", x), [("a", 0), ("a", 3), ("a", 1), ("b", 2), ("", 1)], call, compared=group)
    assert tried == [("b", 2), ("a", 0), ("a", 3), ("b", 2)] and written(costing) == ["relu", "relu_1"]
    tried.clear()
    costing.choose(("neg", x), [("a", 0), ("", 1), ("b", 0)], call, compared=group)
    assert tried == [("b", 0), ("a", 0), ("", 1)], "what is in no group counts last, and none is asked twice"


def test_without_a_search_costed_candidates_count_in_their_order(recorder: Any, tiles: Any) -> None:
    x = tiles(64, 64)
    recorder.choose(("x", x), (2, 1), lambda times: [recorder.relu(x) for _ in range(times)][-1], costed=True)
    assert len(written(recorder)) == 2


def test_it_is_remembered_for_tensors_that_are_alike(recorder: Any, tiles: Any) -> None:
    Sizes(recorder, tiles(64, 32)).choose(128, 64)
    again, other = Sizes(recorder, tiles(64, 32)), Sizes(recorder, tiles(96, 32))
    again.choose(128, 64)
    assert again.asked == [64] and chosen(recorder) == ("slice", "64", 1)
    other.choose(128, 64)
    assert other.asked == [128, 64]


def test_it_is_not_remembered_for_another_amount_of_free_l1(recorder: Any, tiles: Any, device: Any) -> None:
    Sizes(recorder, tiles(64, 32)).choose(128, 64)
    ttnn = recorder._module
    place = {"layout": ttnn.TILE_LAYOUT, "device": device.handle, "memory_config": ttnn.L1_MEMORY_CONFIG}
    held = ttnn.empty((1024, 1024), dtype=ttnn.bfloat16, **place)
    again = Sizes(recorder, tiles(64, 32))
    again.choose(128, 64)
    assert again.asked == [128, 64]
    del held


def test_what_is_refused_after_it_was_remembered_is_searched_for_again(recorder: Any, tiles: Any) -> None:
    call = Sizes(recorder, tiles(64, 32))
    call.choose(128, 64, 32)
    (asked,) = recorder.settings.choices
    recorder.settings.choices[asked] = "128", 0
    call.asked.clear()
    call.choose(128, 64, 32)
    assert call.asked == [128, 128, 64] and recorder.settings.choices[asked] == ("64", 1)


def test_where_all_are_refused_the_first_refusal_is_raised(recorder: Any, tiles: Any) -> None:
    def call(size: int) -> Any:
        raise Refused(f"no {size}")

    with pytest.raises(Refused, match="no 2"):
        recorder.choose(("slice", tiles(32, 32)), (2, 1), call)
    assert list(recorder.settings.choices.values()) == [(NONE, 2)]


@pytest.mark.parametrize("error", [MemoryError, KeyError, AssertionError])
def test_no_other_error_is_taken_for_a_refusal(recorder: Any, error: type[Exception]) -> None:
    def call(size: int) -> Any:
        raise error("no refusal")

    with pytest.raises(error):
        recorder.choose(("slice",), (2, 1), call)


@pytest.mark.parametrize("error", [RuntimeError, Refused])
def test_after_a_failure_what_ttnn_raises_is_a_refusal(error: type[Exception]) -> None:
    def call(size: int) -> int:
        if size > 1:
            raise error("TT_FATAL")
        return size

    namespace = LoweringNamespace(None, Settings(None, None, (8, 8)))
    assert namespace.choose(("slice",), (2, 1), call) == 1
    with pytest.raises(error):
        namespace.choose(("slice",), (3, 2), call)


def test_a_refusal_lets_go_of_its_tensors_at_once() -> None:
    class Image:
        pass

    kept = Image()
    watched = weakref.ref(kept)

    def refuse(candidate: int, image: Any = kept) -> None:
        raise Refused("ttnn.conv2d: no room")

    gc.disable()
    try:
        with contextlib.suppress(Refused):
            first_accepted([0], refuse, (Refused,))
        del refuse, kept
        assert watched() is None
    finally:
        gc.enable()


def test_the_report_says_what_was_chosen_and_where() -> None:
    class Model(torch.nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            for _ in range(2):
                q = F.scaled_dot_product_attention(q, q, q)
            return q

    _, report = compiled(Model(), random(1, 2, 128, 32))
    first, second = report.choices
    assert isinstance(first, Choice) and first.node and first.node != second.node
    assert first.operation == second.operation == "scaled_dot_product_attention"
    assert first.candidate == second.candidate and "k_chunk_size=128" in first.candidate
    assert report.choice_table().splitlines()[1].split()[:2] == ["2", "scaled_dot_product_attention"]
    assert report.to_dict()["choices"][0]["refused"] == 0  # type: ignore[index]
