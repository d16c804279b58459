"""Logs from outside, overlaps of networks and the recorder: what is taken, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mids
from mids.errors import InputError

STEPS = np.arange(200.0)
LOSS = 0.25 - 0.25 * np.tanh((STEPS - 60) / 4)
LOG = pd.DataFrame({"_step": STEPS.astype(int), "loss": LOSS, "lr": 0.1})
FRAME = np.eye(20)[:, :2]
LAYER = np.random.default_rng(0).standard_normal((20, 6))


class Tensor:
    """What torch's tensors have, without torch."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def detach(self):
        return self

    cpu = double = detach

    def numpy(self):
        return self.values.astype(float)


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
    "no points per decade": (lambda: mids.Recorder(FRAME, per_decade=0), "per_decade"),
    "nothing recorded": (lambda: mids.Recorder(FRAME).dataset(), "at least 2"),
    "a step below zero": (lambda: mids.Recorder(FRAME).wants(-1), "step"),
    "a step as float": (lambda: mids.Recorder(FRAME).record(0.5, 1.0, LAYER), "step"),
    "losses of a batch": (lambda: mids.Recorder(FRAME).record(0, np.ones(4), LAYER), "mean"),
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
