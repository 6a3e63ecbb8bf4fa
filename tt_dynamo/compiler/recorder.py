"""The namespace that a lowering is given at compile time: it makes each TTNN call for real and writes it down.

`recorder.linear(x, w)` (1) calls `ttnn.linear` on tensors that have the right spec and no data, (2) adds an FX node
whose target is that operation, and (3) returns a value whose shape, dtype and layout are TTNN's answer. A call that
TTNN refuses raises `Refused` with its words and is not written down, so a lowering may try one way and take another.
Objects of TTNN (enumerations, grids, configurations) are written down as the Python expression that makes them.
"""

import contextlib
import enum
import functools
import hashlib
import json
import math
import operator
import types
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch.fx import Graph, Node
from torch.fx.node import map_aggregate
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from tt_dynamo.compiler.codegen import Expression, arguments_text
from tt_dynamo.compiler.measure import peak_of_a_core
from tt_dynamo.compiler.shardings import total
from tt_dynamo.configs import CHUNKS
from tt_dynamo.estimate.calls import estimate_call
from tt_dynamo.ir import meta
from tt_dynamo.ir.errors import TTNN_ERRORS, Refused
from tt_dynamo.ir.spec import Blocks, Columns, Interleaved, Value, on_device, spec_of
from tt_dynamo.ir.torch_internals import erase, last_node, nodes_after
from tt_dynamo.ir.ttnn_internals import graph_capture, lacks_room, ttnn_reason
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering.choose import cheapest, first_accepted, search_cheapest
from tt_dynamo.tuner.tuner import Candidate

# In place of a candidate where TTNN refused all: the first alone is asked again, for its words.
NONE = "none of them"

C = TypeVar("C")
R = TypeVar("R")


def erase_after(before: Node) -> None:
    """Take back what was written down behind a node."""
    for node in reversed(list(nodes_after(before))):
        erase(node)


# Functions of TTNN that give no tensor but an object that calls take.
MAKERS = ("ShardTensor2dMesh", "ShardTensorToMesh")


