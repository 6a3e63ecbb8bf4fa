"""Repeated layers, told by the module paths of operations."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tt_dynamo.report.report import Operation

# Of a layer: `encoder.layer.3`, or torchvision's `encoder_layer_3`. "conv2" and "layer4" name parts, not repetitions.
_NUMBER = re.compile(r"(?<![^._])\d+(?![^.])")


def any_layer(module: str) -> str:
    """A module path with "*" for the numbers of layers: "encoder.layer.*.attention"."""
    return _NUMBER.sub("*", module)


def layer_launches(operations: Iterable["Operation"], prefix: str | None = None) -> dict[str, int]:
    """Kernel launches of each repeated layer, by module path; see `GraphReport.layers`."""
    under = f"{prefix}." if prefix else ""
    launching = [op for op in operations if op.programs and f"{op.module}.".startswith(under)]
    numbers = {(op.module[: n.start()], n[0]) for op in launching for n in _NUMBER.finditer(op.module, len(under))}
    siblings = Counter(stem for stem, _ in numbers)
    launches: Counter[str] = Counter()
    for op in launching:
        for number in _NUMBER.finditer(op.module, len(under)):
            if siblings[op.module[: number.start()]] > 1:
                launches[op.module[: number.end()]] += op.programs
                break
    return dict(launches)
