"""What goes wrong while a graph is compiled."""

import difflib
from collections.abc import Iterable

TTNN_ERRORS = (RuntimeError, TypeError, ValueError)  # in which TTNN says no


class Unsupported(Exception):
    """A node that has no way onto the device, and why, in words for the user."""


class FallbackError(RuntimeError):
    """A node would run in eager torch and the option fallback="error" forbids it."""


class Refused(Unsupported):
    """TTNN says no to a call; the message is its own first line."""


class OptionError(ValueError):
    """An option that does not exist, or a value that it cannot take."""


def require_one_of(what: str, given: object, words: Iterable[str]) -> None:
    """Raise OptionError with the word closest to `given`, or all words, where it is none of them."""
    words = tuple(words)
    if given not in words:
        close = difflib.get_close_matches(str(given), words, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"valid are {', '.join(map(repr, words))}"
        raise OptionError(f"unknown {what} {given!r}; {hint}")


class LengthDependent(Exception):
    """A graph whose results for a prompt may depend on the padding behind it."""


class LongerThanCache(LengthDependent):
    """A graph with more rows than a cache that it writes into; `length` is the cache's."""

    def __init__(self, length: int) -> None:
        super().__init__(f"a cache has {length} rows")
        self.length = length
