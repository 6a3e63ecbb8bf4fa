"""Input that is hard to take: each gives eager's answer, or an error that says what to do.

Values of a compiled model are compared by `comparison.check`: structure, shapes, dtypes, strides, shared memory, what
is mutated, and with `backward` every gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_close, assert_same, check
from small_models import Feedforward, Weight

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def relu_times_two(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) * 2


# --- dtypes ---------------------------------------------------------------------------------------------------------


def test_float64_runs_in_eager_torch_and_never_reaches_ttnn(uploads: list) -> None:
    (report,) = check(relu_times_two, lambda: (torch.randn(4, 32).double(),))
    assert not uploads
    assert {fallback.reason for fallback in report.fallbacks} == {"TTNN has no float64"}


def test_a_float64_part_of_a_model_leaves_the_rest_on_the_device() -> None:
    (report,) = check(lambda x: torch.relu(x).double() * 2, lambda: (torch.randn(4, 32),))
    assert report.device_nodes == 1


def test_a_float64_model_with_weights() -> None:
    check(Feedforward().double(), lambda: (torch.randn(4, 32).double(),))


def test_complex_tensors_run_in_eager_torch(uploads: list) -> None:
    (report,) = check(lambda x: x * 2 + 1, lambda: (torch.complex(torch.randn(4, 4), torch.randn(4, 4)),))
    assert not uploads
    assert "complex64" in report.fallbacks[0].reason


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integers_and_booleans_of_every_width(dtype: torch.dtype) -> None:
    def mixed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x * y, ~x if x.dtype == torch.bool else x + 1, x.sum(), x == 1, torch.where(x > 0, y, -y)

    check(mixed, lambda: (torch.randint(0, 2, (4, 8)).to(dtype), torch.randn(4, 8)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    def mixed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.relu(x), x + y, x.sum(-1), x.float()

    check(mixed, lambda: (torch.randn(4, 8).to(dtype), torch.randn(4, 8)))
    check(Feedforward().to(dtype), lambda: (torch.randn(4, 32).to(dtype),))


def test_integers_beyond_32_bits_keep_their_value() -> None:
    def mixed(i: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return i + 1, torch.where(i > 3, y, -y), torch.where(i == 5, y, -y), i.float() * 2

    check(mixed, lambda: (torch.tensor([2**40, -(2**33), 2**32 + 5, 3]), torch.randn(4)))


@pytest.mark.parametrize("bad", [10, -1, 2**32, 2**32 + 1, -(2**63)])
def test_an_embedding_index_out_of_range_is_eager_s_index_error(bad: int, warnings_logged: Any) -> None:
    model = torch.nn.Embedding(10, 32)
    compiled = torch.compile(model, backend="ttnn")
    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(IndexError, match="index out of range in self"):
                compiled(torch.tensor([[1, bad]]))
        good = torch.tensor([[1, 9]])
        assert_same(compiled(good), model(good))
    assert not warnings_logged()  # nothing failed on the device


# --- shapes and strides ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 32), (3, 0), (0, 0)])
def test_tensors_without_elements(shape: tuple[int, int]) -> None:
    check(lambda x: (torch.relu(x) + 1, torch.relu(x).sum(0), torch.cat([x, x])), lambda: (torch.zeros(shape),))


def test_an_empty_batch_through_a_model() -> None:
    check(Feedforward(), lambda: (torch.zeros(0, 32),))
    check(torch.nn.Embedding(10, 32), lambda: (torch.zeros(0, 4, dtype=torch.int64),))


def test_scalar_tensors() -> None:
    check(relu_times_two, lambda: (torch.tensor(3.0),))
    check(lambda s, x: F.gelu(x + s) * s, lambda: (torch.tensor(3.0), torch.randn(4, 32)))
    check(torch.nn.Embedding(10, 32), lambda: (torch.tensor(3),))
    check(lambda x: torch.relu(x).sum() * 2, lambda: (torch.randn(4, 32),))


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: torch.randn(32, 4).t(),
    "every second column": lambda: torch.randn(4, 64)[:, ::2],
    "offset": lambda: torch.randn(6, 32)[2:],
    "expanded rows": lambda: torch.randn(1, 32).expand(4, 32),
    "expanded everywhere": lambda: torch.randn(1).expand(4, 32),
    "padded rows": lambda: torch.randn(4, 40)[:, :32],
    "overlapping windows": lambda: torch.randn(64).as_strided((4, 32), (1, 1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", [relu_times_two, Feedforward()], ids=["function", "model"])
def test_inputs_that_are_not_contiguous(layout: str, model: Callable[..., Any]) -> None:
    check(model, lambda: (LAYOUTS[layout](),))


def test_channels_last_images() -> None:
    image = lambda: (torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),)  # noqa: E731
    check(relu_times_two, image)
    check(torch.nn.Conv2d(3, 32, 4, stride=4), image)


# --- shared memory --------------------------------------------------------------------------------------------------


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    whole = torch.randn(8, 32)
    return whole[:4], whole[4:]


def overlapping() -> tuple[torch.Tensor, torch.Tensor]:
    whole = torch.randn(8, 32)
    return whole[:6], whole[2:]


def twice() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(6, 32)
    return x, x


@pytest.mark.parametrize("inputs", [halves, overlapping, twice])
def test_inputs_that_share_storage(inputs: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
    check(lambda x, y: (torch.relu(x), y * 2), inputs)


@pytest.mark.parametrize("inputs", [halves, overlapping, twice])
def test_writing_to_one_of_two_inputs_that_share_storage(
    inputs: Callable[[], tuple[torch.Tensor, torch.Tensor]],
) -> None:
    def write(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return y * 2

    check(write, inputs, calls=2)


def copies_of_a_value(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = torch.relu(x)
    return y, y.clone(), y.t().contiguous(), y.t().contiguous().t()


ALIASES: dict[str, Callable[..., Any]] = {
    "the input": lambda x: x,
    "the input and a value": lambda x: (x, torch.relu(x)),
    "a view of the input": lambda x: (x.view(-1), x[1:], x.t()),
    "a view and a value": lambda x: (x[1:], torch.relu(x)),
    "one value twice": lambda x: (lambda y: (y, y))(torch.relu(x)),
    "views of a value": lambda x: (lambda y: (y, y.view(-1), y.t(), y[1:], y.expand(2, 4, 32)))(torch.relu(x)),
    "parts of a value": lambda x: torch.relu(x).chunk(3, 1),
    "parts of a value in another order": lambda x: (lambda y: (y[2:], y.t()[1:], y[:, ::2] * 2, y[1]))(torch.relu(x)),
    "a view of a value that is computed with": lambda x: (lambda y: (y, y[1:], torch.exp(y[1:])))(torch.relu(x)),
    "a constant twice": lambda x: (lambda y: (y, y, y[1:], x * 2))(torch.arange(8.0)),
    "a cast that does nothing": lambda x: (x.float(), x.contiguous(), x.to(torch.float32)),
    "copies of the input": lambda x: (x.clone(), x + 0, x.t().contiguous(), x.expand(2, 4, 32).contiguous()),
    "copies of a value": copies_of_a_value,
}


@pytest.mark.parametrize("what", ALIASES)
def test_outputs_that_share_memory(what: str) -> None:
    check(ALIASES[what], lambda: (torch.randn(4, 32),), calls=2)


class Returning(Weight):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.weight, self.weight.t(), self.weight * 2, self.buffer, torch.relu(x) + self.weight


def test_outputs_that_are_parameters() -> None:
    check(Returning(), lambda: (torch.randn(4, 32),), calls=2)


def test_an_output_never_is_the_device_s_or_the_store_s_own_copy() -> None:
    compiled = torch.compile(lambda x: (torch.ones(4), torch.relu(x)), backend="ttnn")
    x = torch.randn(4, 4)
    for _ in range(3):
        ones, value = compiled(x)
        assert_same(ones, torch.ones(4))
        assert_same(value, torch.relu(x))
        ones.fill_(7)
        value.fill_(7)


READS_OF_MEMORY: dict[str, Callable[..., Any]] = {
    "a copy": lambda x: x.t().contiguous().as_strided((2, 3), (3, 1)) * 2,
    "a value": lambda x: torch.relu(x).t().as_strided((2, 3), (3, 1)) * 2,
    "part of a value": lambda x: torch.relu(x).t()[1:].as_strided((2, 3), (3, 1), 2),
    "part of an input": lambda x: (x[1:].as_strided((2, 2), (1, 3)), x[1:].as_strided((2, 2), (1, 3), 0)),
    "windows": lambda x: torch.relu(x).t().unfold(0, 2, 1) * 2,
    "another dtype": lambda x: x.t().contiguous().view(torch.int16),
    "complex numbers": lambda x: torch.view_as_complex(x.t().contiguous().view(32, 2, 2)),
    "after the device": lambda x: torch.cumsum(torch.relu(x).t().contiguous(), 0).flip(0).t(),
}


@pytest.mark.parametrize("what", READS_OF_MEMORY)
def test_reading_memory_as_it_lies(what: str) -> None:
    check(READS_OF_MEMORY[what], lambda: (torch.randn(4, 32),))


# --- mutation -------------------------------------------------------------------------------------------------------


def add_in_place(x: torch.Tensor) -> torch.Tensor:
    x.add_(1)
    return torch.relu(x)


def assign_row(x: torch.Tensor) -> torch.Tensor:
    x[0] = 1
    return torch.relu(x) * 2


def write_through_view(x: torch.Tensor) -> torch.Tensor:
    x[1:].mul_(2)
    return torch.relu(x)


def write_and_return(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


def transpose_in_place(x: torch.Tensor) -> torch.Tensor:
    return x.t_() * 2


def resize(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.unsqueeze_(0)
    x.copy_(y[0])
    return y


@pytest.mark.parametrize(
    "write", [add_in_place, assign_row, write_through_view, write_and_return, transpose_in_place, resize]
)
def test_inputs_mutated_in_place(write: Callable[..., Any]) -> None:
    check(write, lambda: (torch.randn(4, 32),), calls=2)


class Accumulating(Weight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.buffer.add_(x)
        return torch.relu(x) + self.buffer


class Assigning(Weight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.buffer = self.buffer * 0.5 + x
        return torch.relu(x) + self.buffer


class Caching(Weight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.buffer[1:3] = x[:2]
        return (self.buffer @ self.weight.t()).sum(0)


@pytest.mark.parametrize("model", [Accumulating, Assigning, Caching])
def test_buffers_that_the_model_mutates(model: type[Weight]) -> None:
    check(model(), lambda: (torch.randn(4, 32),), calls=3)


# --- arguments and results that are no tensors -----------------------------------------------------------------------


def test_python_values_as_arguments() -> None:
    def call(x: Any, count: int, factor: float, name: str, none: None, flag: bool, *, more: dict) -> Any:
        return torch.relu(x) * count * factor if name == "a" and none is None and flag else more["y"]

    inputs = torch.randn(4, 8)
    assert_same(
        torch.compile(call, backend="ttnn")(inputs, 3, 1.5, "a", None, True, more={"y": inputs}),
        call(inputs, 3, 1.5, "a", None, True, more={"y": inputs}),
    )


def test_a_python_number_that_changes() -> None:
    compiled = torch.compile(lambda x, n: torch.relu(x) * n, backend="ttnn")
    x = torch.randn(4, 8)
    for number in (2, 3, 4, 0.5, 0.7, 0.9, True):
        assert_same(compiled(x, number), torch.relu(x) * number)


def test_nested_results() -> None:
    check(
        lambda x: {"a": torch.relu(x), "b": [x + 1, None, 3, "s"], "c": (x * 2, {"d": x - 1})},
        lambda: (torch.randn(4, 8),),
    )
    check(lambda d: {"a": torch.relu(d["x"]) + d["y"][0]}, lambda: ({"x": torch.randn(4, 8), "y": [torch.randn(8)]},))


CONSTANTS: dict[str, Callable[..., Any]] = {
    "nothing": lambda x: None,
    "a number": lambda x: 3,
    "tensors": lambda x: (torch.ones(3), torch.arange(5), torch.tensor(2.5), torch.tensor([1, 2])),
    "a tensor beside a value": lambda x: (torch.ones(3), torch.relu(x), torch.zeros(2, dtype=torch.float64)),
    "an unused computation": lambda x: (torch.relu(x), x)[1],
}


@pytest.mark.parametrize("what", CONSTANTS)
def test_graphs_that_return_constants_or_compute_nothing(what: str) -> None:
    check(CONSTANTS[what], lambda: (torch.randn(4, 8),), calls=2)


# --- graphs that are not whole ---------------------------------------------------------------------------------------


def test_a_graph_break() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x)
        torch._dynamo.graph_break()
        return y * 2

    assert len(check(broken, lambda: (torch.randn(4, 8),))) == 2


def test_a_branch_on_a_value() -> None:
    def branch(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x)
        return y * 2 if y.sum() > 0 else y - 1

    check(branch, lambda: (torch.randn(4, 8),))
    check(branch, lambda: (-torch.rand(4, 8),))


def test_a_shape_that_depends_on_values() -> None:
    check(lambda x: (x.nonzero(), torch.relu(x)[x > 0]), lambda: (torch.randn(4, 8),))


def test_random_numbers_come_from_torch_s_generator() -> None:
    check_seeded = torch.compile(lambda x: x + torch.rand_like(x), backend="ttnn")
    x = torch.randn(4, 32)
    torch.manual_seed(5)
    first = check_seeded(x)
    torch.manual_seed(5)
    assert torch.equal(first, check_seeded(x))
    assert not torch.equal(first, check_seeded(x))


def test_a_second_and_third_shape_compile_and_many_warn(warnings_logged: Any) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", options={"warn_after_shapes": 3})
    with torch.no_grad(), tt_dynamo.record() as reports:
        for rows in (4, 5, 6, 4, 5, 6):
            assert_close(compiled(torch.ones(rows, 32)), model(torch.ones(rows, 32)))
        # One graph for the first shape; then one with a symbolic size, which is specialized for each that it meets.
        assert len(reports) == 4
        assert not warnings_logged()
        compiled(torch.ones(7, 32))
    (warning,) = warnings_logged()
    assert "shapes" in warning and "warn_after_shapes" in warning


def test_dynamic_shapes_from_the_start() -> None:
    model = copy.deepcopy(Feedforward())
    check(model, lambda: (torch.randn(4, 32),), dynamic=True)
    check(
        lambda x, n: (torch.relu(x) * n + x.shape[0], x.shape[0], x.reshape(-1)),
        lambda: (torch.randn(4, 32), 0.7),
        dynamic=True,
    )
