"""Published times of whole models, against the sum of the calls that their authors' programs make. Nothing is fitted.

`measured/models.csv`: one a line, with its source. Encoders are block-sharded in bfloat8_b, decoders DRAM-sharded,
prefill is interleaved, as the programs in tt-metal are. What no formula covers is a constant here, set by hand in view
of these figures: embeddings and heads of encoders, the host's work in a step of a decoder.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import SimpleNamespace

from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.chip import Chip, chip_of
from tt_dynamo.estimate.published_resnet import resnet_calls
from tt_dynamo.estimate.tensor import TILE, Call, Tensor, ceil_div

ENDS = {"wormhole_b0": 400e-6, "blackhole": 200e-6}  # seconds of an encoder beside its layers
HOST = {"wormhole_b0": 3e-3, "blackhole": 2e-3}  # seconds of a decoder's step

# On all boards, for attention in decode steps as well: https://github.com/tenstorrent/tt-metal/issues/56694
GRID = SimpleNamespace(x=8, y=8)


@dataclass(frozen=True)
class Published:
    name: str
    board: str
    seconds: float
    estimated_seconds: float
    source: str


def published_models() -> list[Published]:
    """All rows of `measured/models.csv`."""
    lines = (files(__package__) / "measured" / "models.csv").read_text(encoding="utf-8").splitlines()
    return [_estimated(row) for row in csv.DictReader(lines)]


def _estimated(row: dict[str, str]) -> Published:
    grid = tuple(map(int, row["grid"].split("x")))
    chip = chip_of(row["board"], (grid[0], grid[1]))
    given: dict[str, int | str] = {}
    for pair in row["parameters"].split():
        name, text = pair.split("=")
        given[name] = int(text) if text.isdigit() else text
    estimated = KINDS[row["kind"]](chip, **given)
    return Published(row["name"], row["board"], float(row["milliseconds"]) * 1e-3, estimated, row["source"])


def resnet_seconds(chip: Chip, *, batch: int, gaps: str = "yes") -> float:
    """ResNet-50 on images of 224 x 224 pixels."""
    return _sum(list(resnet_calls(chip, batch)), chip, gaps == "yes")


def _sum(calls: Sequence[Call], chip: Chip, gaps: bool = True) -> float:
    seconds = sum(estimate(call, chip).seconds for call in calls)
    return seconds + (len(calls) * chip.k.launch_gap_ns * 1e-9 if gaps else 0.0)


def _precision(fidelity: str) -> SimpleNamespace:
    return SimpleNamespace(math_fidelity=fidelity, fp32_dest_acc_en=False, packer_l1_acc=True)


def encoder_seconds(
    chip: Chip, *, batch: int, seq: int, hidden: int, heads: int, layers: int, variant: str, gaps: str
) -> float:
    """One forward pass; variant: "sentence_bert", "bert_large" or "vit"."""
    calls = list(_encoder_layer(chip, batch, ceil_div(seq, TILE) * TILE, hidden, heads, variant))
    return layers * _sum(calls, chip, gaps == "yes") + ENDS[chip.architecture]


def _encoder_layer(chip: Chip, batch: int, seq: int, hidden: int, heads: int, variant: str) -> Iterator[Call]:
    grid = (6, 8) if variant == "sentence_bert" else chip.grid
    # The authors' attention runs on a core grid whose columns divide the heads.
    attention = chip.grid if chip.architecture == "blackhole" else ((6, 8) if variant != "bert_large" else (8, 8))
    rows = batch * seq

    def block(columns: int, cores: tuple[int, int] = grid) -> Tensor:
        return Tensor((1, 1, rows, columns), "bfloat8_b", "TILE", "L1", "BLOCK_SHARDED", cores[0] * cores[1])

    def product(k: int, n: int, fidelity: str = "LoFi", across: tuple[int, int] = grid, gelu: bool = False) -> Call:
        width = min(ceil_div(k, TILE * across[0]), 8) if across == grid else 8
        size = SimpleNamespace(x=across[0], y=across[1])
        config = SimpleNamespace(kind="2d", in0_block_w=width, compute_with_storage_grid_size=size)
        options: dict[str, object] = {"program_config": config, "compute_kernel_config": _precision(fidelity)}
        if gelu:
            options["activation"] = "gelu"
        return Call("ttnn.linear", (block(k), Tensor((k, n), "bfloat8_b")), (block(n, across),), options)

    def scores(width: int) -> Tensor:
        cores = attention[0] * attention[1]
        return Tensor((batch, heads, seq, width), "bfloat8_b", "TILE", "L1", "HEIGHT_SHARDED", cores)

    head = hidden // heads
    cores = SimpleNamespace(x=attention[0], y=attention[1])
    options = {"core_grid": cores, "compute_kernel_config": _precision("LoFi")}
    moved = Call("ttnn.reshard", (block(hidden),), (block(hidden),))
    add = Call("ttnn.add", (block(hidden), block(hidden)), (block(hidden),))
    post = variant != "vit"
    norm = Call("ttnn.layer_norm", (block(hidden),), (block(hidden),), {"residual_input_tensor": post or None})
    yield product(hidden, 3 * hidden)
    yield Call("ttnn.experimental.nlp_create_qkv_heads", (block(3 * hidden),), (scores(head),) * 3)
    yield Call("ttnn.matmul", (scores(head), scores(seq)), (scores(seq),), options)
    yield Call("ttnn.transformer.attention_softmax_", (scores(seq),), (scores(seq),))
    yield Call("ttnn.matmul", (scores(seq), scores(head)), (scores(head),), options)
    yield Call("ttnn.experimental.nlp_concat_heads", (scores(head),), (block(hidden),))
    yield product(hidden, hidden)
    yield from () if post else (add,)
    yield norm
    yield product(hidden, 4 * hidden, "HiFi2" if variant == "sentence_bert" else "LoFi", gelu=True)
    yield product(4 * hidden, hidden, across=(2, 8) if variant == "sentence_bert" else grid)
    yield from () if post else (add, Call("ttnn.multiply", (scores(seq), scores(seq)), (scores(seq),)))
    yield norm
    yield from () if variant == "bert_large" else (moved, moved)


def decoder_seconds(
    chip: Chip,
    *,
    hidden: int,
    mlp: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    layers: int,
    vocabulary: int,
    batch: int,
    context: int,
    gate_up: str = "bfloat4_b",
    gate_up_fidelity: str = "LoFi",
    down_fidelity: str = "HiFi2",
    attention_fidelity: str = "HiFi2",
    head_fidelity: str = "HiFi2",
    readers: int = 1,
) -> float:
    """One step of all users: seconds until each has a further token."""

    def row(columns: int, cores: int = 32) -> Tensor:
        return Tensor((1, 1, batch, columns), "bfloat16", "TILE", "L1", "WIDTH_SHARDED", cores)

    def product(k: int, n: int, fidelity: str, dtype: str = "bfloat8_b") -> Call:
        cores = min((c for c in range(1, 65) if (k // TILE) % c == 0), key=lambda c: abs(c - 32))
        shard = k // TILE // cores
        block = max(size for size in range(1, 9) if shard % size == 0)
        config = SimpleNamespace(kind="dram_sharded", in0_block_w=block, num_workers_per_dram_bank=readers)
        options = {"program_config": config, "compute_kernel_config": _precision(fidelity)}
        weight = Tensor((k, n), dtype, "TILE", "DRAM", "WIDTH_SHARDED", chip.banks)
        return Call("ttnn.linear", (row(k, cores), weight), (row(n, cores),), options)

    def users(count: int) -> Tensor:
        return Tensor((1, batch, count, head_dim), "bfloat16", "TILE", "L1", "HEIGHT_SHARDED", batch)

    cache = Tensor((batch, kv_heads, context, head_dim), "bfloat8_b")
    table = Tensor((1, batch, 1, head_dim), "bfloat16", "TILE", "L1", "HEIGHT_SHARDED", batch)
    attend = {"program_config": SimpleNamespace(compute_with_storage_grid_size=GRID)}
    norm = Call("ttnn.rms_norm", (row(hidden),), (row(hidden),))
    add = Call("ttnn.add", (row(hidden), row(hidden)), (row(hidden),))
    moved = Call("ttnn.reshard", (row(hidden),), (row(hidden),))
    qkv, q = (heads + 2 * kv_heads) * head_dim, heads * head_dim
    layer = [
        norm,
        product(hidden, qkv, attention_fidelity),
        Call("ttnn.experimental.nlp_create_qkv_heads_decode", (row(qkv),), (users(heads),)),
        *(Call("ttnn.experimental.rotary_embedding_llama", (users(h), table, table), (users(h),)) for h in (heads, 8)),
        *(Call("ttnn.experimental.paged_update_cache", (cache, users(kv_heads)), (cache,)),) * 2,
        Call(
            "ttnn.transformer.scaled_dot_product_attention_decode",
            (users(heads), cache, cache),
            (users(heads),),
            attend,
        ),
        Call("ttnn.experimental.nlp_concat_heads_decode", (users(heads),), (row(q),)),
        product(q, hidden, attention_fidelity),
        add,
        norm,
        product(hidden, mlp, gate_up_fidelity, gate_up),
        product(hidden, mlp, gate_up_fidelity, gate_up),
        Call("ttnn.mul", (row(mlp), row(mlp)), (row(mlp),), {"input_tensor_a_activations": ["silu"]}),
        product(mlp, hidden, down_fidelity),
        add,
        *(moved,) * 5,
    ]
    step = layers * _sum(layer, chip) + _sum([norm, product(hidden, vocabulary, head_fidelity)], chip)
    return step + HOST[chip.architecture]


def prefill_seconds(
    chip: Chip,
    *,
    hidden: int,
    mlp: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    layers: int,
    vocabulary: int,
    seq: int,
) -> float:
    """A prompt of `seq` tokens of one user: seconds until it has its first token."""
    layer = prefill_layer(hidden, mlp, heads, kv_heads, head_dim, seq)
    head = _prefill_product((TILE, hidden, vocabulary), "HiFi2", block=8)
    return layers * _sum(layer, chip) + _sum([head], chip) + HOST[chip.architecture]


def prefill_layer(hidden: int, mlp: int, heads: int, kv_heads: int, head_dim: int, seq: int) -> list[Call]:
    """The calls of one layer: tt_transformers' "performance" on 8 x 8 cores, everything interleaved in DRAM."""

    def of(count: int, dtype: str = "bfloat16") -> Tensor:
        return Tensor((1, count, seq, head_dim), dtype)

    def rows(columns: int, dtype: str = "bfloat16") -> Tensor:
        return Tensor((1, 1, seq, columns), dtype)

    q, kv, table = of(heads), of(kv_heads), of(1)
    narrow_q, narrow_kv = of(heads, "bfloat8_b"), of(kv_heads, "bfloat8_b")
    chunk = 64 if seq < 2048 else 256
    chunks = {"q_chunk_size": chunk, "k_chunk_size": chunk, "compute_with_storage_grid_size": GRID}
    attend = {"program_config": SimpleNamespace(**chunks), "compute_kernel_config": _precision("HiFi4")}
    norm = Call("ttnn.rms_norm", (rows(hidden),), (rows(hidden),))
    add = Call("ttnn.add", (rows(hidden), rows(hidden)), (rows(hidden),))
    gate_or_up = _prefill_product((seq, hidden, mlp), "LoFi", "bfloat4_b", block=8)
    silu = {"input_tensor_a_activations": ["silu"]}
    return [
        norm,
        _prefill_product((seq, hidden, (heads + 2 * kv_heads) * head_dim), "HiFi2", float32=True, block=1),
        Call("ttnn.experimental.nlp_create_qkv_heads", (rows((heads + 2 * kv_heads) * head_dim),), (q, kv, kv)),
        *(Call("ttnn.experimental.rotary_embedding_llama", (x, table, table), (x,)) for x in (q, kv)),
        *(Call("ttnn.typecast", (kv,), (narrow_kv,)), Call("ttnn.fill_cache", (narrow_kv, narrow_kv), (narrow_kv,)))
        * 2,
        Call("ttnn.typecast", (q,), (narrow_q,)),
        Call("ttnn.transformer.scaled_dot_product_attention", (narrow_q, narrow_kv, narrow_kv), (narrow_q,), attend),
        Call("ttnn.experimental.nlp_concat_heads", (narrow_q,), (rows(heads * head_dim, "bfloat8_b"),)),
        _prefill_product((seq, heads * head_dim, hidden), "HiFi2", x="bfloat8_b", float32=True, block=8),
        add,
        norm,
        gate_or_up,
        gate_or_up,
        Call("ttnn.mul", (rows(mlp), rows(mlp)), (rows(mlp, "bfloat8_b"),), silu),
        _prefill_product((seq, mlp, hidden), "HiFi2", x="bfloat8_b", block=8),
        add,
    ]


def _prefill_product(
    sizes: tuple[int, int, int],
    fidelity: str,
    weight: str = "bfloat8_b",
    *,
    block: int,
    x: str = "bfloat16",
    float32: bool = False,
) -> Call:
    """sizes: rows, and the inner and outer dimension of the weight."""
    m, k, n = sizes
    precision = SimpleNamespace(math_fidelity=fidelity, fp32_dest_acc_en=float32, packer_l1_acc=True)
    kind = "1d" if m <= TILE else "2d"
    config = SimpleNamespace(kind=kind, in0_block_w=block, compute_with_storage_grid_size=GRID)
    options = {"program_config": config, "compute_kernel_config": precision}
    return Call("ttnn.linear", (Tensor((1, 1, m, k), x), Tensor((k, n), weight)), (Tensor((1, 1, m, n)),), options)


KINDS: dict[str, Callable[..., float]] = {
    "encoder": encoder_seconds,
    "decoder": decoder_seconds,
    "prefill": prefill_seconds,
    "resnet": resnet_seconds,
}
