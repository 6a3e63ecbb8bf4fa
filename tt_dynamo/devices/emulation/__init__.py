"""TTNN's operations on its mock device, with values."""
