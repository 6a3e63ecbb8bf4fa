"""Complex numbers that are read as real ones in the end, as pairs of real and imaginary parts.

Before   y = view_as_real(view_as_complex(x) * polar(1, angles))
After    a, b = x[..., 0], x[..., 1];   c, s = cos(angles), sin(angles);   y = stack((a c - b s, a s + b c), -1)

TTNN has no complex numbers. Models turn queries and keys by such products (Llama 4, DeepSeek-V2, and what follows the
original Llama); as pairs they are a rotary embedding like any other. What is complex from the start, as a table among
the buffers, is read by its parts.
"""

import operator
from typing import Any, NamedTuple

from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of, values_of
from tt_dynamo.passes.movement import MOVES
from tt_dynamo.passes.rewrite import VIEWS, emit

# What does to the parts of a complex value what it does to the value.
MOVING = MOVES | {
    *(*VIEWS, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.transpose.int, aten.t.default),
    *(aten.expand.default, aten.repeat.default, aten.alias.default, aten.detach.default, aten.cat.default),
    *(aten.stack.default, aten.index_select.default, aten.index.Tensor, aten.embedding.default, aten.roll.default),
    *(aten.flip.default, aten.neg.default),
}
PRODUCTS, SUMS = (aten.mul.Tensor, aten.mul.Scalar), (aten.add.Tensor, aten.sub.Tensor)
CONJUGATES = (aten._conj.default, aten._conj_physical.default)


class Parts(NamedTuple):
    real: Any
    imaginary: Any


def complex_to_real(graph: Graph, context: Context) -> int:
    """Rewrite every chain of complex values that ends as real ones; returns how many ends."""
    known: dict[Node, Parts] = {}
    changed = 0
    for node in list(graph.nodes):
        if not is_call(node, aten.view_as_real.default):
            continue
        parts = _computed(node.args[0], known)
        if parts is None:
            continue
        dim = len(shape_of(node)) - 1
        with graph.inserting_before(node):
            for user in list(node.users):
                if is_call(user, aten.select.int) and user.args[1] % (dim + 1) == dim:
                    replace(user, parts[user.args[2]])
            if node.users:
                replace(node, emit(node, aten.stack.default, list(parts), dim))
        changed += 1
    dead_code(graph)
    return changed


def _parts(z: Node, known: dict[Node, Parts]) -> Parts:
    """The parts of a complex value, computed where it is, or read from it."""
    parts = _computed(z, known)
    if parts is None:
        place = z.next
        while place.op == "placeholder":
            place = place.next
        with z.graph.inserting_before(place):
            pairs = emit(z, aten.view_as_real.default, z)
            parts = Parts(*(emit(z, aten.select.int, pairs, len(shape_of(z)), at) for at in (0, 1)))
    known[z] = parts
    return parts


def _computed(z: Node, known: dict[Node, Parts]) -> Parts | None:
    """The parts of a complex value by what it is computed from, where that is known."""
    if z in known or z.op != "call_function":
        return known.get(z)
    with z.graph.inserting_before(z):
        parts = _rule(z, known)
    if parts is not None:
        known[z] = parts
    return parts


def _rule(z: Node, known: dict[Node, Parts]) -> Parts | None:
    if is_call(z, aten.view_as_complex.default):
        pairs = z.args[0]
        return Parts(*(emit(z, aten.select.int, pairs, len(shape_of(z)), at) for at in (0, 1)))
    if is_call(z, aten.complex.default):
        return Parts(*z.args)
    if is_call(z, aten.polar.default):
        length, angle = z.args
        waves = (emit(z, wave, angle) for wave in (aten.cos.default, aten.sin.default))
        if is_call(length, aten.ones_like.default) and shape_of(angle) == shape_of(z):
            return Parts(*waves)
        return Parts(*(emit(z, aten.mul.Tensor, length, wave) for wave in waves))
    if is_call(z, *CONJUGATES):
        real, imaginary = _parts(z.args[0], known)
        return Parts(real, emit(z, aten.neg.default, imaginary))
    if is_call(z, aten._to_copy.default) and _is_complex(z.args[0]):
        dtype = dtype_of(z).to_real()
        return Parts(*(emit(z, aten._to_copy.default, part, dtype=dtype) for part in _parts(z.args[0], known)))
    if is_call(z, *PRODUCTS) and not z.kwargs:
        return _product(z, known)
    is_sum = is_call(z, *SUMS) and not z.kwargs and all(map(_is_complex, z.args))
    return _moved(z, known) if is_sum or is_call(z, *MOVING) else None


def _product(z: Node, known: dict[Node, Parts]) -> Parts | None:
    one, other = z.args
    if not _is_complex(one):
        one, other = other, one
    if isinstance(other, complex):
        return None
    if not _is_complex(other):
        return Parts(*(emit(z, aten.mul.Tensor, part, other) for part in _parts(one, known)))
    (a, b), (c, d) = _parts(one, known), _parts(other, known)
    ac, bd, ad, bc = (emit(z, aten.mul.Tensor, x, y) for x, y in ((a, c), (b, d), (a, d), (b, c)))
    return Parts(emit(z, aten.sub.Tensor, ac, bd), emit(z, aten.add.Tensor, bc, ad))


def _moved(z: Node, known: dict[Node, Parts]) -> Parts | None:
    """Moves of complex values, and sums, of the parts; None where real ones are among them."""
    operands = z.all_input_nodes
    if z.target is operator.getitem and operands[0].target not in MOVING:
        return None
    if not any(map(_is_complex, operands)) or any(values_of(x)[0].is_floating_point() for x in operands):
        return None
    parts = {x: _parts(x, known) if _is_complex(x) else (x, x) for x in operands}
    args = [map_arg((z.args, z.kwargs), lambda x, at=at: parts[x][at]) for at in (0, 1)]
    return Parts(*(emit(z, z.target, *given, **named) for given, named in args))


def _is_complex(x: Any) -> bool:
    return isinstance(x, Node) and any(value.is_complex() for value in values_of(x))
