"""Trajectories from outside: shapes, labels, crossing times, files, a real network, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mids
from mids.analysis.trajectories import from_trajectories
from mids.errors import DatasetError, InputError
from mids.targets.averaging import gradient, loss

TARGET = "h1(z1) + h1(z1)*h3(z2)"
TIME = np.append(0, np.logspace(-1, 4, 200))
CURVE = np.exp(-TIME / 100)


@pytest.fixture(scope="module")
def simulated():
    return mids.simulate(TARGET, dim=[1e3, 1e4], runs=3).compute()


def rotating_frames(time, rank=2, students=2):
    """Correlation matrices whose overlaps are sin^2 of angles that grow with the time."""
    angles = np.clip(np.multiply.outer(time, [1.0, 0.5]), 1e-9, np.pi / 2)
    matrices = np.zeros((len(time), rank, students))
    for k in range(min(rank, students)):
        matrices[:, k, k] = np.sin(angles[:, k])
    return matrices


@pytest.mark.parametrize(
    ("loss", "sizes"),
    [
        (CURVE, (1, 1)),
        (np.stack([CURVE] * 3), (1, 3)),
        (np.stack([[CURVE] * 3] * 2), (2, 3)),
    ],
)
def test_leading_axes_may_be_left_out(loss, sizes):
    ds = from_trajectories(time=TIME, loss=loss, dim=[10, 20][: sizes[0]])
    mids.validate(ds)
    assert (ds.sizes["dim"], ds.sizes["run"]) == sizes
    np.testing.assert_array_equal(ds.loss.values[-1, -1], CURVE)


def test_arrays_frames_and_data_arrays_agree():
    runs = np.stack([CURVE, CURVE**2])
    plain = from_trajectories(time=TIME, loss=runs, dim=50, run=[4, 7])
    frame = from_trajectories(loss=pd.DataFrame(runs.T, index=TIME, columns=[4, 7]), dim=50)
    array = xr.DataArray(runs.T, dims=("time", "run"), coords={"time": TIME, "run": [4, 7]})
    labelled = from_trajectories(loss=array.assign_coords(dim=50))
    xr.testing.assert_equal(plain, frame)
    xr.testing.assert_equal(plain, labelled)
    series = from_trajectories(loss=pd.Series(CURVE, index=TIME), dim=50)
    np.testing.assert_array_equal(series.loss[0, 0], CURVE)


def test_overlaps_and_crossing_times_of_correlation_matrices():
    time = np.append(0, np.geomspace(1e-3, 4, 2000))
    ds = from_trajectories(time=time, correlation=rotating_frames(time), dim=100, target=TARGET)
    np.testing.assert_allclose(ds.overlap[0, 0, :, 0], np.sin(np.clip(time, 1e-9, np.pi / 2)) ** 2)
    exact = np.arcsin(np.sqrt([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(ds.crossing_time[0, 0], [exact, 2 * exact], rtol=1e-5)
    np.testing.assert_allclose(ds.gram0[0, 0], 1e-18 * np.eye(2), rtol=1e-12)
    assert ds.mi.target == mids.Target.parse(TARGET)
    later = from_trajectories(time=time[5:], correlation=rotating_frames(time[5:]), dim=100)
    assert "gram0" not in later


def test_what_is_reached_before_the_data_begin_has_no_times():
    time = np.append(0, np.geomspace(0.1, 200, 200))
    overlap = 1 / (1 + 99 * np.exp(-np.stack([time, 0.2 * np.maximum(time - 20, 0)], axis=-1)))
    whole = mids.saddles(from_trajectories(time=time, overlap=overlap, dim=100))
    assert whole["visited"].values.tolist() == [[[True, True]]]
    second = whole.isel(saddle=1)
    for begin, entered in ((1, True), (100, True), (125, False)):
        ds = from_trajectories(time=time[begin:], overlap=overlap[begin:], dim=100)
        found = mids.saddles(ds).sel(saddle=1)
        assert found["visited"].item() and not found.censored.item()
        np.testing.assert_allclose(found.escape_time, second.escape_time)
        assert found.enter_time.notnull().item() == found.duration.notnull().item() == entered
    beyond = from_trajectories(time=time[-9:], overlap=overlap[-9:], dim=100)
    assert mids.saddles(beyond).n_saddles.item() == 0


def test_saddles_of_crossing_times_alone(simulated):
    alone = mids.saddles(simulated[["crossing_time", "status"]])
    full = mids.saddles(simulated)
    xr.testing.assert_identical(alone.drop_vars("loss"), full.drop_vars("loss"))
    assert alone.loss.isnull().all()
    with pytest.raises(DatasetError, match="no coordinate"):
        mids.saddles(simulated.drop_vars("time"))
    with pytest.raises(DatasetError, match="dimension 'time'"):
        mids.saddles(simulated.isel(time=3))


def test_fewer_students_than_directions_leave_overlaps_of_zero():
    ds = from_trajectories(
        time=TIME, correlation=rotating_frames(TIME, rank=3, students=2), dim=100
    )
    assert (ds.overlap[..., 2] == 0).all()
    assert ds.crossing_time[0, 0, 2].isnull().all()


def test_directions_are_sorted_and_never_crossed_levels_are_missing():
    overlap = np.stack([np.full(len(TIME), 0.05), np.linspace(0, 0.6, len(TIME))], axis=-1)
    ds = from_trajectories(time=TIME, overlap=overlap, dim=100)
    assert (ds.overlap.diff("direction") <= 0).all()
    assert ds.crossing_time[0, 0].isnull().values.tolist() == [[False, False, True], [True] * 3]


def test_simulated_trajectories_come_back(simulated):
    ds = from_trajectories(loss=simulated.loss, overlap=simulated.overlap, target=TARGET)
    mids.validate(ds)
    # Interpolation cannot do better than to name the cell of the grid.
    for times in (ds.crossing_time, simulated.crossing_time):
        assert times.notnull().all()
    cells = [np.searchsorted(ds.time, t) for t in (ds.crossing_time, simulated.crossing_time)]
    np.testing.assert_array_equal(*cells)
    found, exact = mids.saddles(ds), mids.saddles(simulated)
    np.testing.assert_array_equal(found["visited"], exact["visited"])
    np.testing.assert_allclose(found.escape_time, exact.escape_time, rtol=0.15)
    assert mids.scaling(ds).expected.values.tolist() == [0.0, 2.0]


def test_files_keep_them(tmp_path, simulated):
    ds = from_trajectories(loss=simulated.loss, overlap=simulated.overlap, target=TARGET)
    mids.to_netcdf(ds, tmp_path / "outside.nc")
    with mids.open_dataset(tmp_path / "outside.nc") as again:
        xr.testing.assert_identical(again.load(), ds)
        assert again.mi.target == mids.Target.parse(TARGET)


def test_theory_holds_for_correlation_matrices_of_another_solver():
    """M' = (I - G) H M by SciPy, in other coordinates than the target's."""
    from scipy.integrate import solve_ivp

    d, rng = 100, np.random.default_rng(4)
    target = (
        mids.Target.parse("h1(z1) + h1(z1)*h2(z2)").normalize().rotate([[0.6, 0.8], [-0.8, 0.6]])
    )

    def slope(_, m):
        M = m.reshape(2, 2)
        return ((np.eye(2) - M @ M.T) @ gradient(target, M @ M.T) @ M).ravel()

    time = np.append(0, np.logspace(-1, 4.5, 300))
    start = (rng.standard_normal((2, 2)) / np.sqrt(d)).ravel()
    M = solve_ivp(slope, (0, time[-1]), start, "LSODA", time, rtol=1e-9, atol=1e-12)
    matrices = M.y.T.reshape(-1, 2, 2)
    losses = loss(target, matrices @ matrices.swapaxes(1, 2))
    ds = from_trajectories(time=time, correlation=matrices, loss=losses, dim=d, target=target)
    assert mids.theory(ds).attrs["ladder"] == "1 -> 2: log d, d"
    compared = mids.compare(ds)
    assert compared.match.all()
    np.testing.assert_allclose(compared.ratio, 1, atol=0.03)
    without = from_trajectories(time=time, correlation=matrices, dim=d, target=target)
    xr.testing.assert_equal(mids.compare(without).ratio, compared.ratio)
    assert mids.compare(without).loss.isnull().all()


@pytest.mark.parametrize("gap", [0, 50, slice(100, 120), slice(190, None)])
def test_gaps_of_a_loss_are_kept_and_counted(gap):
    values = 0.6 - 0.4 * np.tanh(np.log(TIME + 1e-9) - np.log(30))
    values[gap] = np.nan
    ds = from_trajectories(time=TIME, loss=values, dim=10)
    missing = int(np.isnan(values).sum())
    assert int(mids.plateaus(ds).n_missing.sum()) == missing
    assert int(mids.saddles(ds).n_missing.sum()) == missing
    assert mids.saddles(ds).escape_time[0, 0, 0] == pytest.approx(30, rel=0.05)


def test_analyses_say_what_is_missing():
    ds = from_trajectories(time=TIME, loss=CURVE, dim=100)
    assert int(mids.plateaus(ds).n_plateaus.sum()) == 0
    for call, message in (
        (lambda: ds.mi.target, "no variable 'recipe'"),
        (lambda: ds.mi.flow, "no variable 'recipe'"),
        (lambda: mids.replay(ds), "nothing to replay|no variable 'recipe'"),
        (lambda: mids.theory(ds), "gram0|no variable 'recipe'"),
        (lambda: mids.compare(ds), "crossing_time|gram0|no variable 'recipe'"),
        (lambda: mids.scaling(ds), "two dimensions"),
    ):
        with pytest.raises(DatasetError, match=message):
            call()
    assert "loss" in ds.mi.describe()
    matrices = rotating_frames(TIME)
    with pytest.raises(DatasetError, match="pass target="):
        mids.theory(from_trajectories(time=TIME, correlation=matrices, dim=100))
    overlap = from_trajectories(time=TIME, overlap=np.tile([0.5, 0.1], (len(TIME), 1)), dim=9)
    assert mids.plateaus(overlap, "overlap").n_plateaus.shape == (1, 1, 2)
    with pytest.raises(DatasetError, match="var="):
        mids.plateaus(overlap)
    assert mids.saddles(overlap).attrs["method"] == "crossing times"


def test_saddles_of_a_real_network():
    """Full-batch gradient descent on a two-layer network with small weights, z1 + 0.3 z1 z2."""
    rng = np.random.default_rng(0)
    d, width, rate, steps = 10, 20, 0.02, 3000
    x = rng.standard_normal((1000, d))
    y = x[:, 0] + 0.3 * x[:, 0] * x[:, 1]
    weights, second = 1e-3 * rng.standard_normal((d, width)), 1e-3 * rng.standard_normal(width)
    losses = np.empty(steps)
    for step in range(steps):
        hidden = x @ weights
        active = np.maximum(hidden, 0.0)
        residual = active @ second - y
        losses[step] = 0.5 * np.mean(residual**2)
        slope = np.outer(residual, second) * (hidden > 0)
        weights, second = (
            weights - rate * x.T @ slope / len(x),
            second - rate * active.T @ residual / len(x),
        )
    ds = from_trajectories(time=rate * np.arange(steps), loss=losses, dim=d)
    found = mids.saddles(ds).isel(dim=0, run=0)
    assert found.attrs["method"] == "curve"
    np.testing.assert_allclose(found.loss[0], 0.5 * np.mean(y**2), rtol=0.02)
    assert not found.censored[0]
    # Near zero weights the escape is linear: it takes about log(1 / scale) over the rate.
    escape = float(found.escape_time[0])
    assert 2 < escape < rate * steps / 2
    at = int(escape / rate)
    assert losses[at - 200 if at > 200 else 0] > 1.2 * losses[at + 200]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": None}, "no trajectories"),
        ({"dim": None, "loss": np.stack([[CURVE]] * 2)}, "dim is missing"),
        ({"time": None}, "time is missing"),
        ({"dim": 2.5}, "dim must be an integer"),
        ({"dim": [10, 20]}, "dim has 2 entries"),
        ({"run": [1, 1], "loss": np.stack([CURVE] * 2)}, "repeated"),
        ({"run": 2**70}, r"run must be below 2\*\*63"),
        ({"loss": None, "overlap": np.zeros((len(TIME), 0))}, "no trajectories in overlap"),
        ({"time": TIME[::-1]}, "strictly increase"),
        ({"time": TIME - 1}, "negative"),
        ({"time": [0.0], "loss": [1.0]}, "at least 2 points"),
        ({"loss": np.full(len(TIME), np.inf)}, "no number"),
        ({"loss": np.full(len(TIME), np.nan)}, "no number"),
        ({"loss": ["a"] * len(TIME)}, "real numbers"),
        ({"overlap": np.full((len(TIME), 2), np.nan)}, "402 of 402 entries are not finite"),
        ({"loss": CURVE[:, None]}, "order of the axes"),
        ({"loss": np.zeros((1, 1, 1, len(TIME)))}, "axes"),
        ({"loss": xr.DataArray(CURVE, dims="epoch")}, "rename.*'epoch': 'time'"),
        ({"loss": xr.DataArray([CURVE], dims=("seed", "time"))}, "rename.*'seed': 'run'"),
        ({"loss": pd.DataFrame({"Epoch": TIME, "loss": CURVE})}, r"set_index\('Epoch'\)"),
        ({"loss": xr.DataArray(CURVE, {"time": TIME + 1})}, "differs"),
        ({"loss": xr.Dataset()}, "Dataset"),
        ({"overlap": np.full((len(TIME), 2), 1.5)}, r"outside \[0, 1\]"),
        ({"correlation": np.full((len(TIME), 2, 2), 0.9)}, "orthonormal"),
        ({"overlap": np.zeros((3, len(TIME), 2))}, "must be the same"),
        ({"overlap": np.zeros((len(TIME), 3)), "target": TARGET}, "rank 2"),
        ({"target": 3}, "target must be"),
        (
            {
                "overlap": np.zeros((len(TIME), 2)),
                "correlation": np.zeros((len(TIME), 2, 2)),
            },
            "one of them",
        ),
    ],
)
def test_errors_say_what_to_do(change, message):
    arguments = {"time": TIME, "loss": CURVE, "dim": 100} | change
    with pytest.raises(InputError, match=message):
        from_trajectories(**arguments)


def test_a_log_without_a_run_is_refused():
    with pytest.raises(mids.errors.InputError, match="at least one"):
        mids.from_trajectories(time=[], loss=[])
