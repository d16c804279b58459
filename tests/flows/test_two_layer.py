"""Networks with neurons: the closed flow against R^d, exact cases and published claims."""

from __future__ import annotations

import numpy as np
import pytest

import mids
from mids.errors import InputError
from mids.flows import TwoLayer
from mids.flows.initial import stream
from mids.flows.network import directions_factor, gram
from mids.targets import Target, additive
from mids.targets.basis import hermite_values, multiplicities

TARGET = Target.parse("0.5 + h1(z1) + 0.7*h2(z2) + 0.5*h1(z1)*h2(z2)")
ACTIVATION = {0: 0.3, 1: 1.0, 2: 0.6, 3: 0.4}
LAYER = (0.8, 0.5, -0.3)
KINDS = [
    {},
    {"readout": "trained", "epsilon": 0.5},
    {"readout": "trained", "epsilon": 0.5, "norm": "free"},
    {"activation": "erf", "norm": "free"},
    {"activation": "relu", "norm": "free"},
    {"activation": "tanh", "degree": 30},
    {"loss": "correlation"},
]


def network(**parameters):
    return TwoLayer(**{"neurons": 3, "activation": ACTIVATION, "second_layer": LAYER, **parameters})


def slope(flow, target, W, a):
    """M', Q', a', loss and risk of the compiled right-hand side."""
    from mids.flows.engine.neuron_paths import risks

    rank, p = target.rank, W.shape[1]
    state = np.concatenate([W[:rank].T.ravel(), (W.T @ W).ravel(), a])
    slopes, losses = np.empty((1, len(state))), np.empty((2, 1))
    risks(flow._network(target), rank, p, state[None], slopes, *losses)
    out = slopes[0]
    M, Q = out[: rank * p].reshape(p, rank), out[rank * p : rank * p + p * p].reshape(p, p)
    return M.T, Q, out[rank * p + p * p :], losses[:, 0]


