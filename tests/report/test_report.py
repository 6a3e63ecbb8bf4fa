"""Reports: who collects them, what they print, and how launches are counted per layer."""

import asyncio
import contextvars
import json
import threading

import pytest

from tt_dynamo.report.report import Fallback, GraphReport, Operation, Transfer, emit, estimated_phases, record


def report(name="graph_0", **fields):
    return GraphReport(name, "n150 (emulated)", **fields)


def operations(*modules, programs=1):
    return [Operation(f"op_{i}", "ttnn.linear", module, programs) for i, module in enumerate(modules)]


def test_record_collects_what_is_emitted_inside_it_in_order():
    emit(report("before"))
    with record() as reports:
        emit(report("first"))
        emit(report("second"))
    emit(report("after"))
    assert [each.name for each in reports] == ["first", "second"]


def test_every_open_record_gets_a_report():
    with record() as outer:
        emit(report("first"))
        with record() as inner:
            emit(report("second"))
        emit(report("third"))
    assert [each.name for each in outer] == ["first", "second", "third"]
    assert [each.name for each in inner] == ["second"]


def test_record_ends_when_its_block_raises():
    with pytest.raises(ValueError), record() as reports:
        raise ValueError
    emit(report())
    assert reports == []


def test_threads_do_not_see_each_others_records():
    both_open = threading.Barrier(2, timeout=10)
    collected = {}

    def compile_in_thread(name):
        with record() as reports:
            both_open.wait()
            emit(report(name))
            both_open.wait()
        collected[name] = [each.name for each in reports]

    threads = [threading.Thread(target=compile_in_thread, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert collected == {"a": ["a"], "b": ["b"]}


def test_a_thread_in_a_copied_context_reports_even_after_the_block_has_ended():
    with record() as reports:
        context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(emit, report("late")))
    thread.start()
    thread.join()
    assert [each.name for each in reports] == ["late"]


def test_tasks_record_apart_and_what_they_hand_to_a_thread_is_kept():
    async def compile_in_task(name):
        with record() as reports:
            await asyncio.sleep(0)
            await asyncio.to_thread(emit, report(name))
        return [each.name for each in reports]

    async def both():
        return await asyncio.gather(compile_in_task("a"), compile_in_task("b"))

    assert asyncio.run(both()) == [["a"], ["b"]]


def test_launches_are_grouped_by_the_shortest_numbered_path_that_repeats():
    counted = report(
        operations=[
            *operations("embeddings.norm"),
            *operations("encoder.layer.0.attention.self.query", "encoder.layer.0.output.0", "encoder.layer.0.output.3"),
            *operations("encoder.layer.1.attention.self.query", "encoder.layer.1.output"),
            *operations("encoder.layer.1.output", programs=0),
        ]
    )
    assert counted.layers() == {"encoder.layer.0": 3, "encoder.layer.1": 2}
    assert counted.launches_per_layer() == 3


def test_a_number_as_a_suffix_is_a_layer_too():
    torchvision = operations(
        "encoder.layers.encoder_layer_0.self_attention",
        "encoder.layers.encoder_layer_0.mlp.0",
        "encoder.layers.encoder_layer_0.mlp.3",
        "encoder.layers.encoder_layer_1.mlp.0",
    )
    assert report(operations=torchvision).layers() == {
        "encoder.layers.encoder_layer_0": 3,
        "encoder.layers.encoder_layer_1": 1,
    }


def test_a_digit_in_a_plain_name_is_no_layer():
    stages = operations("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer2.0.conv1", "layer2.1.conv1")
    assert report(operations=stages).layers() == {"layer1.0": 2, "layer1.1": 1, "layer2.0": 1, "layer2.1": 1}


def test_a_number_that_does_not_repeat_is_passed_over():
    only_one = operations("stages.0.blocks.0.norm", "stages.0.blocks.1.norm", "stages.0.blocks.1.mlp")
    assert report(operations=only_one).layers() == {"stages.0.blocks.0": 1, "stages.0.blocks.1": 2}


def test_blocks_of_one_stage_are_counted_under_its_prefix():
    stages = operations("stages.0.blocks.0.norm", "stages.0.blocks.1.norm", "stages.1.blocks.0.norm", "stages.10.x")
    assert report(operations=stages).layers() == {"stages.0": 2, "stages.1": 1, "stages.10": 1}
    assert report(operations=stages).layers("stages.0") == {"stages.0.blocks.0": 1, "stages.0.blocks.1": 1}
    tenth = operations("stages.10.blocks.0", "stages.10.blocks.1")
    assert report(operations=stages + tenth).launches_per_layer("stages.1") is None


def test_a_model_without_layers_has_no_launches_per_layer():
    assert report(operations=operations("", "classifier")).launches_per_layer() is None
    assert report().launches_per_layer() is None
    assert report(operations=operations("layer.0", "layer.1", programs=0)).launches_per_layer() is None


def test_derived_numbers():
    measured = report(
        nodes=8, device_nodes=6, host_nodes=2, transfers=[Transfer("x", "to_device", 96), Transfer("y", "to_host", 32)]
    )
    assert measured.transfer_bytes == 128
    assert measured.device_share == 0.75
    assert report().device_share == 1.0


def full_report():
    return report(
        nodes=92,
        device_nodes=91,
        host_nodes=1,
        fallbacks=[Fallback("topk_3", "refused", "TT_FATAL: " + "the dimension is too small " * 9)],
        transfers=[Transfer("input_ids", "to_device", 65536), Transfer("output", "to_host", 1500)],
        calls=140,
        device_programs=93,
        peak_dram_bytes=100 * 2**20,
        operations=operations("encoder.layer.0.query", "encoder.layer.1.query", programs=9),
        seconds={"passes": 0.5, "lowering": 1.25},
        code="def forward(self): ...",
    )


def test_the_table_names_every_fallback_and_transfer_and_fits_its_width():
    text = str(full_report())
    assert "92: 91 on the device (98.9%), 1 on the host" in text
    assert "93 per run, at most 9 in a layer" in text
    assert "topk_3  [refused]" in text and "TT_FATAL" in text
    assert "64.0 KiB  input_ids" in text and "1.5 KiB  output" in text
    assert "100.0 MiB" in text
    assert "def forward" not in text and "ttnn.linear" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_an_empty_report_prints():
    assert "fallbacks         none" in str(report())


def test_the_operation_table_has_a_line_per_call():
    lines = full_report().operation_table().splitlines()
    assert lines[0].split() == ["launches", "operation", "node", "module"]
    assert lines[1].split() == ["9", "ttnn.linear", "op_0", "encoder.layer.0.query"]
    assert len(lines) == 3


def timed_report(*targets):
    timed = [Operation(f"op_{i}", t, f"layers.{i}.mlp", 1, 2e-3, "DRAM", 0.5) for i, t in enumerate(targets)]
    gaps = {"launch_gap_seconds": 1e-3, "host_bytes_per_second": 1e6}
    crossing = [Transfer("x", "to_device", 1000)]
    return report(operations=timed, device_programs=len(timed), transfers=crossing, **gaps)


def test_the_estimate_is_kernels_gaps_and_transfers():
    timed = timed_report("ttnn.linear", "ttnn.linear")
    assert timed.kernel_seconds == pytest.approx(4e-3)
    assert timed.estimated_seconds == pytest.approx(4e-3 + 2e-3 + 1e-3)
    assert "estimate          7.000 ms per run (forward): 4.000 ms kernels" in str(timed)
    assert json.loads(json.dumps(timed.to_dict()))["estimated_seconds"] == pytest.approx(7e-3)


def test_the_estimate_table_has_a_line_per_call_that_takes_time():
    timed = timed_report("ttnn.linear")
    timed.operations.append(Operation("view", "ttnn.reshape", "", 0))
    lines = timed.estimate_table().splitlines()
    assert lines[0].startswith("estimate µs")
    assert lines[1].split() == ["2000.0", "DRAM", "50%", "ttnn.linear", "op_0", "layers.0.mlp"]
    assert len(lines) == 2


def test_estimates_add_up_by_module_and_phase():
    step = timed_report("ttnn.experimental.paged_update_cache", "ttnn.linear")
    step.configured_for = "@decode@n150"
    prompt = timed_report("ttnn.fill_cache")
    prompt.configured_for = "@prefill@n150"
    assert step.estimated_modules(1) == {"layers": pytest.approx(4e-3)}
    assert step.estimated_modules() == {"layers.0": pytest.approx(2e-3), "layers.1": pytest.approx(2e-3)}
    phases = estimated_phases([step, prompt, step])
    assert phases == {"decode": pytest.approx(14e-3), "prefill": pytest.approx(4e-3)}


def test_a_report_without_estimates_says_nothing_of_them():
    assert "estimate" not in str(report()) and report().estimated_seconds == 0.0


def test_to_dict_survives_json_with_the_derived_numbers():
    facts = json.loads(json.dumps(full_report().to_dict()))
    assert facts["transfer_bytes"] == 67036
    assert facts["launches_per_layer"] == 9
    assert facts["device_share"] == pytest.approx(91 / 92)
    assert facts["fallbacks"][0]["kind"] == "refused"
    assert facts["operations"][1]["module"] == "encoder.layer.1.query"
    assert GraphReport(**{key: facts[key] for key in ("name", "device", "calls")}).calls == 140
