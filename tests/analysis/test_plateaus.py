"""Plateaus and saddles from curves alone: what is found, where, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mids

DECAYS = {
    "exponential": lambda t: np.exp(-t),
    "slow exponential": lambda t: 40 * np.exp(-t / 300),
    "power law": lambda t: 1 / (1 + t),
    "slow power law": lambda t: (1 + t) ** -0.2,
    "late power law": lambda t: 1e-3 * (1 + t / 50) ** -0.5,
}
GRID = np.append(0, np.logspace(-3, 8, 300))
LEVELS, MOMENTS = [1.0, 0.7, 0.25], [10.0, 2000.0, 300000.0]


def curve(values, time=GRID, **variables):
    return xr.Dataset({"loss": ("time", values), **variables}, {"time": time})


def noisy(values, noise, seed=0):
    return values + noise * np.random.default_rng(seed).standard_normal(len(values))


def lasting(size, correlation, seed=0):
    """Noise of unit size of which neighbouring points share a part."""
    from scipy.signal import lfilter

    steps = np.random.default_rng(seed).standard_normal(size)
    steps[1:] *= np.sqrt(1 - correlation**2)
    return lfilter([1.0], [1.0, -correlation], steps)


def staircase(time, levels, moments, width=0.05):
    """Curve that falls from level to level at given times, each fall of relative width."""
    drops = -np.diff([*levels, 0.0])
    falls = [
        drop * 0.5 * (1 + np.tanh((time - moment) / (width * moment)))
        for drop, moment in zip(drops, moments, strict=True)
    ]
    return levels[0] - np.sum(falls, axis=0)


def log_grid(per_decade, first=-1.0, last=7.0):
    return np.append(0, np.logspace(first, last, int(per_decade * (last - first)) + 1))


def decaying(scale, power, exponential, per_decade, linear):
    """Times and values of a curve that only slows down."""
    time = np.linspace(0, 10 ** max(scale, 0), 40 * per_decade) if linear else log_grid(per_decade)
    x = time / 10**scale
    return time, np.exp(-x) if exponential else (1 + x) ** -(10**power)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    scale=st.floats(-3, 6),
    power=st.floats(-1.5, 0.7),
    exponential=st.booleans(),
    per_decade=st.sampled_from([3, 8, 16, 100]),
    linear=st.booleans(),
    size=st.floats(-6, 3),
)
def test_decays_have_no_plateau(scale, power, exponential, per_decade, linear, size):
    time, values = decaying(scale, power, exponential, per_decade, linear)
    found = mids.plateaus(curve(10**size * values, time))
    assert not found.left.any()
    # Data that end before anything has happened show a level that is not left.
    if exponential and time[-1] > 10**scale:
        assert int(found.n_plateaus) == 0


@pytest.mark.slow
def test_noisy_decays_seldom_have_a_plateau():
    """At most 0.05 invented per curve, over all shapes, grids and small noise."""
    rng, invented, curves = np.random.default_rng(11), 0, 120
    for k in range(curves):
        time, values = decaying(
            rng.uniform(-3, 6), rng.uniform(-1.5, 0.7), k % 2, rng.choice([3, 8, 16, 100]), k % 3
        )
        noise = rng.choice([1e-4, 1e-3]) * np.ptp(values)
        invented += int(mids.plateaus(curve(noisy(values, noise, k), time)).left.sum())
    assert invented <= 0.05 * curves


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_not_even_a_censored_one(decay, noise):
    values = decay(GRID)
    assert int(mids.plateaus(curve(noisy(values, noise * values[0]))).n_plateaus) == 0


@pytest.mark.parametrize("sign", [1, -1], ids=["falling", "rising"])
@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize(
    ("time", "noise", "near"),
    [
        (GRID, 0.0, 0.05),
        (GRID, 1e-3, 0.05),
        (GRID, 0.03, 0.15),
        (log_grid(3), 0.0, 0.4),
        (log_grid(5), 3e-3, 0.3),
        (log_grid(16), 0.02, 0.15),
        (log_grid(100), 0.05, 0.15),
        (log_grid(1000), 0.1, 0.15),
        (np.sort(10 ** np.random.default_rng(1).uniform(0, 7, 800)), 1e-3, 0.05),
    ],
    ids=[
        "exact",
        "fine noise",
        "coarse noise",
        "3 a decade",
        "5 a decade",
        "16 a decade",
        "100 a decade",
        "1000 a decade",
        "irregular",
    ],
)
def test_plateaus_of_a_staircase(time, noise, near, offset, sign):
    values = sign * (staircase(time, LEVELS, MOMENTS) + offset)
    ds = curve(noisy(values, noise), time).rename(loss="risk" if sign > 0 else "score")
    var = "risk" if sign > 0 else "score"
    found = mids.plateaus(ds, var)
    assert found.left[:4].values.tolist() == [True] * 3 + [False]
    # Noise at few points hides whether the end is level.
    final = 0 if offset == 0 and sign > 0 else 1
    assert int(found.n_plateaus) in ({3 + final} if noise < 0.02 else {3, 3 + final})
    atol = 1e-3 if noise == 0 else max(0.02, noise)
    np.testing.assert_allclose(sign * found[var][:3] - offset, LEVELS, atol=atol)
    np.testing.assert_allclose(found.halfway_time[:3], MOMENTS, rtol=near)
    assert (found.stop[:3] < 1.1 * np.array(MOMENTS)).all()
    assert (found.start[1:3] > MOMENTS[:2]).all()


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_even_sampling_shows_what_it_resolves(noise):
    time = np.linspace(0, 1e6, 200_000)  # two points before the first fall
    found = mids.plateaus(curve(noisy(staircase(time, LEVELS, MOMENTS), noise), time))
    n = int(found.n_plateaus)
    assert n == 3
    np.testing.assert_allclose(found.loss[n - 2 : n], LEVELS[1:], atol=0.02)
    np.testing.assert_allclose(found.halfway_time[n - 2 : n], MOMENTS[1:], rtol=0.05)


@pytest.mark.parametrize("exponent", [1, 2, 3])
@pytest.mark.parametrize("start", [1e-2, 1e-6])
def test_an_escape_as_of_the_flow(exponent, start):
    """lambda' = lambda^s (1 - lambda), then 1 - lambda as the loss, from SciPy."""
    from scipy.integrate import solve_ivp

    def slope(_, u):
        return np.exp((exponent - 1) * -np.logaddexp(0, -u))

    u0 = np.log(start / (1 - start))
    half = solve_ivp(slope, (0, 1e30), [u0], events=lambda _, u: u[0], rtol=1e-9).t_events[0][0]
    time = np.append(0, np.geomspace(1e-3 * half, 20 * half, 100))
    u = solve_ivp(slope, (0, time[-1]), [u0], "LSODA", time, rtol=1e-9, atol=1e-9).y[0]
    found = mids.saddles(curve(np.exp(-np.logaddexp(0, u)), time))
    assert int(found.n_saddles) == 1 and not found.censored[0]
    assert found.escape_time[0] == pytest.approx(half, rel=0.08)  # the grid
    assert found.loss[0] == pytest.approx(1 - start, rel=1e-2)


