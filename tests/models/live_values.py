"""How many bytes of a program's values are live at once, found from its text alone.

Independent of what the compiler measures: the program's statements run one by one, on a device without values, and
after each one the sizes of those of its values are summed that a later statement reads, one for each buffer.
"""

from __future__ import annotations

import ast
import math
from typing import Any

ELEMENT_BYTES = {"BFLOAT16": 2, "FLOAT32": 4, "UINT32": 4, "INT32": 4}


def largest_live_set(code: str, ttnn: Any, device: Any, arguments: list[Any]) -> int:
    """Most bytes of device tensors that `forward(device, *arguments)` needs at once, `arguments` not counted.

    code: the text of a program. ttnn: the real module. Deallocations in the text are left out, names that are not read
    again are dropped, and a view counts with the buffer that it views.
    """
    tree = ast.parse(code)
    forward = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "forward")
    tree.body.remove(forward)
    scope: dict[str, Any] = {}
    exec(compile(tree, "<program>", "exec"), scope)
    given = [argument.arg for argument in forward.args.args]
    values = dict(zip(given, [device, *arguments], strict=True))
    body = [statement for statement in forward.body if not _frees(statement)]
    read_later = _read_later(body)
    most = 0
    for statement, later in zip(body, read_later, strict=True):
        if isinstance(statement, ast.Return):
            break
        operands = _device_bytes(ttnn, {name: values[name] for name in values if name not in given})
        exec(compile(ast.Module([statement], []), "<program>", "exec"), scope, values)
        results = _device_bytes(ttnn, {name: values[name] for name in values if name not in given})
        most = max(most, sum({**operands, **results}.values()))
        for name in [name for name in values if name not in given and name not in later]:
            del values[name]
    return most


def _frees(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return isinstance(statement.value, ast.Constant) and statement.value.value is None
    return isinstance(statement, ast.Expr) and "deallocate" in ast.unparse(statement)


def _read_later(body: list[ast.stmt]) -> list[set[str]]:
    later: set[str] = set()
    result = []
    for statement in reversed(body):
        result.append(set(later))
        later |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return result[::-1]


def _device_bytes(ttnn: Any, values: dict[str, Any]) -> dict[int, int]:
    """Bytes by buffer of the device tensors among `values`, with their tile padding."""
    found: dict[int, int] = {}
    for value in values.values():
        for tensor in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(tensor, ttnn.Tensor) and tensor.device() is not None:
                size = math.prod(tensor.padded_shape) * ELEMENT_BYTES[tensor.dtype.name]
                found[tensor.buffer_address()] = max(size, found.get(tensor.buffer_address(), 0))
    return found
