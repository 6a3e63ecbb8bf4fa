"""A class token stands behind the patches where convolutions read these: they begin at a tile, and nothing is shifted.

Before   t = cat([token, patches], 1);   y = f(t);   image(y[:, 1:]);   z = y * pad(patches, [0, 0, 1, 0])
After    t = cat([patches, token], 1);   y = f(t);   image(y[:, :-1]);   z = y * pad(patches, [0, 0, 0, 1])

Before   cat([y[:, :-1] + patches, y[:, -1:]], 1)     After   y + pad(patches, [0, 0, 0, 1])
Before   cat([patches, token], 1)                     After   pad(patches, [0, 0, 0, 1]) + table, of constants

Rows behind one more fill other tiles, so that all of them become rows and tiles again. What works token by token and
sums over tokens take any order. Only where nothing else reads any of these values, and images are cut from them.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.passes.movement import dim_of, is_permute, joined_along, start_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import argument, emit, is_constant
from tt_dynamo.passes.row_orders import ROW_WISE, SUMS

SOFTMAXES = (aten.softmax.int, aten._softmax.default)
TOKENS = 1  # the dimension of [batch, tokens, width] that counts tokens
TURNED = [0, 2, 1]
FRONT, BACK = [0, 0, 1, 0], [0, 0, 0, 1]


def class_token_last(graph: Graph, context: Context) -> int:
    """Move every class token that is cut off again behind its patches; returns how many joins and cuts changed."""
    changed = 0
    for node in graph.find_nodes(op="call_function", target=aten.cat.default):
        region = Region()
        if node.users and _is_join(node) and region.holds(node) and any(map(_is_of_patches, region.leaving)):
            changed += region.turn()
    if changed:
        joins = graph.find_nodes(op="call_function", target=aten.cat.default)
        changed += sum(map(_add_patches, joins))
        dead_code(graph)
        canonicalize(graph, context)
    return changed


def _is_join(node: Node) -> bool:
    """Whether a node is one token before others."""
    if not is_call(node, aten.cat.default) or len(shape_of(node)) != 3 or joined_along(node) != TOKENS - 3:
        return False
    sizes = [shape_of(part)[TOKENS] for part in node.args[0]]
    return len(sizes) == 2 and sizes[0] == 1 < sizes[1]


def _is_padding(node: Node) -> bool:
    """Whether a node is zeros in the place of one token before others."""
    if not is_call(node, aten.constant_pad_nd.default) or len(shape_of(node)) != 3:
        return False
    return node.args[1][:4] == FRONT and not any((*node.args[1][4:], *node.args[2:]))


def _is_of_patches(node: Node) -> bool:
    return is_call(node, aten.slice.Tensor) and start_of(node) == 1


class Region:
    """Values of one class token and its patches, and what cuts them: each of the same number of tokens."""

    def __init__(self) -> None:
        self.turned: dict[Node, bool] = {}  # whether tokens are the last dimension, else they are TOKENS
        self.leaving: dict[Node, None] = {}
        self.constants: dict[tuple[Node, Node], None] = {}  # that hold a row for each token, and what reads them
        self.count = 0

    def holds(self, join: Node) -> bool:
        """Add a join and all that is computed with it; whether all of that takes its tokens in any order."""
        self.count = shape_of(join)[TOKENS]
        waiting = [(join, False)]
        while waiting:
            node, turned = waiting.pop()
            if node in self.turned:
                continue
            self.turned[node] = turned
            around = self._operands(node, turned)
            if around is None:
                return False
            waiting += around
            for user in node.users:
                if self._leaves(user, node, turned):
                    self.leaving[user] = None
                elif (inside := self._inside(user, node, turned)) is not None:
                    waiting.append((user, inside))
                else:
                    return False
        products = (node for node in self.leaving if is_call(node, aten.matmul.default))
        return all(x in self.turned for node in products for x in node.args)

    def _operands(self, node: Node, turned: bool) -> list[tuple[Node, bool]] | None:
        """The operands of a value that hold tokens; None where it is not known how it was made of them."""
        if _is_join(node) or _is_padding(node):
            return []
        if is_call(node, aten.permute.default):
            return [(node.args[0], False)] if turned and list(node.args[1]) == TURNED else None
        if is_call(node, *SOFTMAXES):
            return [(node.args[0], turned)]
        if turned or not is_call(node, *ROW_WISE, aten.matmul.default):
            return None
        found = []
        for x in node.args if is_call(node, *SUMS) else node.args[:1]:
            if not isinstance(x, Node) or len(shape_of(x)) < 2 or shape_of(x)[-2] == 1:
                continue
            if is_constant(x):
                self.constants[x, node] = None
            else:
                found.append((x, False))
        return found

    def _inside(self, user: Node, node: Node, turned: bool) -> bool | None:
        """Whether what reads a value has tokens last; None where it is no such value."""
        if is_call(user, aten.permute.default):
            return True if not turned and list(user.args[1]) == TURNED else None
        if is_call(user, *SOFTMAXES):
            return turned if argument(user, 1) % 3 == (2 if turned else TOKENS) else None
        is_rows = is_call(user, *ROW_WISE, aten.matmul.default) and len(shape_of(user)) == 3 and not turned
        operands = user.args if is_call(user, *SUMS) else user.args[:1]
        is_alone = user.args.count(node) == 1 or is_call(user, *SUMS)
        is_norm = is_call(user, aten.layer_norm.default)
        keeps = not is_norm or len(user.args[1]) == 1
        fits = is_rows and node in operands and is_alone and keeps and shape_of(user)[TOKENS] == self.count
        return False if fits else None

    def _leaves(self, user: Node, node: Node, turned: bool) -> bool:
        """Whether a node cuts the token or the patches, or adds all of them up."""
        if is_call(user, aten.matmul.default):
            return node is user.args[0] if turned else node is user.args[1]
        if turned or not is_call(user, aten.slice.Tensor, aten.select.int) or dim_of(user) != TOKENS:
            return False
        start, size = start_of(user), 1 if is_call(user, aten.select.int) else shape_of(user)[TOKENS]
        return (start, size) in ((0, 1), (1, self.count - 1)) and len(user.args) < 5

    def turn(self) -> int:
        """Move the token; returns how many joins, paddings and cuts changed."""
        last = self.count - 1
        changed = 0
        for node in self.turned:
            if is_call(node, aten.cat.default):
                node.update_arg(0, [*node.args[0][::-1]])
            elif is_call(node, aten.constant_pad_nd.default):
                node.update_arg(1, BACK)
            else:
                continue
            changed += 1
        for node in self.leaving:
            if is_call(node, aten.select.int):
                node.update_arg(2, last)
            elif is_call(node, aten.slice.Tensor):
                node.args = (node.args[0], TOKENS, *((0, last) if start_of(node) else (last, self.count)))
        for x, user in self.constants:
            with user.graph.inserting_before(user):
                rest = emit(user, aten.slice.Tensor, x, -2, 1, self.count)
                first = emit(user, aten.slice.Tensor, x, -2, 0, 1)
                user.replace_input_with(x, emit(user, aten.cat.default, [rest, first], -2))
        return changed


def _add_patches(join: Node) -> bool:
    """Add what patches gain, where they and the token are cut from one value; or the token, where it is constant."""
    if len(shape_of(join)) != 3 or joined_along(join) != TOKENS - 3 or len(join.args[0]) != 2:
        return False
    patches, token = join.args[0]
    last = shape_of(patches)[TOKENS]
    if shape_of(token)[TOKENS] != 1 or is_constant(patches):
        return False
    if is_constant(token):
        with join.graph.inserting_before(join):
            table = emit(join, aten.constant_pad_nd.default, token, [0, 0, last, 0])
            padded = emit(join, aten.constant_pad_nd.default, patches, BACK)
            replace(join, emit(join, aten.add.Tensor, padded, table))
        return True
    whole = token.args[0] if is_call(token, aten.slice.Tensor) and dim_of(token) == TOKENS else None
    if whole is None or start_of(token) != last or shape_of(whole) != shape_of(join):
        return False
    turned = is_permute(patches, TURNED)  # of an image
    total = patches.args[0] if turned else patches
    total = total.args[0] if turned and is_call(total, aten.reshape.default) else total
    gain = _gain(total, whole, last, turned)
    if gain is None:
        return False
    with join.graph.inserting_before(join):
        if turned:
            batch, _, width = shape_of(join)
            gain = emit(join, aten.reshape.default, gain, [batch, width, last])
            gain = emit(join, aten.permute.default, gain, TURNED)
        padded = emit(join, aten.constant_pad_nd.default, gain, BACK)
        replace(join, emit(join, aten.add.Tensor, whole, padded))
    return True


def _gain(total: Node, whole: Node, last: int, turned: bool) -> Node | None:
    """What is added to the first tokens of `whole`, be these an image."""
    if not is_call(total, aten.add.Tensor) or total.kwargs or not all(isinstance(x, Node) for x in total.args):
        return None
    for gain, x in (total.args, total.args[::-1]):
        if turned:
            moved = x.args[0] if is_call(x, aten.reshape.default) else None
            if moved is None or not is_permute(moved, TURNED):
                continue
            x = moved.args[0]
        is_cut = is_call(x, aten.slice.Tensor) and x.args[0] is whole and dim_of(x) == TOKENS
        if is_cut and start_of(x) == 0 and shape_of(x)[TOKENS] == last and shape_of(gain) == shape_of(total):
            return gain
    return None
