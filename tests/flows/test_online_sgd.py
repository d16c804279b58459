"""Online gradient descent: samples, links, gradients, the population flow as its limit."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import mids
from mids import schema
from mids.errors import DatasetError, FileError, InputError
from mids.flows import HermiteKernel, OnlineSGD, online_sgd
from mids.flows.engine.features import Link
from mids.flows.engine.normals import bits, normals, sample
from mids.flows.engine.projected import advance_projected
from mids.flows.engine.sampled import Rates, State, advance
from mids.flows.initial import draw, frame, stream
from mids.flows.readout import Readout
from mids.flows.sampled import start
from mids.simulation.simulate import differences
from mids.targets.basis import multi_indices

LADDER = mids.Target.parse("h1(z1) + h1(z1)*h1(z2)")
DENSE = mids.Target(
    {
        beta: float(c)
        for beta, c in zip(
            map(tuple, multi_indices(2, 3).tolist()),
            np.random.default_rng(3).normal(size=10),
            strict=True,
        )
    }
)
LINKS = {
    "hermite": Readout("hermite-ridge", 0.01, None, None, 1, 1.0),
    "low degree": Readout("hermite-ridge", 0.0, 2, None, 1, 1.0),
    "high degree": Readout("hermite-ridge", 0.1, 5, HermiteKernel(polynomial=2), 1, 1.0),
    "random": Readout("random-features", 0.01, None, None, 40, 1.5),
}


def draw_sample(key, index, width):
    words, work = np.empty(width, np.uint32), np.empty((2, width // 2), np.float32)
    out = np.empty(width, np.float32)
    sample(key, index, words, work, out)
    return out


def values_of(features, z):
    """Features of z (n, q), written down a second time."""
    if len(features.phases):
        angles = z @ features.frequencies.T + features.phases
        return np.sqrt(2 / len(features.phases)) * np.cos(angles)
    single = mids.targets.basis.hermite_values(z, int(features.exponents.max()))
    picked = single[:, np.arange(z.shape[1]), features.exponents]
    return picked.prod(axis=-1)


# -- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "index", "expected"),
    [  # vectors of Random123, counters (0, index, 0) of theirs
        ((0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ],
)
def test_bits_are_those_of_philox(key, index, expected):
    out = np.empty(8, np.uint32)
    bits(np.array(key, np.uint64), index, out)
    assert tuple(out[::2].tolist()) == expected


def reference_philox(counter, key):
    """Philox4x32-10 as published, on Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 % 2**32, (p0 >> 32) ^ c[3] ^ k[1], p0 % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def test_bits_of_long_samples_and_large_indices():
    # The published vector with all bits set checks the reference, which checks the rest.
    ones = [2**32 - 1] * 4
    assert reference_philox(ones, ones[:2]) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    key, index = np.array([123, 2**32 - 5], np.uint64), 7 * 2**32 + 9
    out = np.empty(64, np.uint32)
    bits(key, index, out)
    for i in range(16):
        assert reference_philox([i, 9, 7, 0], key.tolist()) == out[i::16].tolist()