class Recorder:
    """TTNN's module, or a submodule of it, whose operations write themselves down in `graph`.

    known: which expression makes which object, by the identity of the object, which it keeps alive.
    """

    def __init__(self, module: Any, graph: Graph, settings: Settings, path: str = "ttnn", known: Any = None) -> None:
        self._module, self._graph, self._path = module, graph, path
        self._known: dict[int, Expression] = {} if known is None else known
        self.settings = settings
        self.memory: Blocks | Columns | Interleaved | None = None  # where the node's result is to lie
        self.dtype: str | None = None  # the block float that it is to have, None for bfloat16
        self.weight_dtype: str | None = None  # that in which a convolution is to lay out its weight, None for bfloat16
        self.compares_shardings = False  # of convolutions, of which else the first that TTNN accepts is taken

    def into(self, graph: Graph) -> "Recorder":
        """One that writes into another graph what it records."""
        recorder = Recorder(self._module, graph, self.settings, known=self._known)
        recorder.compares_shardings = self.compares_shardings
        return recorder

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        path = f"{self._path}.{name}"
        if isinstance(found, types.ModuleType):
            result: Any = Recorder(found, self._graph, self.settings, path, self._known)
        elif _is_enumeration(found):
            result = found
        elif isinstance(found, type) or name in MAKERS:
            result = functools.partial(self._construct, found, path)
        elif callable(found):
            result = functools.partial(self.record, found, path)
        else:
            return self.note(found, path)
        setattr(self, name, result)
        return result

    def note(self, value: Any, text: str, keywords: Mapping[str, Any] | None = None) -> Any:
        """Remember the expression that stands for `value` in the program."""
        self._known.setdefault(id(value), Expression(text, value, keywords or {}))
        return value

    def made(self, value: Any) -> tuple[str, Mapping[str, Any]]:
        """The class and the keywords that made an object of TTNN."""
        return type(value).__name__, self._known[id(value)].keywords

    def _construct(self, cls: Callable[..., Any], path: str, /, *args: Any, **kwargs: Any) -> Any:
        """An object of TTNN, which is remembered with its expression."""
        positional, named = self._written((args, kwargs))
        return self.note(cls(*args, **kwargs), f"{path}({arguments_text(positional, named, {})})", kwargs)

    def _written(self, arguments: Any) -> Any:
        """Arguments with values replaced by their nodes, and objects of TTNN by the expressions that make them."""

        def written(leaf: Any) -> Any:
            if isinstance(leaf, Value):
                return leaf.node
            if isinstance(leaf, (bool, int, float, str, type(None))):
                return leaf
            if id(leaf) in self._known:
                return self._known[id(leaf)]
            if _is_enumeration(type(leaf)):
                return Expression(f"ttnn.{type(leaf).__name__}.{leaf.name}", leaf)
            raise TypeError(f"a program cannot hold {leaf!r}: make it through the ttnn namespace of the lowering")

        return tree_map(written, arguments)

    def choose(
        self,
        key: Sequence[Any],
        candidates: Sequence[C],
        call: Callable[[C], R],
        costed: bool = False,
        compared: Callable[[C], Hashable] | None = None,
    ) -> R:
        """The result of `call` for the first of the candidates that TTNN accepts; the others leave nothing behind.

        candidates: the best first. costed: all are tried, and the one counts as the best that is estimated to take the
        least time, or the first that comes within `CLOSE` of that. compared: the same among the first accepted of each
        group, whose name it gives; None where a candidate counts only if those of groups are refused.

        key: the operation's name, and the tensors and parameters on which the answer depends; what the device has free
        belongs to every key, so that a program does not depend on what was compiled before. Raises Refused, with TTNN's
        words for the first candidate, where all are refused.
        """
        path, configs = self._path_of(key[0]), self.settings.configs
        if configs is None or not configs.asks_for_cores(path):
            return self._choose(path, key, candidates, call, costed, compared)
        try:
            with configs.cores("insist"):
                return self._choose(path, key, candidates, call, costed, compared)
        except Refused as error:
            reason = str(error)
        configs.refuse_cores(path, reason)
        with configs.cores("ignore"):
            return self._choose(path, key, candidates, call, costed, compared)

    def _choose(
        self,
        path: str,
        key: Sequence[Any],
        candidates: Sequence[C],
        call: Callable[[C], R],
        costed: bool,
        compared: Callable[[C], Hashable] | None,
    ) -> R:
        """What `choose` gives, whose `key` names the operation at `path`, as the config says it."""
        own, configs = None, self.settings.configs
        if configs is not None:
            candidates, own = configs.preferred(path, candidates)
        asked, names = self._question(path, key, candidates), list(map(_text, candidates))
        chosen, count = self.settings.choices.get(asked, ("", 0))
        before = last_node(self._graph)
        tuning = None
        if costed and own is None and len(candidates) > 1 and self.settings.tuner is not None:
            tuning = self._tuning(path, asked, key, candidates, call)
            chosen = chosen if tuning is None else tuning.winner
        ordered = [candidates[names.index(chosen)], *candidates] if chosen in names else candidates
        if chosen == NONE:
            ordered = candidates[:1]
        attempt: Callable[[C], R] = call
        is_sought = chosen not in (*names, NONE) and own is None
        has_chunks = any(isinstance(each, dict) and not each.keys().isdisjoint(CHUNKS) for each in candidates)
        if is_sought and self.settings.saves_memory and (costed or has_chunks):
            ordered = self._by_bytes(candidates, call)
        elif is_sought and (costed or compared) and self.settings.searches:
            ordered, attempt = self._by_cost(candidates, call, before, compared)
        try:
            accepted, result, refused = first_accepted(ordered, attempt, (Refused,), lambda: erase_after(before))
        except Refused as error:
            if own is not None:
                self.settings.configs.refuse_chunks(path, own, error)
            elif not lacks_room(error) and (configs is None or not configs.asks_for_cores(path)):
                self.settings.choices[asked] = NONE, len(candidates)
            raise
        if refused or chosen not in names:
            chosen = _text(accepted)
            count = refused if costed or compared else names.index(chosen)
            self.settings.choices[asked] = chosen, count
        if own not in (None, accepted):
            self.settings.configs.refuse_chunks(path, own, "TTNN refused it")
        made = last_node(self._graph)
        if len(candidates) > 1 and made is not before:
            meta.choice.set(made, {"operation": key[0], "candidate": chosen, "refused": count})
            if tuning is not None and tuning.winner == chosen:
                meta.tuning.set(made, tuning)
        if isinstance(accepted, dict) and meta.path.get(made, "") == path and made in meta.config:
            meta.config(made).update({name: accepted[name] for name in CHUNKS if name in accepted})
        return result

    def _by_cost(
        self, candidates: Sequence[C], call: Callable[[C], R], before: Node, compared: Callable[[C], Hashable] | None
    ) -> tuple[list[C], Callable[[C], R]]:
        """The candidates with the best one first, and what calls one; see `search_cheapest`."""

        def undo() -> None:
            erase_after(before)

        return search_cheapest(candidates, call, lambda: self._seconds_after(before), Refused, undo, compared)

    def _by_bytes(self, candidates: Sequence[C], call: Callable[[C], Any]) -> list[C]:
        """The candidates, those first that take the fewest bytes of a core's L1.

        TTNN counts them without dispatching a call: buffers, and of attention circular buffers as well. Products write
        to DRAM and it tells no circular buffers of theirs, so they stay in their order.
        """
        before, capture, sizes = last_node(self._graph), graph_capture(self._module), []
        for candidate in candidates:
            size = math.inf
            capture.begin_graph_capture(self._module.graph.RunMode.NO_DISPATCH)
            try:
                with contextlib.suppress(Refused):
                    call(candidate)
                    size = 0
            finally:
                size += peak_of_a_core(capture.end_graph_capture())
            erase_after(before)
            sizes.append(size)
        return [candidates[at] for at in sorted(range(len(candidates)), key=sizes.__getitem__)]

    def _tuning(
        self, path: str, asked: Any, key: Sequence[Any], candidates: Sequence[C], call: Callable[[C], Any]
    ) -> Any:
        """What the tuner knows of a question, or finds out if it has a clock; None if neither."""
        tuner, before = self.settings.tuner, last_node(self._graph)
        found = tuner.find(asked, list(map(_text, candidates)))
        if found is not None or tuner.clock is None:
            return found
        tried = []
        for candidate in candidates:
            with contextlib.suppress(Refused):
                call(candidate)
                tried.append(Candidate(_text(candidate), self._seconds_after(before), Replay(nodes_after(before))))
            erase_after(before)
        if not tried:
            return None
        usual = tried[cheapest([candidate.seconds for candidate in tried])].name
        operands = {value.node: value.tensor for value in _values(key)}
        return tuner.tune(asked, path, usual, tried, operands)

    def _seconds_after(self, before: Node) -> float:
        """Estimated seconds of the kernels that were written down behind a node, and of the gaps between them."""
        return total(nodes_after(before), self.settings.chip)[0]

    def _path_of(self, name: str) -> str:
        """The operation of TTNN with a name: "ttnn.transformer.scaled_dot_product_attention"."""
        folders = ("", "transformer.", "experimental.")
        found = (f"ttnn.{folder}{name}" for folder in folders if _has(self._module, f"{folder}{name}"))
        return next(found, f"ttnn.{name}")

    def _question(self, path: str, key: Sequence[Any], candidates: Sequence[Any]) -> Any:
        """What an answer depends on; as text, which is kept on disk, unless objects without a text are part of it."""
        wanted = "memory" if self.settings.saves_memory else self.settings.searches
        asked: tuple[Any, ...] = _described(key), self.settings.grid_size, wanted, self._conditions()
        configs = self.settings.configs
        asked += configs.question(path) if configs is not None else ()
        try:
            offered = json.dumps(list(candidates)).encode()
            return f"{json.dumps(asked)} of {hashlib.sha256(offered).hexdigest()[:12]}"
        except TypeError:
            return asked

    def _conditions(self) -> tuple[Any, ...]:
        """What of the device decides beside a call itself: free L1 of a bank, and what takes L1 of its precision."""
        config = self.settings.compute_kernel_config
        l1 = self._module.get_memory_view(self.settings.device, self._module.BufferType.L1)
        free = l1.total_bytes_free_per_bank, l1.largest_contiguous_bytes_free_per_bank
        fidelities = str(config.math_fidelity), str(self.settings.weight_kernel_config.math_fidelity)
        return *free, *fidelities, config.fp32_dest_acc_en, config.packer_l1_acc, self.settings.gelu

    def record(self, function: Any, path: str, /, *args: Any, **kwargs: Any) -> Any:
        """Make the call as its config says, write it down, and wrap what it gives."""
        make = functools.partial(self._make, function, path, args)
        configs, operands = self.settings.configs, _values((args, kwargs))
        result, given, plain = configs.call(make, path, operands, kwargs) if configs else (make(kwargs), kwargs, None)
        name = path.rpartition(".")[2].rstrip("_")
        node = self._graph.call_function(function, *self._written((args, given)), name=name)
        meta.path.set(node, path)
        if configs:
            meta.config.set(node, configs.described(kwargs, given, result, operands))
        if self.settings.chip is not None:
            meta.cost.set(node, self._estimate(path, args, given, result))
            if plain is not None:
                meta.plain_cost.set(node, self._estimate(path, args, kwargs, plain))
        return self._wrap(node, result, operands)

    def _make(self, function: Any, path: str, args: Any, kwargs: Any) -> Any:
        """What TTNN gives; raises Refused with its words."""
        try:
            positional, named = _tensors((args, kwargs))
            return self.settings.attempt(functools.partial(function, *positional, **named))
        except TTNN_ERRORS as error:
            raise Refused(f"{path}: {ttnn_reason(error)}") from None

    def _estimate(self, path: str, args: Any, kwargs: Any, result: Any) -> Any:
        positional, named = _tensors((args, kwargs))
        return estimate_call(path, positional, named, result, self.settings.chip)

    def _wrap(self, node: Node, result: Any, operands: list[Value]) -> Any:
        if isinstance(result, (tuple, list)):
            return tuple(self._wrap(self._pick(node, at), part, operands) for at, part in enumerate(result))
        if hasattr(result, "memory_config"):
            if on_device(result):
                meta.spec.set(node, spec_of(result))
                meta.alias.set(node, _alias(result, operands))
            return Value(node, result)
        return result

    def _pick(self, node: Node, index: int) -> Node:
        picked = self._graph.call_function(operator.getitem, (node, index), name="part")
        meta.path.set(picked, "getitem")
        return picked


