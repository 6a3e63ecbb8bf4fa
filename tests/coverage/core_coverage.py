"""Where each core ATen operation runs: `python tests/coverage/core_coverage.py > lowering/coverage.md`.

Every operation that PyTorch tags as core (`torch.Tag.core`) is compiled with one call (`core_samples.py`) for each
dtype on the emulated board, as torch.compile would compile it, and the table says what happened: the TTNN calls where
it runs on the device, the reason where it runs in eager torch.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from core_samples import SAMPLES, Arguments
from torch._functorch.aot_autograd import aot_function

from tt_dynamo.capture.decompositions import decompositions
from tt_dynamo.compiler.compile import Compiler
from tt_dynamo.devices import open_device
from tt_dynamo.lowering.on_host import IMPOSSIBLE
from tt_dynamo.options import Options
from tt_dynamo.report.report import GraphReport

DTYPES = (torch.float32, torch.bfloat16, torch.int32, torch.int64, torch.bool)

DEVICE, HOST, MIXED, REFUSED = "device", "host", "partly", "-"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One operation with one dtype: "device", "host", "partly" or "-" (eager torch refuses it); and how, or why not."""

    where: str
    notes: tuple[str, ...] = ()


def core_operations() -> dict[str, torch._ops.OpOverload]:
    """Every core ATen operation that gives new values, by name; variants with an `out` argument are left out."""
    found = {}
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, qualified = name.partition("::")
        if namespace != "aten":
            continue
        packet, _, overload = qualified.partition(".")
        target = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
        if target is not None and torch.Tag.core in target.tags and not target._schema.is_mutable:
            found[f"{packet}.{overload or 'default'}"] = target
    return dict(sorted(found.items()))


def cell(target: Callable[..., Any], arguments: Arguments, dtype: torch.dtype, board: str) -> Cell:
    """Compile one call of `target` and say where it runs."""

    def make(*shape: int) -> torch.Tensor:
        numbers = torch.linspace(0.25, 3.75, torch.Size(shape).numel()).reshape(shape)
        return (numbers > 2) if dtype == torch.bool else numbers.to(dtype)

    try:
        args = list(arguments(make))
        kwargs = args.pop() if isinstance(args[-1], dict) else {}
        target(*args, **kwargs)
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return Cell(REFUSED)
    report = _compiled(target, args, kwargs, board)
    if report is None:
        return Cell(HOST)
    calls = tuple(dict.fromkeys(operation.target.removeprefix("ttnn.") for operation in report.operations))
    notes = tuple(call for call in calls if call not in ("from_torch", "to_torch"))
    if not report.fallbacks:
        return Cell(DEVICE, notes)
    reasons = tuple(dict.fromkeys(fallback.reason for fallback in report.fallbacks))
    return Cell(MIXED if report.device_nodes else HOST, reasons)


def _compiled(target: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], board: str) -> GraphReport | None:
    """The compiler's report of one call; None where torch cannot put it into a graph or leaves nothing to compute."""
    options = Options.parse({"device": board, "placement": "device"})
    device = open_device(options.device)
    leaves, structure = torch.utils._pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    reports: list[GraphReport] = []

    def call(*tensors: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        positional, named = torch.utils._pytree.tree_unflatten(filled, structure)
        return target(*positional, **named)

    def compiler(module: torch.fx.GraphModule, _: Any) -> Any:
        compiling = Compiler(module, device, options, "coverage")
        program: Any = functools.partial(compiling.compile())
        program._boxed_call = True
        reports.append(compiling.report)
        return program

    try:
        with torch.no_grad():
            fw_compiler: Any = compiler
            aot_function(call, fw_compiler=fw_compiler, decompositions=decompositions())(*(leaves[i] for i in places))
    except (torch._subclasses.fake_tensor.DynamicOutputShapeException, RuntimeError, AttributeError):
        return None
    return reports[0] if reports else None


def table(board: str = "n150", progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """The whole table in Markdown, and above it the shares."""
    operations = core_operations()
    rows, lowered = [], 0
    for done, (name, target) in enumerate(operations.items(), 1):
        cells = {dtype: cell(target, SAMPLES[name], dtype, board) for dtype in DTYPES}
        rows.append(_row(name, target, cells))
        lowered += target not in IMPOSSIBLE and any(c.where == DEVICE for c in cells.values())
        progress(done, len(operations))
    expressible = sum(target not in IMPOSSIBLE for target in operations.values())
    return (
        HEAD.format(
            count=len(operations), expressible=expressible, lowered=lowered, share=lowered / expressible, board=board
        )
        + "\n".join(rows)
        + "\n"
    )


HEAD = """# Core ATen operations

Made by `tests/coverage/core_coverage.py`: each operation compiled with one call for each dtype on the emulated {board}.
`device`: it runs on the device with no fallback, by the TTNN calls named; `host`: in eager torch, for the reason given;
`partly`: some of what it is made of; `-`: eager torch has it not for that dtype. Floats are bfloat16 on the device.

Of {count} core operations, TTNN has a way for {expressible}; {lowered} of them ({share:.1%}) run on the device.

| operation | float32 | bfloat16 | int32 | int64 | bool | |
|---|---|---|---|---|---|---|
"""


def _row(name: str, target: Any, cells: dict[torch.dtype, Cell]) -> str:
    on_device = next((c for c in cells.values() if c.where == DEVICE), None)
    others = dict.fromkeys(note for c in cells.values() if c.where in (HOST, MIXED) for note in c.notes)
    notes = []
    if on_device is not None and on_device.notes:
        notes.append("`" + "`, `".join(on_device.notes) + "`")
    if target in IMPOSSIBLE:
        notes.append(IMPOSSIBLE[target])
    elif others:
        notes.append("host: " + "; ".join(others))
    words = " | ".join(cells[dtype].where for dtype in DTYPES)
    return f"| {name} | {words} | {'. '.join(notes).replace('|', '/')} |"


def main() -> int:
    """Print the table; progress goes to standard error."""
    logging.getLogger("tt_dynamo").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            print(f"{done} of {total} operations", file=sys.stderr, flush=True)

    print(table(progress=progress), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
