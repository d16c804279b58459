"""The ladder of saddles: exponents, spans, strengths, plateau losses, drift and stability."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from mids import simulate, targets
from mids.targets.averaging import correlation, gradient, loss
from mids.targets.basis import multi_indices
from mids.targets.ladder import leaps
from mids.targets.subspaces import complete, critical_subspace, tilt_growth
from mids.targets.target import Target


def dense(rank, degree, seed):
    rng = np.random.default_rng(seed)
    modes = multi_indices(rank, degree)
    return Target({tuple(beta): float(rng.standard_normal()) for beta in modes.tolist()})


@pytest.mark.parametrize(
    ("text", "exponents", "ranks", "strengths", "losses"),
    [
        ("h3(z1)", (3,), (1,), (1.0,), (0.5,)),
        ("2 + h1(z1)", (1,), (1,), (1.0,), (0.5,)),
        ("h1(z1) + h1(z1)*h3(z2)", (1, 3), (1, 2), (1.0, 1.0), (1.0, 0.5)),
        ("h1(z1) + h1(z1)*h2(z2) + h2(z2)*h3(z3)", (1, 2, 3), (1, 2, 3), (1, 1, 1), (1.5, 1, 0.5)),
        ("h2(z1) + 1/2*h1(z1)*h2(z2)", (2, 2), (1, 2), (1.0, 0.25), (0.625, 0.125)),
        ("h1(z1)*h1(z2)", (2,), (2,), (0.5,), (0.5,)),
        # c^2 = max (sqrt(6) v1 v2 v3)^2 over unit vectors
        ("h1(z1)*h1(z2)*h1(z3)", (3,), (3,), (6 / 27,), (0.5,)),
        ("staircase(3)", (1, 1, 1), (1, 2, 3), (1 / 3,) * 3, (1 / 2, 1 / 3, 1 / 6)),
    ],
)
def test_known_ladders(text, exponents, ranks, strengths, losses):
    ladder = leaps(Target.parse(text))
    assert ladder.exponents == exponents
    assert tuple(step.rank_after for step in ladder) == ranks
    np.testing.assert_allclose([step.strength for step in ladder], strengths, rtol=1e-10)
    np.testing.assert_allclose([step.loss for step in ladder], losses, rtol=1e-12)
    assert ladder.loss == pytest.approx(0, abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(
    orders=st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda s: sum(s) <= 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_ladders_do_not_depend_on_coordinates(orders, seed):
    target = targets.leaps(orders)
    if target.rank > 1:
        target = target.rotate(ortho_group.rvs(target.rank, random_state=seed))
    ladder = leaps(target)
    assert ladder.exponents == tuple(orders)
    for step in ladder:
        assert step.exponent == target.information_exponent(step.subspace)
        assert step.loss == pytest.approx(0.5 * (1 - step.rank_before / target.rank))
        assert step.strength == pytest.approx(1 / target.rank, rel=1e-9)


@pytest.mark.parametrize(("rank", "degree"), [(6, 5), (6, 6)])
def test_large_targets(rank, degree):
    terms = {tuple(int(i <= j) for i in range(rank)): 1.0 for j in range(min(rank, degree))}
    ladder = leaps(Target(terms).rotate(ortho_group.rvs(rank, random_state=3)))
    assert ladder.exponents == (1,) * len(terms)


def test_the_largest_ladder():
    """Rank 6, degree 8, every exponent its own leap."""
    modes = [(1,), (1, 1), (0, 1, 2), (0, 0, 1, 3), (0, 0, 0, 1, 4), (0, 0, 0, 0, 2, 6)]
    target = Target({(*beta, *[0] * (6 - len(beta))): 1.0 for beta in modes})
    ladder = leaps(target.rotate(ortho_group.rvs(6, random_state=1)))
    assert ladder.exponents == (1, 1, 2, 3, 4, 6)
    np.testing.assert_allclose([step.loss for step in ladder], np.arange(6, 0, -1) / 2, rtol=1e-9)


def test_directions_that_the_target_ignores_are_never_learned():
    target = Target({(2, 0, 0): 1.0, (1, 1, 0): 0.1})
    ladder = leaps(target.rotate(ortho_group.rvs(3, random_state=0)))
    assert ladder.rank == 2 and ladder.loss == pytest.approx(0, abs=1e-14)


def test_repr_reads_as_in_the_paper():
    assert repr(leaps(targets.leaps([1, 2, 4]))) == "1 -> 2 -> 4: log d, d, d^3"
    assert "rank 1 -> 2: exponent 3, time ~ d^2" in repr(leaps(targets.leaps([1, 3]))[1])


@pytest.mark.parametrize("seed", range(4))
def test_drift_ends_where_h_does_not_couple_and_climbs(seed):
    target = dense(3, 3, seed)
    for step in leaps(target).steps[1:]:
        U = step.subspace
        H = gradient(target, U @ U.T)
        V = complete(U)[:, step.rank_before :]
        np.testing.assert_allclose(V.T @ H @ U, 0, atol=1e-8 * np.abs(H).max())
        assert step.drift > 1e-3
    first = leaps(target)[0].learned
    drifted = leaps(target)[1].subspace
    assert correlation(target, drifted @ drifted.T) > correlation(target, first @ first.T)


def test_drift_follows_the_flow_on_the_stratum():
    """The reference is the flow M' = (I - G) H M itself at rank 1, from |M| = 1."""
    from scipy.integrate import solve_ivp

    target = Target.parse("h1(z1) + h2(z1) + 1/2*h1(z1)*h1(z2)")

    def slope(_, m):
        G = np.outer(m, m)
        return (np.eye(2) - G) @ gradient(target, G) @ m

    end = solve_ivp(slope, (0, 60), [1.0, 0.0], rtol=1e-10, atol=1e-12).y[:, -1]
    found = critical_subspace(target, np.array([[1.0], [0.0]]))[:, 0]
    np.testing.assert_allclose(np.outer(found, found), np.outer(end, end), atol=1e-8)


