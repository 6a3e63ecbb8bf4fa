"""Call a compiled model on many batches, one ahead of what the caller reads.

    for result in tt_dynamo.stream(compiled, batches): …

With `options={"outputs": "device"}` a call ends before its results come down, so the host prepares the next batch, and
starts its call, before the results of the one before are read.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tt_dynamo.ir.errors import require_one_of

DEPTH = 2


def stream(
    compiled: Callable[..., Any], batches: Iterable[Any], *, depth: int = DEPTH, on_error: str = "raise"
) -> Iterator[Any]:
    """The results of `compiled` for each batch, in their order.

    batches: what each call is given: a tuple as its arguments, a dict as keywords, anything else as its one argument.
    Read as they are needed, at most `depth` ahead. depth: how many calls may have been made whose results were not
    taken. on_error: "raise" raises what a call raised in its place in the order, after the results before it, and ends;
    "skip" leaves that batch out and goes on. What `batches` itself raises is raised in its place in both.

    One thread takes all results of a stream, and makes the calls meanwhile. Threads may each have a stream of one
    compiled model.

    Raises OptionError for another on_error, TypeError for what is not callable or iterable, ValueError for a depth
    below 1; all at once, not at the first result.
    """
    require_one_of("on_error", on_error, ("raise", "skip"))
    if not callable(compiled):
        raise TypeError(f"stream takes a compiled model or function, not {compiled!r}")
    if not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth is how many calls run ahead, at least 1, not {depth!r}")
    return _results(compiled, iter(batches), depth, on_error)


def _results(compiled: Callable[..., Any], batches: Iterator[Any], depth: int, on_error: str) -> Iterator[Any]:
    ahead: deque[Any] = deque()
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            break
        except Exception:
            yield from ahead  # what was called before comes first
            raise
        try:
            ahead.append(_call(compiled, batch))
        except Exception:
            if on_error == "skip":
                continue
            yield from ahead
            raise
        del batch
        if len(ahead) == depth:
            yield ahead.popleft()
    while ahead:
        yield ahead.popleft()


def _call(compiled: Callable[..., Any], batch: Any) -> Any:
    if isinstance(batch, dict):
        return compiled(**batch)
    return compiled(*batch) if isinstance(batch, tuple) else compiled(batch)
