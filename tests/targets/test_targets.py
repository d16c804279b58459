"""Targets: building, reading, rotating, exponents, storage and the messages of mistakes."""

import json
import math
import pickle
import sys
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tensors import torch

from mids import targets
from mids.errors import InputError, TargetSyntaxError
from mids.targets.basis import hermite_values, multi_indices
from mids.targets.ladder import ladder
from mids.targets.target import Target

SQRT2 = math.sqrt(2)
NORMAL = np.random.default_rng(0).standard_normal((400, 2))


def orthogonal(rank, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rank, rank)))[0]


def points(rank, n=7, seed=0):
    return np.random.default_rng(seed).standard_normal((n, rank))


@st.composite
def random_targets(draw, max_rank=3, max_degree=4):
    rank = draw(st.integers(1, max_rank))
    degree = draw(st.integers(1, max_degree))
    betas = [tuple(beta) for beta in multi_indices(rank, degree).tolist()]
    values = st.floats(-3, 3).filter(lambda c: abs(c) > 1e-3)
    coefficients = draw(st.dictionaries(st.sampled_from(betas), values, min_size=1))
    assume(any(map(any, coefficients)))
    return Target(coefficients)


seeds = st.integers(0, 2**32 - 1)


# -- building --------------------------------------------------------------------------------------


def test_attributes():
    target = Target({(1, 3): 0.8, (0, 0): 0.0, (1, 0): np.float32(0.5)}, name="mine")
    assert (target.rank, target.degree, target.name) == (2, 4, "mine")
    assert target.modes.tolist() == [[1, 0], [1, 3]]
    assert target.coefficients.tolist() == [0.5, 0.8]
    assert target.labels == ("h1(z1)", "h1(z1)h3(z2)")
    assert target.norm == pytest.approx(math.hypot(0.5, 0.8))
    assert [tensor.ndim for tensor in target.tensors] == [0, 1, 2, 3, 4]


def test_order_of_the_mapping_does_not_matter():
    terms = {(1, 1): 0.3, (0, 2): 0.2, (2, 0): 0.1, (0, 0): 0.5}
    forward, backward = Target(terms), Target(dict(reversed(terms.items())))
    assert forward == backward
    assert hash(forward) == hash(backward)
    assert forward.modes.tolist() == [[0, 0], [2, 0], [1, 1], [0, 2]]


