"""Which weights of language models go up sharded over the DRAM banks: the same in prefill and decode, that share them.

A decode step reads each weight once, and that is what takes its time. So what is asked is a step's product, whichever
graph is compiled: TTNN, whether it takes the weight in such shards, and the estimate, whether that is faster, or so
nearly as fast that the estimate cannot tell: programs in tt-metal lay weights so then as well. A graph
that finds a weight on the device in shards reads it there. A weight that a product cannot read so is interleaved in
its graph: a second copy, of which the report says so. Where DRAM has no room for both, all lie interleaved.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.compiler.recorder import Recorder
from tt_dynamo.compiler.traced_weights import is_weight
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.graph import is_call, is_parameter
from tt_dynamo.ir.spec import Columns, Spec, Value, evaluate, shards_over_banks, spec_bytes, tiles
from tt_dynamo.lowering.matmul import linear
from tt_dynamo.lowering.memory import in_columns
from tt_dynamo.passes.place.memory import FEWEST_CORES
from tt_dynamo.report.table import size_text

PHASES = ("prefill", "decode")


class Banks:
    """The weights of one graph that lie over the DRAM banks.

    find: the weight at a spec, made of the parameters at these addresses, that is on the device; None where none is.
    """

    def __init__(self, recorder: Recorder, banks: int, find: Callable[[Spec, list[int]], object]) -> None:
        self._recorder, self._banks, self._find = recorder, banks, find
        self._answers: dict[tuple[tuple[int, ...], str], bool] = {}
        self.refused = False  # whether DRAM had no room for them beside others
        self._doubled = 0

    @property
    def notes(self) -> list[str]:
        """What the report says of the weights that were assigned last."""
        twice = f"{size_text(self._doubled)} of weights lie on the device twice: over the DRAM banks, and interleaved"
        return [twice] if self._doubled else []

    def assign(self, graph: Graph, is_interleaved: Callable[[Node], bool]) -> int:
        """Have weights that only linears read go up to the banks where that pays; returns how many.

        is_interleaved: says of a linear that TTNN refused such a weight there.
        """
        count = self._doubled = 0
        for crossing in graph.find_nodes(op="call_function", target=operators.to_device):
            spec = meta.spec.get(crossing, None)
            if spec is None or not is_weight(crossing) or len(spec.shape) != 2:
                continue
            readers = [reader for reader in crossing.users if is_call(reader, operators.linear)]
            alone = [reader for reader in readers if reader.args[1] is crossing and reader.args.count(crossing) == 1]
            if not alone or len(alone) < len(crossing.users):
                continue
            sharded = dataclasses.replace(spec, banks=self._banks)
            there = [each for each in (spec, sharded) if self._find(each, pointers_of(crossing)) is not None]
            possible = not self.refused and not any(map(is_interleaved, alone))
            if possible and (sharded in there or self._pays(spec)):
                meta.spec.set(crossing, sharded)
                count += 1
            if there and meta.spec(crossing) not in there:
                self._doubled += spec_bytes(spec)
        return count

    def _pays(self, spec: Spec) -> bool:
        question = spec.shape, spec.dtype
        if question not in self._answers:
            self._answers[question] = pays_over_banks(self._recorder, spec, self._banks)
        return self._answers[question]


def pointers_of(crossing: Node) -> list[int]:
    """The addresses of the parameters that a weight is made of."""
    constant = crossing.args[0]
    return [meta.pointer.get(node, 0) for node in (constant, *constant.all_input_nodes) if is_parameter(node)]


def pays_over_banks(recorder: Recorder, spec: Spec, banks: int) -> bool:
    """Whether a product of one row of tiles takes a weight [in, out] sharded over the banks, and is about as fast so.

    The row lies in width shards, as the stream of a decode step does; the result too, where cores share it evenly. A
    weight of one column of tiles would lie in one bank, and what is in no stream would be moved into shards for it: so
    are rows of few tiles, as those between the products of low rank.
    """
    if tiles(spec.shape)[1] == 1:
        return False
    graph = Graph()
    ttnn = recorder.into(graph)
    graph.placeholder("start")

    inner, wide = tiles(spec.shape)
    lies = Columns.over(ttnn.settings.grid_size, inner)
    gives = lies.of_width(spec.shape[1])
    is_stream = lies.columns * lies.rows >= FEWEST_CORES
    ttnn.memory = gives if is_stream and wide == gives.width * gives.columns * gives.rows else None

    def empty(shape: tuple[int, ...], dtype: str, place: Any) -> Value:
        where = {"device": ttnn.settings.device, "memory_config": place}
        made: Value = ttnn.empty(shape, dtype=getattr(ttnn, dtype), layout=ttnn.TILE_LAYOUT, **where)
        return made

    def multiply(candidate: int) -> int:
        place = evaluate(shards_over_banks(spec.shape, candidate), ttnn, None, None) if candidate else None
        there = in_columns(ttnn, lies) if is_stream else ttnn.DRAM_MEMORY_CONFIG
        row = empty((1, 1, spec.shape[0]), "bfloat16", there)
        linear(ttnn, row, empty(spec.shape, spec.dtype, place or ttnn.DRAM_MEMORY_CONFIG))
        return candidate

    with contextlib.suppress(Refused):
        asked = "weight of linear", spec.shape, spec.dtype, lies, gives
        return bool(ttnn.choose(asked, [banks, 0], multiply, costed=True))
    return False
