"""Attention to a band of keys that a model computes by diagonals, as attention of blocks.

Before   scores = skew(matmul(blocks of q, blocks of k)) + skew(mask)     [..., seq, 2 window + 1], diagonals as columns
         out = bmm(unskew(softmax(scores)), blocks of v)
After    out = scaled_dot_product_attention(blocks of q, blocks of k, blocks of v, mask of the block's keys + band)

Longformer pads, cuts and joins scores until the keys of a query lie beside one another, and parts them again for the
product with values. Where each element comes from says all of that: moves are run on the numbers of elements, whatever
spells them. A softmax does not depend on the order of a row nor on keys at -inf, so the blocks that are multiplied with
values are those of the products with keys. Only where each row of weights holds every score of its query once, a query
stays a row, a key stays a column, and the mask is one number a key.

Source of the band: Beltagy, Peters & Cohan 2020, https://arxiv.org/abs/2004.05150
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.passes.attention.attention import PRODUCTS, SOFTMAXES, sdpa, split_scale
from tt_dynamo.passes.origins import Origin, Origins, is_zero
from tt_dynamo.passes.rewrite import as_dtype, emit
from tt_dynamo.passes.rows import literal

SKEWS = {aten.cat.default, aten.constant_pad_nd.default}


class Band(NamedTuple):
    """The nodes of an attention to a band; mask and dropped, rows whose weights are zero, are optional."""

    weights: Origin
    scores: Origin
    query: Origin
    key: Origin
    value: Origin
    mask: Origin | None
    dropped: Node | None
    softmax: Node


class Blocks(NamedTuple):
    """The first element of each query [count, rows], key and value [count, columns] of each block in their sources.

    lowest: 0 where a query reads a key, else -inf. mask: the number of each key's, dropped: of each query's.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    lowest: Tensor
    mask: Tensor | None
    dropped: Tensor | None


def fuse_bands(graph: Graph, context: Context) -> int:
    """Fuse every attention to a band; returns how many."""
    origins, known, made, fused = Origins(), dict[Any, Blocks | None](), dict[Any, Node](), 0
    for target in PRODUCTS:
        for node in graph.find_nodes(op="call_function", target=target):
            band = _band(node, origins)
            if band is None:
                continue
            # Layers compute alike.
            key = *(id(origin and origin.numbers) for origin in band[:6]), band.dropped and shape_of(band.dropped)
            if key not in known:
                known[key] = _blocks(band)
            blocks = known[key]
            if blocks is not None and _are_heads(band, blocks):
                with graph.inserting_before(node):
                    replace(node, _attention(node, band, blocks, made))
                fused += 1
    dead_code(graph)
    return fused


def _band(node: Node, origins: Origins) -> Band | None:
    """What may be an attention to a band, by its operations."""
    if len(shape_of(node)) < 3 or not origins.moved_by(node.args[0], SKEWS):
        return None
    weights = origins.of(node.args[0])
    softmax, dropped = weights and weights.source, None
    if is_call(softmax, aten.where.self) and is_zero(softmax.args[1]):
        dropped, _, softmax = softmax.args
    if weights is None or not is_call(softmax, *SOFTMAXES) or softmax.args[1] not in (-1, len(shape_of(softmax)) - 1):
        return None
    added = softmax.args[0]
    while is_call(added, aten._to_copy.default):
        added = added.args[0]
    parts = added.args[:2] if is_call(added, aten.add.Tensor) else (added,)
    found = [origins.of(part) for part in parts if isinstance(part, Node)]
    products = [origin for origin in found if origin is not None and is_call(origin.source, *PRODUCTS)]
    masks = [origin for origin in found if origin is not None and not is_call(origin.source, *PRODUCTS)]
    if len(products) != 1 or len(products) + len(masks) != len(parts):
        return None
    query, key, value = (origins.of(x) for x in (*products[0].source.args, node.args[1]))
    if query is None or key is None or value is None or products[0].numbers.shape != shape_of(softmax):
        return None
    return Band(weights, products[0], query, key, value, masks[0] if masks else None, dropped, softmax)


