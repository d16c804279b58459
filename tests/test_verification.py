"""The verification runs, and it would notice a theory that is wrong."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import mids
from tests.verification.__main__ import main
from tests.verification.page import document
from tests.verification.report import verify
from tests.verification.zoo import zoo

CASES = {case.name: case for case in zoo()}


def goals(text):
    return [line for line in text.splitlines() if line.startswith("- ")]


def test_the_command_writes_a_report(tmp_path):
    path = tmp_path / "report.md"
    arguments = ["--dims", "1e4,1e6", "--runs", "4", "--only", "h2", "-o", str(path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    text = path.read_text("utf-8")
    assert "| h2 | h2(z1) | 1 | 2: d |" in text
    assert "median ratio within 0.1% at d = 1e+06: **met**" in text
    assert "4 of 4" not in text and "8 of 8 runs converged" in text
    assert "missed" not in text
    assert CliRunner().invoke(main, ["--only", "nothing of this name"]).exit_code == 2


@pytest.mark.parametrize("name", ["ladder 1-2-3, q = 2", "drift, ridge", "parity 3, rotated"])
def test_cases_of_all_kinds(name):
    result = verify(CASES[name], [1e4, 1e6], 2, seed=3)
    assert (result.runs["as expected"] == 1).all()
    assert (result.saddles["ratio"] - 1).abs().max() < 0.02
    assert CASES[name].converges == (name != "ladder 1-2-3, q = 2")
    assert name in document([result], 2, 3)


def test_a_wrong_theory_is_noticed(monkeypatch):
    right = mids.compare

    def wrong(ds):
        found = right(ds)
        return found.assign(
            ratio=1.1 * found["ratio"],
            loss_theory=1.01 * found["loss_theory"],
            escape_time_theory=found["escape_time_theory"].where(found["saddle"] > 0),
        )

    monkeypatch.setattr(mids, "compare", wrong)
    text = document([verify(CASES["ladder 1-3"], [1e2, 1e4, 1e6], 3, seed=0)], 3, 0)
    assert sum("missed" in line for line in goals(text)) >= 5


def test_the_zoo_has_what_it_should():
    converging = [case for case in CASES.values() if case.converges]
    assert len(CASES) - len(converging) == 3
    assert {case.target.rank for case in CASES.values()} == {1, 2, 3, 4, 5}
    assert any(case.flow.ridge for case in CASES.values())
