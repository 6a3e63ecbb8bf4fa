"""What torch.compile finds as backend="ttnn": it imports the compiler at the first compilation, no sooner."""

from collections.abc import Sequence
from typing import Any


def ttnn(module: Any, example_inputs: Sequence[Any], **given: Any) -> Any:
    """Compile a Dynamo graph for TTNN: `tt_dynamo.backend.ttnn`, which says what it takes and raises.

    Raises NotImplementedError for `aot_compile`, which saves what torch pickles.
    """
    from torch._functorch import config

    from tt_dynamo import backend

    if config.force_autograd_cache:
        raise NotImplementedError(
            'backend "ttnn" gives torch nothing to save by aot_compile; compiled programs are kept for the next '
            "process by themselves: call the compiled model, see tt_dynamo.cache_info()"
        )
    return backend.ttnn(module, example_inputs, **given)
