"""What a user may pass as `torch.compile(model, backend="ttnn", options={...})`.

Options are checked before anything is compiled: an unknown name or value raises with the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any

FALLBACKS = ("torch", "error")
PLACEMENTS = ("fewest_bytes", "device")
MATH_FIDELITIES = ("auto", "LoFi", "HiFi2", "HiFi3", "HiFi4")
WEIGHT_DTYPES = ("bfloat16", "bfloat8_b", "bfloat4_b")  # 16, 8.5 and 4.5 bits an element

# torch.compile's modes, and what this backend does instead of what torch's own does.
MODES = {
    "default": "",
    "lite": "nothing is left to eager torch that TTNN takes, as in the default mode",
    "reduce-overhead": "there are no CUDA graphs here; the program is that of the default mode",
    "max-autotune": "no kernels are timed here; TTNN's answers choose, as in the default mode",
    "max-autotune-no-cudagraphs": "no kernels are timed here; TTNN's answers choose, as in the default mode",
}


class OptionError(ValueError):
    """An option that does not exist, or a value that it cannot take."""


def nearest(given: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the valid word closest to `given`, or the list of valid words."""
    words = sorted(valid)
    close = difflib.get_close_matches(given, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid are {', '.join(map(repr, words))}"


@dataclasses.dataclass(frozen=True)
class Options:
    """How one model is compiled.

    device: "auto" (hardware where there is some, else an emulated N150), "hardware", a board name, or an open ttnn
        device or mesh, which stays the user's to close.
    dry_run: calls go to the open device and no values are computed on an emulated one: outputs have the right shape
        and dtype and undefined contents. Measures host dispatch and memory.
    dump: folder for the graph after every pass, the program, its weights, the report and a drawing; the environment
        variable TT_DYNAMO_DUMP sets the default.
    fallback: "torch" runs what TTNN refuses in eager torch; "error" raises FallbackError instead.
    placement: "fewest_bytes" runs moves of data, casts and integers where the fewest bytes cross; "device" puts
        whatever the device can take on the device.
    disable_passes: names of optional passes (`tt_dynamo.passes.OPTIONAL`) to leave out.
    math_fidelity: "LoFi", "HiFi2", "HiFi3" or "HiFi4" for matrix products and norms on the device; "auto" is the
        highest that is right with the accumulation chosen (`lowering/workarounds.py`).
    fp32_accumulation: accumulate in float32 (`fp32_dest_acc_en`).
    weight_dtype: "bfloat16", "bfloat8_b" or "bfloat4_b" for the weights of matrix products, or a mapping of name
        patterns to them, of which the first that fits counts: {"*.mlp.*": "bfloat4_b", "*": "bfloat8_b"}. A pattern
        (`fnmatch`) is held against the parameter's name in the model and the name of its module.
    cache_dtype: the same three for KV caches.
    warn_after_shapes: how many input shapes one graph may specialize for before a warning says so.
    mode: that of `torch.compile`, of which all give the same program.
    """

    device: Any = "auto"
    dry_run: bool = False
    dump: str | None = None
    fallback: str = "torch"
    placement: str = "fewest_bytes"
    disable_passes: tuple[str, ...] = ()
    math_fidelity: str = "auto"
    fp32_accumulation: bool = True
    weight_dtype: str | tuple[tuple[str, str], ...] = "bfloat16"
    cache_dtype: str = "bfloat16"
    warn_after_shapes: int = 4
    mode: str = "default"

    @property
    def notes(self) -> list[str]:
        """What a user may want to know of these options."""
        return [f"mode {self.mode!r}: {MODES[self.mode]}"] if MODES[self.mode] else []

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> Options:
        """The options of a `torch.compile` call; raises OptionError for an unknown name or value."""
        given = dict(given or {})
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise OptionError(f"unknown option {name!r}{nearest(str(name), names)}")
        if isinstance(given.get("disable_passes"), (list, set, frozenset)):
            given["disable_passes"] = tuple(sorted(given["disable_passes"]))
        if isinstance(given.get("weight_dtype"), Mapping):
            given["weight_dtype"] = tuple(given["weight_dtype"].items())
        if given.get("dump") is None:
            given["dump"] = os.environ.get("TT_DYNAMO_DUMP") or None
        elif isinstance(given["dump"], (str, os.PathLike)):
            given["dump"] = os.fspath(given["dump"])
        options = cls(**given)
        options._check()
        return options

    def _check(self) -> None:
        from tt_dynamo.devices import BOARDS
        from tt_dynamo.passes import OPTIONAL

        if isinstance(self.device, str):
            _one_of("device", self.device, ("auto", "hardware", *BOARDS))
        if self.mode not in tuple(MODES):
            raise OptionError(f"unknown mode {self.mode!r}; valid are {', '.join(map(repr, MODES))}")
        _one_of("fallback", self.fallback, FALLBACKS)
        _one_of("placement", self.placement, PLACEMENTS)
        _one_of("math_fidelity", self.math_fidelity, MATH_FIDELITIES)
        _one_of("cache_dtype", self.cache_dtype, WEIGHT_DTYPES)
        patterns = self.weight_dtype if isinstance(self.weight_dtype, tuple) else (("*", self.weight_dtype),)
        for pattern, dtype in patterns:
            if not isinstance(pattern, str):
                raise OptionError(f"option 'weight_dtype' maps name patterns to dtypes; {pattern!r} is no pattern")
            _one_of("weight_dtype", dtype, WEIGHT_DTYPES)
        for name in ("dry_run", "fp32_accumulation"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"option {name!r} is True or False, not {getattr(self, name)!r}")
        if not isinstance(self.warn_after_shapes, int) or self.warn_after_shapes < 1:
            raise OptionError(f"option 'warn_after_shapes' is a positive int, not {self.warn_after_shapes!r}")
        if self.dump is not None and not isinstance(self.dump, str):
            raise OptionError(f"option 'dump' is the path of a folder, not {self.dump!r}")
        if not isinstance(self.disable_passes, tuple):
            raise OptionError(f"option 'disable_passes' is a list of pass names, not {self.disable_passes!r}")
        for name in self.disable_passes:
            if name not in OPTIONAL:
                raise OptionError(f"unknown pass {name!r} in 'disable_passes'{nearest(str(name), OPTIONAL)}")


def _one_of(option: str, value: object, valid: Iterable[str]) -> None:
    words = tuple(valid)
    if value not in words:
        raise OptionError(f"unknown {option} {value!r}{nearest(str(value), words)}")
