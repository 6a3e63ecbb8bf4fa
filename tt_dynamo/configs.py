"""The format of the option `configs`: what calls of TTNN are to be made with, by patterns of these calls.

{"encoder.layer.0.*": {"fidelity": "HiFi2"}, "ttnn.softmax@decode@n150": {"memory": "L1"}}

A key is a pattern (`fnmatch`), followed by @prefill, @decode or @forward, and by @ and a board, where it holds for
these alone. The pattern is held against the module path of a call, the modules whose parameters it reads, and its
operation. One with a colon is held against module path and operation, "encoder.layer.0.attention:ttnn.linear", and
against these with the node, "encoder.layer.0.attention:ttnn.linear:linear_3". Of each field the first key that fits
counts. `default_configs.json` has the same format, and its keys come last.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from tt_dynamo.ir.errors import OptionError, require_one_of

WEIGHT_DTYPES = ("bfloat16", "bfloat8_b", "bfloat4_b")  # 16, 8.5 and 4.5 bits an element
CHUNKS = ("q_chunk_size", "k_chunk_size")  # of attention, in rows
PHASES = ("prefill", "decode", "forward")
TILE = 32


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a config: the words it is one of, or else a check and what it expects."""

    words: tuple[str, ...] = ()
    check: Callable[[Any], bool] = lambda value: isinstance(value, bool)
    expected: str = "True or False"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value))


def _is_chunk(value: Any) -> bool:
    return _is_count(value) and value % TILE == 0


def _are_chunks(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_is_chunk, value))


_COUNT = Field(check=_is_count, expected="a positive int")
_CHUNK = Field(check=_is_chunk, expected="a positive multiple of 32")
FIELDS = {
    "fidelity": Field(("LoFi", "HiFi2", "HiFi3", "HiFi4")),
    "fp32_accumulation": Field(),
    "weight_dtype": Field(WEIGHT_DTYPES),
    "memory": Field(("DRAM", "L1")),
    "grid": Field(check=_is_pair, expected="two positive ints: columns and rows of cores"),
    "in0_block_w": _COUNT,
    "q_chunk_size": _CHUNK,
    "k_chunk_size": _CHUNK,
    "chunk_sizes": Field(check=_are_chunks, expected="a list of positive multiples of 32"),
    "strict": Field(),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One key of the mapping with its fields; phase and board are "" where it holds for all."""

    key: str
    pattern: str
    phase: str
    board: str
    fields: tuple[tuple[str, Any], ...]

    @property
    def operation(self) -> str:
        """The operation of TTNN that the pattern names, "" where it names none."""
        return next((part for part in self.pattern.split(":") if part.startswith("ttnn.")), "")


def parse_configs(given: Any) -> tuple[Rule, ...]:
    """The rules of a mapping; raises OptionError for an unknown word or value."""
    if not isinstance(given, Mapping):
        raise OptionError(f"option 'configs' is a mapping of patterns to configs, not {given!r}")
    return tuple(_rule(key, config) for key, config in given.items())


@functools.cache
def default_configs() -> tuple[Rule, ...]:
    """The rules of `default_configs.json`."""
    return parse_configs(json.loads(files("tt_dynamo").joinpath("default_configs.json").read_text()))


def _rule(key: Any, config: Any) -> Rule:
    from tt_dynamo.devices import BOARDS

    pattern, *conditions = key.split("@") if isinstance(key, str) else [""]
    if not pattern:
        raise OptionError(f"option 'configs' maps patterns of modules or operations to configs; {key!r} is no pattern")
    for condition in conditions:
        require_one_of(f"phase or board in the config {key!r}:", condition, (*PHASES, *BOARDS))
    phases, boards = ([word for word in conditions if word in words] for words in (PHASES, BOARDS))
    if len(phases) > 1 or len(boards) > 1:
        raise OptionError(f"the config {key!r} is for one phase and one board; write a key for each")
    if not isinstance(config, Mapping):
        raise OptionError(f"the config {key!r} is a mapping of fields to values, not {config!r}")
    fields = tuple((field, _checked(key, field, value)) for field, value in config.items())
    return Rule(key, pattern, "".join(phases), "".join(boards), fields)


def _checked(key: str, field: Any, value: Any) -> Any:
    require_one_of(f"field of the config {key!r}:", field, FIELDS)
    value = tuple(value) if isinstance(value, list) else value
    if FIELDS[field].words:
        require_one_of(f"{field} of the config {key!r}:", value, FIELDS[field].words)
    elif not FIELDS[field].check(value):
        raise OptionError(f"{field!r} of the config {key!r} is {FIELDS[field].expected}, not {value!r}")
    return value
