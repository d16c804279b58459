"""Targets of hundreds of directions: their two-timescale flow, ladder and power law of the loss."""

from __future__ import annotations

import numpy as np
import pytest

import mids
from mids.errors import DatasetError, InputError
from mids.flows import TwoLayer, TwoTimescale
from mids.flows.base import Problem
from mids.flows.initial import draw_runs
from mids.flows.many_directions import integrate_many
from mids.targets import additive


def power_law(rank, decay=0.75, link="h2"):
    return additive(np.arange(1, rank + 1.0) ** -decay, link)


@pytest.mark.parametrize("link", ["h2", {2: 0.5, 3: 0.4}])
def test_flow_of_many_directions_is_that_of_the_tensors(link):
    target = power_law(3, link=link)
    initial = draw_runs(3, 3, 50, [4], 0)
    time = np.append(0.0, np.geomspace(0.1, 1e3, 30))
    problem = Problem(target, 50, np.array([4]), 0, initial, time, 1e-8)
    found, exact = (
        integrate_many(problem, TwoTimescale().integrate),
        TwoTimescale().integrate(problem),
    )
    for name in ("loss", "overlap", "energy"):
        np.testing.assert_allclose(found[name], exact[name], atol=2e-6, err_msg=name)
    for name in ("crossing_time", "stage_duration"):
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-6, err_msg=name)
    assert found["status"] == exact["status"]


def test_a_student_of_lower_rank_learns_as_many_directions():
    target = power_law(10)
    ds = mids.simulate(target, dim=1e3, runs=1, student_rank=2, seed=1).compute()
    assert ds.overlap.values[0, 0, -1].round(3).tolist() == [1, 1] + [0] * 8
    assert ds.status.item() == 0
    mids.validate(ds)


def test_directions_that_are_learned_leave_the_flow():
    """What is left would otherwise be followed with steps of the fastest of those learned."""
    time = np.append(0.0, np.geomspace(1.0, 1e7, 8))
    ds = mids.simulate(power_law(10), dim=1e4, runs=1, student_rank=10, time=time).compute()
    assert ds.status.item() == 0
    assert ds.n_steps.item() < 3000
    np.testing.assert_allclose(ds.overlap[0, 0, -1], 1.0, atol=1e-7)


def test_the_ladder_of_hundreds_of_directions_has_one_step():
    steps = mids.ladder("additive(256, 0.75, h3)")
    assert (steps.exponents, steps.rank) == ((3,), 256)
    assert repr(steps).startswith("3(-> 3 -> 3")
    assert steps[0].weakest == pytest.approx(256**-1.5)
    small = mids.ladder(power_law(4, link="h3"))
    assert steps[0].strength == pytest.approx(small[0].strength)


@pytest.mark.slow
@pytest.mark.parametrize(("link", "worst"), [("h2", 0.02), ("h3", 1e-3)])
def test_the_theory_of_many_directions_is_within_5_percent_of_every_run(link, worst):
    """Directions that meet, by another equation than the simulator's."""
    ds = mids.simulate(power_law(10, link=link), dim=1e4, runs=2, student_rank=12).compute()
    found = ds.mi.compare()
    measured = np.isfinite(ds.crossing_time.sel(level=0.5)).sum()
    known = found.ratio.notnull()
    assert known.sum() > 0.7 * measured  # the rest overlap in time, and are no stays
    np.testing.assert_allclose(found.ratio.values[known], 1.0, atol=worst)


def test_directions_that_do_not_meet_have_clocks_of_their_own():
    target = power_law(256)
    start = np.diag(np.linspace(0.01, 0.02, 256))
    ds = mids.simulate(target, dim=1e4, runs=1, initial=start).compute()
    found = mids.theory(ds)
    names = found.method.attrs["flag_meanings"].split()
    here = found.visited.values[0, 0]
    assert here.sum() > 10 and names[found.method.values[0, 0, 0]] == "quadrature"
    escape = ds.crossing_time.sel(level=0.5).values[0, 0]
    np.testing.assert_allclose(found.escape_time.values[0, 0][here], escape[here], rtol=1e-4)
    race = mids.race(target, dim=1e4, student_rank=4)
    assert race.broken.item() == 0 and (race.other == 0).all()


def test_the_loss_of_many_directions_is_a_power_law():
    rank = 64
    start = np.diag(np.full(rank, 0.02))
    ds = mids.simulate(power_law(rank), dim=1e4, runs=1, initial=start).compute()
    law = ds.mi.scaling_law()
    assert law.expected.item() == pytest.approx(-1 / 3)
    assert law["median"].item() == pytest.approx(law.finite.item(), rel=0.05)
    assert law.decay.item() == pytest.approx(0.75)
    # Neurons with the target's coefficients go the same way.
    flow = TwoLayer(
        neurons=rank,
        activation="h3",
        loss="correlation",
        second_layer=tuple(np.arange(1, rank + 1.0) ** -0.75),
    )
    neurons = mids.simulate(power_law(rank, link="h3"), dim=1e4, runs=1, flow=flow, initial=start)
    again = mids.scaling_law(neurons).compute()
    assert again["median"].item() == pytest.approx(again.finite.item(), rel=0.05)


def test_what_is_no_power_law_is_refused():
    ds = mids.simulate("h2(z1)", dim=100, runs=1)
    with pytest.raises(DatasetError, match="at least 8 orthonormal directions"):
        mids.scaling_law(ds)
    with pytest.raises(DatasetError, match="needs a variable 'loss'"):
        mids.scaling_law(ds[["status"]])
    many = mids.simulate(power_law(16), dim=100, runs=1, time=[0.0, 1.0])
    with pytest.raises(InputError, match="first < last"):
        mids.scaling_law(many, first=5, last=5)
    with pytest.raises(InputError, match="link without h1"):
        mids.simulate(power_law(9, link="erf"), dim=100)
    with pytest.raises(InputError, match="ridge is for targets with tensors"):
        mids.simulate(power_law(9), dim=100, flow=TwoTimescale(ridge=0.1))