@pytest.mark.parametrize("k", [1, 2])
def test_tilt_growth_is_the_derivative_of_the_push(k):
    target = dense(4, 3, 1)
    start = np.linalg.qr(np.random.default_rng(0).standard_normal((4, k)))[0]
    U = critical_subspace(target, start)
    V = complete(U)[:, k:]
    growth = tilt_growth(target, U)

    def push(theta):
        basis = np.linalg.qr(U + V @ theta.reshape(4 - k, k))[0]
        basis = basis @ np.linalg.inv(U.T @ basis)  # U + V theta up to second order
        H = gradient(target, basis @ np.linalg.inv(basis.T @ basis) @ basis.T)
        return ((V.T - V.T @ basis @ np.linalg.pinv(basis)) @ H @ basis).ravel()

    size = (4 - k) * k
    numeric = np.column_stack([(push(1e-5 * e) - push(-1e-5 * e)) / 2e-5 for e in np.eye(size)])
    np.testing.assert_allclose(growth, numeric, atol=1e-6 * np.abs(growth).max())


@pytest.mark.parametrize(
    ("text", "stable"),
    [
        ("h1(z1) + h1(z1)*h3(z2)", [True, True]),
        ("h1(z1) + 1/2*h1(z1)*h1(z2)", [True, True]),
        ("h1(z1) + h1(z1)*h1(z2)", [True, False]),  # h(P_u) = cos^2 + 2 cos^2 sin^2
    ],
)
def test_stability_along_the_stratum(text, stable):
    assert [step.stable for step in leaps(Target.parse(text))] == stable


def test_the_plateau_loss_is_the_loss_at_the_subspace():
    target = dense(3, 4, 7)
    for step in leaps(target):
        P = step.subspace @ step.subspace.T
        assert step.loss == pytest.approx(float(loss(target, P)), rel=1e-12)


