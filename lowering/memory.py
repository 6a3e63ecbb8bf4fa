"""Memory configurations as programs carry them, and what is sharded."""

import math

from tt_dynamo.ir import meta
from tt_dynamo.ir.spec import TILE, Blocks, Columns, on_device, tiles


def is_sharded(x):
    """Whether x is a tensor sharded in L1."""
    tensor = getattr(x, "tensor", x)
    return on_device(tensor) and tensor.is_sharded() and _config(x).buffer_type.name == "L1"


def is_in_columns(x):
    """Whether x is one row of tiles in width shards in L1."""
    return is_sharded(x) and _config(x).memory_layout.name == "WIDTH_SHARDED" and tiles(tuple(x.shape))[0] == 1


def banks_of(weight):
    """Over how many DRAM banks a weight is sharded, 0 where it is not."""
    tensor = getattr(weight, "tensor", weight)
    return 0 if is_sharded(weight) or not (on_device(tensor) and tensor.is_sharded()) else cores(weight)


def interleaved(ttnn, value):
    """The value in DRAM where it is sharded, else as it is."""
    return in_dram(ttnn, value) if is_sharded(value) else value


def in_dram(ttnn, value):
    """The value moved to DRAM, where activations are bfloat16."""
    wider = {"dtype": ttnn.bfloat16} if value.dtype == ttnn.bfloat8_b else {}
    return ttnn.to_memory_config(value, ttnn.DRAM_MEMORY_CONFIG, **wider)


def moved_beside(ttnn, x, y):
    """x moved to where y lies in shards, in its dtype; nothing moves where both are so."""
    dtype = {} if x.dtype == y.dtype else {"dtype": y.dtype}
    if not is_sharded(x):
        return ttnn.to_memory_config(x, memory_config(ttnn, y), **dtype)
    return ttnn.typecast(x, y.dtype) if dtype else x


def lies_in_l1(x):
    """Whether x is a tensor in L1, sharded or interleaved."""
    tensor = getattr(x, "tensor", x)
    return on_device(tensor) and tensor.memory_config().buffer_type.name == "L1"


def _config(x):
    return getattr(x, "tensor", x).memory_config()


def left_its_shards(x):
    """Whether x was moved out of L1, to make room there."""
    node = getattr(x, "node", None)  # a tensor itself says nothing of where it came from
    return node is not None and not is_sharded(x) and meta.path.get(node, "") == "ttnn.to_memory_config"


def memory_config(ttnn, x):
    """x's memory configuration, made through the lowering's namespace, so that a program can hold it."""
    config = _config(x)
    if not is_sharded(x):
        return ttnn.L1_MEMORY_CONFIG if config.buffer_type.name == "L1" else ttnn.DRAM_MEMORY_CONFIG
    return _in_shards(ttnn, config, list(config.shard_spec.shape))


def lies_beside(x, y):
    """Whether x is sharded as y is, each of its rows on the core that has the same row of y."""
    if not is_sharded(x):
        return False
    one, other = _config(x), _config(y)
    kinds = [(config.memory_layout, config.buffer_type) for config in (one, other)]
    rows = [(spec.grid, spec.shape[0], spec.orientation) for spec in (one.shard_spec, other.shard_spec)]
    return kinds[0] == kinds[1] and rows[0] == rows[1]


def cores(x):
    """How many cores x lies on, which is sharded."""
    return _config(x).shard_spec.grid.num_cores()


def across(x):
    """On how many cores each row of x lies, which is sharded by height or in blocks."""
    config = _config(x)
    if config.memory_layout.name != "BLOCK_SHARDED":
        return 1
    size = config.shard_spec.grid.bounding_box().grid_size()
    return size.x if config.shard_spec.orientation.name == "ROW_MAJOR" else size.y


def shard_width(x):
    """Columns of each shard of x."""
    return _config(x).shard_spec.shape[1]


def beside(ttnn, x, columns):
    """Where as many columns lie whose rows are on the cores of those of x, which is sharded by height or in blocks."""
    config = _config(x)
    width = math.ceil(columns / ttnn.TILE_SIZE / across(x)) * ttnn.TILE_SIZE
    return _in_shards(ttnn, config, [config.shard_spec.shape[0], width])


def _in_shards(ttnn, config, shape):
    """A sharded configuration with shards of another shape."""
    spec = config.shard_spec
    corners = [(r.start.x, r.start.y, r.end.x, r.end.y) for r in spec.grid.ranges()]
    return _sharded(ttnn, config.memory_layout, config.buffer_type, corners, shape, spec.orientation)


def blocks(ttnn, shape):
    """[1, 1, pixels, channels] in L1 in blocks: on as many columns of cores as share the channels' tiles evenly."""
    return in_blocks(ttnn, Blocks.over(ttnn.settings.grid_size, shape))


