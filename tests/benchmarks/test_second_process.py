"""The benchmark of a second process: it finds what the first one compiled, and starts sooner."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh_process import BOARD

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_second_process_finds_the_programs_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import second_process

    found = second_process.measure("vit-base", BOARD, 2)
    assert found["from_cache"] == (False, True)
    compiled, loaded = found["compiler"]
    assert 0 < loaded < 0.25 * compiled  # what is left of a first call varies with the machine's load


def test_an_unknown_case_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import second_process

    with pytest.raises(SystemExit):
        second_process.main(["vit-bass"])
    assert "did you mean 'vit-base'?" in capsys.readouterr().err
