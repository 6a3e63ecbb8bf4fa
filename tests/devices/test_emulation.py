"""The emulated namespace: real calls, values beside them, and what must never pass in silence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tt_dynamo.devices import EmulationError
from tt_dynamo.devices.emulation import namespace as emulation_module

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


def test_what_is_no_operation_is_ttnns_own(ttnn: Any, emulated: Any) -> None:
    for name in ("bfloat16", "TILE_LAYOUT", "CoreGrid", "L1_MEMORY_CONFIG", "UnaryOpType", "Shape"):
        assert getattr(emulated, name) is getattr(ttnn, name)


def test_the_namespace_resolves_an_attribute_once(emulated: Any) -> None:
    assert emulated.linear is emulated.linear
    assert emulated.transformer.concatenate_heads is emulated.transformer.concatenate_heads


def test_an_unknown_attribute_is_an_attribute_error(emulated: Any) -> None:
    with pytest.raises(AttributeError, match="liner"):
        emulated.liner  # noqa: B018


def test_a_tensor_tells_what_ttnn_says_of_it(ttnn: Any, upload: Upload) -> None:
    x = upload(torch.ones(3, 5))
    assert tuple(x.shape) == (3, 5)
    assert tuple(x.padded_shape) == (32, 32)
    assert (x.dtype, x.layout) == (ttnn.bfloat16, ttnn.TILE_LAYOUT)
    assert x.memory_config() == ttnn.DRAM_MEMORY_CONFIG
    assert x.is_allocated()
    assert x.buffer_address() == x.tensor.buffer_address()


def test_a_tensor_has_no_way_past_the_namespace_to_the_mocks_contents(upload: Upload) -> None:
    with pytest.raises(AttributeError, match="through its namespace"):
        upload(torch.ones(2, 2)).to_torch()


def test_a_refused_call_raises_ttnns_own_error(ttnn: Any, emulated: Any, upload: Upload) -> None:
    x = upload(torch.ones(32, 32), layout=ttnn.ROW_MAJOR_LAYOUT)
    with pytest.raises(RuntimeError, match="must be tilized"):
        emulated.matmul(x, x)


def test_lists_of_tensors_are_arguments_too(emulated: Any, upload: Upload, random: Random) -> None:
    x, y = random(2, 3), random(2, 3)
    assert torch.equal(emulated.concat([upload(x), upload(y)], dim=0).value, torch.cat([x, y]))


def test_reading_the_view_of_a_freed_buffer_raises(emulated: Any, upload: Upload) -> None:
    x = upload(torch.ones(64, 64))
    view = emulated.reshape(emulated.reshape(x, (1, 64, 64)), (1, 1, 64, 64))
    assert view.buffer_address() == x.buffer_address(), "TTNN copies here: the test needs another view"
    emulated.deallocate(x)
    assert view.is_allocated(), "TTNN notices by itself now"
    with pytest.raises(EmulationError, match="freed by ttnn.deallocate"):
        emulated.to_torch(view)
    with pytest.raises(EmulationError, match="freed by ttnn.deallocate"):
        emulated.relu(view)
    with pytest.raises(EmulationError, match="freed by ttnn.deallocate"):
        emulated.relu(x)


def test_reading_the_base_of_a_freed_view_raises(emulated: Any, upload: Upload) -> None:
    x = upload(torch.ones(64, 64))
    emulated.deallocate(emulated.unsqueeze(x, 0))
    with pytest.raises(EmulationError, match="freed by ttnn.deallocate"):
        emulated.relu(x)


def test_freeing_without_force_keeps_what_a_view_holds(emulated: Any, upload: Upload) -> None:
    x = upload(torch.ones(64, 64))
    view = emulated.unsqueeze(x, 0)
    emulated.deallocate(x, force=False)
    assert torch.equal(view.value, torch.ones(1, 64, 64))


def test_freeing_gives_the_memory_back(emulated: Any, upload: Upload) -> None:
    x = upload(torch.ones(64, 64))
    address = x.buffer_address()
    emulated.deallocate(x)
    assert not x.is_allocated()
    y = upload(torch.zeros(64, 64))
    assert y.buffer_address() == address
    assert torch.equal(y.value, torch.zeros(64, 64)), "new memory at an old address is readable"


def test_an_operation_that_frees_its_input_frees_the_value(emulated: Any, upload: Upload) -> None:
    x = upload(torch.ones(64, 64))
    moved = emulated.move(x)
    assert torch.equal(moved.value, torch.ones(64, 64))
    with pytest.raises(EmulationError, match="freed by ttnn.move"):
        emulated.relu(x)


def test_the_residual_of_a_layer_norm_is_not_added_to_its_input(emulated: Any, upload: Upload, random: Random) -> None:
    x, residual = upload(random(2, 32)), upload(random(2, 32))
    before = x.value.clone()
    emulated.layer_norm(x, residual_input_tensor=residual)
    assert torch.equal(x.value, before)


class Writing:
    """An operation whose golden function writes to its input, as TTNN's does for the residual of a layer norm."""

    python_fully_qualified_name = "ttnn.writing"
    preprocess_golden_function_inputs = None

    def __init__(self, ttnn: Any):
        self.function = ttnn.relu
        self.writes = True

    def __call__(self, tensor: Any) -> Any:
        return self.function(tensor)

    def golden_function(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.add_(1) if self.writes else tensor + 1


def test_a_golden_that_writes_to_its_input_is_an_error(ttnn: Any, upload: Upload) -> None:
    operation = emulation_module._operation(ttnn, "ttnn.writing", Writing(ttnn))
    with pytest.raises(EmulationError, match="golden function of ttnn.writing wrote to its inputs"):
        operation(upload(torch.zeros(2, 2)))


def test_a_reference_of_another_shape_is_an_error_with_the_operations_name(ttnn: Any, upload: Upload) -> None:
    wrong = Writing(ttnn)
    wrong.golden_function = lambda tensor: tensor[0]  # type: ignore[method-assign]
    operation = emulation_module._operation(ttnn, "ttnn.writing", wrong)
    with pytest.raises(EmulationError, match=r"ttnn.writing gives the shape \(2, 2\) on the device, but \(2,\)"):
        operation(upload(torch.zeros(2, 2)))


def test_a_failing_golden_is_an_error_with_the_operations_name(ttnn: Any, upload: Upload) -> None:
    failing = Writing(ttnn)
    failing.golden_function = lambda tensor: tensor + "one"  # type: ignore[method-assign,operator]
    operation = emulation_module._operation(ttnn, "ttnn.writing", failing)
    with pytest.raises(EmulationError, match="golden function of ttnn.writing failed"):
        operation(upload(torch.zeros(2, 2)))


def test_operations_that_write_to_an_argument_are_refused(emulated: Any, upload: Upload) -> None:
    x = upload(torch.ones(2, 2))
    with pytest.raises(NotImplementedError, match="ttnn.add_ writes to its argument"):
        emulated.add_(x, x)
    with pytest.raises(NotImplementedError, match="ttnn.softmax_in_place writes to its argument"):
        emulated.softmax_in_place(x)
    with pytest.raises(NotImplementedError, match="ttnn.update_cache writes to its argument"):
        emulated.update_cache(x, x, 0)
    with pytest.raises(NotImplementedError, match="with output_tensor="):
        emulated.relu(x, output_tensor=x)


def test_an_operation_without_values_is_refused_by_name(emulated: Any, upload: Upload) -> None:
    with pytest.raises(NotImplementedError, match="ttnn.experimental.rotate_half has no golden function"):
        emulated.experimental.rotate_half(upload(torch.ones(1, 1, 32, 64)))


def test_later_writes_to_a_torch_tensor_do_not_reach_the_device(ttnn: Any, upload: Upload, emulated: Any) -> None:
    source = torch.nn.Parameter(torch.ones(4, 4))
    x = upload(source, ttnn.float32)
    with torch.no_grad():
        source.zero_()
    assert torch.equal(x.value, torch.ones(4, 4))
    emulated.to_torch(x).zero_()
    assert torch.equal(x.value, torch.ones(4, 4))


def test_values_made_in_inference_mode_are_normal_tensors(emulated: Any, upload: Upload) -> None:
    with torch.inference_mode():
        x = emulated.softmax(upload(torch.ones(2, 32)), dim=-1)
    assert not x.value.is_inference()
    assert not emulated.to_torch(emulated.exp(x)).requires_grad


def test_a_result_written_over_its_input_is_an_error(ttnn: Any, upload: Upload) -> None:
    in_place = Writing(ttnn)
    in_place.writes = False
    in_place.function = lambda tensor: tensor
    operation = emulation_module._operation(ttnn, "ttnn.writing", in_place)
    with pytest.raises(EmulationError, match="put its result where its input was"):
        operation(upload(torch.zeros(2, 2)))


def test_a_result_that_is_its_input_unchanged_is_a_view(emulated: Any, upload: Upload, random: Random) -> None:
    x = upload(random(64, 64))
    same = emulated.slice(x, [0, 0], [64, 64])
    assert same.buffer_address() == x.buffer_address(), "TTNN copies here: the test needs another operation"
    emulated.deallocate(x)
    with pytest.raises(EmulationError, match="freed by ttnn.deallocate"):
        emulated.relu(same)


def test_a_tensor_that_ttnn_makes_on_the_host_has_its_value(ttnn: Any, emulated: Any) -> None:
    mask = emulated.create_group_norm_input_mask(64, 8, 1, ttnn.bfloat16)
    assert torch.equal(mask.value, ttnn.create_group_norm_input_mask(64, 8, 1, ttnn.bfloat16).to_torch().float())


@pytest.mark.parametrize("dtype", ["bfloat16", "bfloat8_b", "bfloat4_b"])
def test_a_file_holds_the_value_of_a_tensor(
    ttnn: Any, emulated: Any, device: Any, upload: Upload, random: Random, tmp_path: Path, dtype: str
) -> None:
    x = random(2, 40, 70)
    x[0, 0, :3] = torch.tensor([torch.inf, 1e-38, -0.0])
    tensor, path = upload(x, getattr(ttnn, dtype)), tmp_path / "x.tensorbin"
    emulated.dump_tensor(path, tensor)
    loaded = emulated.load_tensor(path, device=device.handle)
    assert torch.equal(loaded.value, tensor.value)
    assert (loaded.spec, loaded.padding) == (tensor.spec, tensor.padding)
    assert torch.equal(ttnn.load_tensor(path).to_torch().float(), tensor.value), "TTNN alone reads the same"


def test_a_tensor_whose_padding_is_not_known_is_put_into_no_file(emulated: Any, upload: Upload, tmp_path: Path) -> None:
    filled = emulated.fill_implicit_tile_padding(upload(torch.ones(1, 1, 32, 40)), 7.0)
    with pytest.raises(NotImplementedError, match="not prepared, nor padded otherwise"):
        emulated.dump_tensor(tmp_path / "x.tensorbin", filled)
