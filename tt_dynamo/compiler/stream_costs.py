"""What an operation around a residual stream is estimated to take, wherever its values lie; TTNN is not asked.

`passes/place/memory.py` compares places by these seconds. Each distinct operation is estimated once, so equal layers
take no longer than one. Which calls the lowerings choose, TTNN decides later; the best of those that it may accept
counts here, and that L1 may have no room for it does not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch.fx import Node

from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.tensor import Call, Tensor
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import aten, is_call, values_of
from tt_dynamo.ir.spec import Blocks, Columns, divisors, tiles
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering.language.decode_products import READERS
from tt_dynamo.lowering.matmul import MOST_READ
from tt_dynamo.passes.place.memory import Lies, Place
from tt_dynamo.passes.place.streams import GIVES_ANY_DTYPE, NORMS, SLICES

# Rows of queries and of keys that attention takes at once.
CHUNKS = (32, 64, 128, 256)


class Operand(NamedTuple):
    """A tensor, and where in L1 it lies, if anywhere."""

    tensor: Tensor
    place: Place | None

    @property
    def is_sharded(self) -> bool:
        return isinstance(self.place, (Blocks, Columns))

    def moved(self, place: Place | None) -> "Operand":
        return operand_at(self.tensor.shape, self.tensor.dtype, place)


def operand_at(shape: Sequence[int], dtype: str, place: Place | None) -> Operand:
    """A tensor of tiles at a place in L1, or in DRAM."""
    sharding, cores = "INTERLEAVED", 0
    if isinstance(place, (Blocks, Columns)):
        sharding = "BLOCK_SHARDED" if isinstance(place, Blocks) else "WIDTH_SHARDED"
        cores = place.columns * place.rows
    return Operand(Tensor(tuple(shape), dtype, "TILE", "L1" if place else "DRAM", sharding, cores), place)


class Way(NamedTuple):
    """A product: what it reads and writes, with what it is called, and the seconds of the moves around it."""

    x: Operand
    weight: Tensor
    out: Operand
    options: dict[str, Any]
    moves: float = 0.0


class StreamCosts:
    """Estimated seconds of nodes on the device whose settings these are."""

    def __init__(self, settings: Settings) -> None:
        self._chip, self._settings = settings.chip, settings
        self.known: dict[Any, float] = {}

    def __call__(self, node: Node, lies: Lies, is_copied: bool = False) -> float:
        """What a node takes, what is moved for it included; infinite where TTNN refuses it.

        is_copied: whether somebody reads a copy of its result in DRAM.
        """
        operands = [self._operand(x, lies) for x in node.args if isinstance(x, Node)]
        results = [operand_at(tuple(value.shape), lies(node)[1], lies(node)[0]) for value in values_of(node)]
        others = str([x for x in node.args if not isinstance(x, Node)])
        question = (node.target, others, is_copied, *operands, *results)
        if question not in self.known:
            seconds = self._seconds(node, operands, results) + self._casts(node, operands, results)
            copies = is_copied and results[0].is_sharded
            self.known[question] = seconds + (self._move(results[0], None) if copies else 0.0)
        return self.known[question]

    def _operand(self, node: Node, lies: Lies) -> Operand:
        place, dtype = lies(node)
        dtype = meta.spec(node).dtype if is_call(node, operators.to_device) and node in meta.spec else dtype
        return operand_at(tuple(values_of(node)[0].shape), dtype, place)

    def _seconds(self, node: Node, operands: list[Operand], results: list[Operand]) -> float:
        out = results[0]
        if node.target is operators.linear:
            return self._linear(operands[0], operands[1].tensor, out, *map(str, node.args[3:]))
        if node.target is operators.gated_linear:
            given = {"fuse_swiglu": True, "compute_kernel_config": self._settings.weight_kernel_config}
            return self._call("experimental.minimal_matmul", operands, [out], **given)
        if node.target in NORMS:
            return self._norm(node, operands, out)
        if node.target is operators.attention:
            return self._attention(node, operands, out)
        if node.target is aten.reshape.default:
            is_view = operands[0].tensor.shape[-2:] == out.tensor.shape[-2:]
            return 0.0 if is_view else self._call("reshape", operands, results)
        if node.target is operators.split_heads:
            kernel = "nlp_create_qkv_heads_vit" if operands[0].is_sharded else "nlp_create_qkv_heads"
            return self._call(f"experimental.{kernel}", operands, results)
        if is_call(node, *SLICES):
            return self._call("slice", operands, results)
        if node.target is operators.activated_product:
            return self._call("multiply", operands, results, input_tensor_a_activations=[node.args[2]])
        if node.target is operators.scaled_sum:
            return self._call("add", operands, results, activations=["scale"])
        return self._call(node.target._schema.name.partition("::")[2], operands, results)

    def _call(self, name: str, operands: Sequence[Operand], results: Sequence[Operand], **options: Any) -> float:
        inputs, outputs = ([x.tensor for x in group] for group in (operands, results))
        return estimate(Call(f"ttnn.{name}", inputs, outputs, options), self._chip).seconds

    def _move(self, x: Operand, place: Place | None) -> float:
        """A move of x to where it does not lie yet, and the gap before one kernel more."""
        if x.place == place:
            return 0.0
        there = operand_at(x.tensor.shape, x.tensor.dtype if place else "bfloat16", place)
        return self._call("to_memory_config", [x], [there]) + self._chip.launch_gap_seconds

    def _casts(self, node: Node, operands: Sequence[Operand], results: Sequence[Operand]) -> float:
        """Of results in another dtype than the first operand's, unless the operation itself gives any."""
        if node.target in GIVES_ANY_DTYPE:
            return 0.0
        cast = [x for x in results if x.tensor.dtype != operands[0].tensor.dtype]
        return sum(self._call("typecast", [x], [x]) + self._chip.launch_gap_seconds for x in cast)

    def _norm(self, node: Node, operands: Sequence[Operand], out: Operand) -> float:
        """Of shards into shards, to which operands are moved; but what is interleaved may be written to blocks."""
        name = "rms_norm" if node.target is operators.rms_norm else "layer_norm"
        rows = operands[: NORMS[node.target]]
        residual = {"residual_input_tensor": True} if len(rows) > 1 else {}
        ways = []
        if not any(x.is_sharded for x in rows) and not isinstance(out.place, Columns):
            ways.append(self._call(name, rows, [out], **residual))
        high, wide = tiles(out.tensor.shape)
        lies = out.place if out.is_sharded else Columns.over(self._settings.grid_size, wide) if high == 1 else None
        if lies is not None and (ways == [] or isinstance(lies, Columns)):
            moves = sum(self._move(x, lies) for x in rows if not x.is_sharded)
            there = [x if x.is_sharded else x.moved(lies) for x in rows]
            back = 0.0 if out.is_sharded else self._move(out.moved(lies), None)
            ways.append(moves + self._call(name, there, [out.moved(lies)], **residual) + back)
        return min(ways)

    def _attention(self, node: Node, operands: Sequence[Operand], out: Operand) -> float:
        def attend(q: int, k: int) -> float:
            options = {"is_causal": node.args[4], "compute_kernel_config": self._settings.compute_kernel_config}
            options["program_config"] = SimpleNamespace(q_chunk_size=q, k_chunk_size=k)
            return self._call("transformer.scaled_dot_product_attention", operands, [out], **options)

        return min(attend(q, k) for q in CHUNKS for k in CHUNKS)

    def _linear(self, x: Operand, weight: Tensor, out: Operand, activation: str = "") -> float:
        given = {"compute_kernel_config": self._settings.weight_kernel_config}
        if activation:
            accurate = "" if self._settings.gelu == "FastLut" else " params=[0]"
            given["activation"] = activation + accurate
        is_row = tiles(x.tensor.shape)[0] == 1
        ways = (self._ways_of_row if is_row else self._ways)(x, weight, out)
        costs = [
            self._call("linear", [way.x, Operand(way.weight, None)], [way.out], **given, **way.options) + way.moves
            for way in ways
        ]
        return min(costs, default=math.inf)

    def _ways(self, x: Operand, weight: Tensor, out: Operand) -> Iterator[Way]:
        """Of many rows: on the cores of the shards that it reads and writes, which must be the same; else on all.

        L1 has little room beside shards, so one that writes them counts as if it read no deeper than from shards.
        """
        grids = {(lies.columns, lies.rows) for lies in (x.place, out.place) if isinstance(lies, Blocks)}
        grid = min(grids, default=self._settings.grid_size)
        depth = MOST_READ
        if isinstance(x.place, Blocks):
            depth = x.place.width
        elif grids:
            depth = max(1, min(depth, weight.rows // grid[0]))
        else:
            yield Way(x, weight, out, {"core_grid": _size(grid)})
        if len(grids) < 2:
            yield Way(x, weight, out, _program("2d", divisors(weight.rows, depth)[0], grid))

    def _ways_of_row(self, x: Operand, weight: Tensor, out: Operand) -> Iterator[Way]:
        """Of one row of tiles: by all cores, by those on which the result is to lie, or by those beside DRAM banks."""
        grid, depth = self._settings.grid_size, divisors(weight.rows, MOST_READ)[0]
        in_dram = out.moved(None)
        yield Way(x, weight, in_dram, _program("1d", depth, grid), self._move(in_dram, out.place))
        if isinstance(out.place, Columns):
            yield Way(x, weight, out, _program("1d", depth, (out.place.columns, out.place.rows)))
        lies = x.place
        if not isinstance(lies, Columns) or weight.rows % (lies.columns * lies.rows):
            lies = Columns.over(grid, weight.rows)
        written = out if isinstance(out.place, Columns) else out.moved(lies.of_width(out.tensor.shape[-1]))
        moves = self._move(x, lies) + self._move(written, out.place)
        banks = replace(weight, sharding="WIDTH_SHARDED", cores=self._chip.banks)
        for readers in READERS if self._chip.architecture == "blackhole" else READERS[:1]:
            program = _program("dram_sharded", lies.blocks()[0], grid, readers)
            yield Way(x.moved(lies), banks, written, program, moves)


def _size(grid: tuple[int, int]) -> SimpleNamespace:
    return SimpleNamespace(x=grid[0], y=grid[1])


def _program(kind: str, depth: int, grid: tuple[int, int], readers: int = 1) -> dict[str, Any]:
    """A program config as the estimate reads it; depth: tiles of the inner dimension at once."""
    sizes = {"in0_block_w": depth, "compute_with_storage_grid_size": _size(grid), "num_workers_per_dram_bank": readers}
    return {"program_config": SimpleNamespace(kind=kind, **sizes)}
