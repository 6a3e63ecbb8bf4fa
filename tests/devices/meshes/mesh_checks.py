"""What must hold of values on any mesh; run by `test_values.py` in a process that has opened one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tt_dynamo.devices.emulation.chips import PerChip

CHECKS: list[Callable[[Checked], None]] = []


def check(function: Callable[[Checked], None]) -> Callable[[Checked], None]:
    CHECKS.append(function)
    return function


class Checked:
    """A mesh, and tensors with something else on each chip."""

    def __init__(self, device: Any) -> None:
        import ttnn

        self.device, self.real, self.ttnn, self.mesh = device, ttnn, device.namespace(), device.handle
        self.rows, self.columns = device.shape
        self.chips = device.chips
        self.generator = torch.Generator().manual_seed(0)

    def random(self, *sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=self.generator).bfloat16().float()

    def parts(self, *sizes: int) -> list[torch.Tensor]:
        return [self.random(*sizes) for _ in range(self.chips)]

    def up(self, parts: list[torch.Tensor], dtype: Any = None, layout: Any = None) -> Any:
        ttnn = self.ttnn
        how = {"dtype": dtype or self.real.bfloat16, "layout": layout or self.real.TILE_LAYOUT}
        host = ttnn.from_host_shards([ttnn.from_torch(part, **how) for part in parts], self.mesh.shape)
        return ttnn.to_device(host, self.mesh, memory_config=self.real.DRAM_MEMORY_CONFIG)

    def same(self, tensor: torch.Tensor, dtype: Any = None) -> Any:
        how = {"dtype": dtype or self.real.bfloat16, "layout": self.real.TILE_LAYOUT}
        return self.ttnn.from_torch(tensor, **how, device=self.mesh)

    def down(self, tensor: Any) -> list[torch.Tensor]:
        return [self.ttnn.to_torch(part, dtype=torch.float32) for part in self.ttnn.get_device_tensors(tensor)]

    def lines(self, axis: int | None) -> list[list[int]]:
        grid = torch.arange(self.chips).reshape(self.rows, self.columns)
        lines = grid.reshape(1, -1) if axis is None else grid.T if axis == 0 else grid
        return [list(map(int, line)) for line in lines]

    def expect(self, tensor: Any, expected: list[torch.Tensor], rtol: float = 0.0, atol: float = 0.0) -> None:
        found = self.down(tensor)
        assert len(found) == self.chips
        for part, right in zip(found, expected, strict=True):
            torch.testing.assert_close(part, right.float(), rtol=rtol, atol=atol)

    @property
    def axes(self) -> list[int | None]:
        return [0, 1] if self.rows > 1 else [1, None]


def summed(parts: list[torch.Tensor]) -> torch.Tensor:
    """bfloat16's partial sums."""
    total = parts[0].bfloat16()
    for part in parts[1:]:
        total = total + part.bfloat16()
    return total.float()


@check
def each_chip_has_its_own_tensor_and_reads_it_back(on: Checked) -> None:
    parts = on.parts(2, 32, 64)
    on.expect(on.up(parts), parts)


@check
def what_has_no_mapper_is_on_every_chip_and_computed_once(on: Checked) -> None:
    x = on.random(32, 64)
    tensor = on.ttnn.relu(on.same(x))
    assert isinstance(tensor.value, torch.Tensor)
    on.expect(tensor, [x.relu()] * on.chips)


@check
def operations_compute_on_each_chip(on: Checked) -> None:
    parts, other = on.parts(32, 64), on.random(64, 32)
    product = on.ttnn.matmul(on.up(parts), on.same(other))
    on.expect(product, [part @ other for part in parts], rtol=0.02, atol=0.1)
    on.expect(on.ttnn.add(on.up(parts), on.same(parts[0])), [summed([part, parts[0]]) for part in parts])


