"""Levels of plateaus: the rule, and cubics that keep decreasing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mids.analysis.prediction import Curves, level, predicted_level

RATE = 0.05


def curve(time):
    """Approach of a level 1 by 1 / t, and departure at t = 100."""
    return 1 + 1 / time - np.exp(np.minimum(RATE * (time - 100), 50)) / 2


def one_level(time, values, enter, stop):
    return level(time, np.asarray(values)[None], np.array([enter]), np.array([stop]))[0]


def one_predicted(curve, grid, enter, stop, measured=None):
    ends = np.array([enter]), np.array([stop])
    seen = measured and tuple(np.array([end]) for end in measured)
    return predicted_level(lambda rows, time: curve(time), grid, *ends, seen)[0]


def test_the_level_is_where_the_curve_is_flattest_in_log_time():
    time = np.geomspace(0.01, 120, 4001)
    slope = np.gradient(curve(time), np.log(time))
    inside = (time >= 2) & (time <= 90)
    flattest = time[inside][np.argmin(np.abs(slope[inside]))]
    assert one_level(time, curve(time), 2, 90) == pytest.approx(curve(flattest), rel=1e-6)
    # coarse grids read the same off the predicted curve and off the data, whatever their points
    for start in np.geomspace(0.01, 0.02, 7):
        grid = start * 1.3 ** np.arange(60)
        measured = one_level(grid, curve(grid), 2, 90)
        assert measured == one_predicted(curve, grid, 2, 90)
        assert measured == pytest.approx(curve(flattest), rel=0.02)
    assert one_predicted(curve, None, 2, 90) == pytest.approx(curve(flattest), rel=1e-3)
    assert one_predicted(curve, np.array([0.0, 1.0, 1e3]), 2, 90) == one_predicted(
        curve, None, 2, 90
    )


def test_the_level_of_few_points():
    time, values = np.array([0.0, 1.0, 2.0, 4.0]), np.array([4.0, 3.0, 1.0, 0.9])
    assert one_level(time, values, 0.0, 3.0) == 4.0  # nothing approaches the first plateau
    assert one_level(time, values, 0.5, 1.5) == 3.0
    assert one_level(time, values, 0.5, 9.0) == 0.9
    assert np.isnan(one_level(time, values, 2.1, 3.9))
    assert one_level(time, np.array([4.0, np.nan, np.nan, 0.9]), 0.5, 9.0) == 0.9
    assert np.isnan(one_level(time, np.full(4, np.nan), 0.0, 9.0))
    late = 1e15  # a stay that is short against what has passed has few times of its own
    assert one_predicted(lambda t: np.exp(late - t), None, late, late + 1) == pytest.approx(
        0.8, abs=0.25
    )


@given(
    st.lists(st.floats(0.0, 10.0), min_size=2, max_size=9),
    st.lists(st.floats(0.0, 1e6), min_size=9, max_size=9),
)
def test_curves_pass_their_points_and_never_rise(drops, slopes):
    values = 100.0 - np.cumsum(drops)
    time = np.cumsum(0.1 + np.arange(len(values)))
    curve = Curves(np.zeros(len(time)), time, values, -np.array(slopes[: len(values)]))

    def through(at):
        return curve(np.zeros(len(at), dtype=int), at)

    np.testing.assert_allclose(through(time), values, rtol=1e-12)
    fine = through(np.linspace(time[0] - 1, time[-1] + 1, 999))
    assert (np.diff(fine) <= 1e-10).all()
    assert fine[0] == values[0] and fine[-1] == values[-1]


def test_curves_are_accurate_where_they_are_smooth():
    time = np.linspace(0, 5, 26)
    decay = Curves(np.zeros(26), time, np.exp(-time), -np.exp(-time))
    at = np.linspace(0, 5, 333)
    np.testing.assert_allclose(decay(np.zeros(333, dtype=int), at), np.exp(-at), rtol=1e-5)
