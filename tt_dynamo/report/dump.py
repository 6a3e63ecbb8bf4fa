"""What a compilation leaves in a folder: its graph after each pass, the program that runs alone, the report, a drawing.

    DIR/graph_0/00_aten.py, 01_canonicalize.py, ...   the graph as Python, one file for each stage that changed it
    DIR/graph_0/program.py, weights.pt                `python program.py` runs it with TTNN, without tt_dynamo;
                                                      options={"program": DIR} runs it in place of the generated one
    DIR/graph_0/report.json, report.txt, graph.svg

Each graph has a folder of its own: nothing writes over what another graph or process left. What must hold: a dump
never breaks a compilation. Whatever goes wrong in here is logged, the first time as a warning.
"""

import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import torch

from tt_dynamo.report.drawing import draw
from tt_dynamo.report.report import GraphReport

log = logging.getLogger(__name__)


class InputSpec(NamedTuple):
    """One input of a program, on the host: its name in `forward`, its shape and its torch dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class WeightSpec(NamedTuple):
    """One weight of a program: its name in `forward`, and the TTNN calls on `weight`, if any, that bring it up."""

    name: str
    calls: tuple[str, ...] = ()


class Dump:
    """The folder of one compiled graph, at the absolute `path`; where that is None every method does nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._stages = itertools.count()
        self._level = logging.WARNING  # of the next failure

    @classmethod
    def create(cls, directory: str | os.PathLike[str] | None) -> "Dump":
        """A dump in the next free `graph_N` of `directory`, or one that does nothing where that is None or empty."""
        dump = cls(None)
        if directory:
            with dump._guarded("create a folder in", directory):
                dump.path = _claim_folder(Path(directory).expanduser().absolute())
        return dump

    def graph(self, stage: str, graph_module: torch.fx.GraphModule) -> None:
        """Write the graph as `stage` left it to `NN_stage.py`. `stage`: the name of a pass, "aten", "ttnn"."""
        name = f"{next(self._stages):02d}_{re.sub(r'[^A-Za-z0-9_-]+', '_', stage)}.py"
        self._write_text(name, lambda: f"# The graph after: {stage}\n{graph_text(graph_module)}\n")

    def program(
        self,
        source: str,
        inputs: Sequence[InputSpec],
        weights: Sequence[WeightSpec],
        tensors: Mapping[str, torch.Tensor | list[torch.Tensor]],
        digest: str = "",
        mesh: tuple[int, int] = (1, 1),
    ) -> None:
        """Write `program.py` (see `standalone_program`) and beside it `weights.pt` with the tensor of each weight."""
        self._write_text("program.py", lambda: standalone_program(source, inputs, weights, digest, mesh))
        self._write("weights.pt", lambda path: torch.save({w.name: _compact(tensors[w.name]) for w in weights}, path))

    def report(self, report: GraphReport) -> None:
        """Write `report.json` with every field, and `report.txt` for people: the table, TTNN calls, what was chosen."""
        self._write_text("report.json", lambda: json.dumps(report.to_dict(), indent=2) + "\n")
        tables = (report.operation_table, report.movement.__str__, report.estimate_table, report.choice_table)
        self._write_text("report.txt", lambda: "\n\n".join([str(report), *(table() for table in tables)]) + "\n")

    def drawing(self, graph: torch.fx.Graph) -> None:
        """Write the final graph as `graph.svg`."""
        self._write_text("graph.svg", lambda: draw(graph))

    def _write_text(self, name: str, text: Callable[[], str]) -> None:
        self._write(name, lambda path: path.write_text(text(), encoding="utf-8"))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` fill the file `name`. It gets its name once it's whole: half a file never looks like a dump."""
        if self.path is None:
            return
        path = self.path / name
        unfinished = self.path / f"{name}.unfinished"
        with self._guarded("write", path):
            try:
                write(unfinished)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)

    @contextmanager
    def _guarded(self, action: str, path: object) -> Iterator[None]:
        """Log what fails inside; one warning per dump, because a full disk fails every file the same way."""
        try:
            yield
        except Exception as error:  # of any kind: graphs and tensors come from anywhere, and none may end a compile
            log.log(self._level, "dump: could not %s %s: %s: %s", action, path, type(error).__name__, error)
            self._level = logging.DEBUG
            log.debug("dump: traceback", exc_info=True)


def graph_text(graph_module: torch.fx.GraphModule) -> str:
    """A graph as Python, with shapes."""
    code: str = graph_module.print_readable(print_output=False, expanded_def=True)
    return code.replace("class <lambda>", "class Graph")  # AOTAutograd's


def _claim_folder(directory: Path) -> Path:
    """Create the next free `graph_N` in `directory`; creating it is what claims it from other processes."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in (directory / f"graph_{number}" for number in itertools.count()):
        with suppress(FileExistsError):
            path.mkdir()
            break
    return path


def _compact(tensor: torch.Tensor | list[torch.Tensor]) -> Any:
    """A plain copy on the host that holds its own elements: torch.save would write all of a view's storage."""
    if isinstance(tensor, list):  # for each chip of a mesh
        return list(map(_compact, tensor))
    return tensor.detach().to("cpu", copy=True).contiguous()


def standalone_program(
    source: str,
    inputs: Sequence[InputSpec],
    weights: Sequence[WeightSpec],
    digest: str = "",
    mesh: tuple[int, int] = (1, 1),
) -> str:
    """A Python file that runs `source` alone: it imports torch and ttnn, and nothing of ours.

    source: code that defines `forward(device, *inputs, *weights)`, from torch tensors and uploaded weights in the order
    of the two lists to one tensor or a tuple. It may use `torch`, `ttnn` and `math`.
    mesh: rows and columns of chips.
    digest: of the graph and of what the program is given, by which the option `program` knows whose it is.
    """
    source = re.sub(r"^import (torch|ttnn|math)\n", "", source, flags=re.MULTILINE).strip("\n")
    input_lines = "".join(f"    ({name!r}, {shape!r}, {dtype}),\n" for name, shape, dtype in inputs)
    functions = {name: ", ".join(f"lambda weight, device: {call}" for call in calls) for name, calls in weights}
    weight_lines = "".join(f"    ({name!r}, [{calls}]),\n" for name, calls in functions.items())
    return Template(_PROGRAM).substitute(
        source=source, inputs=input_lines, weights=weight_lines, digest=digest, **_device_calls(mesh)
    )


def _device_calls(mesh: tuple[int, int]) -> dict[str, str]:
    """What opens and closes the device of a standalone program, or the mesh of so many rows and columns of chips."""
    if mesh == (1, 1):
        opened = "device = ttnn.open_device(device_id=0, l1_small_size=32768)"
        return {"opened": opened, "closed": "ttnn.close_device(device)"}
    fabric = "ttnn.set_fabric_config(ttnn.FabricConfig.{})"
    opened = f"device = ttnn.open_mesh_device(ttnn.MeshShape{mesh}, l1_small_size=32768)"
    return {
        "opened": f"{fabric.format('FABRIC_1D')}  # what chips send through\n    {opened}",
        "closed": f"ttnn.close_mesh_device(device)\n        {fabric.format('DISABLED')}",
    }


_PROGRAM = '''\
"""A program that tt_dynamo compiled. It needs torch, ttnn and the weights.pt beside it.

    python program.py [--save]

runs `forward` once on device 0 with made-up inputs. To run it on others, call `run` with a list of torch tensors.
options={"program": FOLDER} of torch.compile runs `forward`, as it stands here, in place of what would be generated.
"""

import argparse
import math
from pathlib import Path

import torch
import ttnn

FOLDER = Path(__file__).resolve().parent
GRAPH = "$digest"  # what it was compiled for

$source


# name, shape, dtype
INPUTS = [
$inputs]

# name, and what brings it to the device, one call after another (none: stays a torch tensor)
WEIGHTS = [
$weights]


def upload_weights(device):
    weights = torch.load(FOLDER / "weights.pt", weights_only=True)
    for name, calls in WEIGHTS:
        for call in calls:
            weights[name] = call(weights[name], device)
    return [weights[name] for name, _ in WEIGHTS]


def run(device, inputs):
    """Outputs of `forward` as a list of torch tensors (None where it has none)."""
    outputs = forward(device, *inputs, *upload_weights(device))
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return [ttnn.to_torch(output) if isinstance(output, ttnn.Tensor) else output for output in outputs]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", action="store_true", help="write inputs and outputs to outputs.pt beside this file")
    save = parser.parse_args().save
    torch.manual_seed(0)  # normal floats; zeros and ones for integers and bools, which any embedding table has rows for
    inputs = []
    for _, shape, dtype in INPUTS:
        value = torch.randn(shape) if dtype.is_floating_point else torch.randint(2, shape)
        inputs.append(value.to(dtype))
    $opened
    try:
        outputs = run(device, inputs)
    finally:
        $closed
    for number, output in enumerate(outputs):
        print(f"output {number}:", "None" if output is None else f"{list(output.shape)} {output.dtype}")
    if save:
        torch.save({"inputs": inputs, "outputs": outputs}, FOLDER / "outputs.pt")


if __name__ == "__main__":
    main()
'''
