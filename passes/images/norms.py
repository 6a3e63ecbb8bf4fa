"""Norms over channels: weight, bias and given statistics as constants beside them, or in the product before them.

Before   y = batch_norm(convolution(x, w, b), gain, bias, mean, variance)     or of linear(x, w, b) of rows
After    y = convolution(x, w * scale, b * scale + shift)                                        where all are constants

Before   y = batch_norm(x, gain, bias, mean, variance)     y = group_norm(x, groups, gain, bias)
After    y = addcmul(shift, x, scale)                      y = addcmul(bias, group_norm(x, groups), gain)

with scale = gain * rsqrt(variance + eps) and shift = bias - mean * scale, by channel. What depends on parameters alone
is computed once, on the host, in float32, and one kernel scales and shifts. A batch norm of one image in training, as
instance norms are written, is a group norm of one channel a group where nothing reads its statistics.
"""

import operator
from functools import partial

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.rewrite import ANY, Rules, call, emit, is_anything, is_constant, is_number, once, variable

FOLDING, SPLITTING = Rules(), Rules()
TRAINING = (aten._native_batch_norm_legit.no_stats, aten._native_batch_norm_legit_functional.default)
x, groups, eps = variable("x"), variable("groups", is_number), variable("eps", is_number)


def fold_batch_norm(graph: Graph, context: Context) -> int:
    """Fold every batch norm by constants into the convolution or linear that it alone reads; returns how many."""
    return FOLDING.apply(graph)


def split_norm_affine(graph: Graph, context: Context) -> int:
    """Write weight and bias of every norm over channels beside it; returns how many."""
    return SPLITTING.apply(graph)


def _scale_and_shift(
    like: Node, gain: Node | None, bias: Node | None, mean: Node, variance: Node, eps: float
) -> tuple[Node, Node]:
    """What a batch norm by given statistics multiplies and adds, each [channels]."""
    scale = emit(like, aten.rsqrt.default, emit(like, aten.add.Tensor, _exact(variance), eps))
    if gain is not None:
        scale = emit(like, aten.mul.Tensor, scale, _exact(gain))
    moved = emit(like, aten.mul.Tensor, _exact(mean), scale)
    shift = emit(like, aten.neg.default, moved) if bias is None else emit(like, aten.sub.Tensor, _exact(bias), moved)
    return scale, shift


def _exact(node: Node) -> Node:
    return _cast(node, torch.float32) if dtype_of(node) in (torch.bfloat16, torch.float16) else node


def _cast(node: Node, dtype: torch.dtype) -> Node:
    return node if dtype_of(node) == dtype else emit(node, aten._to_copy.default, node, dtype=dtype)


def _affine(like: Node, y: Node, scale: Node | None, shift: Node | None) -> Node:
    """y * scale + shift, each [channels]."""
    by_channel = [shape_of(y)[1], *[1] * (len(shape_of(y)) - 2)]
    scale, shift = (c and emit(like, aten.reshape.default, _cast(c, dtype_of(y)), by_channel) for c in (scale, shift))
    if scale is not None and shift is not None:
        return emit(like, aten.addcmul.default, shift, y, scale)
    if scale is not None:
        return emit(like, aten.mul.Tensor, y, scale)
    return y if shift is None else emit(like, aten.add.Tensor, y, shift)


def _batch_norm(node: Node, x: Node, **constants) -> Node:
    return _affine(node, x, *_scale_and_shift(node, **constants))