def test_noise_that_shrinks_with_the_loss():
    time = np.linspace(0, 3000, 30_000)
    values = staircase(time, [2.0, 0.3], [40.0, 1500.0]) + 0.01
    values *= np.exp(0.2 * np.random.default_rng(0).standard_normal(len(time)))
    found = mids.saddles(curve(values, time))
    np.testing.assert_allclose(found.escape_time[:2], [40, 1500], rtol=0.2)
    assert not found.censored[:2].any()


@pytest.mark.slow
def test_noise_in_proportion_to_a_loss_that_vanishes():
    """A tail without noise says little about the noise of what comes before it."""
    time = log_grid(16, -3.0, 4.0)
    feigned = 0
    for seed in range(10):
        for scale in (0.03, 1.0, 30.0, 1000.0):
            for values in (np.exp(-time / scale), np.exp(-np.sqrt(time / scale))):
                found = mids.plateaus(curve(values * noisy(1 + 0 * time, 0.02, seed), time))
                feigned += bool(found.left.any())
    assert feigned < 16  # of 80


@pytest.mark.parametrize(
    "decay",
    [lambda t: np.exp(-t / 3), lambda t: (1 + t / 0.7) ** -2, lambda t: np.exp(-(t**0.6))],
    ids=["exponential", "power", "stretched"],
)
def test_a_long_tail_without_noise_feigns_no_plateau(decay):
    """Noise of a tenth of the loss is none where the loss is zero, at most of the points."""
    time = np.linspace(0.05, 500, 10_000)
    for seed in (3, 4):
        values = decay(time) * noisy(np.ones(len(time)), 0.1, seed)
        assert not mids.plateaus(curve(values, time)).left.any()


