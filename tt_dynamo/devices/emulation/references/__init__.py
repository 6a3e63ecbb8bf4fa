"""Reference semantics of TTNN operations, by family; importing a family registers its references."""

from . import attention, elementwise, image, other
from .elementwise import REFERENCES, Opaque

__all__ = ["REFERENCES", "Opaque", "attention", "elementwise", "image", "other"]
