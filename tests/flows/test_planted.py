"""The planted flow: equations, exact crossing times, traps."""

from __future__ import annotations

from itertools import pairwise
from math import factorial, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm
from scipy.stats import ortho_group

import mids
from mids.errors import InputError
from mids.flows import Planted
from mids.flows.frames import averages, follow, learned_frame, link_of
from mids.flows.planted import Landscape, symmetries
from mids.simulation.simulate import differences
from mids.targets.averaging import average

TRAPPED, CENSORED = 2, 1
TEXTS = (
    "h3(z1)",
    "h1(z1) + h1(z1)*h3(z2)",
    "0.3 + h2(z1) + 0.5*h1(z1)*h2(z2) + 0.2*h3(z2)",
    "h1(z1) + h1(z1)*h2(z2)*h1(z3) + 0.4*h5(z3)",
)


def explained(target, M):
    """``<f*, A_M f*>`` from full tensors."""
    return sum(
        np.sum(t * a) for t, a in zip(target.tensors, average(target.tensors, M), strict=True)
    )


def field(target, M, step=1e-5):
    """``D - M sym(M^T D)`` with D by differences."""
    units = np.eye(M.size).reshape(M.size, *M.shape) * step
    D = np.array([explained(target, M + e) - explained(target, M - e) for e in units])
    D = D.reshape(M.shape) / (2 * step)
    return D - M @ (M.T @ D + D.T @ M) / 2


# -- equations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_the_slope_is_the_gradient_on_the_stiefel_manifold(text):
    target = mids.Target.parse(text)
    M = np.random.default_rng(1).uniform(-0.5, 0.5, (target.rank, target.rank))
    slope, _ = Landscape(target).linearise(M)
    np.testing.assert_allclose(slope.reshape(M.shape), field(target, M), atol=1e-9)


@pytest.mark.parametrize("text", TEXTS)
def test_the_jacobian_is_the_derivative_of_the_slope(text):
    target = mids.Target.parse(text)
    M = np.random.default_rng(2).uniform(-0.5, 0.5, (target.rank, target.rank))
    landscape = Landscape(target)
    _, jacobian = landscape.linearise(M)
    for column, unit in enumerate(np.eye(M.size).reshape(M.size, *M.shape) * 1e-6):
        ends = landscape.linearise(M + unit)[0], landscape.linearise(M - unit)[0]
        difference = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(jacobian[:, column], difference, atol=1e-8)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("students", [1, 2, 4])
def test_links_are_averaged_as_by_tensors(text, students):
    target = mids.Target.parse(text)
    M = np.random.default_rng(3).uniform(-0.5, 0.5, (target.rank, students))
    coefficients = averages(target, M[None])[0]
    tensors = average(target.tensors, M)
    expected = []
    for degree in np.unique(target.modes.sum(axis=1)):
        for word in sorted({tuple(sorted(w)) for w in np.ndindex(*(students,) * degree)}):
            same = factorial(degree) / prod(factorial(word.count(i)) for i in range(students))
            expected.append(tensors[degree][word] * np.sqrt(same))
    np.testing.assert_allclose(coefficients, expected, atol=1e-14)


def test_the_flow_is_that_of_the_frame_in_the_ambient_space():
    """W' = W* D - W sym(W^T W* D) on W itself, by another integrator."""
    target = mids.Target.parse(TEXTS[2])
    d, r = 11, target.rank
    W = np.linalg.qr(np.random.default_rng(4).normal(size=(d, r)))[0]

    def slope(t, y):
        W = y.reshape(d, r)
        M, units = W[:r], np.eye(r * r).reshape(-1, r, r) * 1e-5
        D = [explained(target, M + e) - explained(target, M - e) for e in units]
        Z = np.zeros((d, r))
        Z[:r] = np.reshape(D, (r, r)) / 2e-5
        return (Z - W @ (W.T @ Z + Z.T @ W) / 2).ravel()

    time = np.linspace(0, 2, 9)
    found = solve_ivp(slope, (0, 2), W.ravel(), "DOP853", time, rtol=1e-10, atol=1e-12)
    M = found.y.T.reshape(-1, d, r)[:, :r]
    ds = mids.simulate(target, dim=d, runs=1, flow="planted", initial=W[:r], time=time)
    np.testing.assert_allclose(ds.overlap[0, 0], np.linalg.svd(M)[1] ** 2, atol=1e-8)
    loss = [target.norm**2 - explained(target, m) for m in M]
    np.testing.assert_allclose(ds.loss[0, 0], loss, atol=1e-8)
    np.testing.assert_array_equal(ds.initial[0, 0], W[:r])