def test_normals_are_box_mullers():
    rng = np.random.default_rng(0)
    words = rng.integers(2**32, size=1 << 16, dtype=np.uint32)
    words[:4] = 0, 2**32 - 1, 1, 2**31
    words[1 << 15 : (1 << 15) + 4] = 0, 2**29, 2**32 - 2**29, 2**31
    out = np.empty(words.size, np.float32)
    normals(words.view(np.int32), np.empty((2, words.size // 2), np.float32), out)
    first, second = np.split(words.astype(float), 2)
    radius, angle = np.sqrt(-2 * np.log((first + 0.5) / 2**32)), 2 * np.pi * second / 2**32
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    np.testing.assert_allclose(out, expected, atol=5e-4)  # near radius 0
    assert np.abs(out - expected).mean() < 1e-6


def test_samples_are_standard_normal():
    key = np.array([5, 6], np.uint64)
    x = np.array([draw_sample(key, i, 64) for i in range(20_000)]).astype(float)
    assert stats.kstest(x.ravel()[::2], "norm").pvalue > 1e-3
    covariance = x.T @ x / len(x)
    assert np.abs(covariance - np.eye(64)).max() < 6 / math.sqrt(len(x))
    lagged = (x[1:] * x[:-1]).mean(axis=0)
    assert np.abs(lagged).max() < 5 / math.sqrt(len(x))
    assert (x**4).mean() == pytest.approx(3, abs=0.05)
    assert (x**6).mean() == pytest.approx(15, abs=0.6)


# -- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("student_rank", [1, 2, 3])
def test_the_risk_in_closed_form_is_that_of_many_samples(kind, student_rank):
    rng = np.random.default_rng(student_rank)
    readout, dim = LINKS[kind], 7
    features = readout.build(DENSE, student_rank, rng)
    M = draw(2, student_rank, dim, rng)
    W = frame(M, dim, rng)
    link = rng.normal(size=len(features.penalty)) / 3
    x = rng.standard_normal((200_000, dim))
    squares = 0.5 * (values_of(features, x @ W) @ link - DENSE(x[:, :2])) ** 2
    risk = readout.risk(DENSE, features, link[None], M[None])[0]
    assert abs(squares.mean() - risk) < 5 * squares.std() / math.sqrt(len(x))
    on_modes = readout.on_modes(DENSE, features, link[None], M[None])[0]
    negative = readout.risk(DENSE, features, -link[None], M[None])[0]
    assert DENSE.coefficients @ on_modes == pytest.approx((negative - risk) / 2, abs=1e-12)


def started(readout, target, student_rank, dim, seed=0, noise=0.0):
    """A run before its first sample, with an arbitrary link."""
    rng = np.random.default_rng(seed)
    features = readout.build(target, student_rank, rng)
    state = State(**start(features, draw(target.rank, student_rank, dim, rng), dim, noise, rng))
    W = state.frame.T.copy()
    state.link[:] = rng.normal(size=len(state.link)) / 3
    return W, features, state, Link(target.modes, target.coefficients, noise)


KEY, LEVELS = np.array([3, 4], np.uint64), np.array([0.1, 0.5, 0.9])


@pytest.mark.parametrize("kind", LINKS)
def test_the_gradient_of_a_sample_is_that_of_finite_differences(kind):
    dim, noise = 11, 0.3
    W, features, state, link = started(LINKS[kind], DENSE, 2, dim, noise=noise)
    advance(link, features, Rates(0.1, 100, 1.0, 0.1), LEVELS, KEY, state, 3)
    samples = np.array([draw_sample(KEY, i, 16) for i in range(3)]).astype(float)
    x, label = samples[:, :dim], DENSE(samples[:, :2]) + noise * samples[:, dim]

    def loss(W):
        return 0.5 * ((values_of(features, x @ W) @ state.link - label) ** 2).sum()

    gradient = np.zeros((2, dim))
    for i, k in np.ndindex(2, dim):
        shift = np.zeros((dim, 2))
        shift[k, i] = 1e-5
        gradient[i, k] = (loss(W + shift) - loss(W - shift)) / 2e-5
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(state.gradient[:, :dim], gradient, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_gradient_is_unbiased(kind, noise):
    """Its part orthogonal to W is -(I - W W^T) W* dRisk/dM on average."""
    dim, n = 12, 200_000
    readout = LINKS[kind]
    W, features, state, link = started(readout, DENSE, 2, dim, noise=noise)
    fixed, M = state.link.copy(), W[:2]
    batches = []
    for _ in range(50):  # batches that are never complete: the link and W stay
        state.gradient[:] = 0
        stop = state.used[0] + n // 50
        advance(link, features, Rates(0.1, 2**62, 1.0, 0.1), LEVELS, KEY, state, stop)
        batches.append(state.gradient[:, :dim].T / (n // 50))
    np.testing.assert_array_equal(state.link, fixed)
    slope = np.zeros((dim, 2))
    for i, k in np.ndindex(2, 2):
        shift = np.zeros((2, 2))
        shift[i, k] = 1e-5
        risks = readout.risk(
            DENSE, features, np.array([fixed, fixed]), np.array([M + shift, M - shift])
        )
        slope[i, k] = (risks[0] - risks[1]) / 2e-5
    orthogonal = np.eye(dim) - W @ W.T
    found = orthogonal @ np.array(batches)
    error = found.std(axis=0) / math.sqrt(len(batches))
    assert (np.abs(found.mean(axis=0) - orthogonal @ slope) < 4.5 * error + 1e-6).all()


@pytest.mark.parametrize("kind", LINKS)
def test_the_link_is_the_ridge_regressor_with_forgetting(kind):
    dim, batch, keep, ridge = 9, 60, 0.75, 0.02
    W, features, state, link = started(LINKS[kind], DENSE, 2, dim)
    rates = Rates(0.05, batch, keep, ridge)
    gram, moment, weight = 0.0, 0.0, 0.0
    for k in range(4):
        W = state.frame.T.copy()
        x = np.array([draw_sample(KEY, i, 16) for i in range(k * batch, (k + 1) * batch)])[:, :dim]
        values = values_of(features, x.astype(float) @ W)
        gram = keep * gram + values.T @ values
        moment = keep * moment + values.T @ DENSE(x[:, :2])
        weight = keep * weight + batch
        advance(link, features, rates, LEVELS, KEY, state, (k + 1) * batch)
        expected = np.linalg.solve(gram + ridge * weight * np.diag(features.penalty), moment)
        np.testing.assert_allclose(state.link, expected, rtol=1e-3, atol=1e-4)


def moves(sampling, batch, noise, inside, count):
    """Steps on W of many first batches from one state, divided by the step."""
    dim, rng = 9, np.random.default_rng(0)
    features = LINKS["hermite"].build(DENSE, 2, rng)
    M = np.linalg.qr(rng.normal(size=(2, 2)))[0] if inside else draw(2, 2, dim, rng)
    if inside:
        M[:, 0] *= 0.6  # the first column leaves the span of W*, the second stays in it
    kept = start(features, M, dim, noise, rng)
    if sampling == "projected":
        kept["gradient"] = np.zeros((2, dim))
    kept["link"][:] = np.random.default_rng(1).normal(size=len(kept["link"])) / 3
    link = Link(DENSE.modes, DENSE.coefficients, noise)
    forward = advance_projected if sampling == "projected" else advance
    found = []
    for first in range(count):
        state = State(**{name: array.copy() for name, array in kept.items()})
        key = np.array([first, 7], np.uint64)
        forward(link, features, Rates(1e-6, batch, 1.0, 0.1), LEVELS, key, state, batch)
        found.append((state.frame - kept["frame"]).ravel() / 1e-6)
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "noise", "inside"), [(1, 0.0, False), (5, 1.0, False), (100, 0.3, True)]
)
def test_projected_samples_have_the_law_of_all_coordinates(batch, noise, inside):
    """First and second moments of a step, in all directions of W."""
    n = 5000
    one, two = (moves(sampling, batch, noise, inside, n) for sampling in online_sgd.SAMPLINGS)
    error = np.sqrt((one.var(axis=0) + two.var(axis=0)) / n)
    assert (np.abs(one.mean(axis=0) - two.mean(axis=0)) <= 4.5 * error + 1e-9).all()
    squares = [x[:, :, None] * x[:, None, :] for x in (one, two)]
    error = np.sqrt((squares[0].var(axis=0) + squares[1].var(axis=0)) / n)
    scale = squares[0].mean(axis=0).max()
    assert scale > 0.001
    difference = np.abs(squares[0].mean(axis=0) - squares[1].mean(axis=0))
    assert (difference <= 5 * error + 1e-6 * scale).all()


@pytest.mark.slow
def test_projected_runs_have_the_law_of_all_coordinates():
    arguments = {"dim": 12, "runs": 300, "time": [0.0, 15.0], "initial": np.eye(2) * 0.3}
    one, two = (
        sgd(OnlineSGD(step=0.05, batch=20, memory=4, sampling=sampling), **arguments).compute()
        for sampling in online_sgd.SAMPLINGS
    )
    for direction in range(2):
        times = [ds.crossing_time.sel(level=0.5).isel(direction=direction) for ds in (one, two)]
        filled = [found.fillna(99.0).values.ravel() for found in times]
        assert (filled[0] < 99).mean() > 0.8
        assert stats.ks_2samp(*filled).pvalue > 1e-3
    assert stats.ks_2samp(one.risk.isel(time=-1).values[0], two.risk.isel(time=-1).values[0])[1] > (
        1e-3
    )


def test_projected_samples_follow_the_flow_in_high_dimension():
    dim = 5000
    flow = OnlineSGD(step=0.02, batch=8000, sampling="projected", memory=1)
    arguments = {"dim": dim, "runs": 1, "time": [0, 8.0], "initial": [[dim**-0.5]]}
    ds = sgd(flow, target="h1(z1)", **arguments).compute()
    exact = mids.simulate("h1(z1)", **arguments).compute()
    half = [found.crossing_time.sel(level=0.5).item() for found in (ds, exact)]
    assert half[0] == pytest.approx(half[1], rel=0.1)


@pytest.mark.parametrize("sampling", online_sgd.SAMPLINGS)
@pytest.mark.parametrize(("step", "batch"), [(0.01, 1), (1.0, 4), (0.3, 50)])
def test_frames_stay_orthonormal(step, batch, sampling):
    readout = Readout("hermite-ridge", 0.1, None, None, 1, 1.0)
    _, features, state, link = started(readout, mids.targets.staircase(3), 3, 40)
    forward = advance
    if sampling == "projected":
        forward, state = advance_projected, state._replace(gradient=np.zeros((3, 40)))
    forward(link, features, Rates(step, batch, 0.9, 0.1), LEVELS, KEY, state, 20_000)
    assert state.used.tolist() == [20_000, 0]
    assert np.abs(state.frame @ state.frame.T - np.eye(3)).max() < 1e-12


def test_frames_are_uniform_given_their_correlation():
    M = draw(3, 2, 30, stream(0, 30, 0))
    frames = np.array([frame(M, 30, stream(0, 30, run, branch=1)) for run in range(2000)])
    np.testing.assert_array_equal(frames[:, :3], np.broadcast_to(M, (2000, 3, 2)))
    np.testing.assert_allclose(
        frames.swapaxes(1, 2) @ frames, np.broadcast_to(np.eye(2), (2000, 2, 2)), atol=1e-13
    )
    rest = frames[:, 3:] @ np.linalg.inv(np.linalg.cholesky(np.eye(2) - M.T @ M)).T
    assert np.abs(rest.mean(axis=0)).max() < 5 / math.sqrt(2000 * 27)
    covariance = np.einsum("nik,njk->ij", rest, rest) / 2000
    assert np.abs(covariance - np.eye(27) * 2 / 27).max() < 0.02


# -- the flow -----------------------------------------------------------------------------------


def sgd(flow=None, target=LADDER, **arguments):
    given = {"dim": [20, 33], "runs": 3, "time": np.linspace(0, 3, 7)}
    flow = flow or OnlineSGD(step=0.05, batch=64)
    return mids.simulate(target, flow=flow, **{**given, **arguments})


FLOWS = {
    "hermite": OnlineSGD(step=0.05, batch=64, noise=0.2),
    "latest batch": OnlineSGD(step=0.05, batch=64, memory=1),
    "all batches": OnlineSGD(step=0.05, batch=64, memory=None, kernel={"exponential": 0.5}),
    "random": OnlineSGD(step=0.05, batch=64, readout="random-features", features=20),
    "projected": OnlineSGD(step=0.05, batch=64, noise=0.2, sampling="projected"),
}


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("student_rank", [1, 2, 3])
def test_datasets_keep_the_schema_and_replay(kind, student_rank):
    ds = sgd(FLOWS[kind], student_rank=student_rank)
    ds.mi.validate()
    computed = ds.compute()
    assert differences(computed, mids.replay(computed)) == []
    assert computed.mi.flow == FLOWS[kind]
    assert np.isfinite(computed.loss).all() and (computed.loss >= computed.risk).all()
    assert computed.samples.values.tolist() == [640 * k for k in range(7)]
    assert (computed.n_steps == 60).all()
    population = mids.simulate(
        LADDER, dim=[20, 33], runs=3, student_rank=student_rank, time=[0, 1]
    ).compute()
    np.testing.assert_allclose(computed.gram0, population.gram0, atol=1e-15)
    start = [computed[name].isel(time=0) for name in ("overlap", "energy")]
    wanted = [population[name].isel(time=0) for name in ("overlap", "energy")]
    np.testing.assert_allclose(start[0], wanted[0], atol=1e-15)
    if kind in ("latest batch", "hermite"):
        np.testing.assert_allclose(start[1], wanted[1], rtol=1e-3)


@pytest.mark.slow
def test_analyses_and_plots_take_it(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    ds = sgd(OnlineSGD(step=0.05, batch=256), runs=4, time=np.arange(0, 40, 0.1)).compute()
    assert (ds.status == 0).all()
    compared = mids.compare(ds)
    expected = compared.ratio_expected
    assert compared.match.any() and (expected.where(compared.match, 2.0) > 1).all()
    # The finite step explains most of what the times have too much.
    assert np.nanmedian(compared.ratio) == pytest.approx(float(np.nanmedian(expected)), abs=0.15)
    ds.mi.plot.loss()
    ds.mi.to_netcdf(tmp_path / "sgd.nc")
    with mids.open_dataset(tmp_path / "sgd.nc") as again:
        assert differences(ds, again) == []
        assert again.samples.dtype == np.int64
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("sampling", online_sgd.SAMPLINGS)
@pytest.mark.parametrize("case", ["chunks", "threads", "pieces", "subset"])
def test_numbers_do_not_depend_on_how_they_are_computed(monkeypatch, case, sampling):
    flow = OnlineSGD(step=0.05, batch=70, noise=0.1, sampling=sampling)
    expected = sgd(flow).compute(scheduler="synchronous")
    if case == "chunks":
        found = sgd(flow, chunks=1)
    elif case == "threads":
        found = sgd(flow, chunks=2).compute(scheduler="threads", num_workers=4)
    elif case == "subset":
        found = sgd(flow, dim=33, runs=[2])
        expected = expected.sel(dim=[33], run=[2])
    else:
        monkeypatch.setattr(online_sgd, "CHUNK_SECONDS", 0.0)  # one sample at a time
        found = sgd(flow)
    assert differences(expected, found) == []


def test_times_between_steps_show_the_step_before():
    ds = sgd(time=[0, 0.049, 0.05, 0.0999, 0.1, 0.1 + 1e-13, 3]).compute()
    assert ds.samples.values.tolist() == [0, 0, 64, 64, 128, 128, 3840]
    assert (ds.loss[..., 0] == ds.loss[..., 1]).all()


def test_grids_that_end_before_the_first_step_hold_the_start():
    ds = sgd(OnlineSGD(step=0.1), time=[0.0, 1e-3]).compute(**ALONE)
    assert ds.samples.values.tolist() == [0, 0]
    np.testing.assert_array_equal(ds.loss[..., 0], ds.loss[..., 1])


def test_the_default_grid_is_made_of_steps():
    ds = sgd(OnlineSGD(step=0.03), time=None)
    steps = ds.time.values / 0.03
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert ds.time.values[-1] > 2 * math.log(33)
    long = sgd(OnlineSGD(step=1e-3), target="h3(z1)", dim=1e5, time=None)
    assert long.time.values[-1] == pytest.approx(1e-3 * 10**6)


def test_failed_runs_are_flagged():
    ds = sgd(OnlineSGD(step=1.0, batch=1, memory=1, ridge=1e-300), target="h3(z1)").compute()
    failed = ds.status == 3
    assert failed.any()
    assert np.isnan(ds.loss.isel(time=-1)).where(failed, True).all()
    assert np.isfinite(ds.loss.isel(time=0)).all()


@pytest.mark.slow
def test_small_steps_follow_the_population_flow():
    """Each loss and each overlap is reached within 2 % of the two-timescale flow's time."""
    arguments = {"dim": 256, "runs": [0], "time": np.arange(0, 6.8, 0.02)}
    ds = sgd(OnlineSGD(step=1e-3, batch=1024, memory=4), **arguments).compute()
    population = mids.simulate(LADDER, **arguments).compute()
    levels = [0.9, 0.7, 0.52, 0.4, 0.2, 0.1, 0.05]
    found, exact = (
        np.interp(levels, loss.values[0, 0, ::-1], loss.time[::-1])
        for loss in (ds.loss, population.loss)
    )
    assert np.abs(np.log(found / exact)).max() < 0.02
    ratio = ds.crossing_time / population.crossing_time
    assert np.abs(np.log(ratio.values)).max() < 0.02


def test_the_bias_falls_with_the_step():
    """With many samples the delay is that of the discretisation, of first order in the step."""
    delays = []
    for step in (0.2, 0.1, 0.05):
        flow = OnlineSGD(step=step, batch=2000, memory=1, ridge=0.0)
        arguments = {"dim": 10, "runs": 4, "target": "h2(z1)", "time": [0, 12]}
        ds = sgd(flow, **arguments).compute()
        exact = mids.simulate(**arguments, rtol=1e-8).compute()
        delays.append((ds.crossing_time - exact.crossing_time).sel(level=0.5).mean().item())
    assert delays[0] > delays[1] > delays[2] > 0
    assert delays[0] / delays[1] == pytest.approx(2, abs=0.7)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["h1(z1)", "h2(z1)"])
def test_samples_to_escape_grow_with_the_dimension(text):
    """As log d and as d, run by run: the population flow knows each run's start."""
    arguments = {"dim": [16, 128], "runs": 10, "target": text, "time": [0, 300]}
    population = mids.simulate(**arguments).compute()
    last = population.crossing_time.sel(level=0.5).max().item()
    arguments["time"] = [0, 1.3 * last]
    ds = sgd(OnlineSGD(step=0.05, batch=128), **arguments).compute()
    escape, expected = (
        found.crossing_time.sel(level=0.5).median(["run", "direction"]).values
        for found in (ds, population)
    )
    assert escape[1] / escape[0] == pytest.approx(expected[1] / expected[0], rel=0.15)
    assert expected[1] / expected[0] > (1.2 if text == "h1(z1)" else 4)


# -- checkpoints --------------------------------------------------------------------------------


def kept(folder, **arguments):
    flow = OnlineSGD(step=0.05, batch=64, noise=0.1, checkpoint=folder, **arguments)
    return sgd(flow, chunks=1)


# Where a run is to raise there are no threads: others would go on into the next test.
ALONE = {"scheduler": "synchronous"}


def test_the_folder_is_not_part_of_the_data(tmp_path):
    ds = kept(tmp_path / "here")
    assert "here" not in ds.attrs["mids_recipes"]
    assert ds.mi.flow == kept(tmp_path / "there").mi.flow
    assert not (tmp_path / "here").exists()


def test_a_recorded_recipe_does_not_say_where_to_write(tmp_path):
    ds = kept(None)
    (recipe,) = copy.deepcopy(schema.recipes(ds)).values()
    recipe["flow"]["checkpoint"] = str(tmp_path / "chosen")
    key = schema.fingerprint(recipe)
    digits = schema.fingerprint_bytes([key])
    changed = ds.assign(recipe=ds.recipe * 0 + xr.DataArray(*digits, dims="byte"))
    with pytest.raises(
        DatasetError, match="unknown parameter of the flow 'online-sgd' 'checkpoint'"
    ):
        mids.replay(
            changed.assign_attrs(mids_recipes=schema.recorded({key: recipe}, schema.grids(ds)))
        )
    assert not (tmp_path / "chosen").exists()


def test_finished_runs_are_not_run_again(tmp_path, monkeypatch):
    expected = kept(None).compute()
    assert differences(expected, kept(tmp_path)) == []
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6 and all(path.suffix == ".npz" for path in files)

    def refuse(*args):
        raise MemoryError("a sample was drawn")  # what a run is not charged with

    monkeypatch.setattr("mids.flows.engine.sampled.advance", refuse)
    assert differences(expected, kept(tmp_path)) == []
    with pytest.raises(MemoryError, match="drawn"):
        kept(tmp_path, memory=3).compute(**ALONE)


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(online_sgd, "INTERVAL", 0.0)
    monkeypatch.setattr(online_sgd, "CHUNK_SECONDS", 1e-4)
    calls = []

    def interrupted(*args):
        calls.append(args[-1])
        if len(calls) == 10:
            raise KeyboardInterrupt
        advance(*args)

    monkeypatch.setattr("mids.flows.engine.sampled.advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path).isel(dim=[0], run=[1]).compute(**ALONE)
    assert any(call % 64 for call in calls)  # amid a batch
    last, calls = calls[-1], [None] * 20
    again = kept(tmp_path).isel(dim=[0], run=[1]).compute(**ALONE)
    assert calls[20] == last
    assert differences(again, kept(None).isel(dim=[0], run=[1])) == []


KILLED = """
import os, sys
from mids.flows import online_sgd
online_sgd.INTERVAL, online_sgd.CHUNK_SECONDS = 0.0, 1e-3
sys.path.insert(0, sys.argv[2])
from test_online_sgd import long
save, states = online_sgd.Checkpoint.save, []
def deadly(self, arrays, **options):
    save(self, arrays, **options)
    states.append(int(arrays["used"][0]))
    if len(states) == 25:
        os.kill(os.getpid(), 9)
online_sgd.Checkpoint.save = deadly
long(sys.argv[1]).compute(scheduler="threads", num_workers=2)
"""


def long(folder):
    flow = OnlineSGD(step=0.01, batch=256, checkpoint=folder)
    return sgd(flow, dim=256, runs=2, time=np.linspace(0, 8, 5))


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_same_bits(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__)],
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    used = []
    for path in tmp_path.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            used.append(int(file["used"][0]))
    assert used and max(used) > 0 and min(used) < 800 * 256
    assert differences(long(None).compute(), long(tmp_path)) == []


def test_damaged_checkpoints_are_named(tmp_path):
    kept(tmp_path).compute()
    path = sorted(tmp_path.iterdir())[0]
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:400] + b"\xff" + whole[401:]):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"checkpoint .* is damaged"):
            kept(tmp_path).compute(**ALONE)
    path.unlink()
    kept(tmp_path).compute()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        kept(tmp_path / "file")
    with pytest.raises(InputError, match=r"file is a file"):
        kept(tmp_path / "file" / "below")
    late = kept(tmp_path / "later" / "below")
    (tmp_path / "later").write_text("")
    with pytest.raises(FileError, match="cannot write the checkpoint"):
        late.compute(**ALONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "later"]


@pytest.mark.parametrize(
    ("flow", "absent"),
    [
        (OnlineSGD(), ("features", "width")),
        (OnlineSGD(readout="random-features", features=9), ("degree", "kernel")),
    ],
)
def test_parameters_without_meaning_are_not_shown(flow, absent):
    text = repr(flow)
    assert not any(f"{name}=" in text for name in absent)
    assert not set(absent) & set(flow.to_dict())
    assert eval(text, {"OnlineSGD": OnlineSGD}) == flow == mids.flows.from_dict(flow.to_dict())


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"step": 0}, "step must be a finite number above 0 and at most 1"),
        ({"step": 1.5}, "step"),
        ({"batch": 0}, "batch must be an integer of at least 1"),
        ({"batch": 2.5}, "2.5"),
        ({"memory": 0.5}, "memory must be a finite number at least 1"),
        ({"noise": -1}, "noise"),
        ({"noise": math.nan}, "noise"),
        ({"ridge": -1}, "ridge"),
        ({"readout": "hermite"}, "did you mean 'hermite-ridge'"),
        ({"degree": 0}, "degree"),
        ({"features": 0}, "features"),
        ({"width": 0}, "width"),
        ({"width": 64}, "width=64.0 has no meaning.*leave it out"),
        ({"features": 64}, "features=64 has no meaning.*readout='random-features'"),
        ({"kernel": 3}, "kernel must be"),
        ({"kernel": {"polynom": 3}}, "polynomial"),
        ({"readout": "random-features", "ridge": 0}, "need ridge > 0"),
        ({"readout": "random-features", "kernel": {"polynomial": 3}}, "kernel belongs to"),
        ({"sampling": "project"}, "did you mean 'projected'"),
        ({"readout": "random-features", "degree": 3}, "degree belongs to"),
        ({"kernel": {"eigenvalues": []}}, "positive numbers"),
        ({"checkpoint": 7}, "checkpoint must be the path"),
        ({"checkpoint": ""}, "checkpoint must be the path"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        OnlineSGD(**parameters)


@pytest.mark.parametrize(
    ("flow", "arguments", "message"),
    [
        (OnlineSGD(), {"dim": 1e7}, "at most 1000000"),
        (OnlineSGD(ridge=0, batch=5), {}, "at least as many samples as the link has features, 6"),
        (OnlineSGD(degree=1), {"target": "h2(z1)"}, "degree must be at least 2"),
        (OnlineSGD(degree=20), {"student_rank": 8, "dim": 30}, "at most 2000"),
        (OnlineSGD(features=2001, readout="random-features"), {}, "at most 2000"),
        (OnlineSGD(kernel={"eigenvalues": [1, 1]}), {}, "one eigenvalue for each degree"),
        (OnlineSGD(ridge=0, kernel={"exponential": 400.0}), {}, "decays more slowly"),
        (OnlineSGD(ridge=1e300), {}, "lower the ridge"),
        (OnlineSGD(), {"time": [0.0, 1e20]}, "end it earlier"),
        (OnlineSGD(step=1e-300), {"time": [0.0, 1.0]}, "end it earlier"),
        (OnlineSGD(batch=10**30), {}, "end it earlier"),
    ],
)
def test_flows_that_cannot_run_are_named_before_any_work(flow, arguments, message):
    with pytest.raises(InputError, match=message):
        sgd(flow, **arguments)