def test_one_fall_to_zero_in_noise_of_one_size():
    """Where only the first level and zero are seen, the noise is not taken for a share of it."""
    time = np.append(0, np.geomspace(0.1, 1e5, 400))
    for seed in range(3):
        values = noisy(staircase(time, [1.0], [30.0], 0.1), 3e-3, seed)
        found = mids.plateaus(curve(values, time))
        assert int(found.n_plateaus) == 1 and found.left[0]
        assert found.halfway_time[0] == pytest.approx(30, rel=0.05)


def test_a_trajectory_that_is_cut_off_is_censored():
    time = GRID[GRID < 5e4]
    values = staircase(time, LEVELS, MOMENTS)
    for noise in (0.0, 0.01):
        found = mids.plateaus(curve(noisy(values, noise), time))
        assert found.left[:3].values.tolist() == [True, True, False]
        saddles = mids.saddles(curve(noisy(values, noise), time))
        assert saddles.censored[:3].values.tolist() == [False, False, True]
        assert np.isnan(saddles.escape_time[2])


def test_a_dataset_that_is_cut_in_time_is_censored_whatever_its_status():
    ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=6).compute()
    whole, cut = mids.plateaus(ds), mids.plateaus(ds.sel(time=slice(0, 100.0)))
    assert (ds.status == 0).all() and whole.left.sum("plateau").values.tolist() == [[2] * 6]
    assert (whole.n_plateaus == 2).all()
    assert (cut.n_plateaus == 2).all() and (cut.left.sum("plateau") == 1).all()


@pytest.mark.parametrize("known", ["crossing_time", "overlap"])
@pytest.mark.parametrize(
    ("options", "n_saddles"),
    [({"student_rank": 1}, 1), ({"flow": mids.flows.TwoTimescale(ridge=0.1)}, 2)],
    ids=["narrow student", "ridge"],
)
def test_a_run_converges_to_a_loss_above_zero(options, n_saddles, known):
    ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=[1e3, 1e6], runs=4, **options).compute()
    assert (ds.status == 0).all() and (ds.loss.isel(time=-1) > 1e-3).all()
    ds = ds.drop_vars({"crossing_time", "overlap"} - {known})
    found = mids.plateaus(ds)
    assert (found.n_plateaus == n_saddles).all() and found.left.sum() == 8 * n_saddles
    cut = mids.plateaus(ds.sel(time=slice(0, 100.0)))
    assert (cut.n_plateaus == n_saddles).all()
    alone = mids.saddles(ds.drop_vars(known))
    assert (alone.n_saddles == n_saddles + 1).all()
    assert alone.censored.isel(saddle=n_saddles).all()


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_curves_alone_show_the_saddles_that_the_grid_resolves(rank):
    """Steps of log d, 0.1 to 0.3 decades apart, at 100 points a decade."""
    target, time = mids.targets.staircase(rank), np.append(0, np.geomspace(0.1, 1000, 400))
    ds = mids.simulate(target, dim=[1e6, 1e8], runs=10, time=time).compute()
    exact, found = mids.saddles(ds), mids.saddles(ds.drop_vars(["crossing_time", "overlap"]))
    assert (exact.n_saddles == rank).all()
    assert (found.n_saddles == exact.n_saddles).mean() >= 0.9
    same = found.n_saddles == exact.n_saddles
    ratio = (found.escape_time.isel(saddle=slice(rank)) / exact.escape_time).where(same)
    np.testing.assert_allclose(ratio.values[ratio.notnull().values], 1, atol=0.1)


