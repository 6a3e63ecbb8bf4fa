"""Memory configurations as programs carry them, and what is sharded."""

from __future__ import annotations

from tt_dynamo.lowering.recorder import on_device


def is_sharded(x):
    """Whether x is a tensor sharded on the device."""
    tensor = getattr(x, "tensor", x)
    return on_device(tensor) and tensor.is_sharded()


def memory_config(ttnn, x):
    """x's memory configuration, made through the lowering's namespace, so that a program can hold it."""
    config = getattr(x, "tensor", x).memory_config()
    if not is_sharded(x):
        return ttnn.L1_MEMORY_CONFIG if config.buffer_type.name == "L1" else ttnn.DRAM_MEMORY_CONFIG
    spec = config.shard_spec
    ranges = [
        ttnn.CoreRange(ttnn.CoreCoord(r.start.x, r.start.y), ttnn.CoreCoord(r.end.x, r.end.y))
        for r in spec.grid.ranges()
    ]
    shards = ttnn.ShardSpec(ttnn.CoreRangeSet(ranges), list(spec.shape), spec.orientation)
    return ttnn.MemoryConfig(config.memory_layout, config.buffer_type, shards)