# -- exact solutions ----------------------------------------------------------------------------


def exact(coefficients, start, level):
    """Time from m = start to m^2 = level, by quadrature in log m."""

    def inverse(u):
        m = np.exp(u)
        slope = sum(s * a**2 * m ** (s - 1) for s, a in coefficients.items()) * (1 - m**2)
        return m / slope

    ends = np.log(start), np.log(level) / 2
    points = np.linspace(*ends, 40)
    return sum(quad(inverse, a, b, epsrel=1e-13)[0] for a, b in pairwise(points))


ONE = ({1: 1.0}, {2: 1.0}, {3: 1.0}, {4: 1.0}, {5: 1.0}, {2: 0.3, 3: 0.9}, {3: 0.2, 6: 1.1})


@pytest.mark.slow
@pytest.mark.parametrize("coefficients", ONE)
def test_crossing_times_of_one_direction_are_quadratures(coefficients):
    dims = [1e2, 1e12]
    target = mids.Target({(s,): a for s, a in coefficients.items()})
    start = np.array(dims)[:, None, None, None] ** -0.5
    ds = mids.simulate(target, dim=dims, runs=1, flow=Planted(), initial=start).compute()
    for i, m in enumerate(start.ravel()):
        times = [exact(coefficients, m, level) for level in ds.level.values]
        np.testing.assert_allclose(ds.crossing_time[i, 0, 0], times, rtol=1e-8)
    assert (ds.status == 0).all()


@pytest.mark.parametrize(
    ("degree", "values"),
    [(1, (0.781, 0.850, 0.871)), (2, (1.1488, 1.7267, 2.3026)), (3, (3.122, 10.353, 33.152))],
)
def test_escape_times_have_their_known_values(degree, values):
    start = np.array([1e2, 1e3, 1e4])[:, None, None, None] ** -0.5
    target = mids.targets.hermite(degree)
    ds = mids.simulate(target, dim=[1e2, 1e3, 1e4], runs=1, flow="planted", initial=start)
    np.testing.assert_allclose(ds.crossing_time[:, 0, 0, 1], values, rtol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("degree", "slope"), [(1, 0.0), (2, None), (3, 0.5), (4, 1.0)])
def test_escape_times_grow_with_the_dimension_as_they_should(degree, slope):
    dims = [1e4, 1e8]
    target = mids.targets.hermite(degree)
    ds = mids.simulate(target, dim=dims, runs=100, flow="planted", rtol=1e-5).compute()
    free = ds.crossing_time.sel(direction=0, level=0.5).where(ds.status == 0)
    medians = free.median("run").values
    if slope is None:  # a quarter of log d per unit strength
        np.testing.assert_allclose(np.diff(medians), np.log(1e4) / 4, rtol=0.15)
    else:
        steps = np.diff(np.log(medians)) / np.log(1e4)
        np.testing.assert_allclose(steps, slope, atol=0.15 * max(slope, 0.2))


@pytest.mark.slow
def test_runs_from_the_law_of_the_start_cross_at_their_exact_times():
    ds = mids.simulate("h3(z1)", dim=[1e2, 1e7], runs=24, flow="planted").compute()
    m = ds.initial.squeeze(("axis", "student"))
    for dim in ds.dim.values:
        for run in ds.run.values[m.sel(dim=dim) > 0]:
            time = exact({3: 1.0}, m.sel(dim=dim, run=run).item(), 0.5)
            found = ds.crossing_time.sel(dim=dim, run=run, direction=0, level=0.5)
            assert found.item() == pytest.approx(time, rel=1e-8)