def test_targets_are_immutable():
    target = targets.staircase(2)
    with pytest.raises(AttributeError, match="immutable"):
        target.rank = 3
    for array in (target.modes, target.coefficients, *target.tensors[1:]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_equality_ignores_names_and_sees_values():
    assert Target({(1,): 1.0}, name="a") == Target({(1,): 1.0})
    assert Target({(1,): 1.0}) != Target({(1,): 1.0 + 2**-52})
    assert Target({(1,): 1.0}) != Target({(1, 0): 1.0})
    assert Target({(1,): 1.0}) != "h1(z1)"


@pytest.mark.parametrize(
    ("coefficients", "match"),
    [
        ({}, "needs a non-constant part"),
        ({(0, 0): 1.0}, "needs a non-constant part"),
        ({(1, 0): 0.0}, "needs a non-constant part"),
        ({(1,): np.nan}, r"coefficient of \(1,\) must be a finite number, got nan"),
        ({(1,): np.inf}, "must be a finite number"),
        ({(1,): "1"}, "must be a finite number, got '1'"),
        ({(1,): 10**400}, "must be a finite number"),
        ({(1,): 1j}, "must be a finite number"),
        ({(1,): 1e-200}, "norm must be between"),
        ({(1,): 1e200}, "norm must be between"),
        ({1: 1.0}, r"non-empty tuple of degrees, got 1; write \(2,\)"),
        ({(): 1.0}, "non-empty tuple of degrees"),
        ({(1.5,): 1.0}, "degree in a multi-index must be an integer of at least 0, got 1.5"),
        ({(-1,): 1.0}, "got -1"),
        ({(True,): 1.0}, "got True"),
        ({(1,): 1.0, (1, 0): 1.0}, r"same length, the rank, got lengths \[1, 2\]"),
        ({(21,): 1.0}, "degree at most 20"),
        ({(0,) * 8 + (1,): 1.0}, "rank at most 8"),
        ({(9,) + (0,) * 7: 1.0}, r"rank\*\*degree at most"),
        ([1.0, 2.0], "mapping of multi-indices"),
        ("h1(z1)", "use Target.parse for text"),
    ],
)
def test_bad_coefficients_are_refused(coefficients, match):
    with pytest.raises(InputError, match=match):
        Target(coefficients)


def test_names_are_strings():
    with pytest.raises(InputError, match="name must be a string or None, got 3"):
        Target({(1,): 1.0}, name=3)


# -- parser ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h1(z1) + h1(z1)*h3(z2)", {(1, 0): 1, (1, 3): 1}),
        ("h1(z1)h3(z2)", {(1, 3): 1}),
        ("1/2*h2(z1)", {(2,): 0.5}),
        ("h2(z1)/2", {(2,): 0.5}),
        ("2/3 h2(z1)", {(2,): 2 / 3}),
        (".5*z1 - 1e-3z2", {(1, 0): 0.5, (0, 1): -1e-3}),
        ("1.e2 z1", {(1,): 100}),
        ("-z1**2", {(0,): -1, (2,): -SQRT2}),
        ("z1^2*z2", {(0, 1): 1, (2, 1): SQRT2}),
        ("- -z1 + -(z2) - +2*-z3", {(1, 0, 0): 1, (0, 1, 0): -1, (0, 0, 1): 2}),
        ("(z1 + z2)**2", {(0, 0): 2, (2, 0): SQRT2, (1, 1): 2, (0, 2): SQRT2}),
        ("(2*z1)^3", {(1,): 24, (3,): 8 * math.sqrt(6)}),
        ("h1(z1)*h1(z1)", {(0,): 1, (2,): SQRT2}),
        ("h2(z1)**2", {(0,): 1, (2,): 2 * SQRT2, (4,): math.sqrt(6)}),
        ("z1**4 - 6*z1**2 + 3", {(4,): math.sqrt(24)}),
        ("sqrt(2)*z1 + sqrt(4/9)*z2", {(1, 0): SQRT2, (0, 1): 2 / 3}),
        ("h0(z2)*z1", {(1, 0): 1}),
        ("He3(z1)", {(3,): math.sqrt(6)}),
        ("2*He2(z1)He1(z2)", {(2, 1): 2 * SQRT2}),
        ("He3(z1) - z1**3 + 3*z1 + z2", {(0, 1): 1}),
        ("z1 + 0*z2", {(1, 0): 1}),
        ("z1 + z3**0", {(0, 0, 0): 1, (1, 0, 0): 1}),
        ("1e-20*z1 + z2", {(1, 0): 1e-20, (0, 1): 1}),
        ("((((z1))))", {(1,): 1}),
        ("+".join(["(z1)"] * 100), {(1,): 100}),
        ("0.1*z1 + 0.2*z1 - 0.3*z1 + 1e-17*z1 + z2", {(0, 1): 1}),
        ("\n z1\t+\n2 ", {(0,): 2, (1,): 1}),
        ("3*parity(2) + h3(z3)", {(1, 1, 0): 3, (0, 0, 3): 1}),
        ("parity(3)*z1", {(0, 1, 1): 1, (2, 1, 1): SQRT2}),
    ],
)
def test_expressions_expand(text, expected):
    target = Target.parse(text)
    assert target.name is None
    reference = Target(expected)
    assert target.modes.tolist() == reference.modes.tolist()
    np.testing.assert_allclose(target.coefficients, reference.coefficients, rtol=1e-14)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("hermite(4)", targets.hermite(4)),
        (" staircase ( 3 ) ", targets.staircase(3)),
        ("parity(3)", targets.parity(3)),
        ("leaps(1,2,3)", targets.leaps([1, 2, 3])),
        ("leaps([1, 2, 3])", targets.leaps([1, 2, 3])),
    ],
)
def test_families_parse_to_themselves(text, target):
    parsed = Target.parse(text)
    assert parsed == target
    assert parsed.name == target.name


def test_targets_add_and_scale_as_functions():
    one, two = Target.parse("h1(z1) - 2*h2(z1)*h1(z2)"), Target.parse("He3(z3) - h1(z1) + 0.3")
    both = one + two
    assert both.rank == 3 and (1, 0, 0) not in map(tuple, both.modes.tolist())
    z = points(3)
    # Values are sums of terms of order 10, each rounded a few times at 1e-16 of itself.
    np.testing.assert_allclose(both(z), one(z[:, :2]) + two(z), rtol=0, atol=1e-13)
    assert both == two + one and Target.parse(str(both)) == both
    assert 2 * one == one * 2.0 == one + one == Target.parse("2*h1(z1) - 4*h2(z1)*h1(z2)")
    relu = Target.from_function(lambda z: np.maximum(z[:, 0], 0), rank=1, degree=4)
    assert (-2 * relu).missed_norm == (relu + relu).missed_norm == 2 * relu.missed_norm > 0


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda t: t + 1, "unsupported operand"),
        (lambda t: True * t, "unsupported operand"),
        (lambda t: float("nan") * t, "finite number"),
        (lambda t: 0 * t, "non-constant part"),
        (lambda t: t + -1 * t, "non-constant part"),
    ],
)
def test_sums_and_multiples_without_sense_are_refused(made, message):
    with pytest.raises((TypeError, InputError), match=message):
        made(Target.parse("He3(z1)"))


