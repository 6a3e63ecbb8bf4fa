"""Lowerings: ATen (or fused) node → TTNN calls, one file per operation family, found through the registry."""

from tt_dynamo.lowering.registry import Lowering, Need, find, lower, operand_name, registered

__all__ = ["Lowering", "Need", "find", "lower", "operand_name", "registered"]
