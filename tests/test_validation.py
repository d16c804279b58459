"""Argument checks: what passes, and messages that name value, allowed set and remedy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mids import validation
from mids.errors import InputError


@pytest.mark.parametrize("value", [3, 3.0, np.int8(3), np.float32(3), np.array(3)])
def test_whole_numbers_pass(value):
    result = validation.integer(value, "runs", at_least=1)
    assert (result, type(result)) == (3, int)


@pytest.mark.parametrize(
    "value", [0, -3, 2.5, True, np.True_, "3", None, np.nan, np.inf, 3j, [3], 2.0**60]
)
def test_other_counts_are_refused(value):
    with pytest.raises(InputError, match=r"runs must be an integer of at least 1, got .*; pass"):
        validation.integer(value, "runs", at_least=1)


def test_integers_may_be_as_large_as_seeds_of_numpy():
    assert validation.integer(2**128 - 1, "seed", at_least=0) == 2**128 - 1
    for value in (10**5000, -(10**5000)):
        with pytest.raises(InputError, match="too long to print"):
            validation.integer(value, "seed", at_least=0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (100, [100]),
        (1e4, [10000]),
        ([1e2, 10**12], [100, 10**12]),
        (np.array([100, 10]), [100, 10]),
        (range(5, 8), [5, 6, 7]),
        ((4,), [4]),
        (2**53, [2**53]),
    ],
)
def test_dims_pass(value, expected):
    result = validation.dims(value, 2, 2)
    assert result.dtype == np.int64
    assert result.tolist() == expected


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (3, r"rank \+ student_rank = 2 \+ 2 = 4 to 2\*\*53, got 3"),
        (0, "got 0"),
        (-5, "got -5"),
        (10.5, "got 10.5"),
        ([100, np.nan], "got nan"),
        (True, "got True"),
        ("100", "got '100'"),
        (2**53 + 1, "got 9007199254740993"),
        ([[10, 20]], r"got \[10, 20\]"),
        ([], r"1-D sequence of them, got \[\]"),
        ([[1], [2, 3]], "1-D sequence"),
        (None, "got None"),
        ([100, 1e2], "100 more than once"),
    ],
)
def test_other_dims_are_refused(value, match):
    with pytest.raises(InputError, match=match):
        validation.dims(value, 2, 2)


@given(start=st.floats(1e-9, 1), steps=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_time_grids_pass(start, steps):
    grid = np.concatenate([[0.0], start + np.cumsum(steps)])
    np.testing.assert_array_equal(validation.time_grid(list(grid)), grid)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([0.0, 2.0, 1.0], r"time\[1\] = 2 is followed by time\[2\] = 1"),
        ([0.0, 1.0, 1.0], "strictly increase"),
        ([0.0, np.nan], r"entry \[1\] is nan \(1 of 2 entries"),
        ([0.0, np.inf], "must be finite"),
        ([1.0, 2.0], "must start at 0"),
        ([-1.0, 0.0, 1.0], "must start at 0"),
        ([0.0], "at least 2 points"),
        (0.0, "1-D grid"),
        ([[0.0, 1.0]], "1-D grid"),
        ("log", "array of real numbers, got 'log'"),
        ([0.0, 1j], "array of real numbers"),
        ([[0.0], [1.0, 2.0]], "array of real numbers"),
        ([0, 10**400], "array of real numbers"),
    ],
)
def test_other_time_grids_are_refused(value, match):
    with pytest.raises(InputError, match=match):
        validation.time_grid(value)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("two-timescal", "did you mean 'two-timescale'"),
        ("zzz", "unknown flow 'zzz'; allowed: 'planted', 'two-timescale'; pass one"),
        (3, "unknown flow 3"),
    ],
)
def test_names(value, match):
    allowed = ("two-timescale", "planted")
    assert validation.one_of("planted", allowed, "flow") == "planted"
    with pytest.raises(InputError, match=match):
        validation.one_of(value, allowed, "flow")


@pytest.mark.parametrize("value", [1e-12, 1e-8, np.float32(0.001), 1e-2])
def test_tolerances_pass(value):
    assert validation.rtol(value) == value


@pytest.mark.parametrize("value", [0, 1e-13, 0.1, -1e-6, np.nan, True, "1e-8", None, [1e-8]])
def test_other_tolerances_are_refused(value):
    with pytest.raises(InputError, match=r"rtol must be .* at least 1e-12 and at most 0\.01, got"):
        validation.rtol(value)


def test_bounds_of_numbers():
    assert validation.number(1, "step", above=0) == 1.0
    with pytest.raises(InputError, match="step must be a finite number above 0, got 0;"):
        validation.number(0, "step", above=0)
    with pytest.raises(InputError, match="x must be a finite number, got nan;"):
        validation.number(np.nan, "x")


def test_long_values_are_cut():
    with pytest.raises(InputError) as caught:
        validation.integer(list(range(10_000)), "runs", at_least=1)
    assert len(str(caught.value)) < 250
