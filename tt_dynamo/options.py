"""What a user may pass as `torch.compile(model, backend="ttnn", options={...})`.

Options are checked before anything is compiled: an unknown name or value raises with the nearest valid one.
"""

import dataclasses
import functools
import importlib.resources
import json
import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from tt_dynamo.configs import WEIGHT_DTYPES as WEIGHT_DTYPES
from tt_dynamo.configs import Rule, parse_configs
from tt_dynamo.ir.errors import OptionError as OptionError
from tt_dynamo.ir.errors import require_one_of

T = TypeVar("T")

# By README's rule: PCC >= 0.999 on the benchmarks' encoders and convolutional networks, and the tales' greedy tokens.
DEFAULT_PRESET = "balanced"
# Of a graph whose gradients are asked for: weights that are trained keep their bits.
TRAINING_PRESET = "accuracy"
CACHED = True  # whether compiled programs are kept unless the option `cache` says

TILE = 32
BUCKETS = f'None, "auto" or a list of lengths, multiples of {TILE} (the rows of a tile)'

# torch.compile's modes, and what this backend does instead of what torch's own does.
MODES = {
    "default": "",
    "lite": "nothing is left to eager torch that TTNN takes, as in the default mode",
    "reduce-overhead": "there are no CUDA graphs here; the program is that of the default mode",
    "max-autotune": "no kernels are timed by a mode, the option tune does that",
    "max-autotune-no-cudagraphs": "no kernels are timed by a mode, the option tune does that",
}


@functools.cache
def presets() -> dict[str, dict[str, Any]]:
    """The options of each preset of `presets.json`, by its name."""
    text = importlib.resources.files("tt_dynamo").joinpath("presets.json").read_text("utf-8")
    return {name: preset["options"] for name, preset in json.loads(text).items()}


def matching(names: Iterable[str], given: T | tuple[tuple[str, T], ...], default: T) -> T:
    """An option's value for what has these names: the one for all, or that of the first pattern that fits a name."""
    if not isinstance(given, tuple):
        return given
    names = tuple(names)
    return next((value for pattern, value in given if any(fnmatchcase(name, pattern) for name in names)), default)


def _may_be_folder(given: object) -> bool:
    return given is None or isinstance(given, (str, os.PathLike))


def _is_count(given: object) -> bool:
    return isinstance(given, int) and given > 0


def _is_parts(given: object) -> bool:
    return type(given) is int and given > 0


def _is_plan(given: object) -> bool:
    pairs = given if isinstance(given, tuple) else ()
    are_texts = all(isinstance(pair, tuple) and [type(text) for text in pair] == [str, str] for pair in pairs)
    return given is False or given == "auto" or (bool(pairs) and are_texts)


def _are_buckets(given: object) -> bool:
    if not isinstance(given, tuple):
        return given is None or given == "auto"
    return bool(given) and all(_is_count(length) and length % TILE == 0 for length in given)


def _one_of(*words: str) -> Any:
    """An option that is one of these words, at first the first."""
    return dataclasses.field(default=words[0], metadata={"words": words})