def test_the_weakest_direction_sets_the_last_scale():
    step = leaps(Target.parse("h2(z1) + 0.1*h2(z2)"))[0]
    assert step.strength == pytest.approx(1.0) and step.weakest == pytest.approx(0.01)


@pytest.mark.parametrize("factor", [1e-99, 1e-40, 1e40, 1e99])
def test_strengths_scale_with_the_square_of_the_target(factor):
    target = dense(3, 4, 7)
    values = (factor * target.coefficients).tolist()
    scaled = Target(dict(zip(map(tuple, target.modes.tolist()), values, strict=True)))
    for one, other in zip(leaps(target), leaps(scaled), strict=True):
        assert other.exponent == one.exponent
        assert other.learned.shape == one.learned.shape
        assert other.strength == pytest.approx(factor**2 * one.strength, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "exponents"),
    [
        ("h1(z1) + h3(z1) + 2*h1(z1)*h2(z2)", (1, 1)),
        # h(P_U) = 1 - x + (1 + 0.6 x)^2 with x = sin^2 of the tilt grows by 0.2 x: U turns to e2,
        # where h1(z1) is left, of degree 1. Without the turn h2(z2) would be left, of degree 2.
        ("h1(z1) + h2(z1) + 1.6*h2(z2)", (1, 1)),
    ],
)
def test_growing_tilts_are_followed(text, exponents):
    """Whose exponent is 2 or more before the turn; h(P_U) is larger where the subspace rests."""
    target = Target.parse(text)
    step = leaps(target)[1]
    assert leaps(target).exponents == exponents
    first = np.eye(2)[:, :1]
    assert target.information_exponent(first) > 1
    assert np.linalg.eigvalsh(tilt_growth(target, first)).max() > 0.1
    assert step.stable and step.drift > 0.1
    assert step.loss < float(loss(target, first @ first.T)) - 1e-3


@pytest.mark.parametrize(
    ("text", "growth"),
    [("h1(z1) + h3(z1) + 2*h1(z1)*h2(z2)", 4 * 3**0.5 - 4), ("h1(z1) + h2(z1) + 1.6*h2(z2)", 0.2)],
)
def test_growing_tilts_take_log_d(text, growth):
    """Simulated from common starts M(0) sqrt(d), and with rates that are worked out by hand.

    The first direction grows from 1 / d at the rate 2 c^2, the tilt from d^(-1/2) at the rate
    growth = dh / dx at 0, where x = sin^2 of the angle, and then the other direction, which has
    waited, from 1 / d at the rate 2 c^2. All take their multiple of log d, and none a power of d.
    """
    start = np.array([[0.9, -0.4], [0.7, 0.8]])
    first, last = leaps(Target.parse(text))
    escapes = []
    for dim in (1e6, 1e8):
        ds = simulate(text, dim=dim, runs=1, initial=start / dim**0.5)
        assert (ds.status == 0).all()  # the default grid reaches beyond the turn
        escapes.append(ds.crossing_time.sel(level=0.5).values[0, 0])
    slopes = np.diff(escapes, axis=0)[0] / np.log(100)
    assert last.turning == pytest.approx(1 / growth)
    expected = 0.5 / first.strength + 0.5 / growth + 0.5 / last.strength
    np.testing.assert_allclose(slopes, [0.5 / first.strength, expected], rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("parity(3)", "3(-> 2 -> 2): d^2"),
        ("0.6*h2(z1) - 0.8*h2(z2)", "2(-> 2): d"),
        ("staircase(3)", "1 -> 1 -> 1: log d, log d, log d"),
    ],
)
def test_saddles_inside_a_step_have_exponents_of_their_own(text, printed):
    target = Target.parse(text)
    assert repr(leaps(target)) == printed
    turned = target.rotate(ortho_group.rvs(target.rank, random_state=3))
    assert repr(leaps(turned)) == printed