@given(target=random_targets())
def test_text_of_a_target_reads_back_exactly(target):
    assume(target.modes[:, -1].any())  # the text does not show a last variable that is unused
    assert Target.parse(str(target)) == target


def expressions():
    atoms = st.sampled_from(["z1", "z2", "h2(z1)", "h3(z2)", "h1(z3)", "0.5", "2", "sqrt(3)"])

    def combine(inner):
        pairs = st.tuples(inner, st.sampled_from([" + ", " - ", "*"]), inner).map("".join)
        return st.one_of(
            pairs.map("({})".format),
            pairs,
            inner.map("-({})".format),
            inner.map("({})**2".format),
            inner.map("({})/3".format),
        )

    return st.recursive(atoms, combine, max_leaves=6)


@given(text=expressions())
def test_expansion_has_the_value_of_the_expression(text):
    z = points(3)
    names = {f"z{i + 1}": z[:, i] for i in range(3)} | {"sqrt": math.sqrt}
    names |= {f"h{k}": lambda x, k=k: hermite_values(x, k)[..., k] for k in range(4)}
    expected = np.broadcast_to(eval(text, {}, names), len(z))
    # What rounding scales with: the same without cancellation, at points farther out.
    grown = {k: np.abs(v) + 2 if k.startswith("z") else v for k, v in names.items()}
    magnitude = np.max(eval(text.replace("-", "+"), {}, grown))
    try:
        target = Target.parse(text)
    except TargetSyntaxError as error:
        assert "degree" in error.reason
        return
    except InputError:
        np.testing.assert_allclose(expected, expected[0], atol=1e-10 * magnitude)
        return
    np.testing.assert_allclose(target(z[:, : target.rank]), expected, atol=1e-10 * magnitude)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "expected a number, a variable"),
        ("h1(z1) + ", 9, "the text ends"),
        ("h1(z1", 5, "expected '\\)' after h1\\(z1, but the text ends"),
        ("(z1 + z2", 8, "to close the '\\(' at character 1"),
        ("z1)", 2, "expected an operator or the end, but found '\\)'"),
        ("2 3*z1", 2, "expected an operator or the end"),
        ("z1 $ z2", 3, "has no meaning here; allowed are"),
        ("z1; z2", 2, "has no meaning here"),
        ("__import__('os')", 11, "has no meaning here"),
        ("x1", 0, "'x1' is unknown; allowed are z1"),
        ("starcase(3)", 0, "did you mean staircase\\?"),
        ("z0", 0, "variables are z1 to z8"),
        ("h2(z9)", 3, "variables are z1 to z8"),
        ("h2(z1 + z2)", 6, "expected '\\)' after h2\\(z1, but found '\\+'"),
        ("h2(3)", 3, "expected one variable, such as h2\\(z1\\)"),
        ("h2", 2, "expected '\\(' after h2"),
        ("h21(z1)", 0, "degree 21 is too large; at most 20"),
        ("h11(z1)*h10(z2)", 7, "the product has degree 21; at most 20"),
        ("z1**-1", 4, "expected an exponent, a small non-negative integer"),
        ("z1**0.5", 4, "expected an exponent"),
        ("z1**z2", 4, "expected an exponent"),
        ("z1**21", 2, "exponent 21 is too large; at most 20"),
        ("z1**2**2", 5, "needs parentheses"),
        ("z1/z2", 2, "a divisor must be a number"),
        ("z1/0", 2, "division by zero"),
        ("z1/(1 - 1)", 2, "division by zero"),
        ("sqrt(-2)*z1", 0, "sqrt of the negative number -2"),
        ("sqrt(z1)", 0, "the argument of sqrt must be a number"),
        ("1e999*z1", 0, "too large for double precision"),
        ("z1*1e200*1e200", 8, "too large for double precision"),
        ("z1/1e-320", 2, "too large for double precision"),
        ("staircase(9)", 0, "rank at most 8"),
        ("staircase(0)", 0, "rank must be an integer of at least 1, got 0"),
        ("staircase(2, 3)", 0, "staircase takes one integer, got \\[2, 3\\]"),
        ("staircase()", 10, "expected an argument of staircase"),
        ("leaps(1, z1)", 9, "expected an argument of leaps"),
        ("leaps([1, 2)", 11, "expected '\\]' after the arguments of leaps"),
    ],
)
def test_mistakes_are_shown_in_place(text, position, reason):
    with pytest.raises(TargetSyntaxError, match=reason) as caught:
        Target.parse(text)
    error = caught.value
    assert (error.text, error.position) == (text, position)
    *_, shown, caret = str(error).split("\n")
    assert caret.index("^") == position + 2
    assert shown[2:] == text.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "(" * 3000 + "z1" + ")" * 3000,
        "z1" + "**2)" * 1000,
        "(" * 49 + "z1+z2" + ")**20" * 49,
        "(z1+z2+z3+z4+z5+z6+z7+z8+1)**10",
        "(1+z1)**20*(1+z2)**20",
        "*".join(["(z1+z2+z3+z4+z5+z6+z7+z8)"] * 20),
        "z1**99999999999999999999999999",
        "h" + "9" * 5000 + "(z1)",
        "9" * 5000 + "*z1",
        "2**20" * 5000,
        "z1+" * 50_000,
        "sqrt(" * 5000,
    ],
)
def test_hostile_texts_fail_fast(text):
    start = time.process_time()
    with pytest.raises(TargetSyntaxError) as caught:
        Target.parse(text)
    assert time.process_time() - start < 10  # a tenth of which they need, or hours
    assert len(str(caught.value)) < 400


