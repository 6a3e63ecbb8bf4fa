"""Weights are uploaded once, shared by what reads them, never stale, and gone with their last reader."""

import copy
import dataclasses
import gc
import os
import threading

import pytest
import torch
from torch import nn

import tt_dynamo
from tt_dynamo.devices import open_device
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.uses import WeightUse
from tt_dynamo.lowering import registry
from tt_dynamo.runtime.traces.traces import Traces
from tt_dynamo.runtime.weights import Stamps, WeightStore

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
TILE = Spec((4, 4), "bfloat16", "TILE")


class Uploads:
    """Stands for the border of a device: notes what goes up."""

    def __init__(self, values=(), dry_run=False):
        self.values, self.dry_run = list(values), dry_run
        self.traces = Traces()

    def up(self, tensor, spec):
        self.values.append((tensor.clone(), spec))
        return object()

    def up_first(self, tensor, spec):
        return self.up(tensor, spec)

    def renew(self, old, tensor, spec):
        return False  # no trace reads it


@pytest.fixture
def upload():
    return Uploads()


@pytest.fixture
def store():
    return WeightStore()


@pytest.fixture
def w():
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


def transposed(x):
    return x.t()


def use(expression="", spec=TILE, evaluate=transposed):
    return WeightUse(None, spec, evaluate=evaluate, expression=expression)


# --- stamps ---------------------------------------------------------------------------------------------------------


def test_what_was_not_written_to_is_current(w):
    assert Stamps([w]).current([w])


WRITES = {
    "in place": lambda w: w.add_(1),
    "by index": lambda w: w.__setitem__(0, 1.0),
    "through a view": lambda w: w[0].zero_(),
    "through detach": lambda w: w.detach().zero_(),
    "by copy": lambda w: w.copy_(torch.zeros(4, 4)),
    "by another memory": lambda w: w.set_(torch.zeros(4, 4)),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_is_seen(name, w):
    stamps = Stamps([torch.zeros(2), w])
    WRITES[name](w)
    assert not stamps.current([torch.zeros(2), w])


def test_another_tensor_of_the_same_contents_is_not_the_same(w):
    assert not Stamps([w]).current([w.clone()])


def test_memory_that_was_stamped_is_not_given_to_another_tensor_meanwhile():
    first = torch.randn(1000)
    stamps, address = Stamps([first]), first.data_ptr()
    del first
    gc.collect()
    others = [torch.randn(1000) for _ in range(50)]
    assert all(other.data_ptr() != address for other in others)
    assert not any(stamps.current([other]) for other in others)


def test_tensors_of_inference_mode_are_compared_by_contents():
    with torch.inference_mode():
        w = torch.randn(4)
        stamps = Stamps([w])
        assert stamps.current([w])
        w.add_(1)
        assert not stamps.current([w])


def test_a_tensor_of_inference_mode_in_place_of_another_is_seen(w):
    stamps = Stamps([w])
    with torch.inference_mode():
        inference = w.clone()
    assert not stamps.current([inference])
    assert not Stamps([inference]).current([w])


# --- the store ------------------------------------------------------------------------------------------------------


def test_a_weight_is_uploaded_once_with_the_value_of_its_expression(store, upload, w):
    first = store.get([w], use("transposed"), upload)
    assert store.get([w], use("transposed"), upload) is first
    ((value, spec),) = upload.values
    assert torch.equal(value, w.t()) and spec == TILE


@pytest.mark.parametrize("other", ["expression", "layout", "dtype", "source", "view", "dry run"])
def test_what_differs_in_anything_is_a_weight_of_its_own(other, store, upload, w):
    first = store.get([w], use(), upload)
    sources = {"source": [w.clone()], "view": [w.t()]}.get(other, [w])
    spec = {"layout": Spec((4, 4), "bfloat16", "ROW_MAJOR"), "dtype": Spec((4, 4), "float32", "TILE")}.get(other, TILE)
    border = Uploads(upload.values, dry_run=other == "dry run")
    second = store.get(sources, use("more" if other == "expression" else "", spec), border)
    assert second is not first and len(border.values) == 2


def test_a_changed_parameter_is_uploaded_again_in_the_same_weight(store, upload, w):
    weight = store.get([w], use(), upload)
    before = weight.tensor
    w.mul_(2)
    assert store.get([w], use(), upload) is weight
    assert weight.tensor is not before
    assert torch.equal(upload.values[1][0], w.t())


def test_the_old_value_is_freed_before_the_new_one_is_uploaded(store, w):
    held = []

    class Holding(Uploads):
        def up(self, tensor, spec):
            held.append(weight.tensor if held else None)
            return object()

    upload = Holding()
    weight = store.get([w], use(), upload)
    w.add_(1)
    held.append("second")
    store.get([w], use(), upload)
    assert held[-1] is None


def test_an_upload_that_fails_is_tried_again(store, upload, w):
    weight = store.get([w], use(), upload)
    w.add_(1)

    class Failing(Uploads):
        def up(self, tensor, spec):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        store.get([w], use(), Failing())
    store.get([w], use(), upload)
    assert weight.tensor is not None and torch.equal(upload.values[-1][0], w.t())


def test_a_weight_goes_with_the_last_that_holds_it(store, upload, w):
    weight = store.get([w], use(), upload)
    other = store.get([w], use(), upload)
    del weight
    gc.collect()
    assert store.get([w], use(), upload) is other and len(upload.values) == 1
    del other
    gc.collect()
    held = store.get([w], use(), upload)
    assert held is not None and len(upload.values) == 2


def test_a_weight_of_several_parameters_changes_with_each(store, upload, w):
    b = torch.ones(4)

    def merged(w, b):
        return torch.cat([w, b[None]])

    weight = store.get([w, b], use("merged", evaluate=merged), upload)
    for parameter in (w, b):
        parameter.add_(1)
        store.get([w, b], use("merged", evaluate=merged), upload)
        assert torch.equal(upload.values[-1][0], merged(w, b))
    assert weight is not None and len(upload.values) == 3


def test_a_step_of_an_optimizer_makes_its_parameters_stamps_expire(store, w):
    parameter, other = nn.Parameter(w), nn.Parameter(w.clone())
    parameter.grad = torch.ones_like(parameter)
    stamps, others = store.stamp([parameter]), store.stamp([other])
    version = parameter._version
    torch.optim.SGD([parameter], lr=0.0).step()
    torch._C._autograd._unsafe_set_version_counter((parameter,), (version,))  # as fused optimizers leave it
    assert not stamps.current([parameter]) and others.current([other])


def test_threads_that_ask_at_once_share_one_upload(store, upload, w):
    barrier, found = threading.Barrier(4), []

    def ask():
        barrier.wait()
        found.append(store.get([w], use(), upload))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1 and len(upload.values) == 1


def test_a_store_that_is_gone_leaves_no_hook_in_torch():
    from torch.optim.optimizer import _global_optimizer_post_hooks as hooks

    gc.collect()
    before = len(hooks)
    store = WeightStore()
    assert len(hooks) == before + 1
    del store
    gc.collect()
    assert len(hooks) == before


# --- compiled models ------------------------------------------------------------------------------------------------


@pytest.fixture
def device():
    return open_device(BOARD)


def compiled(model):
    torch._dynamo.reset()
    return torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})