@dataclasses.dataclass(frozen=True)
class Options:
    """How one model is compiled.

    device: "auto" (hardware where there is some, else an emulated N150), "hardware", a board name, or an open ttnn
        device or mesh, which stays the user's to close.
    dry_run: an emulated device computes no values; outputs have undefined contents. Measures dispatch and memory.
    dump: folder for graphs, programs, weights, reports and drawings; the environment's TT_DYNAMO_DUMP by default.
    program: folder of a dump whose programs, which may have been edited, run in place of those generated.
    fallback: "torch" runs what TTNN refuses in eager torch; "error" raises FallbackError instead.
    placement: where moves of data, casts and integers run: "fewest_bytes" where the fewest cross, "device" there.
    disable_passes: names of optional passes (`tt_dynamo.passes.OPTIONAL`) to leave out.
    optimize: "latency" keeps residual streams in L1, in block shards over the cores, where they fit; "off" leaves every
        value interleaved in DRAM that no operation of TTNN puts elsewhere. "memory" does that, too, and takes of
        several norms and attentions the one that takes the fewest bytes of a core's L1.
    tune: time the calls of which several are estimated to be about the fastest, and keep what was found for later
        compilations, which prefer it; on an emulated board the estimate is the clock. Forced on by the environment's
        TT_DYNAMO_TUNE.
    math_fidelity: "LoFi", "HiFi2", "HiFi3" or "HiFi4" for matrix products and norms on the device; "auto" is the
        highest that is right with the accumulation chosen (`lowering/workarounds.py`). "LoFi" is for linear layers and
        convolutions; everything else runs in HiFi2 then.
    fp32_accumulation: accumulate in float32 (`fp32_dest_acc_en`), or a mapping of name patterns to that, of which the
        first that fits counts: {"*.self_attn*": True, "*": False}. A pattern is held against the module of an operation
        and the modules whose parameters it reads; what fits none accumulates in float32.
    gelu: "Accurate", or "FastLut" for the GELU of linear layers from a table of six straight lines, of which each is
        within 0.025: TTNN's `GeluVariant`.
    weight_dtype: "bfloat16", "bfloat8_b" or "bfloat4_b" for the weights of matrix products, or a mapping of name
        patterns to them, of which the first that fits counts: {"*.mlp.*": "bfloat4_b", "*": "bfloat8_b"}. A pattern
        (`fnmatch`) is held against the parameter's name in the model and the name of its module.
    cache_dtype: the same three for KV caches.
    outputs: "host" brings the results of each call down. "device" leaves those that end on the device there, as tensors
        which are fetched when torch first reads them, so that what another compiled model takes crosses nothing. Each
        holds its memory on the device while it lives. Graphs whose gradients are asked for bring theirs down.
    activation_dtype: "bfloat16" or "bfloat8_b" for the residual streams of encoders and decode steps that `optimize`
        keeps in L1, for what lies between their linears, and for the heads of encoders. Prompts that fill KV caches
        keep bfloat16.
    configs: what calls of TTNN are made with, by patterns of modules and operations, see `tt_dynamo.configs`.
    weight_cache: folder that keeps weights as they lie on the device, for the next process to upload as they are.
    weight_cache_limit: bytes of that folder; the least recently used files go where it has more.
    trace: True captures what a program has the device do at its second call, and replays it from then on: the host
        writes the inputs and reads the results. What no trace can hold runs without, with a warning; "auto" tells the
        report alone. False by default: what is allocated on the device around this backend, as by a user who opened it,
        may be overwritten by a replay.
    queues: 2 has the inputs of traced programs written by a command queue of their own, while the call before still
        runs. With outputs "device" their results come down as well, but are waited for where they are read. Programs
        without a trace take one queue, which the report notes.
    cache: whether compiled programs are kept for later processes, and taken from those that were (`cache_info`).
    warn_after_shapes: how many input shapes one graph may specialize for before a warning says so.
    prompt_buckets: None, "auto", or lengths, multiples of 32. A graph of token ids whose length varies is compiled for
        the next of them, with "auto" for the next power of two from 32: prompts are padded at the end, results cut, and
        many lengths share a few programs. What is longer than the largest, and a graph of which padding might change a
        result, are compiled for each length.
    tensor_parallel: on a mesh of chips, how layers are spread over them: "auto" takes the plan of a transformers class
        or derives one, a mapping of module patterns to "colwise" or "rowwise" is one, False spreads none.
    data_parallel: into how many parts a batch is split; None lets the other chips share it where no plan fits.
    mode: that of `torch.compile`, of which all give the same program.
    preset: values of the options of precision together, as `presets.json` has them; options given by themselves
        override them. Without one, graphs whose gradients are asked for take "accuracy", all others "balanced".
    chosen: the names of the options that were given.
    """

    device: Any = "auto"
    dry_run: bool = False
    dump: str | os.PathLike[str] | None = None
    program: str | os.PathLike[str] | None = None
    fallback: str = _one_of("torch", "error")
    placement: str = _one_of("fewest_bytes", "device")
    disable_passes: tuple[str, ...] = ()
    optimize: str = _one_of("latency", "memory", "off")
    tune: bool = False
    math_fidelity: str = _one_of("auto", "LoFi", "HiFi2", "HiFi3", "HiFi4")
    fp32_accumulation: bool | tuple[tuple[str, bool], ...] = True
    gelu: str = _one_of("Accurate", "FastLut")
    weight_dtype: str | tuple[tuple[str, str], ...] = "bfloat16"
    cache_dtype: str = _one_of(*WEIGHT_DTYPES)
    outputs: str = _one_of("host", "device")
    activation_dtype: str = _one_of("bfloat16", "bfloat8_b")
    configs: tuple[Rule, ...] = ()
    weight_cache: str | os.PathLike[str] | None = None
    weight_cache_limit: int = 1 << 36
    trace: bool | str = False
    queues: int = 1
    cache: bool = True
    warn_after_shapes: int = 4
    prompt_buckets: str | tuple[int, ...] | None = None
    tensor_parallel: bool | str | tuple[tuple[str, str], ...] = "auto"
    data_parallel: int | None = None
    mode: str = _one_of(*MODES)
    preset: str = TRAINING_PRESET
    chosen: frozenset[str] = dataclasses.field(default=frozenset(), compare=False, metadata={"internal": True})

    @property
    def notes(self) -> list[str]:
        """What a user may want to know of these options."""
        notes = [f"mode {self.mode!r}: {MODES[self.mode]}"] if MODES[self.mode] else []
        if "preset" in self.chosen and self.preset != DEFAULT_PRESET:
            values = {name: getattr(self, name) for name in presets()[self.preset]}
            texts = (f"{name} {dict(value) if isinstance(value, tuple) else value}" for name, value in values.items())
            notes.append(f"preset {self.preset!r}: {', '.join(texts)}")
        return notes

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> "Options":
        """The options of a `torch.compile` call; raises OptionError for an unknown name or value."""
        given = dict(given or {})
        chosen = frozenset(given)
        given.setdefault("cache", CACHED)
        preset = given.setdefault("preset", DEFAULT_PRESET)
        require_one_of("preset", preset, presets())
        given = {**presets()[preset], **given}
        known = sorted(field.name for field in dataclasses.fields(cls) if "internal" not in field.metadata)
        for name in given:
            require_one_of("option", name, known)
        if isinstance(given.get("disable_passes"), (list, set, frozenset)):
            given["disable_passes"] = tuple(sorted(given["disable_passes"]))
        for name in ("weight_dtype", "fp32_accumulation", "tensor_parallel"):
            if isinstance(given.get(name), Mapping):
                given[name] = tuple(given[name].items())
        if isinstance(given.get("prompt_buckets"), Iterable) and not isinstance(given["prompt_buckets"], str):
            given["prompt_buckets"] = tuple(given["prompt_buckets"])
        if "configs" in given:
            given["configs"] = parse_configs(given["configs"])
        if given.get("dump") is None:
            given["dump"] = os.environ.get("TT_DYNAMO_DUMP") or None
        if os.environ.get("TT_DYNAMO_TUNE"):
            given["tune"] = True
        return cls(**given, chosen=chosen)

    def for_gradients(self) -> "Options":
        """These options for a graph whose gradients are asked for: those of `TRAINING_PRESET` but what was chosen."""
        if "preset" in self.chosen:
            return dataclasses.replace(self, outputs="host")
        kept = {name: value for name, value in presets()[TRAINING_PRESET].items() if name not in self.chosen}
        return dataclasses.replace(self, preset=TRAINING_PRESET, outputs="host", **kept)

    def __post_init__(self) -> None:
        from tt_dynamo.devices import CHOICES

        for field in dataclasses.fields(self):
            if "words" in field.metadata:
                require_one_of(field.name, getattr(self, field.name), field.metadata["words"])
        if isinstance(self.device, str):
            require_one_of("device", self.device.partition(":")[0], CHOICES)
        for dtype in self._by_patterns("weight_dtype", "dtypes"):
            require_one_of("weight_dtype", dtype, WEIGHT_DTYPES)
        are_switches = all(isinstance(x, bool) for x in self._by_patterns("fp32_accumulation", "True or False"))
        for name, is_valid, expected in (
            ("dry_run", isinstance(self.dry_run, bool), "True or False"),
            ("trace", isinstance(self.trace, bool) or self.trace == "auto", 'True, "auto" or False'),
            ("queues", type(self.queues) is int and self.queues in (1, 2), "1 or 2"),
            ("tune", isinstance(self.tune, bool), "True or False"),
            ("cache", isinstance(self.cache, bool), "True or False"),
            ("fp32_accumulation", are_switches, "True or False, or a mapping of name patterns to them"),
            (
                "tensor_parallel",
                _is_plan(self.tensor_parallel),
                '"auto", False or a mapping of module patterns to styles',
            ),
            (
                "data_parallel",
                self.data_parallel is None or type(self.data_parallel) is int and self.data_parallel > 0,
                "None or a positive int",
            ),
            ("warn_after_shapes", _is_count(self.warn_after_shapes), "a positive int"),
            ("prompt_buckets", _are_buckets(self.prompt_buckets), BUCKETS),
            ("weight_cache_limit", _is_count(self.weight_cache_limit), "a positive int, of bytes"),
            ("dump", _may_be_folder(self.dump), "the path of a folder"),
            ("program", _may_be_folder(self.program), "the path of a folder"),
            ("weight_cache", _may_be_folder(self.weight_cache), "the path of a folder"),
            ("disable_passes", isinstance(self.disable_passes, tuple), "a list of pass names"),
        ):
            if not is_valid:
                raise OptionError(f"option {name!r} is {expected}, not {getattr(self, name)!r}")
        if self.disable_passes:
            from tt_dynamo.passes import OPTIONAL  # all of them, which a program from the cache does without

            for name in self.disable_passes:
                require_one_of("pass", name, OPTIONAL)

    def _by_patterns(self, name: str, what: str) -> list[Any]:
        """The values of an option that may be a mapping; raises OptionError where a key is no pattern."""
        given = getattr(self, name)
        for pattern, _ in given if isinstance(given, tuple) else ():
            if not isinstance(pattern, str):
                raise OptionError(f"option {name!r} maps name patterns to {what}; {pattern!r} is no pattern")
        return [value for _, value in given] if isinstance(given, tuple) else [given]