@given(text=st.text(st.sampled_from("z1h2(34)+-*/^. e[],staircqx$\n"), max_size=40))
def test_any_text_is_read_or_refused_clearly(text):
    try:
        target = Target.parse(text)
    except InputError as error:
        assert "target" in str(error)
    else:
        assert target.degree >= 1


@pytest.mark.parametrize("text", ["1/2", "z1 - z1", "h0(z1)", "(z1 + 1)**0"])
def test_constant_expressions_are_refused(text):
    with pytest.raises(InputError, match="needs a non-constant part, got '"):
        Target.parse(text)


def test_text_must_be_text():
    with pytest.raises(InputError, match="must be a string, got 3"):
        Target.parse(3)


def test_syntax_errors_cross_processes():
    with pytest.raises(TargetSyntaxError) as caught:
        Target.parse("z1 +* z2")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert (copy.text, copy.position) == ("z1 +* z2", 4)


# -- projection ------------------------------------------------------------------------------------


@given(target=random_targets(max_rank=2))
def test_projection_recovers_a_polynomial(target):
    projected = Target.from_function(target, target.rank, target.degree, nodes=12)
    assert projected.modes.tolist() == target.modes.tolist()
    np.testing.assert_allclose(projected.coefficients, target.coefficients, rtol=1e-9)
    assert projected.missed_norm < 1e-12 * target.norm


def test_missed_norm_of_functions_that_are_not_smooth():
    """Against Parseval with the norms 1/2 of max(z, 0) and 1 of the sign, and exact series."""
    relu = Target.from_function(lambda z: np.maximum(z[:, 0], 0), rank=1, degree=12)
    sign = Target.from_function(lambda z: np.sign(z[:, 0]), rank=1, degree=12)
    for target, square in ((relu, 0.5), (sign, 1.0)):
        left = square - float(np.sum(target.coefficients**2))
        assert target.missed_norm == pytest.approx(math.sqrt(left), rel=1e-9)
    assert relu.missed_norm == pytest.approx(0.0313, abs=1e-4)
    assert sign.missed_norm == pytest.approx(0.3841, abs=1e-4)
    with pytest.warns(UserWarning, match="not being smooth"):
        Target.from_function(lambda z: np.sign(z[:, 0] - 0.1), rank=1, degree=5, nodes=40)


def test_text_keeps_variables_that_nothing_depends_on():
    for target in (Target({(1, 0): 1.0}), Target({(0, 2, 0, 0): -0.5, (1, 0, 0, 0): 1.0})):
        assert Target.parse(str(target)) == target


def test_missed_norm_is_reported_and_kept():
    target = Target.from_function(lambda z: np.tanh(2 * z[..., 0]), rank=1, degree=5, name="tanh")
    assert target.modes.ravel().tolist() == [1, 3, 5]
    square = Target.from_function(lambda z: np.tanh(2 * z[..., 0]) ** 2, rank=1, degree=2)
    total = square.coefficients[0]  # E tanh^2
    assert target.missed_norm == pytest.approx(math.sqrt(total - target.norm**2), rel=1e-10)
    assert f"missed norm {target.missed_norm:.6g}" in repr(target)
    assert Target.from_json(target.to_json()).missed_norm == target.missed_norm
    assert pickle.loads(pickle.dumps(target)).missed_norm == target.missed_norm
    assert target.rotate([[-1.0]]).missed_norm == target.missed_norm
    unit = target.normalize()
    assert unit.missed_norm == pytest.approx(target.missed_norm / target.norm, rel=1e-15)
    assert unit.name == "tanh"


