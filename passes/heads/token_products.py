"""Linear attention of all heads at once, on tokens as they lie: heads are blocks of one matrix.

Before   q, k, v = heads(linear(x, w))                                               [batch, heads, seq, head_dim]
         y = merge(matmul(q, matmul(permute(softmax(k, 2)), v)) * scale + …)
After    q, k, v = linears(x)                                                        [batch, seq, heads * head_dim]
         y = matmul(q, matmul(softmax(permute(k), 2), v) * blocks) + …

The product of keys and values is [head_dim, head_dim] for each head, so that of all columns holds every head's on its
diagonal; `blocks` holds the scale there and zeros elsewhere. Heads of few columns fill no tiles: to create and merge
them moves all tokens, and slices, padding and images of the same tokens move them again. Whatever works on elements or
tokens may stand between, as the convolutions of CoaT do.
Source: Xu et al. 2021, Co-Scale Conv-Attentional Image Transformers, https://arxiv.org/abs/2104.06399
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.fuse.linears import has_own_weights, take_columns
from tt_dynamo.passes.movement import head_columns, is_permute, merges_heads, source_of, start_of
from tt_dynamo.passes.rewrite import argument, emit
from tt_dynamo.passes.rows import literal

ELEMENTWISE = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)
SOFTMAXES = (aten.softmax.int, aten._softmax.default)
TOKENS = 2  # the dimension of heads [batch, heads, seq, head_dim] that counts tokens
TURNED = [0, 1, 3, 2]


def join_token_products(graph: Graph, context: Context) -> int:
    """Rewrite every such product whose heads are merged; returns how many."""
    joined = 0
    for node in list(graph.nodes):
        if not node.users or not is_call(node, aten.reshape.default):
            continue
        heads = source_of(node)
        if len(shape_of(heads)) != 4 or not merges_heads(node, context):
            continue
        tokens = Tokens(context)
        made = tokens.of(heads)
        if made is not None and tokens.products:
            with node.graph.inserting_before(node):
                merged = shape_of(node)
                replace(node, made if shape_of(made) == merged else emit(node, aten.reshape.default, made, [*merged]))
            tokens.replace_images()
            joined += tokens.products
        dead_code(graph)
    return joined


class Tokens:
    """Values of heads [batch, heads, seq, head_dim] as tokens [batch, seq, heads * head_dim], each behind its heads."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.known: dict[Node, Node | None] = {}
        self.products = 0

    def of(self, x: Node) -> Node | None:
        """x as tokens; None where it is more than what `RULES` name."""
        if x not in self.known:
            rule = RULES.get(x.target) if len(shape_of(x)) == 4 else None
            with x.graph.inserting_before(x.next):
                self.known[x] = self._projected(x) or (rule(self, x) if rule else None)
        return self.known[x]

    def _projected(self, x: Node) -> Node | None:
        """Heads as the columns of a linear of their own."""
        linear = source_of(x)
        columns = head_columns(x, self.context) if linear is not x and has_own_weights(linear) else None
        if columns is None or len(shape_of(linear)) != 3:
            return None
        return emit(x, operators.linear, linear.args[0], *take_columns(linear, columns.reshape(-1)))

    def elementwise(self, node: Node) -> Node | None:
        """Heads of one shape, or numbers; a scale goes into the blocks of a product that nothing else reads."""
        first, second = node.args
        if is_call(node, aten.mul.Tensor) and isinstance(second, float) and only_user(first) is node:
            product = self.product(first, second)
            if product is not None:
                return product
        operands = [self.of(x) if isinstance(x, Node) else x for x in node.args]
        alike = all(shape_of(x) == shape_of(node) for x in node.args if isinstance(x, Node))
        return emit(node, node.target, *operands, **node.kwargs) if alike and None not in operands else None

    def softmax(self, node: Node) -> Node | None:
        """Over the tokens."""
        x = self.of(node.args[0]) if argument(node, 1) % 4 == TOKENS else None
        return x and emit(node, node.target, x, 1, *node.args[2:], **node.kwargs)

    def slice(self, node: Node) -> Node | None:
        """Some tokens."""
        x = self.of(node.args[0]) if argument(node, 1, 0) % 4 == TOKENS else None
        return x and emit(node, node.target, x, 1, *node.args[2:])

    def pad(self, node: Node) -> Node | None:
        """Zeros beside tokens; where a product reads tokens of which as many were cut off, it reads all of them."""
        x, sides, *value = node.args
        if any(value) or len(sides) < 4 or any(sides[:2]) or any(sides[4:]):
            return None
        for cut, other in (x.args, x.args[::-1]) if is_call(x, aten.mul.Tensor) else ():
            if isinstance(other, Node) and shape_of(other) == shape_of(cut) and _is_cut_by(cut, node):
                operands = self.of(cut.args[0]), self._padded(other, sides, node)
                return None if None in operands else emit(node, aten.mul.Tensor, *operands)
        return self._padded(x, sides, node)

    def _padded(self, x: Node, sides: list[int], node: Node) -> Node | None:
        tokens = self.of(x)
        return tokens and emit(node, aten.constant_pad_nd.default, tokens, [0, 0, *sides[2:4]])

    def image(self, node: Node) -> Node | None:
        """Heads of an image's channels: [batch, heads, head_dim, pixels] with the last two exchanged."""
        x, order = node.args
        image = x.args[0] if is_call(x, aten.reshape.default) and list(order) == TURNED else None
        batch, heads, pixels, head_dim = shape_of(node)
        if image is None or shape_of(image)[:2] != (batch, heads * head_dim):
            return None
        flat = emit(node, aten.reshape.default, image, [batch, heads * head_dim, pixels])
        return emit(node, aten.permute.default, flat, [0, 2, 1])

    def product(self, node: Node, scale: float = 1.0) -> Node | None:
        """matmul(q, matmul(kᵀ, v)) by the blocks of one matrix."""
        if not is_call(node, aten.matmul.default) or not is_call(node.args[1], aten.matmul.default):
            return None
        query, inner = node.args
        turned, value = inner.args
        if not is_permute(turned, TURNED):
            return None
        key = turned.args[0]
        is_soft = is_call(key, *SOFTMAXES) and argument(key, 1) % 4 == TOKENS and dtype_of(key) == dtype_of(key.args[0])
        q, k, v = operands = [self.of(x) for x in (query, key.args[0] if is_soft else key, value)]
        batch, heads, _, head_dim = shape_of(node)
        if None in operands or any(shape_of(x)[::2] != (batch, heads * head_dim) for x in operands):
            return None
        keys = emit(node, aten.permute.default, k, [0, 2, 1])
        keys = emit(node, key.target, keys, 2, *key.args[2:], **key.kwargs) if is_soft else keys
        blocks = torch.block_diag(*[torch.full((head_dim, head_dim), scale, dtype=dtype_of(node))] * heads)
        inner = emit(node, aten.mul.Tensor, emit(node, aten.matmul.default, keys, v), literal(node, blocks))
        self.products += 1
        return emit(node, aten.matmul.default, q, inner)

    def replace_images(self) -> None:
        """Have images [batch, heads * head_dim, …] of heads that are known as tokens be made of those."""
        for x in [x for x, tokens in self.known.items() if tokens is not None]:
            for cut in [x, *(user for user in x.users if is_call(user, aten.slice.Tensor))]:
                for turned in [user for user in cut.users if is_call(user, aten.permute.default)]:
                    if list(turned.args[1]) == TURNED:
                        self._replace_images(cut, turned)

    def _replace_images(self, heads: Node, turned: Node) -> None:
        batch, count, _, head_dim = shape_of(heads)
        for image in [user for user in turned.users if is_call(user, aten.reshape.default)]:
            tokens = self.of(heads) if shape_of(image)[:2] == (batch, count * head_dim) else None
            if tokens is not None:
                with image.graph.inserting_before(image):
                    channels = emit(image, aten.permute.default, tokens, [0, 2, 1])
                    replace(image, emit(image, aten.reshape.default, channels, list(shape_of(image))))


def _is_cut_by(cut: Any, pad: Node) -> bool:
    """Whether a slice of tokens leaves out those in whose place the padding stands."""
    if not is_call(cut, aten.slice.Tensor) or argument(cut, 1, 0) % 4 != TOKENS or argument(cut, 4, 1) != 1:
        return False
    return start_of(cut) == pad.args[1][2] and shape_of(cut.args[0]) == shape_of(pad)


RULES: dict[Any, Callable[[Tokens, Node], Node | None]] = {
    **dict.fromkeys(ELEMENTWISE, Tokens.elementwise),
    **dict.fromkeys(SOFTMAXES, Tokens.softmax),
    aten.slice.Tensor: Tokens.slice,
    aten.constant_pad_nd.default: Tokens.pad,
    aten.permute.default: Tokens.image,
    aten.matmul.default: Tokens.product,
}
