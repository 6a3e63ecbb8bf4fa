"""Models of images and text generate as in eager torch, with nothing but the bookkeeping of integers on the host."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from torch._dynamo.utils import counters
from vision_language import IMAGE, MODELS, build

import tt_dynamo

STEPS = 8
# What a default test run does: features once, and features of several layers.
USUAL = ("LLaVA",)
NAMES = [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in MODELS]


@dataclasses.dataclass
class Run:
    """Eight tokens of one model: the logits of each step, and how many graphs Dynamo made of it."""

    logits: list[torch.Tensor]
    eager: list[torch.Tensor]
    graphs: int
    reports: list[tt_dynamo.GraphReport]


def _generate(model: Any, inputs: dict[str, torch.Tensor], tokens: torch.Tensor | None = None) -> Any:
    """STEPS tokens: the likeliest ones, or `tokens`, so that logits are those of one text."""
    from transformers import LogitsProcessor

    class Following(LogitsProcessor):
        def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            assert tokens is not None
            wanted = tokens[:, ids.shape[1], None]
            return torch.full_like(scores, float("-inf")).scatter(1, wanted, 0.0)

    settings = {"max_new_tokens": STEPS, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    following = {} if tokens is None else {"logits_processor": [Following()]}
    # transformers compiles steps of static caches itself unless told otherwise
    cache = {"cache_implementation": "static", "disable_compile": True}
    with torch.no_grad():
        return model.generate(**inputs, **settings, **following, **cache)


@pytest.fixture(scope="module")
def run(board_device: Any) -> Any:
    """run(name): results are kept for the tests of this file."""
    kept: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in kept:
            torch._dynamo.reset()
            counters.clear()
            model, inputs = build(name)
            eager = _generate(model, inputs)
            model.compile(backend="ttnn")
            with tt_dynamo.record() as reports:
                ours = _generate(model, inputs, eager.sequences)
            kept[name] = Run([*ours.logits], [*eager.logits], counters["stats"]["unique_graphs"], reports)
        return kept[name]

    yield run
    torch._dynamo.reset()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_eager_s_at_every_step(run: Any, name: str) -> None:
    done = run(name)
    assert len(done.logits) == len(done.eager) == STEPS
    for step, (ours, eager) in enumerate(zip(done.logits, done.eager, strict=True)):
        assert ours.isfinite().all()
        assert pcc(ours, eager) >= 0.99, step
        assert relative_error(ours, eager) <= 0.1, step


@pytest.mark.parametrize("name", NAMES)
def test_nothing_falls_back(run: Any, name: str) -> None:
    reports = run(name).reports
    assert [fallback for report in reports for fallback in report.fallbacks] == []
    # The text's layers, in prefill and in decode.
    assert sum(report.device_programs > 20 for report in reports) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_of_dynamo_is_one_program(run: Any, name: str) -> None:
    assert len(run(name).reports) <= run(name).graphs


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_there_are_no_more_graphs_than_aot_eager_has(run: Any, name: str) -> None:
    expected = run(name).graphs
    torch._dynamo.reset()
    counters.clear()
    model, inputs = build(name)
    model.compile(backend="aot_eager")
    _generate(model, inputs)
    assert expected <= counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", ["LLaVA"])
@pytest.mark.parametrize("by", [1, -1])
def test_another_number_of_image_tokens_is_an_error_as_in_eager_torch(name: str, by: int, clean_dynamo: None) -> None:
    """In eager torch the model itself counts; compiled, the count that the model asserts is the program's."""
    model, inputs = build(name)
    row = inputs["input_ids"][0].tolist()
    place = row.index(IMAGE)
    row = [*row[:place], IMAGE, *row[place:]] if by > 0 else [*row[:place], *row[place + 1 :]]
    wrong = {**inputs, "input_ids": torch.tensor([row])}
    with torch.no_grad(), pytest.raises(ValueError, match="do not match"):
        model(**wrong)
    model.compile(backend="ttnn")
    with torch.no_grad(), pytest.raises((ValueError, RuntimeError)):
        model(**wrong)
