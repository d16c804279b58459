"""The race against solvers of the whole equation that know nothing of mids."""

import pickle

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import mids
from mids.analysis.coupled import Race
from mids.flows.initial import draw_runs
from mids.targets.basis import multi_indices
from mids.targets.target import Target


def brute_force(target, gram0, end, *, first=False):
    """Times at which the overlaps pass 1/2, by DOP853 on G, with H from the target's tensors."""
    tensors, rank = target.tensors, target.rank

    def flow(_, flat):
        G = flat.reshape(rank, rank)
        H = np.zeros((rank, rank))
        for k, tensor in enumerate(tensors[1:], start=1):
            part = tensor
            for _ in range(k - 1):
                part = np.tensordot(part, G, axes=(1, 0))  # the second index goes last each time
            H += k * part.reshape(rank, -1) @ tensor.reshape(rank, -1).T
        push = (np.eye(rank) - G) @ H @ G
        return (push + push.T).ravel()

    def event(k):
        return lambda _, flat: np.linalg.eigvalsh(flat.reshape(rank, rank))[-1 - k] - 0.5

    events = [event(k) for k in range(rank)]
    events[0].terminal = first
    found = solve_ivp(
        flow, (0, end), gram0.ravel(), method="DOP853", rtol=1e-9, atol=1e-13, events=events
    )
    return np.array([times[0] if len(times) else np.nan for times in found.t_events])


def by_rank(found):
    """Escape times at the place of the directions learned, (n, rank)."""
    times = np.full(found.rank.shape, np.nan)
    rows, places = np.nonzero(~np.isnan(found.rank))
    times[rows, found.rank[rows, places].astype(int)] = found.escape_time[rows, places]
    return times


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_coupled_targets_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    rank, degree = 2 + seed % 2, 2 + seed % 3
    modes = [beta for beta in map(tuple, multi_indices(rank, degree).tolist()) if any(beta)]
    target = mids.Target({beta: float(rng.standard_normal()) for beta in modes}).normalize()
    M = draw_runs(rank, rank, 1000, range(2), seed)
    gram0 = M @ M.swapaxes(1, 2)
    predicted = by_rank(Race(target).predict(gram0))
    for row, G in zip(predicted, gram0, strict=True):
        known = np.isfinite(row)
        assert known[0]
        exact = brute_force(target, G, 2 * row[known].max() + 10)
        np.testing.assert_allclose(row[known], exact[known], rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "h2(z1) + h3(z2)",
        "0.3*h2(z1) + h3(z2)",
        "(z1+z2)^2 + 0.3*z1*z2^2",
        "0.1*h1(z1)*h1(z2) + h2(z1)*h2(z2)",
        "1e-6*h1(z1)*h1(z2) + h2(z1)*h2(z2)",
    ],
)
def test_who_wins_the_race_at_d_100(text):
    target = mids.Target.parse(text)
    M = draw_runs(2, 2, 100, range(8), 0)
    gram0 = M @ M.swapaxes(1, 2)
    predicted = by_rank(Race(target).predict(gram0))[:, 0]
    exact = [
        brute_force(target, G, 3 * t + 10, first=True)[0]
        for G, t in zip(gram0, predicted, strict=True)
    ]
    np.testing.assert_allclose(predicted, exact, rtol=0.03)


@pytest.mark.parametrize(
    "text",
    [
        "h2(z1) + 0.035*h2(z2)",
        "parity(2)",
        "0.3671*h2(z1) + 0.7135*h1(z1)*h1(z2) + 0.5967*h2(z2)",
        "h2(z1) + h3(z2)",
    ],
)
def test_the_race_does_not_depend_on_coordinates(text):
    target = mids.Target.parse(text)
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s], [s, c]])
    M = draw_runs(2, 2, 10_000, range(6), 0)
    gram0 = M @ M.swapaxes(1, 2)
    plain = by_rank(Race(target).predict(gram0))
    # rotate(R) is the target of R^T z: its directions, and the start with them, are turned by R
    turned = by_rank(Race(target.rotate(turn)).predict(turn @ gram0 @ turn.T))
    np.testing.assert_allclose(turned, plain, rtol=1e-5)
    assert np.isfinite(plain[:, 0]).all()


def test_small_overlaps_beside_large_ones_keep_their_accuracy():
    """The second direction starts 1e-7 as large as the first one, along nearly the same axis."""
    ds = mids.simulate("0.1*h2(z1) + h3(z2)", dim=[1e4], runs=[11], seed=1).compute()
    found = mids.compare(ds)
    np.testing.assert_allclose(found.ratio.isel(saddle=0), 1, rtol=1e-4)


def test_the_component_of_least_degree_alone_is_the_law_for_large_d():
    ds = mids.simulate("h2(z1) + h3(z2)", dim=[1e2, 1e6], runs=20).compute()
    found = mids.theory(ds, leading_order=True).isel(saddle=0)
    ratio = (found.escape_time_leading_order / found.escape_time).values
    assert np.abs(ratio[1] - 1).max() < 0.01 and np.nanmax(np.abs(ratio[0] - 1)) > 0.2
    assert found.method.attrs["flag_meanings"].split()[found.method.values[1, 0]] == "reduced_flow"


