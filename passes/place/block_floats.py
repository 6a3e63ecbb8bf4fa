"""Keep images in block floats from one convolution to the next: note the dtype of what they write.

Before   y = conv2d(x, …);   z = conv2d(y, …);   s = add_activation(z, y, "relu");   mean(s)
After    the same;   meta.dtype of y and z: "bfloat8_b"

Convolutions and sums of images write either dtype and read both, pools read both. What anything else reads stays in
bfloat16, as nothing would be gained by a conversion.
"""

from collections.abc import Callable

from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, is_call

WRITERS = (operators.conv2d, operators.conv_transpose2d, operators.add_activation)
READERS = (*WRITERS, operators.max_pool2d, operators.avg_pool2d)


def assign_image_dtypes(graph: Graph, sides: Sides, dtype: str, refuses: Callable[[Node], bool]) -> int:
    """Note `meta.dtype` of images that only READERS read; returns of how many.

    refuses: whether TTNN refused block floats to a node, as its result or as what it reads.
    """
    images = [
        node
        for target in WRITERS
        for node in graph.find_nodes(op="call_function", target=target)
        if sides.get(node) == "device"
        and all(is_call(user, *READERS) and sides.get(user) == "device" for user in node.users)
        and not any(map(refuses, (node, *node.users)))
    ]
    for node in images:
        meta.dtype.set(node, dtype)
    return len(images)
