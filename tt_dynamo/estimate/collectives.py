"""Device time of collectives: bytes over the links of a line of chips, hops, and the start of each kernel.

A line sends both ways at once, and its busiest link carries, each way, what all chips but one have to send. Links are
those between neighbours (`Cluster.links_between`), each as fast as Ethernet: 100 Gb/s each way on Wormhole (tt-metal,
tech_reports/EthernetMultichip/BasicEthernetGuide.md), 400 Gb/s on Blackhole (board specification). Nothing published
measures TTNN's collectives of today on the chips that we know: these are estimates from the speed of links alone.
"""

from collections.abc import Sequence

from tt_dynamo.estimate.chip import Chip, Cost
from tt_dynamo.estimate.kernels import moved_bytes
from tt_dynamo.estimate.tensor import TILE, Call, Tensor


def chips_along(call: Call, chip: Chip) -> int:
    """How many chips take part; guessed from the sizes before and after where the mesh is not known."""
    axis = call.options.get("cluster_axis")
    if chip.chips > 1:
        return chip.mesh[axis] if axis in (0, 1) else chip.chips
    sizes = [_bytes(call.inputs[:1]), _bytes(call.outputs)]
    return max(2, round(max(sizes) / max(1, min(sizes))))


def gather(call: Call, chip: Chip) -> Cost:
    """Each chip gets the parts of all the others."""
    chips = chips_along(call, chip)
    return _sent(call, chip, _bytes(call.inputs[:1]) * (chips - 1), chips - 1)


def scatter(call: Call, chip: Chip) -> Cost:
    """Each link carries partial sums of the parts of all chips behind it."""
    chips = chips_along(call, chip)
    return _sent(call, chip, _bytes(call.inputs[:1]) * (chips - 1) / chips, chips - 1)


def reduce(call: Call, chip: Chip) -> Cost:
    """A scatter of sums and a gather of them; where parts are no whole tiles, a broadcast of all, a join and a sum."""
    chips, x = chips_along(call, chip), call.inputs[0]
    if x.shape and x.shape[-1] % (chips * TILE) == 0:
        return _sent(call, chip, 2 * x.bytes * (chips - 1) / chips, 2 * (chips - 1), launches=2)
    return _sent(call, chip, x.bytes * (chips - 1), chips - 1, launches=3)


def broadcast(call: Call, chip: Chip) -> Cost:
    """Each link carries all that one chip has."""
    return _sent(call, chip, _bytes(call.inputs[:1]), chips_along(call, chip) - 1)


def exchange(call: Call, chip: Chip) -> Cost:
    """Tokens to the chips of their experts, or back: at most all of them to every chip."""
    chips, larger = chips_along(call, chip), max(_bytes(call.inputs[:1]), _bytes(call.outputs))
    return _sent(call, chip, larger * (chips - 1) / chips, chips - 1, launches=2 if "combine" in call.name else 1)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.bytes for tensor in tensors)


def _sent(call: Call, chip: Chip, crossing: float, hops: int, launches: int = 1) -> Cost:
    """crossing: bytes one way between the two neighbours where the most cross, whose links share them."""
    cost = chip.cost(
        "collective",
        noc=crossing / (chip.k.ethernet_gbs * chip.links),
        dram=moved_bytes(call.tensors) * launches / chip.k.stream_gbs,
        dispatch=launches * chip.cycles(chip.k.start_cycles) + hops * chip.k.ethernet_hop_ns,
        dram_bytes=moved_bytes(call.tensors),
    )
    return Cost(cost.seconds, cost.bound, cost.utilization, cost.family, launches)
