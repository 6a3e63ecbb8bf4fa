"""Encoders written directly in TTNN, the way one writes them by hand: the yardstick for compiled programs.

The op sequences are those of Tenstorrent's own models (tt-metal `models/demos`), with the fusions that TTNN offers and
those models don't use yet. Activations are bfloat16 tiles, interleaved in DRAM. What must hold: a forward pass makes
TTNN calls only; weights and configs are prepared once.
"""

from .bert import Bert
from .vit import Vit

__all__ = ["Bert", "Vit"]