@pytest.mark.parametrize(
    ("rank", "degree", "match"),
    [
        (0, 2, "rank must be"),
        (2, 0, "degree must be"),
        (9, 2, "rank at most 8"),
        (1, 21, "degree at most 20"),
        (1, "2", "degree must be"),
    ],
)
def test_projection_sizes_are_checked_before_the_call(rank, degree, match):
    with pytest.raises(InputError, match=match):
        Target.from_function(lambda z: pytest.fail("called"), rank, degree)


def test_projection_on_constants_is_refused():
    with pytest.raises(InputError, match="non-constant"):
        Target.from_function(lambda z: np.ones(len(z)), rank=1, degree=3)


# -- evaluation, rotation, scale -------------------------------------------------------------------


def test_evaluation_at_known_points():
    target = Target.parse("z1**2*z2 - 3*z3 + 1")
    z = points(3, n=24).reshape(2, 3, 4, 3)
    expected = z[..., 0] ** 2 * z[..., 1] - 3 * z[..., 2] + 1
    np.testing.assert_allclose(target(z), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("z", [1.0, [1.0], [[1.0, 2.0, 3.0]], [[1.0, np.nan]], "z"])
def test_evaluation_checks_points(z):
    with pytest.raises(InputError, match="z must"):
        targets.parity(2)(z)


@given(target=random_targets(), seed=seeds)
def test_rotation_moves_the_function(target, seed):
    Q = orthogonal(target.rank, seed)
    rotated = target.rotate(Q)
    z = points(target.rank, seed=1)
    np.testing.assert_allclose(rotated(z), target(z @ Q), atol=1e-11 * target.norm)
    assert rotated.norm == pytest.approx(target.norm, rel=1e-13)
    back = rotated.rotate(Q.T)
    np.testing.assert_allclose(back(z), target(z), atol=1e-11 * target.norm)


def test_rotation_drops_rounding_only():
    turned = targets.leaps([1, 3]).rotate(orthogonal(2, 0))
    assert turned.rotate(orthogonal(2, 0).T).modes.tolist() == [[1, 0], [1, 3]]
    small = Target({(1, 0): 1e-10, (0, 2): 1.0}).rotate([[0, 1], [1, 0]])
    assert dict(zip(small.labels, small.coefficients, strict=True)) == {
        "h1(z2)": 1e-10,
        "h2(z1)": 1.0,
    }


@pytest.mark.parametrize(
    ("Q", "match"),
    [
        ([[1.0, 0.1], [0.0, 1.0]], "must be orthogonal"),
        (np.zeros((2, 2)), "must be orthogonal"),
        (np.eye(3), r"shape \(..., 2, 2\), got \(3, 3\)"),
        (np.ones((5, 2, 2)), "one matrix"),
        (np.full((2, 2), np.nan), "must be finite"),
    ],
)
def test_rotation_refuses(Q, match):
    with pytest.raises(InputError, match=match):
        targets.parity(2).rotate(Q)


@given(target=random_targets())
def test_normalize(target):
    unit = target.normalize()
    assert unit.norm == pytest.approx(1, rel=1e-15)
    np.testing.assert_allclose(unit.coefficients * target.norm, target.coefficients, rtol=1e-15)


# -- information exponent --------------------------------------------------------------------------

E = np.eye(3)


@pytest.mark.parametrize(
    ("text", "axes", "expected"),
    [
        ("h1(z1) + h1(z1)*h3(z2)", [], 1),
        ("h1(z1) + h1(z1)*h3(z2)", [0], 3),
        ("h1(z1) + h1(z1)*h3(z2)", [1], 1),
        ("h1(z1) + h1(z1)*h3(z2)", [0, 1], None),
        ("parity(3)", [], 3),
        ("parity(3)", [0], 2),
        ("parity(3)", [0, 1], 1),
        ("staircase(3)", [0], 1),
        ("leaps(1,2,3)", [0], 2),
        ("leaps(1,2,3)", [0, 1], 3),
        ("leaps(3,2,1)", [], 3),
        ("leaps(3,2,1)", [0], 2),
        ("leaps(3,2,1)", [0, 1], 1),
        ("h2(z1) + h4(z2)", [0], 4),
        ("5 + h2(z1)", [], 2),
        ("1e-12*z2 + h3(z1)", [0], 1),
    ],
)
def test_information_exponents(text, axes, expected):
    target = Target.parse(text)
    basis = np.eye(target.rank)
    assert target.information_exponent(basis[:, axes]) == expected
    if not axes:
        assert target.information_exponent() == expected


@given(target=random_targets(), seed=seeds, k=st.integers(0, 3))
def test_exponent_is_invariant_under_rotation(target, seed, k):
    k = min(k, target.rank)
    subspace = np.eye(target.rank)[:, :k]
    Q = orthogonal(target.rank, seed)
    mixed = Q @ subspace @ np.diag(np.geomspace(1, 1e-3, k)) @ (np.eye(k) + np.ones((k, k)))
    expected = target.information_exponent(subspace)
    assert target.rotate(Q).information_exponent(mixed) == expected
    tails = target.modes[:, k:].sum(axis=1)
    assert expected == (min(tails[tails > 0], default=None))


@pytest.mark.parametrize("orders", [[1, 2, 3], [3, 2, 1], [2, 2, 1], [1, 1, 1, 1]])
def test_exponents_of_rotated_ladders(orders):
    Q = orthogonal(len(orders), seed=4)
    target = targets.leaps(orders).rotate(Q)
    found = [target.information_exponent(Q[:, :j]) for j in range(len(orders) + 1)]
    assert found == [*orders, None]


def test_exponent_ignores_dependent_and_zero_columns():
    target = Target.parse("h1(z1) + h1(z1)*h3(z2)")
    span = [[1.0, 2.0, 0.0], [1e-14, 2e-14, 0.0]]
    assert target.information_exponent(span) == 3
    assert target.information_exponent(np.zeros((2, 3))) == 1


def test_exponent_of_large_dense_targets():
    rank, degree = 6, 8
    exponents = multi_indices(rank, degree)
    tails = exponents[:, 2:].sum(axis=1)
    values = np.random.default_rng(0).standard_normal(len(exponents)) * ~np.isin(tails, [1, 2])
    target = Target(dict(zip(map(tuple, exponents.tolist()), values.tolist(), strict=True)))
    assert target.information_exponent(np.eye(rank)[:, :2]) == 3


@pytest.mark.parametrize(
    ("subspace", "match"),
    [
        ([1.0, 0.0], "shape"),
        (np.eye(3), r"shape \(..., 2, any\), got \(3, 3\)"),
        ([[np.inf], [0.0]], "finite"),
    ],
)
def test_exponent_refuses(subspace, match):
    with pytest.raises(InputError, match=match):
        targets.parity(2).information_exponent(subspace)


# -- storage and display ---------------------------------------------------------------------------


@given(target=random_targets(), name=st.none() | st.text())
def test_storage_is_exact(target, name):
    target = Target(
        dict(zip(map(tuple, target.modes.tolist()), target.coefficients.tolist(), strict=True)),
        name=name,
    )
    for copy in (
        Target.from_json(target.to_json()),
        Target.from_dict(target.to_dict()),
        pickle.loads(pickle.dumps(target)),
    ):
        assert copy == target
        assert copy.name == name
        assert hash(copy) == hash(target)


def test_samples_belong_to_their_own_target_and_travel_with_it():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((20_000, 1))
    sampled = Target.from_samples(z, z[:, 0] ** 3 - 3 * z[:, 0], degree=3)
    known = Target.from_dict(sampled.to_dict())
    assert known == sampled
    assert ladder(known)[0].holds_to == np.inf > ladder(sampled)[0].holds_to
    copy = pickle.loads(pickle.dumps(sampled))
    assert ladder(copy)[0].holds_to == ladder(sampled)[0].holds_to


def test_pickles_do_not_carry_tensors():
    target = Target({(20,): 1.0, (1,): 0.5})
    before = len(pickle.dumps(target))
    assert len(target.tensors) == 21
    assert len(pickle.dumps(target)) == before


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "must be JSON text"),
        ("{", "must be JSON text"),
        ("[" * 100_000, "must be JSON text"),
        ("3", "a stored target is a mapping"),
        ("{}", "a stored target is a mapping"),
        ('{"modes": [[1]]}', "a stored target is a mapping"),
        ('{"modes": [[1]], "coefficients": [1.0], "extra": 1}', "a stored target is a mapping"),
        ('{"modes": [[1]], "coefficients": []}', "distinct modes and as many coefficients"),
        ('{"modes": [], "coefficients": []}', "distinct modes"),
        ('{"modes": [[1], [1]], "coefficients": [1.0, 2.0]}', "distinct modes"),
        ('{"modes": 1, "coefficients": 2}', "distinct modes"),
        ('{"modes": [[[1]]], "coefficients": [1.0]}', "distinct modes"),
        ('{"modes": [[1]], "coefficients": [NaN]}', "must be a finite number"),
        ('{"modes": [[1]], "coefficients": [1e999]}', "must be a finite number"),
        ('{"modes": [["1"]], "coefficients": [1.0]}', "must be an integer"),
        ('{"modes": [[1]], "coefficients": [1.0], "name": 3}', "name must be"),
        ('{"modes": [[1]], "coefficients": [1.0], "missed_norm": -1}', "missed_norm must be"),
    ],
)
def test_bad_storage_is_refused(text, match):
    with pytest.raises(InputError, match=match):
        Target.from_json(text)