def test_the_grid_is_as_accurate_as_the_crossings():
    ds = mids.simulate("h3(z1)", dim=1e6, runs=1, flow="planted", initial=[[1e-3]]).compute()
    overlap = ds.overlap[0, 0, :, 0].values
    inside = (overlap > 2e-6) & (overlap < 0.9)
    times = [exact({3: 1.0}, 1e-3, value) for value in overlap[inside]]
    np.testing.assert_allclose(ds.time[inside], times, rtol=1e-6)
    assert inside.sum() > 5


# -- traps --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("degree", [3, 5])
def test_negative_starts_of_odd_exponents_stall_below_zero(degree):
    ds = mids.simulate(mids.targets.hermite(degree), dim=[1e2, 1e5], runs=16, flow="planted")
    ds = ds.compute()
    negative = ds.initial.squeeze(("axis", "student"), drop=True) < 0
    assert 0.2 < negative.mean() < 0.8
    assert ((ds.status == TRAPPED) == negative).all()
    stalled = ds.overlap.isel(direction=0).where(negative)
    assert (stalled.diff("time").max() <= 0) and np.isnan(ds.crossing_time.where(negative)).all()
    fast = mids.simulate(mids.targets.hermite(degree), dim=[1e2, 1e5], runs=16, rtol=1e-5)
    np.testing.assert_allclose(fast.gram0, ds.gram0)
    assert (fast.status == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_even_exponents_and_the_first_have_no_traps(degree):
    ds = mids.simulate(mids.targets.hermite(degree), dim=[1e2, 1e5], runs=16, flow="planted")
    assert (ds.status == 0).all()


@pytest.mark.parametrize("text", ["h2(z1) + h2(z2)", "h2(z1) + h2(z2) + h2(z3)"])
def test_radial_targets_have_no_traps(text):
    ds = mids.simulate(text, dim=[1e2, 1e6], runs=60, flow="planted", rtol=1e-6).compute()
    assert (ds.status == 0).all()
    assert (ds.loss.isel(time=-1) < 1e-10).all()


def test_symmetric_targets_trap_with_high_probability():
    ds = mids.simulate(
        "h3(z1) + h3(z2) + h3(z3) + h3(z4)", dim=1e4, runs=30, flow="planted", rtol=1e-5
    ).compute()
    assert (ds.status == TRAPPED).mean() > 0.7
    assert (ds.status != CENSORED).all()
    lost = ds.loss.isel(time=-1).where(ds.status == TRAPPED)
    assert (lost.max() > 0.9) and not (lost < 0.5).any()


def curvature(target, M, direction):
    """Second difference of Phi along a geodesic of the Stiefel manifold in R^(2 r + 1)."""
    d, r = 2 * target.rank + 1, target.rank
    rest = np.zeros((d - r, r))
    rest[:r] = np.linalg.cholesky(np.eye(r) - M.T @ M + 1e-15 * np.eye(r)).T
    W = np.linalg.qr(np.concatenate([M, rest]))[0]
    W = W * np.sign(np.sum(W[:r] * M, axis=0))
    A = direction[:d, :d] - direction[:d, :d].T
    values = [explained(target, (expm(t * A) @ W)[:r]) for t in (-1e-3, 0, 1e-3)]
    return (values[0] - 2 * values[1] + values[2]) / 1e-6, (values[2] - values[0]) / 2e-3


def test_traps_are_local_maxima_among_all_frames():
    target = mids.Target.parse("h2(z1)*h1(z2)")
    ds = mids.simulate(target, dim=100, runs=32, flow="planted").compute()
    trapped = ds.isel(dim=0, run=ds.status[0].values == TRAPPED)
    assert 3 < trapped.sizes["run"] < 32
    rng = np.random.default_rng(5)
    run = int(trapped.run[0])
    end = Planted().integrate(problem(target, ds.initial[0, run].values, ds.time.values))
    assert end["loss"][0, -1] == trapped.loss[0, -1]
    M = Landscape(target).attractor(final(target, ds.initial[0, run].values, ds.time.values))
    for _ in range(50):
        bend, slope = curvature(target, M, rng.normal(size=(5, 5)))
        assert bend < 1e-6 and abs(slope) < 1e-4


def problem(target, start, time):
    return mids.flows.Problem(
        target, 100, np.array([0]), 0, np.array([start]), np.asarray(time), 1e-8
    )


def final(target, start, time):
    return follow(problem(target, start, time), fixed=link_of(target)).correlation[0, -1]


@pytest.mark.parametrize(
    ("text", "M", "held"),
    [
        ("h2(z1)", [[1e-3]], False),  # unstable at 0
        ("h4(z1)", [[-1e-3]], False),
        ("h3(z1)", [[1e-3]], False),
        ("h3(z1)", [[-1e-3]], True),
        ("h1(z1) + h2(z1)", [[-1 + 1e-3]], True),  # 2 > 1: m = -1 is a local maximum
        ("2*h1(z1) + h2(z1)", [[-1 + 1e-3]], False),
        ("h1(z1) + h1(z1)*h3(z2)", [[1, 0], [0, -1e-2]], True),
        ("h1(z1) + h1(z1)*h3(z2)", [[1, 0], [0, 1e-2]], False),
        ("h1(z1) + h1(z1)*h4(z2)", [[1, 0], [0, -1e-2]], False),
        ("h3(z1) + h3(z2)", [[1, 0], [0, -1e-2]], True),
        ("h3(z1) + h3(z2)", [[-1e-2, -2e-3], [-1e-3, -1e-2]], True),
        ("h3(z1) + h3(z2)", [[-1e-2, -2e-3], [1e-4, -1e-2]], False),  # one entry grows
        ("h2(z1)*h1(z2)", [[0, 0], [0, -1e-2]], False),  # nothing forbids the slowest escape
        ("h2(z1) + h2(z2) + h3(z3)", [[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, -1e-2]], True),
        ("h2(z1) + h2(z2) + h3(z3)", [[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1e-2]], False),
        ("h1(z1) + h2(z1) + 0*z2", [[-0.99, 0], [0, 0.1]], True),  # nothing depends on z2
        ("h3(z2) + 0*h1(z1)", [[0.3, 0.1], [0.2, 1e-2]], False),
    ],
)
def test_states_are_held_where_no_direction_leads_away(text, M, held):
    landscape = Landscape(mids.Target.parse(text))
    assert (landscape.attractor(np.array(M, dtype=float)) is not None) == held


@pytest.mark.parametrize(
    ("text", "count"),
    [("h1(z1)", 0), ("h2(z1) + h2(z2)", 1), ("h2(z1) - h2(z2)", 0), ("h1(z1)*h1(z2)", 0)],
)
def test_symmetries_are_found_in_any_frame(text, count):
    target = mids.Target.parse(text)
    Q = ortho_group.rvs(3, random_state=0)
    wide = mids.Target.parse(text + " + h5(z3)")
    assert len(symmetries(target)) == count
    assert len(symmetries(wide.rotate(Q) if wide.rank == 3 else wide)) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flow", "seed"), [*(("planted", seed) for seed in range(4)), ("joint", 0), ("joint", 1)]
)
def test_targets_of_any_kind_are_followed_to_an_end(flow, seed):
    """Dense ones too, whose learned subspaces turn on the way."""
    rng = np.random.default_rng(seed)
    rank = 2 + seed % 2
    modes = [b for b in np.ndindex(*(4,) * rank) if 1 <= sum(b) <= 3]
    target = mids.Target({b: float(rng.normal()) for b in modes}).normalize()
    frame = learned_frame(target)
    np.testing.assert_allclose(frame.T @ frame, np.eye(rank), atol=1e-12)
    ds = mids.simulate(target, dim=1e4, runs=5, flow=flow, rtol=1e-6).compute()
    assert np.isin(ds.status, [0, TRAPPED]).all()
    lost = ds.loss.isel(time=-1)
    assert (lost.where(ds.status == 0, 0) < 1e-6).all()
    assert (lost.where(ds.status == TRAPPED, 1) > 1e-3).all()
    assert (ds.loss.diff("time") < 1e-6).all()


