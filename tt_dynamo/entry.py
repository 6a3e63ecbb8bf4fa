"""What torch.compile finds as backend="ttnn": it imports the compiler at the first compilation, no sooner."""

from collections.abc import Sequence
from typing import Any


def ttnn(module: Any, example_inputs: Sequence[Any], **given: Any) -> Any:
    """Compile a Dynamo graph for TTNN: `tt_dynamo.backend.ttnn`, which says what it takes and raises."""
    from tt_dynamo import backend

    return backend.ttnn(module, example_inputs, **given)