@check
def chips_that_hold_the_same_are_computed_once(on: Checked) -> None:
    one, other = on.random(32, 32), on.random(32, 32)
    parts = [one if chip % 2 else other for chip in range(on.chips)]
    tensor = on.ttnn.exp(on.up(parts))
    assert isinstance(tensor.value, PerChip)
    assert len({id(part) for part in tensor.value}) == 2


@check
def several_results_have_values_on_each_chip(on: Checked) -> None:
    parts = on.parts(1, 1, 32, 64)
    first, second = on.ttnn.split(on.up(parts), 32, 3)
    on.expect(first, [part[..., :32] for part in parts])
    on.expect(second, [part[..., 32:] for part in parts])


@check
def all_gather_joins_along_an_axis(on: Checked) -> None:
    parts = on.parts(1, 1, 32, 32)
    tensor = on.up(parts)
    for axis in on.axes:
        for dim in (2, 3, -1):
            expected = list(parts)
            for line in on.lines(axis):
                for chip in line:
                    expected[chip] = torch.cat([parts[other] for other in line], dim)
            on.expect(on.ttnn.all_gather(tensor, dim, cluster_axis=axis), expected)


@check
def reduce_scatter_sums_and_divides_along_an_axis(on: Checked) -> None:
    parts = on.parts(1, 1, 32, 256)
    tensor = on.up(parts)
    for axis in on.axes:
        expected = list(parts)
        for line in on.lines(axis):
            pieces = summed([parts[chip] for chip in line]).chunk(len(line), 3)
            for chip, piece in zip(line, pieces, strict=True):
                expected[chip] = piece
        on.expect(on.ttnn.reduce_scatter(tensor, dim=3, cluster_axis=axis), expected)


@check
def all_reduce_sums_along_an_axis(on: Checked) -> None:
    parts = on.parts(1, 1, 32, 256)
    tensor = on.up(parts)
    for axis in on.axes:
        expected = list(parts)
        for line in on.lines(axis):
            for chip in line:
                expected[chip] = summed([parts[other] for other in line])
        on.expect(on.ttnn.all_reduce(tensor, cluster_axis=axis), expected)


@check
def all_reduce_of_float32_and_of_block_floats_is_close_to_torch(on: Checked) -> None:
    parts = on.parts(1, 1, 32, 256)
    total = sum(parts[chip] for chip in on.lines(1)[0])
    for dtype, tolerance in ((on.real.float32, 1e-5), (on.real.bfloat8_b, 0.2)):
        tensor = on.ttnn.all_reduce(on.up(parts, dtype), cluster_axis=1)
        torch.testing.assert_close(on.down(tensor)[0], total, rtol=0, atol=tolerance)


@check
def all_reduce_of_what_is_replicated_multiplies(on: Checked) -> None:
    x = torch.ones(1, 1, 32, 256)
    tensor = on.ttnn.all_reduce(on.same(x), cluster_axis=1)
    assert isinstance(tensor.value, torch.Tensor)
    on.expect(tensor, [x * on.columns] * on.chips)


@check
def mesh_partition_divides_and_all_gather_joins_again(on: Checked) -> None:
    x = on.random(1, 1, 32, 256)
    part = on.ttnn.mesh_partition(on.same(x), 3, 1)
    on.expect(part, [x.chunk(on.columns, 3)[chip % on.columns] for chip in range(on.chips)])
    on.expect(on.ttnn.all_gather(part, 3, cluster_axis=1), [x] * on.chips)


@check
def broadcast_sends_what_one_chip_holds(on: Checked) -> None:
    parts = on.parts(1, 1, 32, 32)
    tensor = on.up(parts)
    sent = on.ttnn.broadcast(tensor, on.real.MeshCoordinate(0, 0), cluster_axis=1)
    on.expect(sent, [parts[chip - chip % on.columns] for chip in range(on.chips)])
    for at, every in enumerate(on.ttnn.all_broadcast(tensor, cluster_axis=1)):
        on.expect(every, [parts[chip - chip % on.columns + at] for chip in range(on.chips)])


