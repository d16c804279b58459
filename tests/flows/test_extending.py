"""Adding a flow and a family of targets by the steps of the manual, in a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mids

FLOW = Path(__file__).parents[1] / "toy_flow.py"
MIDS = """
import sys
from mids.cli import main
for command in sys.argv[1:]:
    main(command.split("|"), standalone_mode=False)
"""
FAMILY = '''
def square_ladder(rank: int) -> Target:
    """Return ``h2(z1) + h2(z1) h2(z2) + ...``, equal weights, of unit norm.

    Parameters
    ----------
    rank : int
        Number of variables.

    Returns
    -------
    Target

    Examples
    --------
    >>> square_ladder(1)
    <Target 'square_ladder(1)' of rank 1, degree 2, norm 1: h2(z1)>
    """
    return _named("square_ladder", rank)


'''
COEFFICIENTS = """
def _square_ladder(rank: int) -> Coefficients:
    rank = integer(rank, "rank", at_least=1)
    check_size(rank, 2 * rank)
    return _leaps(*[2] * rank)


"""


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{path.name} is no longer what the steps of the manual expect"
    path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A folder with the package after the steps: two files changed, one added."""
    folder = tmp_path_factory.mktemp("extended")
    package = folder / "mids"
    shutil.copytree(Path(mids.__file__).parent, package)  # with what is compiled already

    shutil.copy(FLOW, package / "flows" / "toy.py")
    listed = package / "flows" / "__init__.py"
    edit(listed, "from .two_timescale", "from .toy import ToyFlow\nfrom .two_timescale")
    edit(listed, "(TwoLayer, TwoLayerSGD)", "(TwoLayer, TwoLayerSGD, ToyFlow)")

    tables = package / "targets" / "_parser.py"
    edit(tables, "FAMILIES: Mapping", f"{COEFFICIENTS.lstrip()}FAMILIES: Mapping")
    edit(
        tables, '    "staircase": _st', '    "square_ladder": _square_ladder,\n    "staircase": _st'
    )
    families = package / "targets" / "families.py"
    edit(families, "def names(", f"{FAMILY.lstrip()}def names(")
    listed = package / "targets" / "__init__.py"
    edit(listed, "parity, staircase\n", "parity, square_ladder, staircase\n")
    return folder


@pytest.fixture(scope="module")
def run(extended):
    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(extended)}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=extended,
            env=environment,
            text=True,
            capture_output=True,
            check=True,
        ).stdout

    return run


@pytest.mark.slow
def test_the_command_line_knows_them(run):
    shown = run("-c", MIDS, "flows", "targets")
    assert "toy: Logistic growth of each overlap" in shown and "slow = 1.0" in shown
    assert "square_ladder(3)\n" in shown and "leaps 2 -> 2 -> 2: d, d, d" in shown


@pytest.mark.slow
def test_they_are_simulated_by_name(run):
    """Simulated, stored and opened by the command line; saddles as the solution says."""
    sweep = "--target|square_ladder(2)|--dim|1e2,1e4|--runs|5|-o|runs.nc"
    simulate = f"simulate|--flow|toy|--flow-option|slow=2|{sweep}"
    shown = run("-c", MIDS, simulate, "info|runs.nc", "saddles|runs.nc")
    assert "wrote runs.nc" in shown
    assert "toy, slow 2, student rank 2" in shown
    assert shown.count("escape time") == 2  # of simulate and of saddles
    code = """
import numpy as np, mids
from mids.flows.toy import ToyFlow
ds = mids.open_dataset("runs.nc").compute()
assert ds.mi.flow == ToyFlow(slow=2.0)
assert ds.mi.target == mids.targets.square_ladder(2) == mids.Target.parse("square_ladder(2)")
saddles = ds.mi.saddles()
assert (saddles.n_saddles == 2).all()
start = np.linalg.eigvalsh(ds.gram0.values)[..., ::-1]
half = -np.log(start / (1 - start)) * 2 * np.array([1.0, 10.0])
np.testing.assert_allclose(ds.crossing_time.sel(level=0.5), half, rtol=1e-9)
np.testing.assert_allclose(saddles.loss.median("run"), [[0.5, 0.25]] * 2, atol=0.02)
again = mids.replay(ds)
assert again.loss.equals(ds.loss)
both = mids.simulate("square_ladder(1)", dim=100, runs=2, flow=["toy", "planted"])
assert both.loss.sizes["flow"] == 2 and both.loss.notnull().all()
"""
    run("-c", code)


@pytest.mark.slow
def test_the_copy_is_in_order(run, extended):
    """Doctests of what was added, and its layers."""
    shutil.copy(Path(__file__).parents[1] / "test_layers.py", extended)
    checked = ["mids/targets/families.py", "mids/flows/toy.py", "test_layers.py"]
    chosen = "square_ladder or toy or imports_point"
    options = ["-v", "-p", "no:cacheprovider", "--rootdir", str(extended), "--doctest-modules"]
    shown = run("-m", "pytest", *options, *checked, "-k", chosen)
    assert (
        "families.square_ladder PASSED" in shown and "imports_point_down_the_wings PASSED" in shown
    )