def test_a_run_on_its_plateau_is_censored_not_trapped():
    ds = mids.simulate("h4(z1)", dim=1e6, runs=8, flow="planted", time=[0, 1, 10, 100])
    assert (ds.status == CENSORED).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "turned"),
    [("h3(z1)", True), ("h1(z1) + h1(z1)*h3(z2)", True), ("h2(z1)*h1(z2)", False)],
)
def test_what_is_held_stays_for_good(text, turned):
    """Rounding would let runs leave a degenerate point after times of 1e16."""
    target = mids.Target.parse(text)
    if turned:
        target = target.rotate(ortho_group.rvs(2, random_state=1) if target.rank > 1 else [[-1.0]])
    time = np.concatenate([[0], np.geomspace(1e-2, 1e24, 160)])
    arguments = {"dim": 1e4, "runs": 6, "flow": "planted"}
    long = mids.simulate(target, time=time, **arguments).compute()
    short = mids.simulate(target, **arguments).compute()
    assert (long.status == short.status).all() and (short.status == TRAPPED).any()
    assert np.isin(long.status, [0, TRAPPED]).all()
    np.testing.assert_allclose(long.crossing_time, short.crossing_time, rtol=1e-8)
    end, last = (ds.loss.isel(time=-1) for ds in (short, long))
    np.testing.assert_allclose(last, end, atol=1e-6)