def mappers(on: Checked) -> list[tuple[Any, Any]]:
    """Each with a composer that is its inverse."""
    ttnn, mesh, shape = on.ttnn, on.mesh, (on.rows, on.columns)
    config = on.real.MeshMapperConfig([on.real.PlacementShard(1), on.real.PlacementShard(2)])
    return [
        (ttnn.ShardTensorToMesh(mesh, dim=2), ttnn.ConcatMeshToTensor(mesh, dim=2)),
        (ttnn.ShardTensorToMesh(mesh, dim=-1), ttnn.ConcatMeshToTensor(mesh, dim=2)),
        (
            ttnn.ShardTensor2dMesh(mesh, mesh_shape=shape, dims=(0, 2)),
            ttnn.ConcatMesh2dToTensor(mesh, mesh_shape=shape, dims=(0, 2)),
        ),
        (ttnn.create_mesh_mapper(mesh, config), ttnn.ConcatMesh2dToTensor(mesh, mesh_shape=shape, dims=(1, 2))),
    ]


@check
def mappers_divide_and_composers_join_again(on: Checked) -> None:
    for x in (on.random(8, 64, 512), torch.arange(8 * 64 * 512, dtype=torch.int32).reshape(8, 64, 512)):
        dtype = on.real.bfloat16 if x.is_floating_point() else on.real.int32
        for mapper, composer in mappers(on):
            how = {"dtype": dtype, "layout": on.real.TILE_LAYOUT, "mesh_mapper": mapper}
            tensor = on.ttnn.from_torch(x, **how, device=on.mesh)
            found = on.ttnn.to_torch(tensor, mesh_composer=composer)
            assert torch.equal(found.to(x.dtype), x)
            # TTNN says what a chip has, for what stays on the host.
            parts = [on.real.to_torch(part) for part in on.real.get_device_tensors(on.real.from_torch(x, **how))]
            assert all(map(torch.equal, on.down(tensor), [part.float() for part in parts]))
            assert torch.equal(on.ttnn.to_torch(on.ttnn.from_torch(x, **how), mesh_composer=composer).to(x.dtype), x)


@check
def a_mapper_may_replicate_along_one_axis_or_all(on: Checked) -> None:
    x = on.random(64, 256)
    one = on.ttnn.ShardTensor2dMesh(on.mesh, mesh_shape=(on.rows, on.columns), dims=(None, 1))
    tensor = on.ttnn.from_torch(x, layout=on.real.TILE_LAYOUT, device=on.mesh, mesh_mapper=one)
    on.expect(tensor, [x.chunk(on.columns, 1)[chip % on.columns] for chip in range(on.chips)])
    every = on.ttnn.ReplicateTensorToMesh(on.mesh)
    tensor = on.ttnn.from_torch(x, layout=on.real.TILE_LAYOUT, device=on.mesh, mesh_mapper=every)
    assert isinstance(tensor.value, torch.Tensor)
    on.expect(tensor, [x] * on.chips)
    replicated = on.real.create_mesh_mapper(
        on.mesh, on.real.MeshMapperConfig([on.real.PlacementReplicate(), on.real.PlacementReplicate()])
    )
    tensor = on.ttnn.from_torch(x, layout=on.real.TILE_LAYOUT, device=on.mesh, mesh_mapper=replicated)
    assert isinstance(tensor.value, torch.Tensor)


@check
def a_tensor_of_several_chips_is_not_read_without_a_composer(on: Checked) -> None:
    for tensor in (on.up(on.parts(32, 32)), on.same(on.random(32, 32))):
        try:
            on.ttnn.to_torch(tensor)
        except RuntimeError as error:
            assert "Supply a mesh composer" in str(error)
        else:
            raise AssertionError("it was read")
    joined = on.ttnn.to_torch(on.same(torch.ones(32, 32)), mesh_composer=on.ttnn.ConcatMeshToTensor(on.mesh, dim=0))
    assert joined.shape == (32 * on.chips, 32) and joined.sum() == 32 * 32 * on.chips