def test_stored_form_is_plain():
    data = json.loads(targets.leaps([1, 3]).to_json())
    weight = 1 / math.sqrt(2)
    assert data == {
        "modes": [[1, 0], [1, 3]],
        "coefficients": [weight, weight],
        "name": "leaps(1,3)",
    }


def test_display():
    target = Target({(0, 0): 1.0, (1, 0): -0.5, (0, 2): 1 / 3})
    assert str(target) == "1.0 - 0.5*h1(z1) + 0.3333333333333333*h2(z2)"
    assert repr(target) == (
        "<Target of rank 2, degree 2, norm 1.16667: 1 - 0.5 h1(z1) + 0.333333 h2(z2)>"
    )
    assert str(Target({(1, 0): -2.0, (0, 1): -1.0})) == "-2.0*h1(z1) - h1(z2)"
    assert repr(Target.parse("(z1 + z2)**3")).endswith("+ ... (6 modes)>")


# -- families --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "modes"),
    [
        (targets.hermite(3), [[3]]),
        (targets.parity(4), [[1, 1, 1, 1]]),
        (targets.staircase(3), [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
        (targets.leaps([2]), [[2]]),
        (targets.leaps((3, 2, 1)), [[3, 0, 0], [3, 2, 0], [3, 2, 1]]),
        (targets.leaps(np.array([1, 1])), [[1, 0], [1, 1]]),
    ],
)
def test_families(target, modes):
    assert target.modes.tolist() == modes
    assert target.norm == pytest.approx(1, rel=1e-15)
    assert len(set(target.coefficients.tolist())) == 1
    assert Target.parse(target.name) == target


def test_every_family_is_named():
    assert set(targets.names()) == set(targets.__all__) - {
        "AdditiveTarget",
        "Target",
        "additive",
        "names",
    }
    assert targets.leaps([1, 1, 1]) == targets.staircase(3)


@given(orders=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_leaps_have_the_relative_exponents_they_name(orders):
    assume(len(orders) ** sum(orders) <= 10**5)
    target = targets.leaps(orders)
    basis = np.eye(target.rank)
    found = [target.information_exponent(basis[:, :j]) for j in range(len(orders))]
    assert found == orders


@pytest.mark.parametrize(
    ("make", "argument", "match"),
    [
        (targets.hermite, 0, "degree must be an integer of at least 1, got 0"),
        (targets.hermite, 21, "degree at most 20"),
        (targets.staircase, 2.5, "rank must be"),
        (targets.staircase, 10**9, "rank at most 8"),
        (targets.parity, 9, "rank at most 8"),
        (targets.parity, 10**9, "rank at most 8"),
        (targets.leaps, [], "orders must be a non-empty sequence"),
        (targets.leaps, 3, "orders must be a non-empty sequence"),
        (targets.leaps, [1, 0], "an order of leaps must be"),
        (targets.leaps, "12", "orders must be"),
        (targets.leaps, [10, 11], "degree at most 20"),
    ],
)
def test_families_refuse(make, argument, match):
    with pytest.raises(InputError, match=match):
        make(argument)


def test_coefficients_of_one_are_not_written():
    target = Target.parse("h1(z1) - h1(z1)*h3(z2) + 1/2*h2(z1)")
    assert str(target) == f"{target}" == "h1(z1) + 0.5*h2(z1) - h1(z1)h3(z2)"
    assert repr(target).endswith(": h1(z1) + 0.5 h2(z1) - h1(z1)h3(z2)>")
    assert str(Target({(0,): 1.0, (1,): 1.0})) == "1.0 + h1(z1)"


def labels(target, z, noise, rng):
    """Labels with noise whose size depends on the first variable, or not."""
    size = {"none": 0.0, "even": 1.0, "uneven": np.abs(z[:, 0])}[noise]
    return target(z) + size * rng.standard_normal(len(z))


@pytest.mark.parametrize("noise", ["even", "uneven"])
@pytest.mark.parametrize("text", ["h1(z1) + h1(z1)*h3(z2)", "0.3*h2(z1) + h1(z1)*h1(z2)"])
def test_standard_errors_of_samples_cover(text, noise):
    """Also where the noise depends on the inputs, and a degree is left out."""
    target, rng, degree = Target.parse(text), np.random.default_rng(5), 3
    true = dict(zip(map(tuple, target.modes.tolist()), target.coefficients, strict=True))
    covered, kept = [], []
    for _ in range(50):
        z = rng.standard_normal((800, 2))
        found = Target.from_samples(z, labels(target, z, noise, rng), degree=degree)
        known = [true.get(tuple(beta), 0.0) for beta in found.estimate.modes.tolist()]
        error = np.abs(found.estimate.coefficients - known)
        covered.append(error < 1.96 * found.estimate.standard_errors)
        kept.append(set(map(tuple, found.modes.tolist())) <= true.keys())
    assert 0.92 < np.mean(covered) < 0.98  # 95 % of 500
    assert np.mean(kept) > 0.9


def test_samples_without_noise_give_the_target_in_any_frame():
    target, rng = Target.parse("h1(z1) + 0.5*h1(z1)*h3(z2)"), np.random.default_rng(0)
    frame = np.linalg.qr(rng.standard_normal((12, 2)))[0]
    x = rng.standard_normal((2000, 12))
    found = Target.from_samples(x, target(x @ frame)[:, None], frame)
    assert found.labels == target.labels and found.missed_norm < 1e-10
    np.testing.assert_allclose(found.coefficients, target.coefficients, rtol=1e-12)
    turned = Target.from_samples(x @ frame @ np.array([[0.6, 0.8], [-0.8, 0.6]]), target(x @ frame))
    assert turned.information_exponent() == 1 and ladder(turned).exponents == (1, 3)


def test_exponents_from_samples_say_up_to_which_dimension():
    """More samples leave less room for a component of lower order."""
    target, rng = Target.parse("h1(z1) + h1(z1)*h3(z2)"), np.random.default_rng(0)
    reach = []
    for n in (2000, 20_000):
        z = rng.standard_normal((n, 2))
        found = Target.from_samples(z, labels(target, z, "even", rng))
        steps = ladder(found)
        assert steps.exponents == (1, 3) and steps[0].holds_to == np.inf
        assert f"up to d = {steps.holds_to:.2g}" in repr(steps)
        reach.append(steps.holds_to)
    assert 2 < reach[1] / reach[0] < 20  # as n^(1/2) or n
    assert ladder(target).holds_to == np.inf
    # A component as large as the samples cannot exclude turns the order around at that d.
    hidden = found.estimate.undetected(np.eye(2), 1, 1)
    assert 0.01 < hidden < 0.1
    table = found.estimate.table
    assert table["kept"][table["mode"] == "h1(z1)h3(z2)"].tolist() == [True]
    assert Target.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((5, 1)), np.ones(5)), "too few.*at least 10"),
        ((NORMAL, NORMAL[:9, 0]), "a label for each of the 400 samples"),
        ((3 * NORMAL, NORMAL[:, 0]), "not standard normal.*covariance"),
        ((np.sign(NORMAL), NORMAL[:, 0]), "not standard normal"),
        ((NORMAL, NORMAL[::-1, 0] * 0 + 1), "differs from 0.*more samples"),
        ((NORMAL[:, 0], NORMAL[:, 0]), "z must have shape"),
        ((NORMAL, NORMAL[:, 0], np.ones((2, 1))), "orthonormal.*qr"),
        ((NORMAL, NORMAL[:, 0], np.eye(3)[:, :1]), "one for each input"),
    ],
)
def test_samples_that_say_nothing_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Target.from_samples(*arguments)


def test_functions_of_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch)
    exact = Target.from_function(lambda z: np.maximum(z[:, 0], 0), 1, 4)
    for function in (lambda z: torch.relu(z[:, 0]), lambda z: z[:, 0].clamp(min=0).float()):
        found = Target.from_function(function, 1, 4)
        assert found.labels == exact.labels  # no h3 of rounding in single precision
        np.testing.assert_allclose(found.coefficients, exact.coefficients, rtol=1e-5)
    net = torch.nn.Linear([[0.6, -0.3]])
    found = Target.from_function(net, 2, 3)
    assert found.degree == 1
    np.testing.assert_allclose(found.coefficients, [0.6, -0.3], rtol=1e-5)