# -- invariances --------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_flow_commutes_with_rotations_of_the_link(seed):
    target = mids.Target.parse(TEXTS[2])
    Q = ortho_group.rvs(2, random_state=seed)
    start = mids.flows.initial.draw_runs(2, 2, 1000, [seed % 97], 0)[0]
    time = np.concatenate([[0], np.geomspace(0.1, 1e3, 20)])
    arguments = {"dim": 1000, "runs": 1, "flow": "planted", "time": time, "rtol": 1e-7}
    one = mids.simulate(target, initial=start, **arguments).compute()
    two = mids.simulate(target.rotate(Q), initial=Q @ start @ Q.T, **arguments).compute()
    np.testing.assert_allclose(two.crossing_time, one.crossing_time, rtol=1e-5)
    np.testing.assert_allclose(two.loss, one.loss, atol=1e-5)
    assert (one.status == two.status).all()


@pytest.mark.slow
def test_numbers_do_not_depend_on_blocks_and_are_replayed():
    sweep = {"dim": [100, 1e4], "runs": 4, "flow": "planted", "rtol": 1e-5}
    ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", chunks=3, **sweep).compute()
    mids.validate(ds)
    assert not differences(ds, mids.replay(ds))
    assert not differences(ds, mids.simulate("h1(z1) + h1(z1)*h3(z2)", chunks=4, **sweep))
    part = ds.isel(run=[3, 1], dim=[1])
    assert not differences(part, mids.replay(part))


@pytest.mark.parametrize("student_rank", [1, 3])
def test_the_student_must_have_the_rank_of_the_target(student_rank):
    with pytest.raises(InputError, match="needs student_rank = 2"):
        mids.simulate(TEXTS[1], dim=100, flow="planted", student_rank=student_rank)


def test_the_planted_flow_has_no_parameters():
    with pytest.raises(InputError, match="no parameters"):
        mids.flows.from_dict({"name": "planted", "ridge": 0.1})


@pytest.mark.parametrize("degree", [3, 4])
def test_the_default_grid_has_64_times_a_decade_where_runs_escape(degree):
    target = mids.targets.hermite(degree)
    time = mids.flows.Planted().default_time(target, 10**4, 1)
    escapes = time[(time > 1) & (time < 10 ** (4 * (degree / 2 - 1)))]
    assert np.diff(np.log10(escapes)).max() < 1.01 / 64