class Replay:
    """Calls that were written down, to be made again on other tensors; the nodes may be erased meanwhile."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._calls = [(node, node.target, node.args, node.kwargs) for node in nodes]

    def __call__(self, tensors: Mapping[Node, Any]) -> Any:
        """What the last call gives; tensors: of the operands, by their nodes. Raises RuntimeError as TTNN does."""
        values, result = dict(tensors), None

        def value_of(leaf: Any) -> Any:
            if isinstance(leaf, Node):
                return values[leaf]
            return leaf.value if isinstance(leaf, Expression) else leaf

        for node, function, args, kwargs in self._calls:
            positional, named = map_aggregate((args, kwargs), value_of)
            result = values[node] = function(*positional, **named)
        return result


def _values(arguments: Any) -> list[Value]:
    return [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Value)]


def _tensors(arguments: Any) -> Any:
    return tree_map_only(Value, operator.attrgetter("tensor"), arguments)


def _is_enumeration(cls: Any) -> bool:
    return isinstance(cls, type) and (issubclass(cls, enum.Enum) or hasattr(cls, "__members__"))


def _described(item: Any) -> Any:
    """What tells calls apart: of a tensor its shape, dtype, layout and memory, of a place in memory its text."""
    if isinstance(item, (Blocks, Columns, Interleaved)):
        return str(item)
    if isinstance(item, Value):
        memory = str(item.tensor.memory_config()) if on_device(item.tensor) else "HOST"
        return item.shape, str(item.dtype), str(item.layout), memory
    if isinstance(item, dict):
        item = tuple(item.items())
    return tuple(map(_described, item)) if isinstance(item, (tuple, list)) else item


def _has(module: Any, path: str) -> bool:
    folder, _, name = path.rpartition(".")
    return hasattr(getattr(module, folder, None) if folder else module, name)


def _text(candidate: Any) -> str:
    if not isinstance(candidate, dict):
        return str(candidate)
    return ", ".join(f"{name}={value}" for name, value in candidate.items()) or "as TTNN chooses"


def _alias(result: Any, operands: list[Value]) -> Node | None:
    """The operand whose buffer the result lives in; equal addresses of tensors that are both alive say so."""

    def buffer_of(tensor: Any) -> Any:
        return tensor.buffer_address(), tensor.memory_config().buffer_type

    lying = (operand for operand in operands if on_device(operand.tensor))  # others are on their way up
    return next((operand.node for operand in lying if buffer_of(operand.tensor) == buffer_of(result)), None)