def test_coefficients_below_the_tolerance_are_named():
    ds = mids.simulate("1e-10*h1(z1) + h2(z1)", dim=1e4, runs=1)
    with pytest.warns(UserWarning, match="smallest coefficient"):
        mids.theory(ds)


def test_weak_directions_are_followed_to_their_end():
    """Too slow for explicit steps with what is learned, and they turn what is learned."""
    target = mids.Target.parse("0.03*h2(z1) + h3(z1) + 0.2*h2(z1)*h1(z2)")
    ds = mids.simulate(target, dim=1e4, runs=6).compute()
    found = by_rank(Race(target).predict(ds.gram0.values[0]))
    np.testing.assert_allclose(found, ds.crossing_time.sel(level=0.5).values[0], rtol=1e-3)


def test_the_order_is_broken_less_often_at_large_d():
    found = mids.race("h4(z1) + h5(z2)", dim=[1e2, 1e4, 1e8], runs=400)
    assert 0.2 < found.broken[0] < 0.4 and found.broken[2] < 0.02
    assert (found.broken.diff("dim") < 0).all() and (found.error > 0).all()
    assert mids.race("h2(z1)", dim=100, runs=10).broken.item() == 0
    with pytest.raises(mids.errors.InputError, match="runs"):
        mids.race("h2(z1)", dim=100, runs=0)


@pytest.mark.slow
def test_directions_of_no_step_of_the_ladder_are_counted():
    """The ladder learns z1, turns to z2 and learns z1; at small d many runs learn z2 first."""
    text = "h1(z1) + h2(z1) + 3*h2(z2)"
    found = mids.race(text, dim=[1e2, 1e6], runs=200)
    assert found.unclear[0] > 0.5 and found.unclear[1] == 0 and (found.broken == 0).all()
    predicted = mids.theory(mids.simulate(text, dim=100, runs=20).compute())
    names = np.array(predicted.reason.attrs["flag_meanings"].split())[predicted.reason.values]
    unknown = np.isnan(predicted.order.values)
    assert set(names[unknown]) == {"direction_of_no_single_step", "not_visited"}
    assert set(names[~unknown]) == {"known"}


def test_reasons_of_times_that_are_not_finite():
    ds = mids.simulate("h1(z1) + h1(z1)*h3(z2)", dim=1e4, runs=3)[["recipe", "gram0"]].compute()
    ds.gram0.values[0, 1] = np.nan
    ds.gram0.values[0, 2] = 0.0
    reason = mids.theory(ds).reason
    meanings = reason.attrs["flag_meanings"].split()
    names = [meanings[k] for k in reason.isel(dim=0, saddle=0).values]
    assert names[:2] == ["known", "start_is_no_correlation_matrix"]


@pytest.mark.parametrize(("c", "dim"), [(1.49, 1e2), (1.499, 1e4), (1.5, 1e6), (1.501, 1e4)])
def test_subspaces_from_which_tilts_die_out_slowly(c, dim):
    """At c = 3/2 the growth of tilts of z1 vanishes, and the next order turns it to z2."""
    ds = mids.simulate(f"h1(z1) + h2(z1) + {c}*h2(z2)", dim=dim, runs=20, seed=506).compute()
    found = mids.compare(ds)
    assert np.abs(found.ratio - 1).max() < 0.01
    assert found.ratio.notnull().any() and (found.ratio.notnull() | (found.reason > 0)).all()


def test_tilts_that_neither_grow_nor_die_out():
    """Tilts of (z1, z2) to z3 fade like t^(-1/2), and speed up what is learned all the time."""
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))[0]
    target = mids.Target.parse("h1(z1) + h1(z1)*h1(z2) + h2(z3)").rotate(turn)
    ds = mids.simulate(target, dim=[1e3, 1e6], runs=10, seed=3).compute()
    found = mids.compare(ds)
    assert found.ratio.isel(saddle=2).notnull().all()
    assert np.abs(found.ratio - 1).max() < 1e-3


def test_runs_are_predicted_once(monkeypatch):
    """`theory`, `compare` and pictures ask for the same runs; others are predicted anew."""
    ds = mids.simulate("h1(z1) + 0.7*h1(z1)*h2(z2)", dim=1e4, runs=3).compute()
    calls = []
    whole = Race._predict
    monkeypatch.setattr(Race, "_predict", lambda self, G: calls.append(len(G)) or whole(self, G))
    found = mids.theory(ds)
    np.testing.assert_array_equal(
        mids.compare(ds).escape_time_theory, found.escape_time.where(np.isfinite(found.escape_time))
    )
    mids.theory(ds.isel(run=[0, 2]))
    assert calls == [3, 2]
    again = pickle.loads(pickle.dumps(Race(mids.Target.parse("h2(z1)"), leading=True)))
    assert again._leading and again.rank == 1


@pytest.mark.parametrize("dim", [1e2, 1e8])
def test_no_step_leaps_over_a_level(dim):
    """Where H is constant every step is exact: log-odds of one direction grow at the rate 2."""
    overlap = draw_runs(1, 1, int(dim), range(20), 0)[:, 0, 0] ** 2
    found = Race(Target.parse("h1(z1)")).predict(overlap[:, None, None]).escape_time[:, 0]
    np.testing.assert_allclose(found, np.log(1 / overlap - 1) / 2, rtol=1e-9)