@check
def copies_from_the_host_go_to_each_chip(on: Checked) -> None:
    parts, one = on.parts(32, 32), on.random(32, 32)
    how = {"dtype": on.real.bfloat16, "layout": on.real.TILE_LAYOUT}
    tensor = on.same(torch.zeros(32, 32))
    host = on.ttnn.from_host_shards([on.ttnn.from_torch(part, **how) for part in parts], on.mesh.shape)
    on.ttnn.copy_host_to_device_tensor(host, tensor)
    on.expect(tensor, parts)
    on.ttnn.copy_host_to_device_tensor(on.ttnn.from_torch(one, **how), tensor)
    on.expect(tensor, [one] * on.chips)


@check
def caches_are_written_on_each_chip_and_every_view_sees_it(on: Checked) -> None:
    cache = on.same(torch.zeros(1, 2, 64, 32))
    view = on.ttnn.reshape(cache, (1, 1, 128, 32))
    rows = on.parts(1, 2, 32, 32)
    on.ttnn.fill_cache(cache, on.up(rows), 0)
    expected = [torch.cat([part, torch.zeros(1, 2, 32, 32)], 2) for part in rows]
    on.expect(cache, expected)
    on.expect(view, [part.reshape(1, 1, 128, 32) for part in expected])
    same = on.random(1, 2, 32, 32)
    on.ttnn.fill_cache(cache, on.same(same), 0)
    on.expect(cache, [torch.cat([same, torch.zeros(1, 2, 32, 32)], 2)] * on.chips)
    on.ttnn.fill_cache(cache, on.up(rows), 0)
    on.expect(cache, expected)


@check
def freed_memory_is_not_read_of_any_chip(on: Checked) -> None:
    from tt_dynamo.devices import EmulationError

    tensor = on.up(on.parts(32, 32))
    part = on.ttnn.get_device_tensors(tensor)[-1]
    on.ttnn.deallocate(tensor)
    for read in (lambda: on.ttnn.to_torch(part), lambda: on.ttnn.relu(tensor)):
        try:
            read()
        except EmulationError as error:
            assert "freed" in str(error)
        else:
            raise AssertionError("it was read")


@check
def tokens_go_to_the_chips_of_their_experts_and_back(on: Checked) -> None:
    batch, seq, hidden, k, local = 2, 3, 64, 2, 2
    experts, rows = local * on.chips, on.real.ROW_MAJOR_LAYOUT
    mapping = torch.zeros(1, 1, experts, on.chips, dtype=torch.int32)
    mapping[0, 0, torch.arange(experts), torch.arange(experts) % on.chips] = 1
    how = {"dtype": on.real.uint16, "layout": rows, "device": on.mesh}
    on_chips = on.ttnn.from_torch(mapping, **how)
    tokens = on.parts(batch, 1, seq, hidden)
    # Experts of the chip's own line, so that each of a token's choices comes back.
    lines = {chip: line for line in on.lines(1) for chip in line}
    picks = [[line + on.chips * at for line in lines[chip] for at in range(local)] for chip in range(on.chips)]
    chosen = [
        torch.tensor([picks[chip][(chip + n) % len(picks[chip])] for n in range(batch * seq * k)], dtype=torch.int32)
        for chip in range(on.chips)
    ]
    choices = on.up([part.reshape(batch, 1, seq, k) for part in chosen], on.real.uint16, rows)
    sent, metadata = on.ttnn.all_to_all_dispatch(on.up(tokens, layout=rows), choices, on_chips, cluster_axis=1)
    assert tuple(sent.shape) == (1, batch * on.columns, seq, hidden)
    # Expert e multiplies by e + 1.
    made = []
    for chip, part in enumerate(on.down(sent)):
        made.append(torch.cat([part * (chip + on.chips * at + 1) for at in range(local)]))
    back = on.ttnn.all_to_all_combine(on.up(made, layout=rows), metadata, on_chips, cluster_axis=1)
    for chip, part in enumerate(on.down(back)):
        factors = chosen[chip].reshape(batch, seq, k).permute(2, 0, 1)[..., None] + 1
        expected = tokens[chip].reshape(1, batch, seq, hidden) * factors
        torch.testing.assert_close(part, expected.bfloat16().float(), rtol=0, atol=0)


