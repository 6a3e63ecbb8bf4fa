"""The installed package ttnn: whether it is there, importing it, and the environment that it reads."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from .errors import DeviceError


def import_ttnn() -> ModuleType:
    """Import TTNN, without the dump of its configuration that it logs at debug level."""
    # TTNN logs through loguru, which prints debug messages unless told otherwise.
    if sys.modules.keys() & {"ttnn", "loguru"}:
        import ttnn  # where loguru is in use already, what it prints is the user's choice

        return ttnn
    from loguru import logger

    logger.disable("ttnn")
    try:
        import ttnn
    finally:
        logger.enable("ttnn")
    return ttnn


def check_installed() -> None:
    """Raise DeviceError, with what to do, where ttnn is not installed."""
    with contextlib.suppress(PackageNotFoundError):
        if find_spec("ttnn") is not None and version("ttnn"):
            return
    why = "install it with `pip install 'ttnn==0.81.*'`"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python not in ("3.10", "3.12"):
        why = f"it has wheels for CPython 3.10 and 3.12 only and this is Python {python}: use one of those"
    raise DeviceError(f"the package ttnn is not installed; {why}.")


@contextlib.contextmanager
def environment_of(values: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in the environment meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})