def _folded(node: Node, x: Node, weight: Node, offset: Node | None, **constants) -> Node:
    convolution = node.args[0].args[0]
    *_, transposed, _, groups = convolution.args
    write = partial(emit, convolution)
    scale, shift = _scale_and_shift(convolution, **constants)
    if offset is not None:
        shift = write(aten.add.Tensor, write(aten.mul.Tensor, _exact(offset), scale), shift)
    # [out, in / groups, ...], or transposed [in, out / groups, ...]
    shape, groups = list(shape_of(weight)), groups if transposed else shape_of(weight)[0]
    grouped = write(aten.reshape.default, _exact(weight), [groups, shape[0] // groups, *shape[1:]])
    by_channel = [groups, 1, shape_of(scale)[0] // groups, *[1] * (len(shape) - 2)]
    scaled = write(aten.mul.Tensor, grouped, write(aten.reshape.default, scale, by_channel))
    weights = (write(aten.reshape.default, scaled, shape), shift)
    return write(aten.convolution.default, x, *(_cast(w, dtype_of(weight)) for w in weights), *convolution.args[3:])


def _folded_linear(node: Node, x: Node, weight: Node, offset: Node | None, **constants) -> Node | None:
    rows = node.args[0].args[0]
    if len(shape_of(rows)) != 2 or shape_of(rows)[-1] != shape_of(weight)[-1]:
        return None
    write = partial(emit, rows)
    scale, shift = _scale_and_shift(rows, **constants)
    if offset is not None:
        shift = write(aten.add.Tensor, write(aten.mul.Tensor, _exact(offset), scale), shift)
    weights = (_cast(w, dtype_of(weight)) for w in (write(aten.mul.Tensor, _exact(weight), scale), shift))
    found = write(operators.linear, x, *weights)
    return write(aten.reshape.default, found, list(shape_of(rows)))


def _group_norm(node: Node, x: Node, groups: int, gain: Node | None, bias: Node | None, eps: float) -> Node | None:
    if gain is None and bias is None and node.target is aten.group_norm.default:
        return None
    return _affine(node, emit(node, aten.group_norm.default, x, groups, None, None, eps), gain, bias)


def _norm_of_one_image(node: Node, x: Node, gain: Node | None, bias: Node | None, eps: float) -> Node | None:
    batch, channels, *_ = shape_of(x)
    return _group_norm(node, x, channels, gain, bias, eps) if batch == 1 else None


def _norm_with_statistics(node: Node) -> Node | None:
    """A norm whose other results are read too: they become those of the norm without weight and bias."""
    norm, index = node.args
    if index != 0 or not is_call(norm, aten.native_group_norm.default, *TRAINING) or norm.args[1:3] == (None, None):
        return None
    if [user.args[1] for user in norm.users].count(0) > 1:
        return None
    x, gain, bias, *options = norm.args
    norm.args = (x, None, None, *options)
    return _affine(node, emit(node, operator.getitem, norm, 0), gain, bias)


GIVEN = [variable(name, is_anything) for name in ("gain", "bias", "mean", "variance")]
CONSTANT = [variable(name, is_constant) for name in ("gain", "bias", "mean", "variance")]
WEIGHTS = variable("weight", is_constant), variable("offset", is_constant)
BATCH_NORM = aten._native_batch_norm_legit_no_training.default
FOLDED = call(BATCH_NORM, once(call(aten.convolution.default, x, *WEIGHTS, *[ANY] * 6)), *CONSTANT, ANY, eps)
LINEAR = once(call(operators.linear, x, *WEIGHTS))
FOLDED_LINEAR = call(BATCH_NORM, once(call(aten.reshape.default, LINEAR, ANY)) | LINEAR, *CONSTANT, ANY, eps)
IN_GROUPS = call(aten.native_group_norm.default, x, *GIVEN[:2], ANY, ANY, ANY, groups, eps)
IN_TRAINING = call(TRAINING[0], x, *GIVEN[:2], True, ANY, eps)

FOLDING.add("fold_batch_norm", call(operator.getitem, once(FOLDED), 0), _folded)
FOLDING.add("fold_batch_norm_of_rows", call(operator.getitem, once(FOLDED_LINEAR), 0), _folded_linear)
SPLITTING.add("batch_norm", call(operator.getitem, once(call(BATCH_NORM, x, *GIVEN, ANY, eps)), 0), _batch_norm)
SPLITTING.add("native_group_norm", call(operator.getitem, once(IN_GROUPS), 0), _group_norm)
SPLITTING.add("group_norm", call(aten.group_norm.default, x, groups, *GIVEN[:2], eps, ANY), _group_norm)
SPLITTING.add("norm_of_one_image", call(operator.getitem, once(IN_TRAINING), 0), _norm_of_one_image)
SPLITTING.on(operator.getitem)(_norm_with_statistics)  # what the rules above left
