"""Every operation of TTNN that a lowering may emit has a formula."""

import ast
from pathlib import Path

import pytest

from tt_dynamo.estimate.operations import OPERATIONS
from tt_dynamo.lowering import activations, comparison, elementwise

LOWERING = Path(__file__).parents[2] / "lowering"
NO_OPERATIONS = {"choose", "note", "get_memory_view"}  # of the recorder, or a question


def _called(file: Path) -> set[str]:
    """Dotted names of what a lowering calls on the `ttnn` that it is given; classes begin with a capital."""
    calls = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    names = {ast.unparse(call).removeprefix("ttnn.") for call in calls if ast.unparse(call).startswith("ttnn.")}
    return {n for n in names if not n.rpartition(".")[2][0].isupper() and not n.startswith("settings")} - NO_OPERATIONS


@pytest.mark.parametrize("file", sorted(LOWERING.glob("*.py")), ids=lambda file: file.stem)
def test_what_a_lowering_calls_by_name_has_a_formula(file: Path) -> None:
    assert not {name for name in _called(file) if f"ttnn.{name}" not in OPERATIONS}


def test_what_lowerings_call_by_a_table_has_a_formula() -> None:
    tables = (elementwise.UNARY, elementwise.BINARY, elementwise.TERNARY, activations.UNARY, comparison.PREDICATES)
    names = {name for table in tables for name in table.values()}
    names |= {name for pair in elementwise.ARITHMETIC.values() for name in pair}
    names |= {"eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "cumsum", "cumprod"}
    names |= {"mean", "sum", "max", "min", "var", "sort", "topk", "max_pool2d", "avg_pool2d", "conv2d", "conv1d"}
    names |= {"conv_transpose2d", "celu", "hardtanh", "leaky_relu", "threshold", "round", "floor", "trunc"}
    assert not {name for name in names if f"ttnn.{name}" not in OPERATIONS}


def test_every_formula_is_of_an_operation_of_ttnn() -> None:
    ttnn = pytest.importorskip("ttnn")

    def has(name: str) -> bool:
        found = ttnn
        for part in name.split(".")[1:]:
            found = getattr(found, part, None)
        return found is not None

    assert not {name for name in OPERATIONS if not has(name)}