@pytest.mark.parametrize(("first", "known"), [(100.0, [False, True]), (10.0, [True, True])])
def test_a_missing_start_is_marked(first, known):
    """After 100 the data begin on the second plateau; after 10, on the fall to it."""
    time = GRID[np.searchsorted(GRID, first, side="right") :]
    values = staircase(time, LEVELS, MOMENTS)
    found = mids.plateaus(curve(values, time))
    assert int(found.n_plateaus) == 2
    assert found.entered[:2].values.tolist() == known
    saddles = mids.saddles(curve(values, time))
    assert saddles.enter_time[:2].notnull().values.tolist() == known
    np.testing.assert_allclose(saddles.escape_time[:2], MOMENTS[1:], rtol=0.05)


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize("rate", [2.0, 3.0])
def test_a_short_plateau_after_a_fall_from_the_start(scale, rate):
    """As of a network of ReLU, whose fall at the start is flat in log time, too."""
    time = np.unique(np.append(0, np.geomspace(1, 550, 110).astype(int))) * 0.05
    values = 0.5 * np.exp(-((time / 2.8) ** 1.6)) + 0.05 * np.exp(-time / 0.1)
    values += 0.2 / (1 + np.exp((time - 16) * rate / 3.5))
    found = mids.plateaus(curve(noisy(values, 1e-3), time), scale=scale)
    assert int(found.n_plateaus) == 1 and found.left[0]
    assert found.loss[0] == pytest.approx(0.2, abs=0.01)
    assert found.halfway_time[0] == pytest.approx(16, rel=0.05)


def test_a_step_that_one_point_shows_is_no_plateau():
    time = np.append(0, 2.0 ** np.arange(12))
    values = np.where(time < 30, 1.0, np.where(time < 60, 0.5, 0.0))
    assert (values == 0.5).sum() == 1
    assert int(mids.plateaus(curve(values, time)).n_plateaus) == 1


def test_small_steps_belong_to_the_plateau():
    values = staircase(GRID, [1.0, 0.985], MOMENTS[:2])
    assert int(mids.plateaus(curve(values)).n_plateaus) == 1
    assert int(mids.plateaus(curve(values), tolerance=0.002).n_plateaus) == 2


def test_a_curve_that_never_moves_is_one_censored_plateau():
    for values in (np.full(len(GRID), 0.5), noisy(np.full(len(GRID), 0.5), 0.01)):
        found = mids.plateaus(curve(values))
        assert int(found.n_plateaus) == 1
        assert not found.left[0]


def test_any_variable_and_gaps():
    values = staircase(GRID, [1.0, 0.4], [10.0, 2000.0])
    values[::7] = np.nan
    dataset = xr.Dataset({"accuracy": ("time", 1 - values)}, {"time": GRID})
    found = mids.plateaus(dataset, var="accuracy")
    np.testing.assert_allclose(found.accuracy[:2], [0.0, 0.6], atol=1e-3)
    assert int(found.n_missing) == np.isnan(values).sum()
    empty = mids.plateaus(curve(np.full(len(GRID), np.nan)))
    assert np.isnan(empty.start).all() and int(empty.n_missing) == len(GRID)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_without_a_finite_value_are_counted_and_change_nothing(bad):
    values = staircase(GRID, [1.0, 0.4], [10.0, 2000.0])
    bare = mids.plateaus(curve(np.delete(values, slice(40, 44)), np.delete(GRID, slice(40, 44))))
    values[40:44] = bad
    found = mids.plateaus(curve(values))
    assert int(found.n_missing) == int(mids.saddles(curve(values)).n_missing) == 4
    xr.testing.assert_equal(found.drop_vars("n_missing"), bare.drop_vars("n_missing"))


def test_points_before_time_zero_are_counted_and_change_nothing():
    time = np.append([-2.0, -1.0], GRID)
    values = staircase(GRID, [1.0, 0.4], [10.0, 2000.0])
    found = mids.plateaus(curve(np.append([5.0, 7.0], values), time))
    bare = mids.plateaus(curve(values))
    assert int(found.n_missing) == 2 and int(bare.n_missing) == 0
    xr.testing.assert_equal(found.drop_vars("n_missing"), bare.drop_vars("n_missing"))