def in_blocks(ttnn, wanted):
    """The memory configuration of block shards in L1, `Blocks`."""
    shape = [wanted.height * ttnn.TILE_SIZE, wanted.width * ttnn.TILE_SIZE]
    corners = [(0, 0, wanted.columns - 1, wanted.rows - 1)]
    layout = ttnn.TensorMemoryLayout.BLOCK_SHARDED
    return _sharded(ttnn, layout, ttnn.BufferType.L1, corners, shape, ttnn.ShardOrientation.ROW_MAJOR)


def first_cores(ttnn, count, columns=None, skipped=0):
    """So many cores, row after row, behind those skipped; columns: in each row, all unless told otherwise."""
    columns = columns or ttnn.settings.grid_size[0]
    corners, (row, column) = [], divmod(skipped, columns)
    if column:
        begun = min(count, columns - column)
        corners, row, count = [(column, row, column + begun - 1, row)], row + 1, count - begun
    full, rest = divmod(count, columns)
    corners += [(0, row, columns - 1, row + full - 1)] * (full > 0)
    corners += [(0, row + full, rest - 1, row + full)] * (rest > 0)
    return _core_ranges(ttnn, corners)


def shares_cores(x, y):
    """Whether both lie on the same cores, one after another; both are sharded."""
    return _config(x).shard_spec.grid == _config(y).shard_spec.grid


def on_cores_of(ttnn, x, shape):
    """The memory configuration of shards of another shape where x lies in such."""
    return _in_shards(ttnn, _config(x), shape)


def in_rows(ttnn, cores, shape):
    """The memory configuration of height shards in L1 of that shape, on these cores."""
    shards = ttnn.ShardSpec(cores, shape, ttnn.ShardOrientation.ROW_MAJOR)
    return ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1, shards)


def in_columns(ttnn, wanted):
    """The memory configuration of width shards in L1, `Columns`."""
    corners, shape = [(0, 0, wanted.columns - 1, wanted.rows - 1)], [ttnn.TILE_SIZE, wanted.width * ttnn.TILE_SIZE]
    layout = ttnn.TensorMemoryLayout.WIDTH_SHARDED
    return _sharded(ttnn, layout, ttnn.BufferType.L1, corners, shape, ttnn.ShardOrientation.ROW_MAJOR)


def blocks_of(ttnn, x):
    """The `Blocks` of x, which lies in block shards."""
    spec = _config(x).shard_spec
    size = spec.grid.bounding_box().grid_size()
    height, width = (length // ttnn.TILE_SIZE for length in spec.shape)
    return Blocks(size.x, size.y, height, width)


def shares_columns(x, wanted):
    """Whether x lies in width shards as wide as `wanted`, on as many cores, be it others."""
    return is_in_columns(x) and (shard_width(x), cores(x)) == (wanted.width * TILE, wanted.columns * wanted.rows)


def on_rectangle(ttnn, x):
    """A row in width shards that fill a rectangle of cores evenly; moved there where it lies otherwise.

    TTNN puts products on one row of cores after another, of which the last may not be full.
    """
    spec = _config(x).shard_spec
    size = spec.grid.bounding_box().grid_size()
    if spec.shape[1] * size.x * size.y == tuple(x.shape)[-1]:
        return x
    return ttnn.to_memory_config(x, in_columns(ttnn, Columns.over(ttnn.settings.grid_size, tiles(tuple(x.shape))[1])))


def assigned(ttnn):
    """The keyword that has a call write its result to where in L1 the compiler assigned it, if anywhere."""
    if ttnn.memory is None:
        return {}
    if isinstance(ttnn.memory, Columns):
        return {"memory_config": in_columns(ttnn, ttnn.memory)}
    is_in_blocks = isinstance(ttnn.memory, Blocks)
    return {"memory_config": in_blocks(ttnn, ttnn.memory) if is_in_blocks else ttnn.L1_MEMORY_CONFIG}


def assigned_dtype(ttnn, x):
    """The keyword for the dtype of a call's result, where that of x, which it would have, is another.

    A result is bfloat16 unless it was assigned a block float, or float32.
    """
    if ttnn.dtype is None and x.dtype not in (ttnn.bfloat8_b, ttnn.float32):
        return {}
    wanted = getattr(ttnn, ttnn.dtype or "bfloat16")
    return {} if x.dtype == wanted else {"dtype": wanted}


def _sharded(ttnn, layout, buffer_type, corners, shape, orientation):
    """corners: of the rectangles of cores, (left, top, right, bottom)."""
    return ttnn.MemoryConfig(layout, buffer_type, ttnn.ShardSpec(_core_ranges(ttnn, corners), shape, orientation))


def _core_ranges(ttnn, corners):
    ranges = [
        ttnn.CoreRange(ttnn.CoreCoord(left, top), ttnn.CoreCoord(right, bottom)) for left, top, right, bottom in corners
    ]
    return ttnn.CoreRangeSet(ranges)
