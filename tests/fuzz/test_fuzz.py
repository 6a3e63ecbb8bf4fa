"""Random graphs, the same ones at every run: compiled equals eager. `make fuzz` runs thousands of others."""

from __future__ import annotations

import pytest
import torch
from fuzzing import in_float32, run
from graphs import Case, cases
from hypothesis import HealthCheck, Phase, given, note, settings
from judge import complaint
from rounding import Rounded

FIXED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
pytestmark = [pytest.mark.usefixtures("clean_dynamo"), pytest.mark.filterwarnings("ignore")]


def assert_right(case: Case, whole: bool) -> None:
    note(str(case))
    assert run(case, whole).complaint == ""


@settings(FIXED, max_examples=80)
@given(case=cases())
def test_random_graphs_give_eager_s_answer(case: Case) -> None:
    assert_right(case, whole=False)


@settings(FIXED, max_examples=10)
@given(case=cases())
def test_random_graphs_through_torch_compile_give_eager_s_answer(case: Case) -> None:
    assert_right(case, whole=True)


# --- the fuzzer sees what it looks for --------------------------------------------------------------------------------

CASE = Case(
    inputs=("floats((3, 33), 'normal', 1, torch.bfloat16)[1:]", "floats((33,), 'wide', 2, torch.float32)"),
    steps=("v2 = v0 * v1", "v3 = v2.sum(-1)", "v2.add_(1)"),
    result="(v2, v3 > 0, v2[1:])",
    parameters=1,
)


def test_a_case_prints_as_what_a_test_can_hold() -> None:
    assert eval(str(CASE)) == CASE


def test_inputs_are_new_at_every_call() -> None:
    first, second = CASE.make(), CASE.make()
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(first, second, strict=True))
    assert first[0].storage_offset() == 33


@pytest.mark.parametrize(
    "wrong",
    [
        lambda outputs: outputs[0].add_(0.05 * outputs[0].abs().max()),
        lambda outputs: outputs[0].flatten()[outputs[0].abs().argmax()].mul_(1.1),
        lambda outputs: outputs[1].logical_not_(),
        lambda outputs: outputs[0][0, 0].fill_(float("nan")),
    ],
    ids=["a shift", "one element", "a boolean", "a NaN"],
)
def test_a_wrong_result_is_seen(wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzzing

    compiled = fuzzing._without_dynamo

    def broken(case, inputs):
        outputs, reports = compiled(case, inputs)
        wrong(outputs)
        return outputs, reports

    monkeypatch.setattr(fuzzing, "_without_dynamo", broken)
    assert run(CASE).complaint


def test_memory_that_is_not_shared_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzzing

    compiled = fuzzing._without_dynamo

    def apart(case, inputs):
        outputs, reports = compiled(case, inputs)
        return (*outputs[:2], outputs[2].clone()), reports

    monkeypatch.setattr(fuzzing, "_without_dynamo", apart)
    assert "shares memory" in run(CASE).complaint


@pytest.mark.parametrize("cast", ["v1.to(torch.bfloat16)", "v1.half()"])
def test_a_cast_is_a_copy_in_the_exact_run_too(cast: str) -> None:
    repeated = "floats((1, 2), 'normal', 0, torch.float32).expand(2, 2)"
    case = Case(inputs=("floats((2, 2))", repeated), steps=(f"v2 = {cast}", "v2.relu_()"), result="v2", parameters=0)
    inputs = in_float32(case).make()
    assert not torch.equal(in_float32(case).function()(*inputs), inputs[1])
    assert run(case).complaint == ""


def test_a_rounded_run_is_within_its_own_tolerance_and_exact_numbers_stay() -> None:
    wide = in_float32(CASE)
    exact = wide.function()(*wide.make())
    for seed in (None, 0, 1):
        with Rounded(seed):
            rounded = wide.function()(*wide.make())
        assert complaint(exact, exact, exact, list(rounded)) == ""
        assert torch.equal(rounded[0], rounded[0].bfloat16().float()) and not torch.equal(rounded[0], exact[0])
        with Rounded(seed):
            assert torch.equal(torch.arange(8.0) + 1, torch.arange(1.0, 9.0))