def sample_gradient(flow, target, W, a, x):
    """Gradient of the loss in R^d by weights and second layer, and the loss, from samples."""
    series = flow._series
    pre = x @ W
    values = hermite_values(pre, len(series) - 1)
    orders = np.sqrt(np.arange(1, len(series)))
    if flow.activation == "relu":
        act, der = np.maximum(pre, 0), (pre > 0).astype(float)
    elif flow.activation == "erf":
        from scipy.special import erf

        act, der = erf(pre / np.sqrt(2)), np.sqrt(2 / np.pi) * np.exp(-(pre**2) / 2)
    else:
        act, der = values @ series, values[..., :-1] @ (series[1:] * orders)
    label = target(x[:, : target.rank])
    error = act @ a - label
    weights = error if flow.loss == "squared" else -label
    per_sample = weights[:, None] * der * a
    return x.T @ per_sample / len(x), act.T @ error / len(x), 0.5 * np.mean(error**2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_closed_flow_is_the_gradient_in_the_ambient_space(kind):
    """M', Q', a' and the loss against a quasi-Monte Carlo average over x in R^d."""
    from scipy.stats import norm, qmc

    flow = network(**kind)
    rng = np.random.default_rng(5)
    W = rng.standard_normal((4, 3))
    W /= np.linalg.norm(W, axis=0)
    if flow.norm == "free":
        W *= [0.7, 1.2, 1.0]
    a = np.array(LAYER)
    x = norm.ppf(qmc.Sobol(4, seed=1).random_base2(17))
    gradient, readout, risk = sample_gradient(flow, TARGET, W, a, x)
    field = -gradient
    if flow.norm == "spherical":
        field -= W * (W * field).sum(axis=0)
    M, Q, da, (_, closed) = slope(flow, TARGET, W, a)
    tolerance = 0.04 if flow.activation in ("relu", "tanh") else 0.02
    np.testing.assert_allclose(M, field[:2], atol=tolerance)
    change = W.T @ field
    np.testing.assert_allclose(Q, change + change.T, atol=tolerance)
    if flow.epsilon is not None:
        np.testing.assert_allclose(da, -readout / flow.epsilon, atol=tolerance)
    assert closed == pytest.approx(risk, rel=0.02)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_slope_is_exactly_that_of_the_energy(kind):
    """dL/dt = -|gradient|^2, from the loss's finite difference along the flow."""
    flow = network(**kind)
    rng = np.random.default_rng(6)
    W = rng.standard_normal((6, 3))
    W /= np.linalg.norm(W, axis=0)
    a = np.array(LAYER)

    def loss(W, a):
        return slope(flow, TARGET, W, a)[3][0]

    gradient = np.zeros_like(W)
    for index in np.ndindex(W.shape):
        move = np.zeros_like(W)
        move[index] = 1e-6
        gradient[index] = (loss(W + move, a) - loss(W - move, a)) / 2e-6
    if flow.norm == "spherical":  # moves off the sphere do not count
        gradient -= W * (W * gradient).sum(axis=0)
    M, Q, _, _ = slope(flow, TARGET, W, a)
    if flow.norm == "free":
        np.testing.assert_allclose(M, -gradient[:2], atol=1e-8)
        change = -W.T @ gradient
        np.testing.assert_allclose(Q, change + change.T, atol=1e-8)
    else:
        move = -1e-6 * gradient
        rate = (loss(*normalised(W + move, a)) - loss(*normalised(W - move, a))) / 2e-6
        assert rate < 0


def normalised(W, a):
    return W / np.linalg.norm(W, axis=0), a


def simulate(flow, target, **arguments):
    return mids.simulate(target, flow=flow, **{"dim": 1e4, "runs": 3, **arguments}).compute()


@pytest.mark.parametrize(("s", "size"), [(1, 1.0), (2, 0.7), (3, 1.0)])
def test_one_neuron_with_the_link_itself_is_the_planted_flow(s, size):
    text = f"{size}*h{s}(z1)"
    kind = {s: size}
    for loss in ("correlation", "squared"):
        ds = simulate(TwoLayer(activation=kind, loss=loss), text)
        planted = simulate("planted", text, initial=ds.initial, time=ds.time.values)
        np.testing.assert_allclose(ds.loss, planted.loss, atol=1e-6)
        np.testing.assert_allclose(ds.crossing_time, planted.crossing_time, rtol=1e-7)
        np.testing.assert_allclose(
            ds.neuron_crossing_time.values[..., 0, :], ds.crossing_time.values[..., 0, :], rtol=1e-9
        )


@pytest.mark.parametrize("target", [additive([1.0, 0.7, -0.5], "h3"), "h4(z1) + 0.6*h4(z2)"])
def test_neurons_find_orthogonal_index_vectors_when_theory_says(target):
    s = 3 if not isinstance(target, str) else 4
    flow = TwoLayer(
        neurons=3, activation=f"h{s}", loss="correlation", second_layer=(1.0, 0.5, -2.0)
    )
    ds = simulate(flow, target, dim=300, runs=4)
    found = mids.theory(ds)
    measured = ds.neuron_crossing_time.sel(level=0.5)
    found = found.isel(saddle=0)
    known = np.isfinite(found.escape_time)
    assert (known == measured.notnull()).all() and 4 <= known.sum() <= 12
    np.testing.assert_allclose(measured.where(known), found.escape_time.where(known), rtol=1e-6)
    assert (ds.nearest == found.learned.fillna(-1)).all()


def test_the_loss_decreases_and_runs_do_not_depend_on_their_neighbours():
    flow = network(readout="trained", epsilon=0.1)
    ds = mids.simulate(TARGET, dim=1e3, runs=4, flow=flow, chunks=1)
    together = mids.simulate(TARGET, dim=1e3, runs=4, flow=flow, chunks=4)
    loss = ds.loss.compute()
    assert (np.diff(loss, axis=-1) < 1e-7).all()
    assert (loss == together.loss).all()
    assert mids.replay(ds).equals(ds)
    mids.validate(ds)


def test_the_start_has_the_law_of_uniform_neurons():
    """Moments of M and Q against frames drawn in R^d."""
    flow, dim, runs = TwoLayer(neurons=3), 12, 4000
    target = Target.parse("h1(z1) + h1(z2)")
    M = flow.draw_initial(target, 3, dim, np.arange(runs), 0)
    Q = np.array(
        [
            gram(m.T, directions_factor(3, dim - 2, stream(0, dim, run, 4)))
            for run, m in enumerate(M)
        ]
    )
    W = np.random.default_rng(0).standard_normal((runs, dim, 3))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    direct = W.swapaxes(1, 2) @ W
    np.testing.assert_allclose((M**2).mean(axis=(0, 1)), 1 / dim, rtol=0.06)
    np.testing.assert_allclose((M**4).mean(), 3 / (dim * (dim + 2)), rtol=0.1)
    for power in (2, 4):
        expected = (direct[:, 0, 1] ** power).mean()
        assert (Q[:, 0, 1] ** power).mean() == pytest.approx(expected, rel=0.15)
    # Overlap of neurons given M: the third moment that links all three Gram entries.
    mixed = (direct[:, 0, 1] * direct[:, 1, 2] * direct[:, 0, 2]).mean()
    assert (Q[:, 0, 1] * Q[:, 1, 2] * Q[:, 0, 2]).mean() == pytest.approx(mixed, rel=0.3)
    assert np.isfinite(flow.draw_initial(target, 3, 10**12, np.arange(2), 0)).all()


def test_neurons_that_have_parted_take_few_steps():
    """Their product vanishes; an error relative to it would be below that of rounding."""
    flow = TwoLayer(neurons=2, activation="erf")
    start = [[0.8, 0.2], [0.2, 0.8]]
    ds = mids.simulate(
        "additive(2, 0, erf)", dim=1e4, runs=2, flow=flow, initial=start, time=[0.0, 300.0]
    ).compute()
    assert (ds.n_rhs < 5000).all()
    assert (ds.status == 0).all()  # what is left of the loss is below 1e-6


def test_what_neurons_have_learned_does_not_hold_up_the_rest():
    """It relaxes at a rate of 12: stable explicit steps are a millionth of this grid."""
    flow = TwoLayer(neurons=8, activation="h3", loss="squared")
    time = [0.0, 3e2, 3e3, 3e5]
    ds = simulate(flow, additive(np.ones(4), "h3"), dim=1e6, runs=2, time=time)
    assert (ds.n_steps < 5000).all() and (ds.status != 3).all()
    assert (np.diff(ds.loss, axis=-1) < 1e-6).all()


def test_neurons_go_to_the_nearest_of_orthogonal_index_vectors():
    """Simsek, Bendjeddou, Hsu 2024: the greatest m_i(0) wins, for s >= 3."""
    flow = TwoLayer(neurons=6, activation="h3", loss="correlation")
    ds = simulate(flow, additive(np.ones(3), "h3"), runs=6, dim=1e3)
    first = ds.neuron_overlap.isel(time=0).values[0]
    reached = ds.nearest.values[0]
    went = reached >= 0
    assert went.mean() > 0.8
    assert (first.argmax(axis=-1)[went] == reached[went]).all()
    covered = [len(set(row[row >= 0])) for row in reached]
    assert ds.coverage.values[0].tolist() == covered


def test_overlaps_of_neurons_that_merge_do_not_jump():
    """Where they differ by 1e-6 the direction between them fades, from its limit of 0.085."""
    flow = TwoLayer(neurons=2, activation=(0.0, 0.0, 0.1, 1.0), loss="correlation")
    start, time = [[0.6, 0.5], [0.1, -0.2]], np.linspace(0.0, 10.0, 201)
    target = "h3(z1) + 0.2*h2(z2)"
    ds = simulate(flow, target, dim=100, runs=1, initial=start, time=time)
    second = ds.overlap.values[0, 0, :, 1]
    assert second.max() > 0.08 and second[-1] < 0.04
    assert np.abs(np.diff(second)).max() < 0.02


def saad_solla(R, Q, end):
    """Exit times of erf neurons on orthonormal erf neurons, from the published equations.

    Saad, Solla 1995, eqs. 5 to 7 at small learning rate, in the form of Veiga et al. 2022:
    ``I3(i, n, m) = E g'(x_i) x_n g(x_m)`` in closed form. Shapes: R, Q (k, k).
    """
    from scipy.integrate import solve_ivp

    k = len(R)

    def slope(_, y):
        R, Q = y.reshape(2, k, k)
        C = np.block([[Q, R], [R.T, np.eye(k)]])
        own, sign = np.diag(C), np.repeat([-1.0, 1.0], k)
        change = np.zeros((k, 2 * k))
        for i in range(k):
            square = (1 + C[i, i]) * (1 + own) - C[i] ** 2
            part = C * (1 + C[i, i]) - np.outer(C[i], C[i])
            change[i] = part @ (sign * 2 / np.pi / np.sqrt(square)) / (1 + C[i, i])
        return np.stack([change[:, k:], change[:, :k] + change[:, :k].T]).ravel()

    def exits(level, i):
        def excess(_, y):
            R, Q = y.reshape(2, k, k)
            return (R[i] ** 2).max() / Q[i, i] - level

        return excess

    events = [exits(level, i) for i in range(k) for level in (0.5, 0.9)]
    start = np.stack([R, Q]).ravel()
    found = solve_ivp(slope, (0, end), start, method="DOP853", rtol=1e-9, atol=1e-12, events=events)
    return np.array([times[0] for times in found.t_events]).reshape(k, 2)


def test_exit_times_of_a_committee_are_those_of_the_published_equations():
    flow = TwoLayer(neurons=2, activation="erf", norm="free")
    ds = simulate(flow, "additive(2, 0, erf)", runs=2).isel(dim=0)
    for run in range(2):
        one = ds.isel(run=run)
        R, Q = one.neuron_overlap[0].values, one.neuron_gram[0].values
        expected = saad_solla(R, Q, float(ds.time[-1]))
        found = one.neuron_crossing_time.sel(level=[0.5, 0.9])
        np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.parametrize(("offset", "to_average"), [(-0.1, False), (0.1, True)])
def test_the_average_of_equiangular_index_vectors_turns_at_beta_c(offset, to_average):
    """Average of k vectors at beta: a minimum above (s - 2) / (k + s - 2), a saddle below."""
    s, k = 4, 3
    beta = (s - 2) / (k + s - 2) + offset
    vectors = np.linalg.cholesky(np.full((k, k), beta) + (1 - beta) * np.eye(k)).T
    average = vectors.sum(axis=1) / np.linalg.norm(vectors.sum(axis=1))
    start = average + 0.01 * np.array([1.0, -0.5, 0.2])
    start /= np.linalg.norm(start)
    flow = TwoLayer(activation=f"h{s}", loss="correlation")
    target = additive(np.ones(k), f"h{s}", vectors)
    ds = simulate(flow, target, initial=start[:, None], runs=1, time=[0.0, 100.0])
    cosine = float(ds.neuron_overlap.values[0, 0, -1, 0] @ average)
    assert (cosine > 0.999) == to_average
    if not to_average:
        assert float((vectors.T @ ds.neuron_overlap.values[0, 0, -1, 0]).max()) > 0.95


def ambient(flow, target, W, end, times):
    """Weights (d, p) and second layer along the gradient flow in R^d, in plain NumPy."""
    from scipy.integrate import solve_ivp

    degrees = target.modes.sum(axis=1)
    seen = degrees < len(flow._series)
    modes, degrees = target.modes[seen], degrees[seen]
    sizes = target.coefficients[seen] * flow._series[degrees] * np.sqrt(multiplicities(modes))
    orders, squares, step = np.arange(len(flow._series)), flow._series**2, 1e-30
    d, p = W.shape

    def pulls(m):
        """E f* sigma(w x) of a neuron and its gradient by m, by complex steps."""
        moved = m + 1j * step * np.eye(len(m))
        found = np.prod(moved[:, None, :] ** modes, axis=2) @ sizes
        return found.real[0], found.imag / step

    def slope(_, y):
        W, a = y[: d * p].reshape(d, p), y[d * p :]
        Q, field = W.T @ W, np.zeros((d, p))
        values, gradients = zip(*(pulls(m) for m in W[: target.rank].T), strict=True)
        field[: target.rank] = a * np.array(gradients).T
        powers = Q[:, :, None] ** np.maximum(orders - 1, 0)
        field -= W @ (powers @ (orders * squares) * a[:, None] * a)
        field -= W * (W * field).sum(axis=0)
        change = np.array(values) - (Q[:, :, None] ** orders @ squares) @ a
        return np.append(field, change / flow.epsilon if flow.epsilon else 0 * a)

    start = np.append(W, flow._layer)
    found = solve_ivp(slope, (0, end), start, "DOP853", t_eval=times, rtol=1e-9, atol=1e-12).y
    return found[: d * p].reshape(d, p, -1), found[d * p :]


@pytest.mark.parametrize(
    ("target", "epsilon"), [(TARGET, None), (TARGET, 0.1), ("h1(z1) + 0.5*h3(z1)", 1e-2)]
)
def test_the_flow_is_that_of_a_plain_simulation_in_the_ambient_space(target, epsilon):
    """Overlaps, products and second layer along the whole path, at d = 40."""
    target = Target.parse(target) if isinstance(target, str) else target
    flow = network(readout="trained" if epsilon else "fixed", epsilon=epsilon)
    time = np.linspace(0.0, 6.0, 13)
    ds = simulate(flow, target, dim=40, runs=1, time=time).isel(dim=0, run=0)
    M, Q = ds.neuron_overlap.values, ds.neuron_gram.values
    W = np.zeros((40, 3))
    W[: target.rank] = M[0].T
    W[target.rank : target.rank + 3] = np.linalg.cholesky(Q[0] - M[0] @ M[0].T).T
    weights, layer = ambient(flow, target, W, time[-1], time)
    np.testing.assert_allclose(M, weights[: target.rank].T, atol=1e-6)
    np.testing.assert_allclose(Q, np.einsum("dit,djt->tij", weights, weights), atol=1e-6)
    np.testing.assert_allclose(ds.second_layer, layer.T, atol=1e-6)
    assert abs(M[-1] - M[0]).max() > 0.3


COMPONENTS = np.array([0.0, 1.0, 0.7, 0.5])
SERIES = np.array([0.0, 1.0, 0.8, 0.6])
LAYERS = np.array([1.3, -0.8, 0.4])


def learned(layers, overlaps):
    """Hermite components of the network at each time; shapes (T, p), (T, p)."""
    powers = overlaps[:, :, None] ** np.arange(4)
    return (layers[:, :, None] * SERIES * powers).mean(axis=1)


def wide_limit(epsilon, grid):
    """Components of infinitely many neurons in infinite dimension, a third for each of `LAYERS`."""
    from scipy.integrate import solve_ivp

    orders = np.arange(4)

    def slope(_, y):
        A, s = np.split(y, 2)
        powers = s[:, None] ** orders
        missing = SERIES * (COMPONENTS - A @ powers * SERIES / 3)
        pull = s[:, None] ** orders[:3] @ (orders * missing)[1:]
        return np.append(powers @ missing / epsilon, A * pull * (1 - s * s))

    start = np.append(LAYERS, np.zeros(3))
    found = solve_ivp(slope, (0, grid[-1]), start, "LSODA", t_eval=grid, rtol=1e-9, atol=1e-13).y.T
    return learned(found[:, :3], found[:, 3:])


def test_hermite_components_are_learned_one_after_the_other():
    """Berthier, Montanari, Zhou 2023: component l after a time of order epsilon^(1 / 2 l)."""
    halves = []
    for epsilon in (1e-9, 1e-11):
        grid = np.append(0.0, np.geomspace(0.1 * epsilon**0.5, 6 * epsilon ** (1 / 6), 2000))
        found = wide_limit(epsilon, grid)[:, 1:] / COMPONENTS[1:]
        halves.append([np.interp(0.5, part, grid) for part in found.T])
        at = [int(np.argmax(part > 0.5)) for part in found.T]
        assert found[at[0], 1:].max() < 0.1 and found[at[1], 2] < 0.1  # the next is not begun
        assert found[at[1], 0] == pytest.approx(1.0, abs=0.1)
    powers = np.log(np.divide(*halves)) / np.log(100)
    np.testing.assert_allclose(powers, [1 / 2, 1 / 4, 1 / 6], atol=0.04)


def test_wide_networks_tend_to_that_sequence():
    """The distance falls as 1 / p, what is left beyond it is small."""
    epsilon, ends = 1e-2, []
    grid = np.append(0.0, np.geomspace(0.1 * epsilon**0.5, 4 * epsilon ** (1 / 6), 60))
    for p in (30, 60):
        flow = TwoLayer(
            neurons=p,
            activation=tuple(SERIES),
            readout="trained",
            epsilon=p * p * epsilon,
            second_layer=tuple(np.resize(LAYERS, p) / p),
        )
        target = "h1(z1) + 0.7*h2(z1) + 0.5*h3(z1)"
        ds = simulate(flow, target, dim=10**12, runs=1, rtol=1e-6, time=grid * p)
        ends.append(
            learned(ds.second_layer.values[0, 0] * p, ds.neuron_overlap.values[0, 0, ..., 0])
        )
    limit = wide_limit(epsilon, grid)
    far, near = (abs(end - limit).max() for end in ends)
    assert near < 0.6 * far
    np.testing.assert_allclose(2 * ends[1] - ends[0], limit, atol=0.1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"neurons": 0}, "neurons must be an integer of at least 1"),
        ({"neurons": 10**5}, "at most 4096"),
        ({"activation": "exp"}, "unknown link or activation"),
        ({"activation": (0.0, np.inf)}, "finite"),
        ({"activation": np.exp}, "by name or by its Hermite coefficients, got a function"),
        ({"activation": "tanh", "norm": "free"}, "polynomial activation, erf or relu"),
        ({"degree": 99, "activation": "relu"}, "at most 60"),
        ({"degree": 5, "activation": "h3"}, "no polynomials; leave it out"),
        ({"loss": "correlation", "readout": "trained"}, "grows without bound"),
        ({"loss": "correlation", "norm": "free"}, "grow without bound"),
        ({"epsilon": 0.1}, "time scale of a trained readout"),
        ({"second_layer": (1.0,)}, "one for each neuron"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        network(**parameters)


def test_targets_and_ranks_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="no Hermite degree in common"):
        mids.simulate("h4(z1)", dim=100, flow=TwoLayer(activation="h3"))
    with pytest.raises(InputError, match="neurons=1, got student_rank=2"):
        mids.simulate("h3(z1)", dim=100, student_rank=2, flow=TwoLayer(activation="h3"))
    with pytest.raises(InputError, match="use at most 3276 neurons, or at most 64 times"):
        flow = TwoLayer(neurons=4096, activation="h3")
        mids.simulate("h3(z1)", dim=1e5, flow=flow, time=range(100))
    assert TwoLayer(activation="relu").truncation_error == pytest.approx(0.0188, abs=1e-4)


def test_theory_is_that_of_the_planted_flow_or_refused():
    ds = simulate(TwoLayer(activation="h3", loss="correlation"), "h3(z1)", runs=4)
    planted = simulate("planted", "h3(z1)", runs=4, initial=ds.initial, time=ds.time.values)
    times, expected = (mids.theory(each).escape_time.values for each in (ds, planted))
    np.testing.assert_array_equal(times, expected)
    other = simulate(TwoLayer(neurons=2), "h3(z1) + h1(z2)", runs=2, time=[0.0, 1.0])
    for analysis in (mids.theory, mids.compare):
        with pytest.raises(mids.errors.DatasetError, match="no theory of the flow 'two-layer'"):
            analysis(other)


def test_all_targets_share_what_is_compiled():
    """Numba compiles anew, for a quarter of a minute, for arrays of another type or layout."""
    from numba import typeof

    oblique = additive([1.0, 1.0], "h3", np.array([[1.0, 0.6], [0.0, 0.8]]))
    targets = (Target.parse("h2(z1)"), TARGET, additive([1.0, 0.7], "erf"), oblique)
    kinds = {typeof(network(**kind)._network(target)) for target in targets for kind in KINDS}
    assert len(kinds) == 1
