"""What narrower weights cost a model: PCC lost by each weight in each block float, and dtypes that keep a PCC.

Candidates are judged in eager torch on the host, where the weight of a product is rounded as it goes up to the device;
that takes one forward pass each. What the device does to activations, accumulation and math fidelity, is not in these
figures. The proposed dtypes are: they are verified by the compiled model, and widened until that holds too.
"""

import copy
import dataclasses
import functools
import gc
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tt_dynamo.checking import own_forward
from tt_dynamo.devices import open_device
from tt_dynamo.devices.emulation.numerics import round_to
from tt_dynamo.ir.graph import aten
from tt_dynamo.options import WEIGHT_DTYPES, Options
from tt_dynamo.report.report import record
from tt_dynamo.report.table import size_text, table

WIDEST, *NARROWER = WEIGHT_DTYPES
_BITS = dict(zip(WEIGHT_DTYPES, (16, 8.5, 4.5), strict=True))
# Where the products of eager torch have their second matrix.
_SECOND = {aten.mm.default: 1, aten.bmm.default: 1, aten.addmm.default: 2, aten.baddbmm.default: 2}

log = logging.getLogger(__name__)
Inputs = Sequence[Any] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter that is the weight of products. lost: by block float, the PCC that it costs when it alone has it."""

    name: str
    elements: int
    lost: Mapping[str, float]


@dataclasses.dataclass
class Sensitivity:
    """What `sensitivity` found. Prints as a table, the most sensitive weights first.

    pcc: what was asked for. weight_dtype: the proposed value of the option of that name, by parameter. reached: PCC of
    the compiled model with it, which is below `pcc` only if bfloat16 weights alone do not reach it either.
    weight_bytes: on the device. notes: of the reports, such as of weights that are merged.
    """

    pcc: float
    weights: list[Weight]
    weight_dtype: dict[str, str]
    reached: float
    weight_bytes: int
    notes: list[str]

    def to_json(self) -> str:
        """`weight_dtype` as text: `options={"weight_dtype": json.loads(text)}`."""
        return json.dumps(self.weight_dtype, indent=2)

    def __str__(self) -> str:
        head = ("weight", "elements", *(f"PCC lost in {dtype}" for dtype in NARROWER), "proposed")
        order = sorted(self.weights, key=lambda weight: -weight.lost[NARROWER[-1]])
        rows: list[list[str | int]] = [
            [w.name, w.elements, *(f"{w.lost[dtype]:.2e}" for dtype in NARROWER), self.weight_dtype[w.name]]
            for w in order
        ]
        missed = "" if self.reached >= self.pcc else "; weights are not what it loses by"
        return "\n".join(
            [
                table(head, rows),
                f"PCC {self.reached:.6f} of {self.pcc} compiled{missed}, {size_text(self.weight_bytes)} of weights",
                *self.notes,
            ]
        )


def sensitivity(
    model: torch.nn.Module,
    example_inputs: Inputs,
    pcc: float = 0.99,
    progress: Callable[[str], None] = log.info,
    **options: Any,
) -> Sensitivity:
    """PCC that each weight of `model` costs in narrower dtypes, and the narrowest dtypes that keep `pcc`.

    model: in evaluation mode, on the host. example_inputs: a tuple of positional or a dict of keyword arguments, copied
    for each run. pcc: the least of all float outputs, to the model in eager torch. progress: is told what is done.
    options: those of `torch.compile(model, backend="ttnn")` to verify with, but `weight_dtype`.

    Losses of weights are taken to add up, as independent errors do; then whichever weight saves most for each byte is
    widened until the rounded model reaches `pcc`, and then until the compiled one does.

    Raises ValueError for a model in training mode, without products by weights or without outputs that have a PCC,
    OptionError and DeviceError as compilation does.
    """
    if model.training:
        raise ValueError("sensitivity is that of inference: call model.eval() first")
    parsed = Options.parse({**options, "weight_dtype": WIDEST})
    if parsed.dry_run:
        raise ValueError("a dry run computes no values to compare; leave dry_run out")
    rounded = _Rounded(model, example_inputs, open_device(parsed.device).namespace(dry_run=True))
    names = list(rounded.found)
    if not names:
        raise ValueError("no product of the model has a parameter as its weight")
    wide = rounded.pcc({})
    weights = []
    for number, name in enumerate(names, 1):
        progress(f"weight {number} of {len(names)}: {name}")
        lost = {dtype: wide - rounded.pcc({name: dtype}) for dtype in NARROWER}
        weights.append(Weight(name, rounded.found[name], lost))

    proposed = dict.fromkeys(names, NARROWER[-1])
    widening = _widening(weights, proposed)

    def widen_until(least: float) -> None:
        budget = wide - least
        while sum(weight.lost.get(proposed[weight.name], 0.0) for weight in weights) > budget and next(widening, ""):
            pass
        while rounded.pcc(proposed) < least and next(widening, ""):
            pass

    progress("all weights together")
    widen_until(pcc)
    while True:
        progress("the compiled model")
        reached, reports = _compiled(model, example_inputs, rounded.eager, {**options, "weight_dtype": dict(proposed)})
        least = rounded.pcc(proposed) + pcc - reached  # what the device loses beside the weights, it will lose again
        if reached >= pcc or not next(widening, ""):
            break
        widen_until(least)
    notes = list(dict.fromkeys(note for report in reports for note in report.notes))
    return Sensitivity(pcc, weights, proposed, reached, sum(report.weight_bytes for report in reports), notes)


def _widening(weights: Sequence[Weight], proposed: dict[str, str]) -> Iterator[str]:
    """Widen one weight of `proposed` after the other, by one dtype, and give its name: most PCC for a byte first."""

    def worth(weight: Weight) -> float:
        narrow = proposed[weight.name]
        wider = WEIGHT_DTYPES[WEIGHT_DTYPES.index(narrow) - 1]
        gained = weight.lost[narrow] - weight.lost.get(wider, 0.0)
        return gained / (weight.elements * (_BITS[wider] - _BITS[narrow]))

    while narrowed := [weight for weight in weights if proposed[weight.name] != WIDEST]:
        name = max(narrowed, key=worth).name
        proposed[name] = WEIGHT_DTYPES[WEIGHT_DTYPES.index(proposed[name]) - 1]
        yield name


class _Rounded(TorchDispatchMode):
    """Runs a model in eager torch with the weights of its products rounded. found: their elements, by name."""

    def __init__(self, model: torch.nn.Module, inputs: Inputs, ttnn: Any) -> None:
        super().__init__()
        self._model, self._inputs, self._ttnn = model, inputs, ttnn
        parameters = model.named_parameters()  # one that is tied by its first name
        self._names = {parameter.untyped_storage().data_ptr(): name for name, parameter in parameters}
        self._dtypes: Mapping[str, str] = {}
        self.found: dict[str, int] = {}
        self.eager = outputs_of(model, inputs)
        self.pcc({})

    def pcc(self, dtypes: Mapping[str, str]) -> float:
        """PCC with eager torch, weights in these dtypes by name and others in bfloat16."""
        self._dtypes = dtypes
        with self:
            return _least_pcc(outputs_of(self._model, self._inputs), self.eager)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        position = _SECOND.get(func, 0)
        if position and (name := self._names.get(args[position].untyped_storage().data_ptr())):
            weight = args[position]
            self.found[name] = weight.numel()
            dtype = getattr(self._ttnn, self._dtypes.get(name, WIDEST))
            rounded = round_to(self._ttnn, weight.float(), dtype, on_host=True).to(weight.dtype)
            args = (*args[:position], rounded, *args[position + 1 :])
        return func(*args, **(kwargs or {}))


def outputs_of(model: Callable[..., Any], inputs: Inputs) -> list[torch.Tensor]:
    """The float tensors that a model returns for a copy of its inputs."""
    inputs = copy.deepcopy(inputs)
    with torch.no_grad():
        outputs = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    found = [x for x in tree_leaves(outputs) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    if not any(x.numel() > 1 for x in found):
        raise ValueError("the model returns no float tensor of several elements, so there is no PCC")
    return found


def _compiled(
    model: torch.nn.Module, inputs: Inputs, eager: list[torch.Tensor], options: Mapping[str, Any]
) -> tuple[float, Any]:
    """PCC of the compiled model, and its reports."""
    compiled = torch.compile(own_forward(), backend="ttnn", options=dict(options))
    try:
        with record() as reports:
            return _least_pcc(outputs_of(functools.partial(compiled, model), inputs), eager), reports
    finally:
        gc.collect()  # graphs are cyclic, and the weights on the device go with them


def _least_pcc(ours: Sequence[torch.Tensor], eager: Sequence[torch.Tensor]) -> float:
    return min(_pcc(a, b) for a, b in zip(ours, eager, strict=True) if b.numel() > 1)


def _pcc(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson correlation of all elements; 1 for equal ones, 0 where those of one are all the same."""
    a, b = (x.detach().double().flatten() for x in (a, b))
    if torch.equal(a, b):
        return 1.0
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1].nan_to_num(0.0))