@pytest.mark.parametrize("var", ["loss", "score"])
@pytest.mark.parametrize("level", [0.0, 1e-320, 1e-200, 1e-160, 3.0, 1e160, 1e300])
def test_curves_that_never_move_whatever_their_size(level, var):
    found = mids.plateaus(curve(np.full(len(GRID), level)).rename(loss=var), var)
    # A loss of zero has converged, at any other value it is cut off.
    assert int(found.n_plateaus) == (0 if var == "loss" and level == 0 else 1)
    assert not found.left.any()
    if int(found.n_plateaus):
        assert float(found[var][0]) == level


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e150, 1e300])
def test_the_size_of_the_values_does_not_matter(size):
    values = noisy(staircase(GRID, LEVELS, MOMENTS), 0.01)
    found, scaled = mids.plateaus(curve(values)), mids.plateaus(curve(size * values))
    assert int(found.n_plateaus) == 3
    np.testing.assert_allclose(scaled.loss / size, found.loss, rtol=1e-9)
    for name in ("start", "stop", "halfway_time", "decades"):
        np.testing.assert_allclose(scaled[name], found[name], rtol=1e-9)


def test_a_level_at_time_zero_alone_has_no_decades():
    """Warnings are errors, and a length of -inf would be wrong."""
    for values in ([1.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.5, 0.5], [0.5, 0.5, 1.0, 0.0]):
        found = mids.plateaus(curve(values, [0.0, 1.0, 2.0, 3.0]))
        n = int(found.n_plateaus)
        assert np.isfinite(found.decades[:n]).all() and (found.decades[:n] >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.5, 0.9, 0.99, "running mean"])
@pytest.mark.parametrize("linear", [False, True], ids=["log time", "linear time"])
def test_noise_that_lasts_seldom_feigns_plateaus(linear, correlation):
    """At most 0.05 invented per curve; a walk that ends level may be taken for a level."""
    time = np.linspace(0, 1e4, 2000) if linear else np.append(0, np.logspace(-1, 5, 300))
    invented = 0
    for decay in DECAYS.values():
        for seed, size in enumerate([0.01, 0.02, 0.05, 0.05]):
            if correlation == "running mean":
                noise = np.convolve(lasting(len(time) + 19, 0.0, seed), np.ones(20) / 20, "valid")
                noise *= np.sqrt(20)
            else:
                noise = lasting(len(time), correlation, seed)
            found = mids.plateaus(curve(decay(time) + size * decay(0.0) * noise, time))
            invented += int(found.left.sum())
    assert invented <= 0.05 * 4 * len(DECAYS)


@pytest.mark.parametrize("decay", list(DECAYS.values())[:3], ids=list(DECAYS)[:3])
def test_a_last_point_that_is_a_bin_of_its_own_feigns_no_fall(decay):
    time = np.linspace(0, 1e4, 20_001)
    for seed in (3, 13, 15):  # whose last point is off by two standard deviations
        values = noisy(decay(time / 300), 0.05 * decay(0.0), seed)
        assert int(mids.plateaus(curve(values, time)).n_plateaus) == 0


@pytest.mark.parametrize(("correlation", "size"), [(0.5, 0.02), (0.9, 0.005), (0.99, 0.005)])
@pytest.mark.parametrize("linear", [False, True], ids=["log time", "linear time"])
def test_plateaus_in_noise_that_lasts(linear, correlation, size):
    time = np.linspace(0, 1e4, 2000) if linear else np.append(0, np.logspace(-1, 5, 300))
    values = staircase(time, [1.0, 0.5], [200.0, 3000.0])
    for seed in range(3):
        found = mids.plateaus(curve(values + size * lasting(len(time), correlation, seed), time))
        assert int(found.n_plateaus) == 2 and found.left[:2].all()
        np.testing.assert_allclose(found.loss[:2], [1.0, 0.5], atol=3 * size)
        np.testing.assert_allclose(found.halfway_time[:2], [200, 3000], rtol=0.1)


