"""Logs from outside, overlaps of networks and the recorder: what is taken, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from tensors import Tensor, torch

import mids
from mids.errors import InputError

STEPS = np.arange(200.0)
LOSS = 0.25 - 0.25 * np.tanh((STEPS - 60) / 4)
LOG = pd.DataFrame({"_step": STEPS.astype(int), "loss": LOSS, "lr": 0.1})
FRAME = np.eye(20)[:, :2]
LAYER = np.random.default_rng(0).standard_normal((20, 6))


CHART = {"Step": STEPS, "a - loss": LOSS, "a - loss__MIN": LOSS, "b - loss": LOSS / 2}
SMALL = np.full((200, 2, 2), 0.1)


def test_a_wandb_history_and_named_columns():
    known = mids.from_trajectories(LOG, dim=20)
    table = LOG.rename(columns={"loss": "train/nll", "_step": "iteration"})
    named = mids.from_trajectories(table, loss="train/nll", time="iteration", dim=20)
    rows = mids.from_trajectories(LOG.to_dict("records"), dim=20)
    board = LOG.rename(columns={"loss": "Value", "_step": "Step", "lr": "Wall time"})
    for ds in (known, named, rows, mids.from_trajectories(board, dim=20)):
        np.testing.assert_array_equal(ds.loss[0, 0], LOSS)
        np.testing.assert_array_equal(ds.time, STEPS)


def test_runs_with_times_of_their_own():
    """One run is shorter, one has gaps, one diverges."""
    diverged = LOSS.copy()
    diverged[150:] = np.inf
    runs = [
        pd.Series(LOSS, STEPS),
        pd.Series(LOSS[:120], STEPS[:120]),
        pd.Series(LOSS[::2], STEPS[::2]),
        pd.Series(diverged, STEPS),
    ]
    for given in (runs, dict(enumerate(runs))):
        ds = mids.from_trajectories(loss=given)
        assert dict(ds.sizes) == {"run": 4, "time": 200}
        assert mids.plateaus(ds).n_missing.values.tolist() == [0, 80, 100, 50]
        np.testing.assert_allclose(mids.saddles(ds).escape_time[:, 0], 60, rtol=0.05)
    masked = np.ma.masked_array(LOSS, STEPS < 9)
    assert mids.from_trajectories(loss=masked, time=STEPS).loss.isnull().sum() == 9


def test_runs_as_rows_arrays_and_charts():
    """Lists of rows, dicts of columns and ragged arrays, labels of runs, charts of W&B."""
    rows = LOG.to_dict("records")
    short = {"_step": STEPS[:90], "loss": LOSS[:90]}
    for given in ([rows, rows[:90]], [dict(short), short], {3: LOG, 8: pd.DataFrame(short)}):
        ds = mids.from_trajectories(given)
        assert ds.sizes["run"] == 2
        np.testing.assert_array_equal(ds.loss[0].dropna("time")[:90], LOSS[:90])
    assert ds.run.values.tolist() == [3, 8]
    ragged = mids.from_trajectories(
        loss=[Tensor(LOSS), Tensor(LOSS[::2])], time=[Tensor(STEPS), Tensor(STEPS[::2])]
    )
    assert mids.plateaus(ragged).n_missing.values.tolist() == [0, 100]
    chart = mids.from_trajectories(pd.DataFrame(CHART))
    np.testing.assert_array_equal(chart.loss, [LOSS, LOSS / 2])


def test_text_and_infinities_of_logs_are_gaps():
    """W&B writes infinities and NaN as text."""
    texts = [*map(str, LOSS[:150]), *["Infinity"] * 25, *["NaN"] * 25]
    numbers = np.where(STEPS < 150, LOSS, np.inf)
    for ds in (
        mids.from_trajectories(LOG.assign(loss=texts)),
        mids.from_trajectories(time=STEPS, loss=numbers),
    ):
        np.testing.assert_array_equal(ds.loss.values.ravel()[:150], LOSS[:150])
        assert int(ds.loss.isnull().sum()) in (0, 50)
    assert int(ds.loss.isnull().sum()) == 50


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_tensors_of_any_type(kind):
    tensor = Tensor(LOSS, kind)
    ds = mids.from_trajectories(time=Tensor(STEPS), loss=tensor)
    np.testing.assert_array_equal(ds.loss.values[0], tensor.values.astype(float))
    scalars = [Tensor(value) for value in LOSS[:5]]
    listed = mids.from_trajectories(time=STEPS[:5], loss=scalars)
    np.testing.assert_array_equal(listed.loss[0], LOSS[:5])


def test_steps_and_halves():
    ds = mids.from_trajectories(LOG, dim=20, learning_rate=0.5, half=True)
    np.testing.assert_allclose(ds.time, 0.5 * STEPS)
    np.testing.assert_allclose(ds.loss[0, 0], 0.5 * LOSS)


def test_without_a_dimension_only_what_needs_it_asks():
    ds = mids.from_trajectories(time=STEPS, loss=Tensor(LOSS))
    assert "dim" not in ds.dims and int(mids.saddles(ds).n_saddles[0]) == 1
    with pytest.raises(mids.errors.DatasetError, match="dim"):
        mids.scaling(ds)


def test_overlaps_of_wide_layers():
    layer = np.concatenate([3 * FRAME, 0.1 * np.eye(20)[:, 5:9]], axis=1)
    found = mids.overlaps(Tensor(layer), FRAME)
    np.testing.assert_allclose(found.overlap, [1, 1])
    assert float(found.discarded) == pytest.approx(4 * 0.01 / (18 + 0.04))
    for size in (1e-200, 1e200):
        xr.testing.assert_allclose(mids.overlaps(size * layer, FRAME), found)
    weights = np.array([0, 0, 1, 1, 1, 1.0])
    np.testing.assert_allclose(mids.overlaps(layer, FRAME, weights=weights).overlap, 0, atol=1e-20)
    np.testing.assert_allclose(mids.overlaps(layer, FRAME, rank=1).overlap.sum(), 1)


def test_a_recorded_run_is_analysed_as_any_other():
    recorder = mids.Recorder(FRAME[:, :1], target="h2(z1)")
    layer = LAYER.copy()
    for step in range(3000):
        if recorder.wants(step):
            recorder.record(step, Tensor(0.5), Tensor(layer))
        layer[0] += 0.01
    ds = recorder.dataset(learning_rate=0.1)
    mids.validate(ds)
    assert ds.sizes["time"] < 80 and int(ds.dim[0]) == 20
    assert float(ds.time[-1]) == pytest.approx(0.1 * 2900, rel=0.1)
    assert float(mids.saddles(ds).escape_time[0, 0, 0]) > 0


def link_of(x):
    """A network of two directions, from inputs to one output."""
    return np.maximum(x[:, 0], 0) + 0.5 * x[:, 0] * x[:, 1]


def test_the_link_of_a_network_by_quadrature_and_from_samples():
    """In the directions of the target, whatever the coordinates of the first layer."""
    rng = np.random.default_rng(1)
    turned = FRAME @ np.linalg.qr(rng.standard_normal((2, 2)))[0]
    x = rng.standard_normal((40_000, 20))
    recorder = mids.Recorder(FRAME, target="h1(z1) + h1(z1)*h1(z2)")
    recorder.record(0, 1.0, turned, network=link_of)
    recorder.record(10, 1.0, turned, samples=(x, link_of(x)[:, None]))
    recorder.record(20, 1.0, LAYER)
    ds = recorder.dataset()
    mids.validate(ds)
    half = np.sqrt(0.5 / np.pi)  # E relu
    exact = [half, 0.5, 0.0, half / np.sqrt(2), 0.5, 0.0]
    link = ds.link[0, 0].sel(mode=["1", "h1(z1)", "h1(z2)", "h2(z1)", "h1(z1)h1(z2)", "h2(z2)"])
    np.testing.assert_allclose(link[0], exact, atol=0.01)
    np.testing.assert_allclose(link[1], exact, atol=0.02)
    assert link[2].isnull().all()
    np.testing.assert_allclose(
        ds.energy[0, 0, 0].sel(mode=["h1(z1)", "h2(z1)", "h1(z1)h1(z2)"]), [0.5, 0, 0.5], atol=0.01
    )


def test_the_link_of_what_is_half_learned_is_damped():
    """E f(x) h_k(w* . x) = m^k for f = h_k(w . x) at correlation m (paper section 2)."""
    w = np.zeros((20, 1))
    w[:2, 0] = 0.6, 0.8
    recorder = mids.Recorder(FRAME[:, :1], degree=3)
    for step in (0, 1):
        recorder.record(step, 1.0, w, network=lambda x: (x @ w[:, 0]) ** 2)
    link = recorder.dataset().link[0, 0, 0]
    np.testing.assert_allclose(link, [1, 0, np.sqrt(2) * 0.36, 0], atol=1e-12)


def test_networks_of_torch_are_recorded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch)
    first = np.random.default_rng(0).standard_normal((20, 6))
    net, layer = torch.nn.Linear(first.sum(axis=1)[None]), Tensor(first, "bfloat16")
    x = Tensor(np.random.default_rng(1).standard_normal((4000, 20)), "float32")
    recorder = mids.Recorder(Tensor(FRAME, "float32"), degree=2)
    for step in (0, 1):
        loss = replace(x, values=x.values.mean())
        recorder.record(step, loss, layer, weights=Tensor(np.ones(6)), network=net)
    recorder.record(2, 1.0, layer, samples=(x, net(x)))
    assert recorder.dataset().link.notnull().all()


def test_runs_of_several_recorders_are_joined():
    recorded = []
    for run in (0, 1):
        recorder = mids.Recorder(FRAME, target="h1(z1)*h1(z2)")
        for step in (0, 1, 2):
            recorder.record(step, float("inf") if step == 2 else 1.0, LAYER)
        recorded.append(recorder.dataset(run=run))
    ds = mids.concat(recorded, dim="run")
    assert ds.run.values.tolist() == [0, 1]
    assert ds.loss[0, :, -1].isnull().all() and ds.discarded.notnull().all()


def test_measured_curves_without_a_target_are_joined():
    first, second = (mids.from_trajectories(time=STEPS, loss=k * LOSS, run=k) for k in (1, 2))
    ds = mids.concat([first, second], "run")
    assert ds.run.values.tolist() == [1, 2] and "d =" not in ds.attrs["summary"]
    xr.testing.assert_equal(ds, xr.concat([first, second], "run"))
    np.testing.assert_allclose(mids.saddles(ds).escape_time[:, 0], 60, rtol=0.05)
    later = mids.from_trajectories(time=2 * STEPS, loss=LOSS)
    with pytest.raises(InputError, match=r"time grids; pass the runs together"):
        mids.concat([first, later], "run")
    named = mids.from_trajectories(time=STEPS, loss=LOSS, dim=20, target="h1(z1)")
    for other in (first, mids.simulate("h1(z1)", dim=20, time=STEPS).drop_vars("recipe")):
        with pytest.raises(mids.errors.MidsError, match="no variable 'recipe'"):
            mids.concat([other, named], "run")


def compared(time, curve, *, dim=100, loss=1.0, target="h1(z1)", **given):
    """Compare a run of one direction with overlap `curve`."""
    ds = mids.from_trajectories(
        time=time,
        correlation=np.sqrt(curve)[:, None, None],
        loss=loss * 0.5 * (1 - curve),
        dim=dim,
        target=target,
        **given,
    )
    return mids.compare(ds)


def logistic(time, dim=100):
    """Overlap of the two-timescale flow on h1(z1) from 1/d."""
    return 1 / (1 + (dim - 1) * np.exp(-2 * time))


TIMES = np.append(0.0, np.geomspace(1e-2, 12, 300))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": 2.0}, "half=True"),
        ({"loss": 7.0}, "another norm"),
        ({"time": 2 * TIMES}, "half the size.*learning_rate= by 1/2"),
        ({"time": TIMES / 2}, "without the factor 1/2.*learning_rate= by 2"),
        ({"time": 100 * TIMES}, "scaled with d"),
        ({"time": TIMES / 100}, "about 1/d"),
        ({"time": 20 * TIMES}, "check learning_rate="),
    ],
)
def test_ratios_that_cannot_be_right_say_why(given, message):
    with pytest.warns(UserWarning, match=message):
        compared(given.pop("time", TIMES), logistic(TIMES), **given)


def test_steps_taken_for_times_are_noticed():
    steps = np.arange(0, 1200)
    with pytest.warns(UserWarning, match=r"probably steps; pass learning_rate=.*about 0.01"):
        compared(steps, logistic(0.01 * steps))
    right = compared(steps, logistic(0.01 * steps), learning_rate=0.01)  # without a warning
    np.testing.assert_allclose(right.ratio, 1, rtol=0.01)
    assert right.reason.item() == 0 and right.ratio_expected.item() == 1


def why(compared):
    """Names of the reasons."""
    names = compared.reason.attrs["flag_meanings"].split()
    return [names[code] for code in compared.reason.values.ravel()]


def test_reasons_where_there_is_no_ratio():
    cut = TIMES < 2
    assert why(compared(TIMES[cut], logistic(TIMES[cut]))) == ["run_is_cut_off"]
    assert why(compared(TIMES, np.full(300 + 1, 0.99))) == ["run_starts_beyond"]
    wide = np.random.default_rng(0).standard_normal((50, 64))  # spans all of R^50
    found = mids.overlaps(wide, np.eye(50)[:, :1], rank=49)
    matrices = np.tile(found.correlation, (301, 1, 1))
    ds = mids.from_trajectories(time=TIMES, correlation=matrices, dim=50, target="h1(z1)")
    assert why(mids.compare(ds)) == ["run_starts_beyond"]
    ladder = mids.simulate({"one": "h1(z1)", "two": "h1(z1)*h1(z2)"}, dim=1e4, runs=2)
    reasons = np.reshape(why(mids.compare(ladder)), (2, 2, 2))
    assert (reasons[0] == [["known", "no_such_saddle"]]).all() and (reasons[1] == "known").any()
    assert (
        mids.compare(ladder).ratio.isnull().values.reshape(2, 2, 2) == (reasons != "known")
    ).all()


WRONG = {
    "no column of times": (lambda: mids.from_trajectories(LOG.drop(columns="_step")), "time="),
    "no column of losses": (lambda: mids.from_trajectories(LOG.drop(columns="loss")), "loss="),
    "two losses": (lambda: mids.from_trajectories(LOG.assign(val=1.0)), "loss="),
    "unknown loss": (lambda: mids.from_trajectories(LOG, loss="nll"), "no column 'nll'"),
    "unknown time": (lambda: mids.from_trajectories(LOG, time="t"), "no column 't'"),
    "names without a log": (lambda: mids.from_trajectories(loss="loss"), "first"),
    "a log and arrays": (lambda: mids.from_trajectories(LOG, loss=LOSS), "names"),
    "an array as log": (lambda: mids.from_trajectories(LOSS), "loss="),
    "a path as log": (lambda: mids.from_trajectories("run.csv"), "table"),
    "an empty dict": (lambda: mids.from_trajectories({}), "no runs"),
    "a known column as run": (
        lambda: mids.from_trajectories(time=STEPS, loss=LOG[["loss", "lr"]]),
        "name its columns",
    ),
    "steps twice": (lambda: mids.from_trajectories(pd.concat([LOG, LOG])), "twice"),
    "dates as index": (
        lambda: mids.from_trajectories([pd.Series([1.0, 2.0], ["a", "b"])]),
        "no times",
    ),
    "rate of zero": (lambda: mids.from_trajectories(LOG, learning_rate=0), "learning_rate"),
    "rate below zero": (lambda: mids.from_trajectories(LOG, learning_rate=-1), "learning_rate"),
    "rate as text": (lambda: mids.from_trajectories(LOG, learning_rate="0.1"), "learning_rate"),
    "columns of text as runs": (
        lambda: mids.from_trajectories(
            loss=pd.DataFrame({"loss": LOSS, "accuracy": LOSS}, index=STEPS)
        ),
        "may be anything",
    ),
    "a column twice": (
        lambda: mids.from_trajectories(pd.concat([LOG, LOG], axis=1)),
        "duplicated",
    ),
    "text for losses": (
        lambda: mids.from_trajectories(LOG.assign(loss="low")),
        "real numbers.*NumPy",
    ),
    "a table of two runs": (
        lambda: mids.from_trajectories(
            pd.concat([LOG.assign(run=k) for k in range(2)])[["_step", "loss"]]
        ),
        "groupby",
    ),
    "one column as time and loss": (
        lambda: mids.from_trajectories(LOG, time="loss", loss="loss"),
        "named as time and as loss",
    ),
    "a W&B history as loss": (
        lambda: mids.from_trajectories(loss=LOG.assign(epoch=0)),
        "pass the table first",
    ),
    "masked weights": (lambda: mids.overlaps(np.ma.masked_less(LAYER, 0), FRAME), "finite"),
    "a run without a number": (
        lambda: mids.from_trajectories([pd.Series(LOSS, STEPS), pd.Series(np.nan, STEPS)]),
        "run 1 has no number.*leave that run out",
    ),
    "the learning rate as a run": (
        lambda: mids.from_trajectories([LOG.set_index("_step").lr]),
        "holds no loss",
    ),
    "runs of different lengths at one time": (
        lambda: mids.from_trajectories(loss=[LOSS, LOSS[:9]], time=STEPS),
        r"time=\[t, u\]",
    ),
    "times of fewer runs": (
        lambda: mids.from_trajectories(loss=[LOSS, LOSS[:9]], time=[STEPS]),
        "for each run",
    ),
    "a run with more losses than times": (
        lambda: mids.from_trajectories(loss=[LOSS], time=[STEPS[:9]]),
        "as many of both",
    ),
    "runs beside columns": (
        lambda: mids.from_trajectories({"a": LOG, "_step": STEPS}),
        "table",
    ),
    "columns of other lengths": (
        lambda: mids.from_trajectories({"_step": STEPS, "loss": LOSS[:9]}),
        "cannot be read",
    ),
    "a dataset as log": (lambda: mids.from_trajectories(xr.Dataset()), "loss="),
    "times as dates": (
        lambda: mids.from_trajectories(loss=LOSS, time=pd.date_range("2026-01-01", periods=200)),
        "time must be an array of real numbers",
    ),
    "complex losses": (
        lambda: mids.from_trajectories(loss=LOSS + 1j, time=STEPS),
        "real numbers",
    ),
    "more directions than inputs of the network": (
        lambda: mids.from_trajectories(time=STEPS, overlap=np.full((200, 3), 0.1), dim=2),
        "number of inputs",
    ),
    "a frame that spans everything": (
        lambda: mids.from_trajectories(time=STEPS, correlation=SMALL, dim=2),
        r"mids\.overlaps\(W, W_star, rank=",
    ),
    "a start without overlap": (
        lambda: mids.from_trajectories(time=STEPS, correlation=0 * SMALL, dim=9),
        "after the initialisation",
    ),
    "half as number": (lambda: mids.from_trajectories(LOG, half=0.5), "half"),
    "half without loss": (
        lambda: mids.from_trajectories(time=STEPS, overlap=np.ones((200, 1)), half=True),
        "half",
    ),
    "W transposed": (lambda: mids.overlaps(LAYER.T, FRAME), r"W\.T"),
    "other d": (lambda: mids.overlaps(LAYER[:7], FRAME), "rows"),
    "a vector": (lambda: mids.overlaps(LAYER[:, 0], FRAME), "v\\[:, None\\]"),
    "directions not orthonormal": (lambda: mids.overlaps(LAYER, 2 * FRAME), "qr"),
    "more directions than inputs": (lambda: mids.overlaps(LAYER, np.ones((20, 30))), "orthonormal"),
    "rank of zero": (lambda: mids.overlaps(LAYER, FRAME, rank=0), "rank"),
    "rank above the neurons": (lambda: mids.overlaps(LAYER, FRAME, rank=7), "at most 6"),
    "rank as text": (lambda: mids.overlaps(LAYER, FRAME, rank="2"), "rank"),
    "W of zeros": (lambda: mids.overlaps(0 * LAYER, FRAME), "zero"),
    "W of low rank": (lambda: mids.overlaps(np.ones((20, 6)), FRAME), "rank=1"),
    "NaN in W": (lambda: mids.overlaps(np.nan * LAYER, FRAME), "W"),
    "weights of another length": (
        lambda: mids.overlaps(LAYER, FRAME, weights=np.ones(5)),
        "weights",
    ),
    "a recorder without orthonormal directions": (lambda: mids.Recorder(3 * FRAME), "qr"),
    "a recorder of rank 0": (lambda: mids.Recorder(FRAME, rank=0), "rank"),
    "a network that has diverged": (
        lambda: mids.Recorder(FRAME).record(0, np.nan, np.nan * LAYER),
        "leave the loop",
    ),
    "no points per decade": (lambda: mids.Recorder(FRAME, per_decade=0), "per_decade"),
    "nothing recorded": (lambda: mids.Recorder(FRAME).dataset(), "at least 2"),
    "a step below zero": (lambda: mids.Recorder(FRAME).wants(-1), "step"),
    "a step as float": (lambda: mids.Recorder(FRAME).record(0.5, 1.0, LAYER), "step"),
    "losses of a batch": (lambda: mids.Recorder(FRAME).record(0, np.ones(4), LAYER), "mean"),
    "a link of samples without outputs": (
        lambda: mids.Recorder(FRAME).record(0, 1.0, LAYER, samples=LAYER),
        r"samples=\(x, net\(x\)\)",
    ),
    "inputs of another network": (
        lambda: mids.Recorder(FRAME).record(0, 1.0, LAYER, samples=(np.ones((50, 7)), LOSS)),
        "inputs must have shape",
    ),
    "outputs of another batch": (
        lambda: mids.Recorder(FRAME).record(0, 1.0, LAYER, samples=(LAYER.T, LOSS)),
        "one output for each input",
    ),
    "few samples for a link": (
        lambda: mids.Recorder(FRAME).record(0, 1.0, LAYER, samples=(LAYER.T, LOSS[:6])),
        "too few.*lower degree",
    ),
    "inputs that are not normal": (
        lambda: mids.Recorder(FRAME).record(0, 1.0, LAYER, samples=(np.ones((200, 20)), LOSS)),
        "not standard normal.*standard_normal",
    ),
    "a network and samples": (
        lambda: mids.Recorder(FRAME).record(
            0, 1.0, LAYER, network=link_of, samples=(LAYER.T, LOSS)
        ),
        "network=net",
    ),
    "a network that is none": (
        lambda: mids.Recorder(FRAME).record(0, 1.0, LAYER, network=LAYER),
        "a function of inputs",
    ),
    "quadrature in many directions": (
        lambda: mids.Recorder(FRAME, rank=4).record(0, 1.0, LAYER, network=link_of),
        "pass samples",
    ),
    "a recorder of all inputs": (lambda: mids.Recorder(FRAME, rank=20), "rank=2"),
    "a recorder of another target": (
        lambda: mids.Recorder(FRAME, target="h1(z1)"),
        "one column for each",
    ),
    "a target that is none": (lambda: mids.Recorder(FRAME, target=3), "pass for example"),
    "degree of zero": (lambda: mids.Recorder(FRAME, degree=0), "degree"),
    "loss as text": (lambda: mids.Recorder(FRAME).record(0, "1.0", LAYER), "one number"),
    "no loss": (lambda: mids.Recorder(FRAME).record(0, None, LAYER), "one number"),
    "W transposed in the recorder": (
        lambda: mids.Recorder(FRAME).record(0, 1.0, LAYER.T),
        r"W\.T",
    ),
}


@pytest.mark.parametrize(("call", "remedy"), WRONG.values(), ids=WRONG)
def test_wrong_uses_are_refused_with_the_remedy(call, remedy):
    with pytest.raises(InputError, match=remedy):
        call()


def test_steps_are_recorded_in_order():
    recorder = mids.Recorder(FRAME)
    recorder.record(5, 1.0, LAYER)
    with pytest.raises(InputError, match="in order"):
        recorder.record(5, 1.0, LAYER)
