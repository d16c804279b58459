"""The verification of phase diagrams finds the exponent that is in the data."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mids
from tests.verification import phase


def successes(exponent, runs=200, constant=2.0):
    """Runs that succeed from their own multiple of d^s on, alike at all dimensions in law."""
    dims, sizes = np.array(phase.DIMS), np.round(np.geomspace(4, 20_000, 30)).astype(int)
    own = np.random.default_rng(0).lognormal(0, 0.5, (len(dims), 1, runs))
    needed = constant * dims[:, None, None] ** exponent * own
    return xr.DataArray(
        (sizes[:, None] >= needed).astype(np.int8),
        dims=("dim", "n", "run"),
        coords={"dim": dims, "n": sizes},
    )


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_slopes_are_those_of_the_thresholds(exponent):
    found = successes(exponent)
    half = phase.thresholds(found)
    np.testing.assert_allclose(half, 2 * np.array(phase.DIMS) ** exponent, rtol=0.25)
    slope, low, high = phase.slopes(found)
    assert low < exponent < high and high - low < 0.4
    assert slope == pytest.approx(exponent, abs=0.15)


def test_thresholds_need_both_sides():
    found = successes(2.0)
    assert np.isnan(phase.thresholds(found.isel(n=slice(0, 3)))).all()
    assert np.isnan(phase.thresholds(found.isel(n=slice(-3, None)))).all()
    assert np.isnan(phase.slopes(found.isel(n=slice(0, 3)))).all()


def test_the_report_has_a_row_for_each_diagram():
    success = successes(2.0)
    sizes = success["n"].values.tolist()
    diagram = mids.phase_diagram("h2(z1)", dim=phase.DIMS, n=sizes, runs=200, noise=1.0)
    text = phase.document([diagram.assign(success=success)], 200, ["a.png"])
    assert "| `h2(z1)` | 1 | 2 |" in text
    row, *shares = (line for line in text.splitlines() if line.startswith("| `h2(z1)`"))
    fractions = [
        [np.nan if x == " - " else float(x) for x in line.split("|")[3:-1]] for line in shares
    ]
    assert (
        np.nanmax(fractions, axis=1) - np.nanmin(fractions, axis=1)
    ).max() < 0.2  # they depend on n / d^2 alone
    assert np.nanmin(fractions) < 0.1 and np.nanmax(fractions) > 0.9
    assert row.count("|") == len(phase.DIMS) + 5 and "![success](a.png)" in text
