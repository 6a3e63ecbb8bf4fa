"""A graph of a fixed length made right for shorter prompts, which are padded at the end.

Before   ids [batch, 64] …   new = index_copy(cache, 2, arange(64) + start, k)   …   logits = linear(h[:, -1:], w)
After    own = arange(64) < length   …   new = index_copy(cache, 2, arange(64) + start, where(own, k, cache[…]))   …
         logits = linear(index_select(h, 1, length - 1), w)

`length` is an input, rows behind it are padding. Each row before it must be what the prompt alone would give, whatever
padding holds. What depends on the length is found by comparison with the graph of a prompt that is one row shorter: a
dimension that is one row shorter there has the rows, and a number that is one less is the length. Then every operation
that reads rows or the length must be one that

    computes a row from the same row, or from rows before it: elementwise, linear, norms, causal attention, cumsum
    makes rows that begin alike at any length: arange, zeros, a slice from the first row
    is rewritten: writes into a cache, attention to all rows, rows from the end, sums with the length, lookups

Nothing else is known to be right, and raises `LengthDependent`.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.errors import LengthDependent, LongerThanCache
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.prompts.comparison import Fitted, Prompt
from tt_dynamo.passes.prompts.rules import RULES, keep_rows


def fit_to_length(graph: Graph, shorter: Graph, length: Node) -> Fitted:
    """Rewrite a graph so that its first rows are those of a prompt of any length; raises LengthDependent if it can't.

    shorter: the same graph for a prompt of one row less. length: a placeholder, int64 []
    """
    writes = [node.args for node in graph.find_nodes(op="call_function", target=aten.index_copy.default)]
    caches = [(shape_of(cache)[dim], shape_of(values)[dim]) for cache, dim, _, values in writes]
    if any(rows > size for size, rows in caches):
        raise LongerThanCache(min(size for size, _ in caches))
    try:
        prompt = Prompt(graph, shorter, length)
    except LengthDependent:
        if any(rows == size for size, rows in caches):
            raise LongerThanCache(min(size for size, _ in caches) - 1) from None  # of a whole cache nothing is cut
        raise
    for node in list(prompt.other):
        operands = node.all_input_nodes
        depends = prompt.differing[node] or prompt.rows[node] or any(prompt.rows.get(x) for x in operands)
        if node.op == "call_function" and depends:
            rule = RULES.get(node.target) or (keep_rows if _is_elementwise(node) else None)
            if rule is None:
                raise prompt.refusal(node, "is not known to keep rows apart")
            rule(prompt, node, prompt.differing[node])
    return prompt.fitted


def _is_elementwise(node: Node) -> bool:
    is_pure = isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.is_mutable
    tags = node.target.tags if is_pure else ()
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags
