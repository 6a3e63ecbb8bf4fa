"""Lowerings: ATen (or fused) node → TTNN calls, one file per operation family, found through the registry."""

import importlib
import pkgutil

from tt_dynamo.lowering.registry import Lowering, Need, find, lower, operand_name, registered

__all__ = ["Lowering", "Need", "find", "lower", "operand_name", "registered"]

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)  # which registers its lowerings
