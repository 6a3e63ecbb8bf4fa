"""Programs that a user edited: of a dump, the one that belongs to a graph runs in place of the generated one.

A program says of which graph it is: `GRAPH` is a digest of the graph as it came, and of the inputs and weights that the
program is given. So an edited one never runs for another model, nor where weights would lie otherwise than it expects.
"""

import difflib
import hashlib
import inspect
from pathlib import Path
from typing import Any, NamedTuple

from torch.fx import GraphModule

from tt_dynamo.compiler.trace import Trace
from tt_dynamo.ir.errors import OptionError
from tt_dynamo.report.dump import InputSpec, WeightSpec, graph_text, standalone_program
from tt_dynamo.runtime.program import load


class Interface(NamedTuple):
    """What a program computes, the text of its graph, and what it is given."""

    graph: str
    inputs: list[InputSpec]
    weights: list[WeightSpec]

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def interface_of(graph: GraphModule, traced: Trace) -> Interface:
    """That of a graph before any pass, and of the program that it was lowered to.

    The graph's text goes without comments, which say where a user's files lie.
    """
    names = [node.name for node in traced.graph.find_nodes(op="placeholder")]
    values = [node.meta["val"] for node in traced.inputs]
    inputs = [InputSpec(name, tuple(x.shape), x.dtype) for name, x in zip(names, values, strict=False)]
    specs = [state.spec for state in traced.states] + [use.spec for use in traced.weights]
    calls = [spec.calls if spec else () for spec in specs]
    weights = list(map(WeightSpec, names[len(values) :], calls))
    return Interface("\n".join(_lines(graph_text(graph))), inputs, weights)


def _lines(text: str) -> list[str]:
    """The lines of a graph's text, without comments and the name of its class."""
    lines = (each.partition("#")[0].rstrip() for each in text.splitlines())
    return [line for line in lines if line and not line.startswith("class ")]


def edited_program(folder: Path, wanted: Interface, namespace: Any) -> Path:
    """The program.py in a dump that belongs to a graph: in `folder`, or in one of the folders of its graphs.

    Raises OptionError where there is none, with what differs; where it is no Python; where `forward` takes other
    arguments.
    """
    paths = [path for path in (folder / "program.py", *sorted(folder.glob("graph_*/program.py"))) if path.is_file()]
    if not paths:
        raise _wrong(f"{folder} is to be what a dump left, and has no program.py, nor has a folder graph_0 in it")
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    for path, text in texts.items():
        if f'\nGRAPH = "{wanted.digest}"' in text:
            _check(path, text, wanted, namespace)
            return path
    raise _wrong(f"none of the {len(paths)} programs in {folder} belongs to this graph. {_difference(texts, wanted)}")


def _wrong(what: str) -> OptionError:
    return OptionError(f"option 'program': {what}")


def _difference(texts: dict[Path, str], wanted: Interface) -> str:
    """What the closest of the programs is given otherwise, or computes otherwise, in its first lines."""
    here = _given(standalone_program("", wanted.inputs, wanted.weights))
    alike = {path: difflib.SequenceMatcher(None, _given(text), here).ratio() for path, text in texts.items()}
    path = max(alike, key=alike.__getitem__)
    there, graph = _given(texts[path]), path.parent / "00_aten.py"
    if alike[path] == 1.0 and graph.is_file():
        there, here = _lines(graph.read_text(encoding="utf-8")), wanted.graph.splitlines()
    changed = [line for line in difflib.ndiff(there, here) if line[0] in "+-"]
    said = [f"{'here' if line[0] == '+' else 'there'}: {line[2:].strip()}" for line in changed[:2]]
    return "\n".join([f"The closest is {path}, which differs:", *said])


def _given(program: str) -> list[str]:
    """The lines of a program that say what it is given."""
    return program.rpartition("# name, shape, dtype\n")[2].partition("def upload_weights")[0].splitlines()


def _check(path: Path, text: str, wanted: Interface, namespace: Any) -> None:
    try:
        forward = load(text, namespace, path)
    except SyntaxError as error:
        raise _wrong(f"{path}, line {error.lineno}: {error.msg}") from None
    except KeyError:
        raise _wrong(f"{path} defines no function forward") from None
    names = ["device", *(spec.name for spec in wanted.inputs), *(spec.name for spec in wanted.weights)]
    signature = inspect.signature(forward)
    if list(signature.parameters) != names:
        raise _wrong(f"forward{signature} of {path} is to take ({', '.join(names)})")
