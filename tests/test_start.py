"""Starting costs nothing that is not used: the entry point imports the compiler at the first compilation alone."""

from fresh_process import FreshProcess

IMPORTS = """
import json, sys
import torch
before = set(sys.modules)
import tt_dynamo
from tt_dynamo.entry import ttnn
print(json.dumps({"imported": sorted(set(sys.modules) - before)}))
"""


def test_the_entry_point_imports_no_compiler_and_nothing_more_of_torch(fresh_process: FreshProcess) -> None:
    imported = fresh_process.run(IMPORTS)["imported"]
    assert "tt_dynamo.entry" in imported
    heavy = {"torch", "ttnn", "functorch", "networkx", "sympy", "numpy", "torchgen", "triton"}
    assert not heavy.intersection(name.partition(".")[0] for name in imported)
    ours = {name.split(".")[1] for name in imported if name.startswith("tt_dynamo.")}
    assert ours == {"entry", "report"}