@pytest.mark.slow
def test_noise_at_few_points_seldom_feigns_an_escape():
    """At most 0.05 invented plateaus per curve, over few points and all sizes of noise."""
    invented, curves = 0, 0
    for n in (8, 12, 20, 40, 80):
        for time in (np.linspace(0, 1000, n), np.append(0, np.logspace(-1, 4, n - 1))):
            for seed, decay in enumerate(DECAYS.values()):
                for size in (0.0, 1e-3, 0.01, 0.05):
                    values = noisy(decay(time), size * decay(0.0), seed)
                    invented += int(mids.plateaus(curve(values, time)).left.sum())
                    curves += 1
    assert invented <= 0.05 * curves


@pytest.mark.parametrize("noise", [0.0, 0.005])
@pytest.mark.parametrize("done", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_curve_that_is_cut_off_during_a_fall_has_left_the_plateau(steps, done, noise):
    """The last fall is done to some part; where to nobody knows."""
    end = MOMENTS[steps - 1] * (1 + 0.2 * np.arctanh(2 * done - 1))
    time = np.append(0, np.geomspace(0.1, end, 100 * steps + 200))
    values = staircase(time, LEVELS, MOMENTS, width=0.2)
    ds = curve(noisy(values, noise), time)
    found, saddles = mids.plateaus(ds), mids.saddles(ds)
    assert int(found.n_plateaus) == steps and found.left[:steps].all()
    np.testing.assert_allclose(found.loss[:steps], LEVELS[:steps], atol=0.01)
    assert found.halfway_time[:steps].isnull().values.tolist() == [False] * (steps - 1) + [True]
    assert float(found.stop[steps - 1]) < end
    assert saddles.censored[:steps].values.tolist() == [False] * (steps - 1) + [True]
    assert saddles.escape_time[:steps].isnull().values.tolist() == [False] * (steps - 1) + [True]


@pytest.mark.parametrize(
    ("time", "values", "levels", "between"),
    [
        (
            [0, 1, 10, 20, 30, 100, 1000, 1e4, 2e4, 1e5, 1e6],
            [1, 1, 1, 0.9, 0.6, 0.5, 0.5, 0.3, 0.05, 0, 0],
            [1, 0.5],
            [(20, 30), (1e4, 2e4)],
        ),
        (10.0 ** np.arange(6), [1, 1, 0.5, 0.5, 0, 0], [1, 0.5], [(10, 100), (1e3, 1e4)]),
        (
            10.0 ** np.arange(8),
            [1, 1, 1, 0.5, 0.5, 0.5, 0, 0],
            [1, 0.5],
            [(100, 1000), (1e5, 1e6)],
        ),
        ([0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 0.4, 0.4, 0.4, 0], [1, 0.4], [(2, 3), (5, 6)]),
    ],
    ids=["11 points", "two a level", "three a level", "even sampling"],
)
def test_few_points(time, values, levels, between):
    for sign, var in ((1, "loss"), (-1, "score")):
        ds = curve(sign * np.array(values, float), time).rename(loss=var)
        found = mids.plateaus(ds, var)
        np.testing.assert_allclose(sign * found[var][:2], levels, atol=1e-12)
        assert found.left.sum() == len(levels)
        for halfway, (first, last) in zip(found.halfway_time.values, between, strict=False):
            assert first <= halfway <= last or (np.isnan(halfway) and last == time[-1])


@pytest.mark.parametrize("per_decade", [1, 1.5, 2, 4])
def test_coarse_sampling(per_decade):
    time = np.append(0, np.logspace(-1, 7, int(8 * per_decade) + 1))
    values = 0.5 / (1 + (time / 20) ** 8) + 0.5 / (1 + (time / 2000) ** 8)
    found = mids.plateaus(curve(values, time))
    assert int(found.n_plateaus) == 2 and found.left[:2].all()
    np.testing.assert_allclose(found.loss[:2], [1, 0.5], atol=0.01)
    np.testing.assert_allclose(
        np.log10(found.halfway_time[:2] / [20, 2000]), 0, atol=0.5 / per_decade
    )


@pytest.mark.parametrize("offset", [-1000.0, 1.0, 60.0, 1000.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_an_offset_does_not_matter(offset, noise):
    values = noisy(staircase(GRID, LEVELS, MOMENTS) + 1.0, noise)
    bare, found = mids.plateaus(curve(values)), mids.plateaus(curve(values + offset))
    assert int(bare.n_plateaus) >= 3
    xr.testing.assert_allclose(found.assign(loss=found.loss - offset), bare, rtol=2e-3)


def test_a_single_point_is_a_plateau_where_the_slopes_beside_it_show_it():
    time = [0, 4.2, 5.6, 7.5, 10, 13.3, 17.8, 23.7, 31.6, 42.2, 56.2, 75]
    values = [0.5, 0.5, 0.5, 0.499, 0.49, 0.363, 0.252, 0.228, 0.048, 0, 0, 0]
    found = mids.plateaus(curve(np.array(values), time))
    assert int(found.n_plateaus) == 2 and found.left[:2].all()
    assert 0.22 < float(found.loss[1]) < 0.26


@pytest.mark.parametrize("time", [np.arange(5.0), 10.0 ** np.arange(5)], ids=["even", "log"])
def test_a_start_that_is_left_at_the_next_point_is_no_plateau(time):
    found = mids.plateaus(curve([1, 0.5, 0.5, 0, 0], time))
    assert found.loss[:2].values.tolist()[0] == 0.5
    assert int(found.n_plateaus) == 1 and bool(found.left[0]) and bool(found.entered[0])


@pytest.mark.parametrize("per_decade", [12, 16, 20, 24, 32, 48, 64])
def test_the_density_of_the_sampling_does_not_matter(per_decade):
    """Two falls a factor of two apart, each a quarter of a decade wide."""
    time = log_grid(per_decade, 0.0, 3.0)
    found = mids.plateaus(curve(staircase(time, [1.0, 0.5], [20.0, 40.0], 0.15), time))
    assert int(found.n_plateaus) == 2 and found.left[:2].all()
    np.testing.assert_allclose(found.loss[:2], [1.0, 0.5], atol=0.05)
    np.testing.assert_allclose(found.halfway_time[:2], [20, 40], rtol=0.1)


def test_levels_of_noisy_curves_are_averages():
    time = log_grid(100)
    for seed in range(3):
        values = noisy(staircase(time, LEVELS, MOMENTS), 0.05, seed)
        found = mids.plateaus(curve(values, time))
        np.testing.assert_allclose(found.loss[:3], LEVELS, atol=0.02)


def test_several_runs_help_each_other():
    """One run alone is too noisy to be sure of; many with the same levels are sure."""
    time = np.logspace(-2, 3, 51)
    values = staircase(time, [1.0, 2 / 3, 1 / 3], [1.0, 10.0, 100.0])
    runs = np.stack([noisy(values, 0.1, seed) for seed in range(12)])
    together = mids.plateaus(xr.Dataset({"loss": (("run", "time"), runs)}, {"time": time}))
    alone = [int(mids.plateaus(curve(run, time)).left.sum()) for run in runs]
    assert int(together.left.sum()) >= max(sum(alone), 34)
    flat = np.stack([noisy(np.exp(-time / 10), 0.1, seed) for seed in range(12)])
    found = mids.plateaus(xr.Dataset({"loss": (("run", "time"), flat)}, {"time": time}))
    assert not found.left.any()


def test_a_close_decision_is_the_same_beside_other_curves():
    """A staircase that misses its price is found as curves drawn of decays miss it by more."""
    time = np.logspace(-2, 3, 51)
    values = staircase(time, [1.0, 2 / 3, 1 / 3], [1.0, 10.0, 100.0])
    both = np.stack([noisy(values, 0.1, seed) for seed in (24, 23)])
    alone = mids.plateaus(curve(both[1], time))
    np.testing.assert_allclose(alone.halfway_time[:3], [1.0, 10.0, 100.0], rtol=0.2)
    beside = mids.plateaus(xr.Dataset({"loss": (("batch", "time"), both)}, {"time": time}))
    xr.testing.assert_equal(beside.isel(batch=1), alone)


def test_levels_over_decades():
    time = np.logspace(-2, 3, 51)
    values = staircase(time, [34.0, 2.1, 0.125], [1.0, 10.0, 100.0])
    for seed in range(3):
        found = mids.plateaus(curve(values * noisy(np.ones(51), 0.01, seed), time))
        np.testing.assert_allclose(found.loss[:3], [34, 2.1, 0.125], rtol=0.05)
        assert int(found.n_plateaus) == 3


def test_the_scale_is_said_and_can_be_chosen():
    time = np.linspace(0, 1000, 2000)
    falls = [1 / (1 + np.exp((time - at) / 3.0)) for at in (500.0, 560.0, 620.0)]
    ds = curve(noisy(np.sum(falls, axis=0), 0.05), time)
    assert mids.plateaus(ds).attrs["scale"] == "log"
    found = mids.plateaus(ds, scale="linear")
    assert found.attrs["scale"] == "linear"
    np.testing.assert_allclose(found.halfway_time[:3], [500, 560, 620], rtol=0.01)
    short = curve(np.linspace(1, 0, 20), np.linspace(10, 20, 20))
    assert mids.plateaus(short).attrs["scale"] == "linear"
    with pytest.raises(mids.errors.InputError, match="scale"):
        mids.plateaus(ds, scale="logarithmic")


def test_saddles_of_runs_that_skip_one_are_matched_by_level():
    """30 % of the runs skip the first plateau; the second one's times grow as d^0.16."""
    rng = np.random.default_rng(5)
    time = np.append(0, np.geomspace(0.01, 1e4, 400))
    dims = np.array([1e2, 1e3, 1e4])
    loss = np.empty((3, 20, len(time)))
    for i, dim in enumerate(dims):
        for run in range(20):
            late = 10 * dim**0.16 * rng.uniform(0.8, 1.25)
            levels, moments = [0.9, 0.5, 0.2], [0.05 * late, late, 30 * late]
            if run % 10 < 3:
                levels, moments = [0.5, 0.2], moments[1:]
            loss[i, run] = staircase(time, levels, moments)
    ds = mids.from_trajectories(time=time, loss=loss, dim=dims.astype(int))
    found = mids.saddles(ds)
    np.testing.assert_allclose(found.level[:3], [0.9, 0.5, 0.2], atol=0.02)
    assert found.loss.isnull().sum(["dim", "run"]).values[:3].tolist() == [18, 0, 0]
    assert int(found.n_unmatched.sum()) == 0
    fit = mids.scaling(ds)
    assert abs(float(fit.slope[1]) - 0.16) < 0.05 and fit.low[1] < 0.16 < fit.high[1]
    assert int(fit.n_unvisited[0]) == 18


def test_a_level_that_one_run_shows_is_unmatched():
    values = np.stack([staircase(GRID, [1.0, 0.4], [10.0, 2000.0])] * 4)
    values[0] = staircase(GRID, [1.0, 0.7, 0.4], [10.0, 150.0, 2000.0])
    found = mids.saddles(xr.Dataset({"loss": (("run", "time"), values)}, {"time": GRID}))
    assert found.n_unmatched.values.tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(found.escape_time.isel(saddle=1), 2000, rtol=0.05)


def test_how_plateaus_are_sought_is_passed_on():
    values = np.stack([staircase(GRID, [1.0, 0.4], [10.0, 2000.0])] * 2)[:, None]
    ds = mids.from_trajectories(time=GRID, loss=values, dim=[10, 100])
    calls = (mids.saddles, mids.plateaus, ds.mi.plot.loss, ds.mi.plot.timescales)
    for call in calls:
        data = (ds,) if call in (mids.saddles, mids.plateaus) else ()
        with pytest.raises(mids.errors.InputError, match="scale must be"):
            call(*data, scale="logarithmic")
        with pytest.raises(mids.errors.InputError, match="confidence"):
            call(*data, confidence=2)
    with pytest.raises(mids.errors.InputError, match="scale must be"):
        mids.scaling(ds, scale="logarithmic")
    with pytest.raises(mids.errors.InputError, match="confidence"):
        ds.mi.scaling(plateau_confidence=2)


def test_saddles_of_curves_alone_are_labelled_by_their_level():
    """In the picture they are losses, and not directions that nobody knows."""
    values = np.stack([staircase(GRID, [1.0, 0.4], [10.0, 2000.0])] * 2)[:, None]
    ds = mids.from_trajectories(time=GRID, loss=values, dim=[10, 100])
    axes = ds.mi.plot.timescales()
    (legend,) = axes.flat[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["loss 1", "loss 0.4"]