@check
def a_dry_run_reads_what_has_the_shape_of_a_read(on: Checked) -> None:
    ttnn = on.device.namespace(dry_run=True)
    tensor = ttnn.from_torch(torch.ones(32, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=on.mesh)
    assert ttnn.to_torch(ttnn.get_device_tensors(tensor)[-1]).shape == (32, 64)
    join = ttnn.ConcatMeshToTensor(on.mesh, dim=1)
    assert ttnn.to_torch(tensor, mesh_composer=join).shape == (32, 64 * on.chips)
    try:
        ttnn.to_torch(tensor)
    except RuntimeError as error:
        assert "Supply a mesh composer" in str(error)
    else:
        raise AssertionError("it was read")


@check
def torch_writes_what_goes_up_to_all_chips_alike(on: Checked) -> None:
    x = on.random(33, 64)
    how = {"dtype": on.real.bfloat16, "layout": on.real.TILE_LAYOUT}
    tensor, host = on.same(torch.zeros(33, 64)), on.device.host_tensor(on.ttnn.from_torch(x, **how), False)
    on.ttnn.copy_host_to_device_tensor(host.write(x), tensor)
    on.expect(tensor, [x] * on.chips)
    for mapper in (on.ttnn.ReplicateTensorToMesh(on.mesh), on.ttnn.ShardTensorToMesh(on.mesh, dim=1)):
        made = on.ttnn.from_torch(x, **how, mesh_mapper=mapper)
        try:
            on.device.host_tensor(made, False)
        except TypeError as error:
            assert "several chips" in str(error)
        else:
            raise AssertionError("it was taken")


@check
def queues_read_what_each_chip_has(on: Checked) -> None:
    parts = on.parts(1, 1, 32, 32)
    tensor, queues = on.up(parts), on.device.queues(on.ttnn, False)
    queues.made(tensor)
    host = queues.read(tensor).wait()
    on.expect(host, parts)
    joined = on.ttnn.to_torch(host, mesh_composer=on.ttnn.ConcatMeshToTensor(on.mesh, dim=0))
    assert torch.equal(joined.float(), torch.cat(parts))


@check
def a_trace_computes_on_what_each_chip_has_when_it_is_replayed(on: Checked) -> None:
    def runs_on(ttnn: Any) -> Any:
        return lambda _, x: [ttnn.all_reduce(x, cluster_axis=1), ttnn.relu(x)]

    x = on.up(on.parts(1, 1, 32, 256))
    runs_on(on.ttnn)(on.mesh, x)  # each program is in the cache
    trace = on.device.trace(runs_on(on.ttnn), runs_on(on.device.namespace(dry_run=True)), False, on.mesh, [x])
    for _ in range(2):
        parts = on.parts(1, 1, 32, 256)
        how = {"dtype": on.real.bfloat16, "layout": on.real.TILE_LAYOUT}
        host = on.ttnn.from_host_shards([on.ttnn.from_torch(part, **how) for part in parts], on.mesh.shape)
        on.ttnn.copy_host_to_device_tensor(host, x)
        trace.replay()
        line = [parts[chip] for chip in on.lines(1)[0]]
        assert torch.equal(on.down(trace.outputs[0])[0], summed(line))
        on.expect(trace.outputs[1], [part.relu() for part in parts])
    trace.release()
