"""What goes wrong while a graph is compiled."""

TTNN_ERRORS = (RuntimeError, TypeError, ValueError)  # in which TTNN says no


class Unsupported(Exception):
    """A node that has no way onto the device, and why, in words for the user."""


class FallbackError(RuntimeError):
    """A node would run in eager torch and the option fallback="error" forbids it."""


class Refused(Unsupported):
    """TTNN says no to a call; the message is its own first line."""
