"""Exponents against known cases, and shares against integrals computed in other ways."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import k0, k1
from scipy.stats import norm, ortho_group

import mids
from mids.errors import InputError

NAN = np.nan


def columns(target, **options):
    found = mids.exponents(target, **options)
    names = ("information", "isotropic", "generative")
    return [found[name].values.tolist() for name in names], found


@pytest.mark.parametrize(
    ("text", "information", "isotropic", "generative"),
    [
        ("h1(z1)", [1], [1], [1]),
        ("h2(z1)", [2], [2], [2]),
        ("h3(z1)", [3], [3], [1]),  # for |y| > 2 h3 there is one preimage: E[z | y] is not 0
        ("h4(z1)", [4], [4], [2]),
        ("h2(z1) + 0.01*h3(z1)", [2], [2], [1]),
        ("parity(2)", [2, NAN], [2, NAN], [2, NAN]),
        ("parity(3)", [3, NAN, NAN], [3, NAN, NAN], [2, NAN, NAN]),
        # y is odd in z3 and even in z2: E[z1 | y] and E[z3 | y] are seen, E[z2 | y] = 0
        ("leaps(1,2,3)", [1, 2, 3], [1, 2, 3], [1, NAN, 2]),
        # E[z | y] points along (1, 1), and beside it y is even
        ("h3(z1) + h3(z2)", [3, NAN], [3, NAN], [1, 2]),
        ("h2(z1) + h4(z2)", [2, 4], [2, 4], [2, NAN]),
        # the subspace of the flow turns, the spans of the isotropic leap do not
        ("h1(z1) + h3(z1) + 2*h1(z1)*h2(z2)", [1, 1], [1, 2], [1, 2]),
    ],
)
def test_known_targets(text, information, isotropic, generative):
    found, table = columns(text)
    np.testing.assert_equal(found, [information, isotropic, generative])
    assert not table.bound.any() and not (table.missed > 0).any()
    assert (table.share > 0).equals(table.generative.notnull())
    leaps = [table.attrs[f"{name}_leap"] for name in ("information", "isotropic", "generative")]
    assert leaps == [np.nanmax(each) for each in (information, isotropic, generative)]


@pytest.mark.parametrize("text", ["parity(2)", "h2(z1) + h3(z2)", "h3(z1) + h3(z2)"])
def test_rotated_targets_have_the_same_exponents(text):
    target = mids.Target.parse(text)
    turned, _ = columns(target.rotate(ortho_group.rvs(2, random_state=3)))
    np.testing.assert_equal(turned, columns(target)[0])


def test_rotated_parity_is_a_bound():
    """No change of signs in its coordinates shows that E[z | y] = 0: it is so within errors."""
    turned = mids.Target.parse("parity(3)").rotate(ortho_group.rvs(3, random_state=1))
    found, table = columns(turned)
    np.testing.assert_equal(found[2], [2, NAN, NAN])
    assert table.bound.values.tolist() == [True, False, False]
    assert 0 < table.missed[0] < 0.01
    assert table.rate.sel(scale="any transform, samples")[0] == "<= d"


@pytest.mark.filterwarnings("ignore:the norm of what is left out")  # signs are not smooth
@pytest.mark.parametrize(
    ("function", "rank", "exponent"),
    [
        (lambda z: np.sign(z.prod(-1)), 3, 3),  # y^2 = 1: only y itself is left
        (lambda z: np.sign(z.prod(-1)), 2, 2),
        (lambda z: np.sign(z[:, 0] ** 3 - 3 * z[:, 0]), 1, 1),
        (lambda z: abs(z[:, 0]), 1, 2),
        (lambda z: np.exp(-(z[:, 0] ** 2)), 1, 2),
        # u = z^2: the two preimages of y = u exp(-u) have weights 1 / |1 - u|, so E[u - 1 | y] = 0
        (lambda z: z[:, 0] ** 2 * np.exp(-(z[:, 0] ** 2)), 1, 4),
    ],
    ids=["sign3", "sign2", "sign h3", "abs", "gauss", "four"],
)
@pytest.mark.filterwarnings("ignore:the norm of what is left out")
def test_functions_that_are_no_polynomials(function, rank, exponent):
    found = mids.exponents(function, rank=rank)
    np.testing.assert_equal(found.generative.values, [exponent] + [NAN] * (rank - 1))
    assert bool(found.bound[0]) == (exponent > 1)
    assert found.missed[0] < 0.05 * found.share[0]


def conditional(coefficients, order):
    """``E E[h_k(z) | f(z) = y]^2`` by the roots of f - y, on a grid of z."""
    f = np.polynomial.HermiteE(coefficients).convert(kind=np.polynomial.Polynomial)
    h = np.polynomial.HermiteE.basis(order).convert(kind=np.polynomial.Polynomial)
    z = np.linspace(-7, 7, 702)
    mean = np.zeros(len(z))
    for i, point in enumerate(z):
        roots = (f - f(point)).roots()
        real = roots[abs(roots.imag) < 1e-6 * (1 + abs(roots))].real
        weight = norm.pdf(real) / abs(f.deriv()(real))
        mean[i] = weight @ h(real) / weight.sum()
    return mean**2 @ norm.pdf(z) * (z[1] - z[0]) / np.prod(np.arange(1, order + 1))


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_shares_of_one_direction_are_those_of_its_preimages(degree):
    """But for what 74 cells of the label leave out, up to a seventh near its extreme values."""
    found = mids.exponents(mids.targets.hermite(degree))
    expected = conditional([0] * degree + [1], int(found.generative[0]))
    assert 0.85 * expected < found.share[0] < 1.01 * expected


def test_the_share_of_a_product_of_two_is_a_bessel_integral():
    """The law of y = z1 z2 is K0(|y|) / pi, E[z1^2 | y] = |y| K1 / K0, E[z1 z2 | y] = y."""
    share, _ = quad(lambda y: 2 / np.pi * k0(y) * ((y * k1(y) / k0(y) - 1) ** 2 + y**2), 0, 60)
    found = mids.exponents("parity(2)")
    assert 0.98 * share < found.share[0] < share + 5 * found.share_error[0]


def test_the_share_of_a_sign_is_the_square_of_its_coefficients():
    """Of y = sign(z1 z2) with k = 2: E[h1(z1)h1(z2) y]^2 = (2 / pi)^2."""
    found = mids.exponents(lambda z: np.sign(z[:, 0] * z[:, 1]), rank=2)
    assert abs(found.share[0] - (2 / np.pi) ** 2) < 5 * found.share_error[0]


def test_rates_are_those_of_the_papers():
    rates = mids.exponents("leaps(1,2,3)").rate.to_pandas()
    assert rates["two-timescale, time"].tolist() == ["log d", "d", "d^2"]
    assert rates["planted, time"].tolist() == ["1", "log d", "d^0.5"]
    assert rates["online SGD, samples"].tolist() == ["d", "d log d", "d^2"]
    assert rates["smoothed SGD, samples"].tolist() == ["d", "d", "d^1.5"]
    assert rates["layerwise SGD, samples"].tolist() == ["d", "d", "d^2"]
    assert rates["any transform, samples"].tolist() == ["d", "", "d"]


def test_rates_as_text_are_the_numbers():
    table = mids.exponents("leaps(1,2,3)")
    for at in np.ndindex(table.rate.shape):
        text, power, logs = (table[n].values[at] for n in ("rate", "power", "log_power"))
        if not text:
            assert np.isnan(power) and np.isnan(logs)
            continue
        d = 1e6
        written = text.replace("log d", "L").replace("d^", "d**").replace("d L", "d*L")
        assert eval(written, {"d": d, "L": np.log(d)}) == pytest.approx(
            d**power * np.log(d) ** logs
        )
    assert all("20" in source for source in table.source.values)


def test_tables_of_a_dataset_are_those_of_its_target(tmp_path):
    ds = mids.simulate("h2(z1)", dim=100, runs=2)
    table = ds.mi.exponents()
    assert table.identical(mids.exponents("h2(z1)"))
    table.to_netcdf(tmp_path / "table.nc")


def test_what_is_no_target_is_refused():
    with pytest.raises(InputError, match="must be a Target"):
        mids.exponents(3)
    with pytest.raises(InputError, match="rank"):
        mids.exponents(lambda z: z[:, 0])


def test_targets_of_a_sweep_have_their_exponents_one_by_one():
    targets = {"ladder": "h1(z1) + h1(z1)*h3(z2)", "square": "h2(z1)"}
    found = mids.simulate(targets, dim=[1e2, 1e3], runs=2).mi.exponents()
    for name, text in targets.items():
        alone, here = mids.exponents(text), found.sel(target=name)
        assert here.ladder.item() == alone.attrs["ladder"]
        rank = alone.sizes["saddle"]
        for column in ("information", "generative", "power", "rate", "source"):
            np.testing.assert_array_equal(
                here[column].isel(saddle=slice(rank), missing_dims="ignore"), alone[column]
            )
