"""What is asked for cannot be had: options, boards, hardware, TTNN itself, a folder. Each error says what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import assert_same
from fresh_process import BOARD, FreshProcess
from small_models import Feedforward
from torch._dynamo.exc import BackendCompilerFailed

import tt_dynamo.backend
from tt_dynamo.devices import DeviceError
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.options import OptionError, Options
from tt_dynamo.passes import OPTIONAL

pytestmark = pytest.mark.usefixtures("clean_dynamo")

NO_HARDWARE = pytest.mark.skipif(Path("/dev/tenstorrent").exists(), reason="runs where there is no accelerator")
OTHER_BOARD = "p150" if BOARD != "p150" else "n150"


def compile_with(**options: Any) -> Any:
    with torch.no_grad():
        return torch.compile(Feedforward(), backend="ttnn", options=options)(torch.randn(4, 32))


WRONG = {
    "an unknown option": ({"devcie": "n150"}, "unknown option 'devcie'; did you mean 'device'"),
    "an option like no other": ({"qqq": 1}, "valid are 'activation_dtype', 'cache', 'cache_dtype', 'configs'"),
    "an unknown board": ({"device": "n15O"}, "unknown device 'n15O'; did you mean 'n150'"),
    "no device at all": ({"device": 7}, "or an open ttnn device, not 7"),
    "torch's device": ({"device": torch.device("cpu")}, "or an open ttnn device, not device"),
    "an unknown fallback": ({"fallback": "eror"}, "unknown fallback 'eror'; did you mean 'error'"),
    "an unknown pass": ({"disable_passes": ["fuse_qvk"]}, "unknown pass 'fuse_qvk'.*did you mean 'fuse_qkv'"),
    "a pass that must run": ({"disable_passes": ["canonicalize"]}, "unknown pass 'canonicalize'"),
    "passes as one string": ({"disable_passes": "fuse_qkv"}, "a list of pass names, not 'fuse_qkv'"),
    "a number for a switch": ({"dry_run": 1}, "'dry_run' is True or False, not 1"),
    "no folder": ({"dump": 3}, "'dump' is the path of a folder, not 3"),
    "no cache": ({"weight_cache": True}, "'weight_cache' is the path of a folder, not True"),
    "no count": ({"warn_after_shapes": 0}, "positive int, not 0"),
    "no buckets": ({"prompt_buckets": 64}, "'prompt_buckets' is None, \"auto\" or a list of lengths.*not 64"),
    "a bucket of half tiles": (
        {"prompt_buckets": [32, 100]},
        r"multiples of 32 \(the rows of a tile\), not \(32, 100\)",
    ),
    "an unknown policy of buckets": ({"prompt_buckets": "atuo"}, "'prompt_buckets' is None, \"auto\" or.*not 'atuo'"),
    "three queues": ({"queues": 3}, "'queues' is 1 or 2, not 3"),
    "an unknown placement": ({"placement": "devcie"}, "unknown placement 'devcie'; did you mean 'device'"),
    "no mapping of configs": ({"configs": "fast"}, "'configs' is a mapping of patterns to configs, not 'fast'"),
    "no config": ({"configs": {"up": "HiFi4"}}, "config 'up' is a mapping of fields to values, not 'HiFi4'"),
    "no pattern": ({"configs": {"@n150": {}}}, "'@n150' is no pattern"),
    "an unknown field": ({"configs": {"up": {"fidelty": "HiFi4"}}}, "'fidelty'; did you mean 'fidelity'"),
    "an unknown value": ({"configs": {"up": {"memory": "L2"}}}, "memory of the config 'up': 'L2'; did you mean 'L1'"),
    "an unknown phase": ({"configs": {"up@decod": {}}}, "phase or board in the config 'up@decod': 'decod'; .*'decode'"),
    "two boards": ({"configs": {"up@n150@p150": {}}}, "one phase and one board; write a key for each"),
    "no grid": ({"configs": {"up": {"grid": 8}}}, "'grid' of the config 'up' is two positive ints.*not 8"),
    "half a tile": (
        {"configs": {"up": {"k_chunk_size": 48}}},
        "'k_chunk_size' .* is a positive multiple of 32, not 48",
    ),
    "an unknown operation": ({"configs": {"ttnn.sofmax": {}}}, "'ttnn.sofmax': ttnn has no 'sofmax'; .*'softmax'"),
    "an unknown variant": ({"gelu": "Fast"}, "unknown gelu 'Fast'.*'FastLut'"),
    "an unknown fidelity": ({"math_fidelity": "HiFi5"}, "unknown math_fidelity 'HiFi5'; did you mean"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_option_names_the_nearest_right_one(what: str) -> None:
    options, message = WRONG[what]
    with pytest.raises(BackendCompilerFailed, match=message) as raised:
        compile_with(**options)
    assert isinstance(raised.value.inner_exception, (OptionError, DeviceError))


def test_a_mode_that_torch_does_not_have_is_refused_with_those_that_it_has() -> None:
    valid = "'default', 'lite', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs'"
    compiled = torch.compile(Feedforward(), backend="ttnn", mode="nonsense")
    with pytest.raises(BackendCompilerFailed, match=f"unknown mode 'nonsense'; valid are {valid}") as raised:
        compiled(torch.randn(4, 32))
    assert isinstance(raised.value.inner_exception, OptionError)


@pytest.mark.parametrize("mode", [None, *torch._inductor.list_mode_options()])
def test_a_mode_of_torch_s_is_one_note_in_each_report_and_one_line_in_the_log(
    mode: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tt_dynamo.backend._log_once.cache_clear()
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", mode=mode, dynamic=False)
    with caplog.at_level("INFO", logger="tt_dynamo"), torch.no_grad(), tt_dynamo.record() as reports:
        for rows in (4, 8):
            x = torch.randn(rows, 32)
            assert_same(compiled(x), model(x))
    expected = [] if mode in (None, "default") else [f"mode {mode!r}"]
    assert [[note.split(":")[0] for note in report.notes] for report in reports] == [expected, expected]
    assert [r.getMessage() for r in caplog.records if "mode" in r.getMessage() and r.name == "tt_dynamo.backend"] == (
        reports[0].notes
    )


def test_options_cannot_be_changed() -> None:
    options = Options.parse({"device": BOARD, "disable_passes": list(OPTIONAL)})
    assert options.disable_passes == tuple(sorted(OPTIONAL))
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.device = "auto"  # type: ignore[misc]


def test_a_wrong_option_leaves_the_next_compilation_alone() -> None:
    with pytest.raises(BackendCompilerFailed):
        compile_with(devcie=1)
    assert compile_with().shape == (4, 32)


@NO_HARDWARE
def test_hardware_where_there_is_none() -> None:
    with pytest.raises(BackendCompilerFailed, match=r"(no Tenstorrent hardware|cannot open 'hardware')"):
        compile_with(device="hardware")


def test_another_board_in_the_same_process(board_device: Any) -> None:
    with pytest.raises(BackendCompilerFailed, match=f"cannot open '{OTHER_BOARD}'.*one cluster per process"):
        compile_with(device=OTHER_BOARD)


def test_forbidden_fallback_names_the_node_and_the_reason_at_compile_time() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j1(torch.relu(x))

    compiled = torch.compile(model, backend="ttnn", options={"fallback": "error"})
    with pytest.raises(BackendCompilerFailed, match=r"bessel_j1.*special_bessel_j1.default has no lowering") as raised:
        compiled(torch.randn(4, 4))
    assert isinstance(raised.value.inner_exception, FallbackError)
    assert "1 of 2 nodes" in str(raised.value)


def test_forbidden_fallback_and_nothing_that_falls_back() -> None:
    assert compile_with(fallback="error").shape == (4, 32)


def test_a_file_in_place_of_the_dump_folder_is_one_warning(tmp_path: Path, warnings_logged: Any) -> None:
    (tmp_path / "dump").write_text("in the way")
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", options={"dump": str(tmp_path / "dump")})
    x = torch.randn(4, 32)
    with torch.no_grad(), tt_dynamo.record() as reports:
        assert_same(compiled(x), model(x))
        assert_same(compiled(x), model(x))
    assert len(reports) == 1
    (warning,) = warnings_logged()
    assert str(tmp_path / "dump") in warning
    assert (tmp_path / "dump").read_text() == "in the way"


def test_a_dump_that_fails_anywhere_never_breaks_a_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_logged: Any
) -> None:
    from tt_dynamo.report.dump import Dump

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dump, "_write_text", lambda self, name, text: self._write(name, full))
    monkeypatch.setattr(torch, "save", full)
    model = Feedforward()
    x = torch.randn(4, 32)
    with torch.no_grad():
        assert_same(torch.compile(model, backend="ttnn", options={"dump": tmp_path})(x), model(x))
    (warning,) = warnings_logged()
    assert "No space left" in warning


MISSING = """
    import importlib.abc, json, sys

    class Hidden(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("ttnn", "tracy", "loguru"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    import importlib.util
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "ttnn" else real(name, *rest)
    sys.meta_path.insert(0, Hidden())
    import torch
    found = {}
    for version in ((3, 11), (3, 12)):
        sys.version_info = type("V", (tuple,), {"major": version[0], "minor": version[1]})((*version, 0, "final", 0))
        try:
            torch.compile(torch.nn.Linear(2, 2), backend="ttnn")(torch.ones(1, 2))
        except Exception as error:
            found[str(version[1])] = [type(error.inner_exception).__name__, str(error)]
        torch._dynamo.reset()
    sys.version_info = type("V", (tuple,), {"major": 3, "minor": 12})((3, 12, 0, "final", 0))
    print(json.dumps(found))
"""


def test_no_ttnn_says_which_python_has_it_or_how_to_install_it(fresh_process: FreshProcess) -> None:
    found = fresh_process.run(MISSING)
    kind, message = found["11"]
    assert kind == "DeviceError" and "3.10 and 3.12" in message and "Python 3.11" in message
    kind, message = found["12"]
    assert kind == "DeviceError" and "pip install 'ttnn==0.81.*'" in message


def test_a_closed_device_says_so_and_after_a_reset_the_model_runs_again(fresh_process: FreshProcess) -> None:
    found = fresh_process.run(f"""
        import json, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        from comparison import assert_same
        from small_models import Feedforward
        from tt_dynamo.devices import open_device

        torch.set_grad_enabled(False)
        model, x = Feedforward(), torch.randn(4, 32)
        compiled = torch.compile(model, backend="ttnn", options={{"device": {BOARD!r}}})
        assert_same(compiled(x), model(x))
        open_device({BOARD!r}).close()
        errors = []
        for _ in range(2):
            try:
                compiled(x)
            except Exception as error:
                errors.append([type(error).__name__, str(error)])
        torch._dynamo.reset()
        for _ in range(2):
            assert_same(compiled(x), model(x))

        # A device of the user's own: used, shared by what asks for the board, closed by them.
        open_device({BOARD!r}).close()
        torch._dynamo.reset()
        import ttnn
        mine = ttnn.open_device(device_id=0)
        own = torch.compile(model, backend="ttnn", options={{"device": mine}})
        other = torch.compile(Feedforward(), backend="ttnn")
        assert_same(own(x), model(x))
        assert_same(other(x), other._orig_mod(x))
        ttnn.close_device(mine)
        for call in (own, other, lambda x: own(x[:2])):
            try:
                call(x)
            except Exception as error:
                errors.append([type(error).__name__, str(error)])
        torch._dynamo.reset()
        assert_same(other(x), other._orig_mod(x))
        print(json.dumps({{"errors": errors}}))
    """)
    kinds = [kind for kind, _ in found["errors"]]
    assert kinds[:2] == ["DeviceError", "DeviceError"]
    assert all("was closed; open it again" in message for _, message in found["errors"][:2])
    assert len(kinds) == 5
    assert all("closed" in message for _, message in found["errors"][2:])