def linear():
    torch.manual_seed(0)
    return nn.Linear(8, 4)


def held(device):
    gc.collect()
    return list(device.resource(WeightStore)._weights.values())


def assert_eagers(model, ours, x):
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x), rtol=0.02, atol=0.02)


def test_two_graphs_of_a_model_hold_one_copy_of_its_weights(device):
    model = linear()
    ours, before = compiled(model), len(held(device))
    with tt_dynamo.record() as reports:
        for rows in (2, 3):
            assert_eagers(model, ours, torch.randn(rows, 8))
    assert len(reports) == 2
    assert len(held(device)) == before + 2, "a weight and a bias"


def test_models_never_see_each_others_weights(device):
    first, x = linear(), torch.randn(2, 8)
    second = copy.deepcopy(first)
    ours, theirs = compiled(first), torch.compile(second, backend="ttnn", dynamic=False, options={"device": BOARD})
    assert_eagers(first, ours, x)
    assert_eagers(second, theirs, x)
    with torch.no_grad():
        second.weight.zero_()
    assert_eagers(second, theirs, x)
    assert_eagers(first, ours, x)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.weight.mul_(-1),
        lambda model: model.load_state_dict({"weight": torch.ones(4, 8), "bias": torch.zeros(4)}),
        lambda model: nn.init.zeros_(model.bias),
        lambda model: setattr(model, "weight", nn.Parameter(torch.ones(4, 8))),
    ],
    ids=["in place", "load_state_dict", "init", "another parameter"],
)
def test_a_changed_weight_is_never_stale(change, device):
    model, x = linear(), torch.randn(2, 8)
    ours = compiled(model)
    assert_eagers(model, ours, x)
    with torch.no_grad():
        change(model)
    assert_eagers(model, ours, x)


def test_weights_go_with_their_model(device):
    torch._dynamo.reset()
    before = len(held(device))
    model = linear()
    ours = compiled(model)
    assert_eagers(model, ours, torch.randn(2, 8))
    assert len(held(device)) == before + 2
    del ours, model
    torch._dynamo.reset()
    assert len(held(device)) == before


def test_constants_among_the_parts_of_what_ttnn_refuses_are_weights(monkeypatch):
    def refuse(ttnn, *operands):
        raise Refused("ttnn.matmul: not this one")

    refusing = dataclasses.replace(registry.find(operators.resample), function=refuse)
    monkeypatch.setitem(registry._lowerings, operators.resample, refusing)
    x = torch.randn(2, 3, 8, 9)
    with tt_dynamo.record() as reports, torch.no_grad():
        torch.compile(nn.Upsample((5, 7), mode="bilinear"), backend="ttnn", dynamic=False, options={"device": BOARD})(x)
    assert "ttnn.matmul" in [operation.target for operation in reports[0].operations]
    assert [transfer.direction for transfer in reports[0].transfers] == ["to_device", "to_host"]


def test_changed_contents_are_seen_without_guards_on_modules(clean_dynamo):
    model, x = nn.Linear(4, 4), torch.randn(4, 4)
    options = {"device": BOARD, "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    compiled = torch.compile(lambda x: model(x), backend="ttnn", options=options)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), model(x), rtol=0.05, atol=0.05)
            model.weight.mul_(-2)
