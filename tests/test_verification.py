"""The counted verification runs, and it would notice a theory that is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

import mids
from tests.verification.counted import count, main, random_targets, simulated
from tests.verification.zoo import races, zoo

CASES = {case.name: case for case in [*races(), *zoo()]}


@pytest.mark.slow
def test_the_command_writes_a_report(tmp_path):
    path = tmp_path / "report.md"
    arguments = ["--dims", "1e4,1e6", "--runs", "4", "--only", "three races", "--random", "2"]
    result = CliRunner().invoke(main, [*arguments, "-o", str(path)])
    assert result.exit_code == 0, result.output
    text = path.read_text("utf-8")
    assert "| three races | 10000 | 4 | 0 | 0 | 0 | 0 |" in text
    assert "Runs off: 0 by more than 1%, 0 by more than 5%, 0 by more than 20%" in text
    assert CliRunner().invoke(main, ["--only", "nothing of this name"]).exit_code == 2


def test_a_wrong_theory_is_noticed(monkeypatch):
    case = CASES["ladder 1-3, ridge"]
    ds = simulated(case, [1e4], 3, seed=0)
    right = count(ds, case.flow)
    assert right["worst"].max() < 1e-3 and not right[["> 1%", "one side"]].values.any()
    compare = mids.compare

    def wrong(ds):
        found = compare(ds)
        known = found["escape_time_theory"].where(found["saddle"] > 0)
        return found.assign(ratio=1.1 * found["ratio"], escape_time_theory=known)

    monkeypatch.setattr(mids, "compare", wrong)
    off = count(ds, case.flow)
    assert off[["> 1%", "> 5%", "one side"]].values.tolist() == [[3, 3, 3]]
    assert not off["> 20%"].any()


@pytest.mark.slow
def test_random_targets_agree_with_a_reference():
    found = random_targets(3, seed=1)
    assert (found["times"] > 0).all() and found["off"].max() < 0.01
    assert not found["missing"].any() and not found["unknown"].any()


def test_the_zoo_has_what_it_should():
    assert {np.sign((c.student_rank or c.target.rank) - c.target.rank) for c in CASES.values()} == {
        -1,
        0,
        1,
    }
    assert {case.target.rank for case in CASES.values()} == {1, 2, 3, 4, 5}
    assert sum(bool(case.flow.ridge) for case in CASES.values()) > 3
    assert sum("rotated" in name for name in CASES) > 8
