"""Traces on devices that are closed under them, or that their user opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh_process import BOARD, FreshProcess

START = f"""
    import gc, json, sys
    sys.path.insert(0, {str(Path(__file__).parents[2])!r})
    import torch
    from comparison import assert_same
    from small_models import Feedforward
    import tt_dynamo
    from tt_dynamo.devices import open_device
    from tt_dynamo.runtime.traces.traces import Traces

    torch.set_grad_enabled(False)
    model, inputs = Feedforward(), [torch.randn(4, 32) for _ in range(4)]
    found = {{}}

    def traced(model, device={BOARD!r}, **options):
        given = {{"device": device, "trace": True, "fallback": "error", **options}}
        return torch.compile(model, backend="ttnn", dynamic=False, options=given)

    def check(call, model):
        for x in inputs:
            assert_same(call(x), model(x))

    def error_of(call):
        try:
            call(inputs[0])
        except Exception as error:
            return [type(error).__name__, str(error)]
"""


@pytest.mark.slow
def test_a_device_that_is_closed_under_its_traces_says_so_and_traces_begin_anew(fresh_process: FreshProcess) -> None:
    found = fresh_process.run(
        START
        + """
    call, late = traced(model), traced(Feedforward(), outputs="device", queues=2)
    check(call, model)
    results = [late(x) for x in inputs]
    device = open_device("auto")
    found["captured"] = device.resource(Traces).captured
    device.close()
    for result, x in zip(results, inputs):
        assert_same(result.clone(), late._orig_mod(x))
    found["errors"] = [error_of(each) for each in (call, late, call)]
    del device
    torch._dynamo.reset()
    check(call, model)
    check(lambda x: late(x).clone(), late._orig_mod)
    found["again"] = open_device("auto").resource(Traces).captured
    print(json.dumps(found))
    """
    )
    assert found["captured"] and found["again"]
    assert [kind for kind, _ in found["errors"]] == ["DeviceError"] * 3
    assert all("was closed; open it again" in message for _, message in found["errors"])
    assert "leaked" not in found["output"]


@pytest.mark.slow
def test_a_device_that_its_user_opened_is_traced_on_and_closed_by_them(fresh_process: FreshProcess) -> None:
    found = fresh_process.run(
        START
        + """
    open_device("auto").close()  # after which TTNN is mocked
    import ttnn
    mine = ttnn.open_device(device_id=0, trace_region_size=1 << 20)
    call, other = traced(model, mine), traced(Feedforward(), mine, queues=2)
    with tt_dynamo.record() as reports:
        check(call, model)
        check(other, other._orig_mod)
        check(call, model)
    found["traces"] = [report.trace for report in reports]
    ttnn.close_device(mine)
    found["errors"] = [error_of(each) for each in (call, other, call)]
    torch._dynamo.reset()
    del call, other
    gc.collect()
    call = traced(model)
    check(call, model)
    print(json.dumps(found))
    """
    )
    assert found["traces"] == ["captured"] * 2
    assert all("closed" in message for _, message in found["errors"])
