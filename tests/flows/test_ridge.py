"""Ridge regression of the link in isotropic Hermite kernels: weights, theory, losses, the limit."""

from __future__ import annotations

import numpy as np
import pytest

import mids
from mids.errors import InputError
from mids.flows import Ambient, HermiteKernel, Joint, TwoTimescale
from mids.targets.averaging import average

TEXT = "h1(z1) + h1(z1)*h3(z2)"
KERNELS = {
    "none": (None, lambda k: 1.0),
    "polynomial": (HermiteKernel(polynomial=1.5), lambda k: (1 + k) ** -1.5),
    "exponential": (HermiteKernel(exponential=0.7), lambda k: np.exp(-0.7 * k)),
    "explicit": (HermiteKernel(eigenvalues=[1, 0.9, 0.1, 0.4, 0.05]), [1, 0.9, 0.1, 0.4, 0.05]),
}


def eigenvalue(kernel, degree):
    values = KERNELS[kernel][1]
    return values(degree) if callable(values) else values[degree]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ridge", [0.01, 0.6])
def test_theory_and_simulation_follow_the_new_weights(kernel, ridge):
    flow = TwoTimescale(ridge=ridge, kernel=KERNELS[kernel][0])
    ds = mids.simulate(TEXT, dim=1e6, runs=12, flow=flow).compute()
    comparison = ds.mi.compare()
    np.testing.assert_allclose(comparison.ratio.median("run"), 1, rtol=2e-3)
    kept = np.array([eigenvalue(kernel, k) / (eigenvalue(kernel, k) + ridge) for k in (1, 4)])
    strengths = [step.strength for step in mids.leaps(flow.effective_target(ds.mi.target)).steps]
    np.testing.assert_allclose(strengths, kept, rtol=1e-12)
    # on the plateaus nothing, then the first mode is learned: |f*|^2 / 2 less half of what is kept
    plateaus = [1.0, 1.0 - kept[0] / 2]
    predicted = ds.mi.theory()
    np.testing.assert_allclose(predicted.saddle_loss.isel(run=0).squeeze(), plateaus, rtol=1e-12)
    np.testing.assert_allclose(comparison.loss, comparison.loss_theory, rtol=1e-5)
    np.testing.assert_allclose(comparison.loss.median("run").squeeze(), plateaus, atol=2e-3)
    end = 0.5 * np.sum((1 - kept) ** 2)
    np.testing.assert_allclose(ds.risk.isel(time=-1).median("run"), end, rtol=1e-9)
    np.testing.assert_allclose(ds.loss.isel(time=-1).median("run"), 1 - kept.sum() / 2, rtol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_loss_and_risk_are_those_of_the_best_link(kernel):
    """The penalised least-squares link, from full tensors at the frame of each run."""
    ridge = 0.3
    target = mids.Target.parse("h1(z1) + 0.5*h2(z1) + h1(z1)*h2(z2)")
    start = mids.flows.initial.draw_runs(2, 2, 8, range(5), 0)
    flow = TwoTimescale(ridge=ridge, kernel=KERNELS[kernel][0])
    ds = mids.simulate(target, dim=8, runs=5, flow=flow, initial=start, time=[0, 1]).compute()
    rng = np.random.default_rng(0)
    for run, M in enumerate(start):
        averaged = average(target.tensors, M)
        weights = [eigenvalue(kernel, k) for k in range(len(averaged))]
        best = [q / (q + ridge) * a for q, a in zip(weights, averaged, strict=True)]

        def risk(link, averaged=averaged):
            inner = sum(np.sum(s * a) for s, a in zip(link, averaged, strict=True))
            return 0.5 * target.norm**2 - inner + 0.5 * sum(np.sum(s**2) for s in link)

        def objective(link, risk=risk, weights=weights):
            penalty = sum(np.sum(s**2) / q for s, q in zip(link, weights, strict=True))
            return risk(link) + 0.5 * ridge * penalty

        assert ds.loss[0, run, 0].item() == pytest.approx(objective(best), rel=1e-12)
        assert ds.risk[0, run, 0].item() == pytest.approx(risk(best), rel=1e-12)
        for _ in range(5):
            other = [s + 0.1 * rng.normal(size=np.shape(s)) for s in best]
            assert objective(other) > objective(best)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_unregularised_flow_is_the_limit(kernel):
    arguments = {"dim": 1e4, "runs": 6}
    plain = mids.simulate(TEXT, **arguments).compute()
    errors = []
    for ridge in (1e-2, 1e-4, 1e-6):
        flow = TwoTimescale(ridge=ridge, kernel=KERNELS[kernel][0])
        ds = mids.simulate(TEXT, flow=flow, time=plain.time.values, **arguments).compute()
        errors.append(abs(ds.crossing_time / plain.crossing_time - 1).max().item())
    np.testing.assert_allclose(np.diff(np.log10(errors)), -2, atol=0.1)
    assert errors[-1] < 1e-4
    assert "risk" not in plain and "risk" in ds


def test_kernels_may_be_arrays_and_zero_is_named():
    kernel = HermiteKernel(eigenvalues=np.array([1.0, 0.5]))
    assert kernel.to_dict() == {"eigenvalues": [1.0, 0.5]}
    with pytest.raises(InputError, match="kernel polynomial must be a finite number above 0"):
        HermiteKernel(polynomial=0)


@pytest.mark.parametrize(
    "flow",
    [
        TwoTimescale(ridge=1e300),
        TwoTimescale(ridge=0.1, kernel=HermiteKernel(exponential=300.0)),
        TwoTimescale(kernel=HermiteKernel(polynomial=1000.0)),
        Joint(ridge=0.1, kernel=HermiteKernel(polynomial=400.0)),
        Ambient(ridge=1.0, kernel=HermiteKernel(exponential=400.0)),
    ],
)
def test_weights_that_vanish_are_named_before_any_work(flow):
    with pytest.raises(InputError, match=r"lower the ridge|decays more slowly"):
        mids.simulate("h1(z1) + h4(z1)", dim=100, flow=flow, time=[0.0, 1.0])


def test_parameters_have_names():
    with pytest.raises(TypeError):
        TwoTimescale(0.1)
