"""Where torch asks for what it can save: AOTAutogradCache with `bundled_autograd_cache`, and `aot_compile`.

Without `torch._functorch.config.bundled_autograd_cache`, AOTAutogradCache keeps the keys of FxGraphCache, which is
Inductor's alone (`AOTAutogradCache.make_entry`); this backend keeps its programs by itself then.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch._functorch import config
from torch._functorch._aot_autograd.autograd_cache import should_bundle_autograd_cache
from torch._functorch._aot_autograd.schemas import SerializableAOTDispatchCompiler
from torch.fx import GraphModule

from tt_dynamo.artifacts.key import Unkeyable, dynamo_key, tunings_digest
from tt_dynamo.compiler.choices import tunings_path
from tt_dynamo.devices import Device
from tt_dynamo.options import Options


def is_to_be_saved() -> bool:
    """Whether torch saves what AOTAutograd makes now, with all that it calls."""
    return bool(config.force_autograd_cache or (config.enable_autograd_cache and should_bundle_autograd_cache()))


def refuse_to_save(reason: str) -> None:
    """Raises NotImplementedError within `aot_compile`, which can do nothing but save."""
    if config.force_autograd_cache:
        raise NotImplementedError(f'backend "ttnn" cannot save this graph by aot_compile: {reason}')


def serializable(compile_: Callable[..., Any]) -> SerializableAOTDispatchCompiler:
    """A compiler whose results AOTAutograd may save; they come from `saved`."""
    from torch._inductor.output_code import OutputCode  # takes a second where nothing is saved

    return SerializableAOTDispatchCompiler(OutputCode, compile_)


def saved(call: Callable[[list[Any]], Any], program: Any, options: Options) -> Any:
    """The `OutputCode` of what was compiled; see `compiled_program`."""
    from tt_dynamo.artifacts.output_code import compiled_program

    return compiled_program(call, program, options)


def set_key(
    module: GraphModule, inputs: Sequence[Any], device: Device, options: Options, others: Mapping[str, Any]
) -> None:
    """Give a graph of Dynamo an attribute with what AOTAutogradCache, whose key is of the graph, does not know."""
    tuned = tunings_digest(tunings_path(device))
    namespace = device.namespace(dry_run=True)
    try:
        module._tt_dynamo_key = dynamo_key(inputs, device, options, namespace, {**others, "tuned": tuned})
    except Unkeyable:
        module._tt_dynamo_key = uuid.uuid4().hex  # of no other compilation