def _blocks(band: Band) -> Blocks | None:
    """The blocks of a band; None where it is none."""
    shape, whole, weights = shape_of(band.softmax), shape_of(band.scores.source), band.weights
    query, key, value = (band.query.first_of_rows(), band.key.transposed().first_of_rows(), band.value.first_of_rows())
    if query is None or key is None or value is None or bool((query < 0).any()) or bool((key < 0).any()):
        return None
    if not weights.has_literals(0.0) or not band.scores.has_literals(-math.inf):
        return None
    queries, keys = query.unsqueeze(-1).expand(whole), key.unsqueeze(-2).expand(whole)
    of_query, of_key = (_at(weights.numbers, _at(band.scores.numbers, numbers)) for numbers in (queries, keys))
    read = of_query >= 0
    row, column = _same(of_query, read, -1), _same(of_key, read, -2)
    line = _same(weights.numbers // shape[-1], weights.numbers >= 0, -1)
    if row is None or column is None or line is None or column.shape != value.shape:
        return None
    if bool(((value < 0) & (column >= 0)).any()):
        return None
    if not _holds_each_once(weights.numbers, read, band.scores.numbers, line):
        return None
    of_mask = of_row = None
    if band.mask is not None:
        at_key = _at(weights.numbers, band.mask.numbers.expand(shape))
        of_mask = _same(at_key, read, -2)
        if of_mask is None or bool((at_key[read] < 0).any()):
            return None
    if band.dropped is not None:
        which = torch.arange(band.dropped.meta["val"].numel()).reshape(shape_of(band.dropped)).expand(shape)
        of_row = _same(_at(weights.numbers, which), read, -1)
        if of_row is None:
            return None
    leading = read.dim() - 2

    def each(lines: Tensor) -> Tensor:
        return lines.reshape(-1, *lines.shape[leading:])

    lowest = torch.where(read, 0.0, -math.inf)
    optional = (None if lines is None else each(lines) for lines in (of_mask, of_row))
    return Blocks(each(row), each(column), each(value), each(lowest), *optional)


def _attention(node: Node, band: Band, blocks: Blocks, made: dict[Any, Node]) -> Node:
    """Attention of the blocks, in the shape of the product with values; those that share a mask are heads.

    made: the masks of earlier layers, which this one may share
    """
    tables = [blocks.lowest] if blocks.mask is None else [blocks.lowest, blocks.mask]
    count, rows, columns = blocks.lowest.shape
    period = next(n for n in range(1, count + 1) if count % n == 0 and all(_repeats(table, n) for table in tables))
    leading, dtype = [count // period, period], node.meta["val"].dtype
    query, scale = split_scale(band.query.source)

    def cut(source: Node, first: Tensor, width: int) -> Node:
        length = shape_of(source)[-1]
        heads, tokens = length // width, math.prod(shape_of(source)[:-1])
        numbers = first.reshape(*leading, -1).clamp(min=0)  # a key that no query reads is any
        numbers = numbers % length // width * tokens + numbers // length
        parts = emit(source, aten.reshape.default, source, [1, tokens, heads, width])
        parts = emit(source, aten.permute.default, parts, [0, 2, 1, 3])
        if torch.equal(numbers.reshape(-1), torch.arange(heads * tokens)):
            return emit(node, aten.reshape.default, parts, [*numbers.shape, width])
        return emit(node, operators.look_up, parts, literal(node, numbers))

    def mask() -> Node:
        lowest = literal(node, blocks.lowest[:period].reshape(1, period, rows, columns))
        if band.mask is None or blocks.mask is None:
            return as_dtype(lowest, dtype, node)
        numbers = blocks.mask[:period].clamp(min=0).reshape(1, period, 1, columns)
        of_keys = emit(node, operators.pick, band.mask.source, literal(node, numbers))
        return as_dtype(emit(node, aten.add.Tensor, of_keys, lowest), dtype, node)

    def dropped(which: Node, of_row: Tensor) -> Node:
        return emit(node, operators.pick, which, literal(node, of_row.reshape(*leading, rows, 1)))

    key = id(blocks), band.mask and band.mask.source
    made[key] = made.get(key) or mask()
    operands = (
        cut(query, blocks.query, _width(band.query)),
        cut(band.key.source, blocks.key, _width(band.query)),
        cut(band.value.source, blocks.value, _width(band.value)),
    )
    out = emit(node, sdpa, *operands, made[key], 0.0, False, scale=scale)
    if band.dropped is not None and blocks.dropped is not None:
        key = id(blocks), band.dropped
        made[key] = made.get(key) or dropped(band.dropped, blocks.dropped)
        zero = emit(node, aten.scalar_tensor.default, 0.0, dtype=dtype, device=torch.device("cpu"))
        out = emit(node, aten.where.self, made[key], zero, out)
    return emit(node, aten.reshape.default, out, list(shape_of(node)))


def _width(operand: Origin) -> int:
    """Of a head."""
    return operand.numbers.shape[-1]


def _are_heads(band: Band, blocks: Blocks) -> bool:
    """Whether the rows of all operands are heads of the tokens of their sources."""
    operands = (band.query.source, band.key.source, band.value.source)
    widths = (_width(band.query), _width(band.query), _width(band.value))
    return all(
        shape_of(source)[-1] % width == 0 and not bool((first.clamp(min=0) % width).any())
        for source, first, width in zip(operands, blocks[:3], widths, strict=True)
    )


def _at(numbers: Tensor, elements: Tensor) -> Tensor:
    """For each number that of what it numbers; -1 stays."""
    return torch.where(numbers >= 0, elements.reshape(-1)[numbers.clamp(min=0)], -1)


def _holds_each_once(numbers: Tensor, read: Tensor, band: Tensor, line: Tensor) -> bool:
    """Whether each row of weights holds every score of one line of the softmax once, less those at -inf."""
    held = (band >= 0).sum(-1).reshape(-1)[line.clamp(min=0)]
    ordered = torch.where(numbers >= 0, numbers, -1 - torch.arange(numbers.shape[-1])).sort(-1).values
    is_once = bool((ordered.diff(dim=-1) != 0).all())
    return is_once and bool((line >= 0).all()) and torch.equal(read.sum(-1), held) and bool((held > 0).all())


def _same(values: Tensor, where: Tensor, dim: int) -> Tensor | None:
    """What `values` are along `dim` where it counts, -1 where it counts nowhere; None where they differ."""
    most = torch.where(where, values, -1).amax(dim)
    return most if bool(((values == most.unsqueeze(dim)) | ~where).all()) else None


def _repeats(table: Tensor, period: int) -> bool:
    """Whether a table is the same every so many blocks."""
    return torch.equal(table, table[:period].repeat(len(table) // period, *[1] * (table.dim() - 1)))
