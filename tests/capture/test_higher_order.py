"""Operators that call functions: loops, conditions, regions, custom operators that write.

A body that runs once is compiled with the graph around it; every other such operator runs in eager torch, with its
reason in the report, and the rest of the graph stays on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_same, check
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.effects import _EffectType, _register_effectful_op
from torch._higher_order_ops.hints_wrap import hints_wrapper
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.strict_mode import strict_mode
from torch._higher_order_ops.while_loop import while_loop
from torch.utils.checkpoint import checkpoint

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


@torch.library.custom_op("tt_dynamo_tests::add_into", mutates_args={"x"})
def add_into(x: Tensor, number: float) -> None:
    x.add_(number)


@torch.library.custom_op("tt_dynamo_tests::add_and_triple", mutates_args={"x"})
def add_and_triple(x: Tensor, number: float) -> Tensor:
    x.add_(number)
    return x * 3


@add_and_triple.register_fake
def _(x, number):
    return torch.empty_like(x)


@torch.library.custom_op("tt_dynamo_tests::add_into_all", mutates_args={"xs"})
def add_into_all(xs: list[Tensor]) -> None:
    for x in xs:
        x.add_(1)


calls: list[int] = []


@torch.library.custom_op("tt_dynamo_tests::note", mutates_args=())
def note(x: Tensor) -> Tensor:
    calls.append(x.numel())
    return x.clone()


@note.register_fake
def _(x):
    return torch.empty_like(x)


_register_effectful_op(note._opoverload, _EffectType.ORDERED)


@torch.compiler.nested_compile_region
def region(x: Tensor, w: Tensor) -> Tensor:
    return F.gelu(x @ w) + torch.tensor([0.5, -0.5]).repeat(4)


@torch.compiler.nested_compile_region
def region_of_two(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return x @ w, (x + w).relu()


@torch.compiler.nested_compile_region
def region_of_regions(x: Tensor, w: Tensor) -> Tensor:
    return region(x, w) @ w


@torch.compiler.nested_compile_region
def resizing_region(x: Tensor) -> Tensor:
    return F.interpolate(x[None, None], scale_factor=2.0)[0, 0] * 2


def condition(x: Tensor) -> Tensor:
    x = x.relu() @ x.t()
    y = torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))
    return (y + 1) @ y


def condition_on_several(x: Tensor) -> tuple[Tensor, ...]:
    numbers = torch.arange(8)
    a, b = torch.cond(
        x.sum() > 0,
        lambda x, n: (x.sin() * torch.tensor([1.0, 2.0]).repeat(4), n + 1),
        lambda x, n: (x.cos(), n * 2),
        (x.relu(), numbers),
    )
    return a @ x, b


def condition_in_condition(x: Tensor) -> Tensor:
    def inner(x: Tensor) -> Tensor:
        return torch.cond(x.mean() > 5, torch.exp, torch.tanh, (x,))

    return torch.cond(x.sum() > 0, inner, torch.cos, (x @ x,)) @ x


def loop(x: Tensor) -> Tensor:
    start = torch.zeros((), dtype=torch.int64)
    count, y = while_loop(lambda n, y: n < 3, lambda n, y: (n + 1, y.sin() + 1), (start, x @ x))
    return y @ x + count


def loop_over_numbers(x: Tensor) -> Tensor:
    count, y = while_loop(lambda n, y: n < 3, lambda n, y: (n + 1, y.sin() + 1), (0, x @ x))
    return (y @ x) * (count + 1)


def loop_until_large(x: Tensor) -> Tensor:
    (y,) = while_loop(lambda y: y.abs().sum() < 1e4, lambda y: (y * 2,), ((x @ x).abs(),))
    return y @ x


def rows(x: Tensor) -> Tensor:
    return map_rows(lambda row, y: row.sin() * y, x @ x, x[0]) @ x


def running(x: Tensor) -> Tensor:
    carried, ys = scan(lambda c, row: (c + row, (c + row).sin()), torch.zeros(8), x @ x, dim=0)
    return ys @ x + carried


def running_sum(x: Tensor) -> Tensor:
    return associative_scan(torch.add, x @ x, 0) @ x


def running_sum_of_any_kind(x: Tensor) -> Tensor:
    return associative_scan(torch.add, x @ x, 0, combine_mode="generic") @ x


def regions(x: Tensor) -> Tensor:
    w = x.t().contiguous()
    return region(region(region(x, w), w) + 1, w)


def regions_of_two(x: Tensor) -> tuple[Tensor, ...]:
    first = region_of_two(x, x + 1)
    return *region_of_two(*first), *first


def regions_in_regions(x: Tensor) -> Tensor:
    w = x + 2
    return region_of_regions(x, w) + region_of_regions(x + 1, w)


def strict(x: Tensor) -> Tensor:
    return strict_mode(lambda x: x.sin() @ x, (x @ x,)) + 1


def hinted(x: Tensor) -> Tensor:
    return hints_wrapper(lambda x: x.sin() @ x, (x @ x,), {}, hints={"reuse": True}) + 1


def recomputed(x: Tensor) -> Tensor:
    return checkpoint(lambda x: (x @ x).tanh() @ x, x, use_reentrant=False) + 1


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


def own_gradient(x: Tensor) -> Tensor:
    return Sine.apply(x @ x) @ x


def mapped(x: Tensor) -> Tensor:
    return torch.vmap(lambda row: (row * row).sum() * row)(x @ x) @ x


def gradient(x: Tensor) -> Tensor:
    return torch.func.grad(lambda x: (x @ x).sin().sum())(x) @ x


def written(x: Tensor) -> Tensor:
    y = x @ x
    add_into(y[1:3], 2.0)
    return y @ x


def written_and_returned(x: Tensor) -> Tensor:
    y = x @ x
    z = add_and_triple(y, 2.0)
    return y @ x + z


def written_in_a_list(x: Tensor) -> Tensor:
    y, z = x @ x, x + 1
    add_into_all([y, z])
    return y @ z


def written_input(x: Tensor) -> Tensor:
    y = x @ x
    add_into(x, 2.0)
    return y @ x


def effect(x: Tensor) -> Tensor:
    return note(x @ x) @ x


IN_EAGER: dict[Callable[..., Any], str] = {
    condition: "cond",
    condition_on_several: "cond",
    condition_in_condition: "cond",
    loop: "while_loop",
    loop_until_large: "while_loop",
    loop_over_numbers: "while_loop",
    rows: "map_impl",
    running: "scan",
    written: "auto_functionalized_v2 calls tt_dynamo_tests.add_into.default",
    written_and_returned: "auto_functionalized_v2 calls tt_dynamo_tests.add_and_triple.default",
    written_in_a_list: "auto_functionalized_v2 calls tt_dynamo_tests.add_into_all.default",
    written_input: "auto_functionalized_v2 calls tt_dynamo_tests.add_into.default",
    effect: "with_effects calls tt_dynamo_tests.note.default",
}
ON_DEVICE = [
    running_sum,
    running_sum_of_any_kind,
    regions,
    regions_of_two,
    regions_in_regions,
    resizing_region,
    strict,
    hinted,
    recomputed,
    own_gradient,
    mapped,
    gradient,
]
LOOPS = (loop, loop_until_large)  # of which torch keeps each round for the gradient
HAVE_NO_GRADIENT = (
    written_and_returned,
    written_input,
    loop_over_numbers,
    condition_on_several,
    effect,
    strict,
    hinted,
)


def inputs() -> tuple[Tensor]:
    return (torch.randn(8, 8) / 2,)


def trained() -> tuple[Tensor]:
    return (inputs()[0].requires_grad_(),)


@pytest.mark.parametrize("dynamic", [None, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("model", IN_EAGER, ids=lambda model: model.__name__)
def test_what_calls_functions_runs_in_eager_torch_and_the_rest_on_the_device(model, dynamic: bool | None) -> None:
    (report,) = check(model, inputs, dynamic=dynamic, calls=2)
    reasons = [fallback.reason for fallback in report.fallbacks]
    assert any(IN_EAGER[model] in reason and "eager torch" in reason for reason in reasons)
    assert len(reasons) == (2 if model is loop_over_numbers else 1)  # which reads the number that the loop gives
    assert report.device_nodes >= 2


@pytest.mark.parametrize("dynamic", [None, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("model", ON_DEVICE, ids=lambda model: model.__name__)
def test_a_body_that_runs_once_is_compiled_with_the_graph(model, dynamic: bool | None) -> None:
    (report,) = check(model, inputs, dynamic=dynamic, calls=2, options={"fallback": "error"})
    assert "torch.ops.higher_order" not in report.code
    assert report.device_nodes


@pytest.mark.parametrize(
    "model",
    [m for m in (*IN_EAGER, *ON_DEVICE) if m not in (*LOOPS, *HAVE_NO_GRADIENT)],
    ids=lambda model: model.__name__,
)
def test_gradients_through_operators_that_call_functions(model) -> None:
    reports = check(model, trained, backward=True)
    assert len(reports) == 2


@pytest.mark.parametrize("model", LOOPS)
def test_gradients_through_loops_run_in_eager_torch(model) -> None:
    (eager,), (ours,) = trained(), trained()
    with torch.no_grad():
        ours.copy_(eager)
    with tt_dynamo.record() as reports:
        torch.compile(model, backend="ttnn", fullgraph=True)(ours).sum().backward()
    torch.compile(model, backend="aot_eager", fullgraph=True)(eager).sum().backward()
    assert torch.equal(ours.grad, eager.grad)
    assert len(reports) == 2
    assert all(report.fallbacks and not report.device_nodes for report in reports)


def test_an_effect_happens_once_a_call_and_not_while_compiling() -> None:
    calls.clear()
    x = torch.randn(8, 8)
    compiled = torch.compile(effect, backend="ttnn")
    for _ in range(3):
        compiled(x)
    assert calls == [64] * 3


def test_printing_stays_in_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    def printing(x: Tensor) -> Tensor:
        y = x @ x
        torch._higher_order_ops.print("the sum is {}", y.sum())
        return y @ x

    torch.compile(printing, backend="ttnn", fullgraph=True)(torch.ones(4, 4))
    assert capsys.readouterr().out.count("the sum is 64.0") == 1


def test_forbidden_fallback_names_the_operator() -> None:
    with pytest.raises(Exception, match="cond: .*calls functions of the model"):
        torch.compile(condition, backend="ttnn", options={"fallback": "error"})(*inputs())


def test_a_program_with_functions_runs_on_where_the_device_fails(board_device, monkeypatch) -> None:
    x = torch.randn(8, 8)
    compiled = torch.compile(condition_in_condition, backend="ttnn")
    assert_same(compiled(x), condition_in_condition(x))

    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    namespace = board_device.namespace()
    monkeypatch.setattr(namespace, "linear", refused)
    monkeypatch.setattr(namespace, "matmul", refused)
    assert_same(compiled(x), condition_in_condition(x))
