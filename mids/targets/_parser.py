"""Parser of target expressions: named families, and text, as Hermite coefficients.

It expands by recursive descent as it reads. Grammar (blanks are free; juxtaposition
multiplies, so mode labels such as ``h1(z1)h3(z2)`` read)::

    sum     = product (("+" | "-") product)*
    product = signed (("*" | "/") signed | power)*
    signed  = ("+" | "-")* power
    power   = atom [("**" | "^") integer]
    atom    = number | "z" I | hermite | "sqrt" "(" sum ")" | family | "(" sum ")"
    hermite = ("h" | "He") K "(" "z" I ")"
    family  = name "(" integer ("," integer)* ")", brackets around the integers allowed

The value of every rule is an expansion in the orthonormal Hermite basis. Each coefficient travels
with the sum of the magnitudes that made it, so that at the end what cancelled down to rounding
level is told apart from what was written small.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn, TypeAlias

from ..errors import InputError, TargetSyntaxError
from ..validation import integer, shown
from .basis import MAX_DEGREE, MAX_RANK, check_size, monomial_coefficients, product_coefficients

Exponents: TypeAlias = tuple[int, ...]
Coefficients: TypeAlias = dict[Exponents, float]

MAX_TEXT = 100_000
MAX_NESTING = 50
MAX_TERMS = 100_000  # elementary products in one expansion, less than a second of work
CANCELLED = 1e-14  # a coefficient below this fraction of the magnitudes that made it is rounding

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign>\*\*|[-+*/^(),\[\]])"
)
_CALL = ("number", "(", "[", ",", "]", ")")
_INDEXED = re.compile(r"(He|[hz])([0-9]{1,4})")


def _hermite(degree: int) -> Coefficients:
    return {(integer(degree, "degree", at_least=1),): 1.0}


def _parity(rank: int) -> Coefficients:
    rank = integer(rank, "rank", at_least=1)
    check_size(rank, rank)
    return {(1,) * rank: 1.0}


def _staircase(rank: int) -> Coefficients:
    rank = integer(rank, "rank", at_least=1)
    check_size(rank, rank)
    return _leaps(*[1] * rank)


def _leaps(*orders: int) -> Coefficients:
    """Equal coefficients on h_{s_1}(z1) ... h_{s_j}(zj), j = 1, 2, ..., of unit norm."""
    checked = [integer(s, "an order of leaps", at_least=1) for s in orders]
    rank = len(checked)
    check_size(rank, sum(checked))
    return {tuple(checked[:j] + [0] * (rank - j)): 1 / math.sqrt(rank) for j in range(1, rank + 1)}


FAMILIES: Mapping[str, Callable[..., Coefficients]] = {
    "hermite": _hermite,
    "leaps": _leaps,
    "parity": _parity,
    "staircase": _staircase,
}
"""Coefficients of the named families, by their integer arguments."""


class _Token(NamedTuple):
    kind: str  # "number", "name", "end", or the sign itself
    text: str
    position: int


class _Term(NamedTuple):
    value: float
    scale: float  # sum of the magnitudes that made the value


_Expansion: TypeAlias = dict[Exponents, _Term]  # keys of length MAX_RANK

_CONSTANT = (0,) * MAX_RANK
_ZERO = _Term(0.0, 0.0)
_ONE = _Term(1.0, 1.0)


@functools.cache
def _linearised(j: int, k: int) -> list[tuple[int, float]]:
    return [(i, c) for i, c in enumerate(product_coefficients(j, k).tolist()) if c]


def expand(text: str) -> tuple[Coefficients, str | None]:
    """Expand an expression in the orthonormal Hermite basis; name it if it is a family's call."""
    return _Parser(text).read()


def _tokens(text: str) -> list[_Token]:
    found = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise TargetSyntaxError(
                f"{text[position]!r} has no meaning here; allowed are numbers, variables z1, z2, "
                "..., polynomials such as h3(z1), + - * / ** ^ and parentheses",
                text,
                position,
            )
        kind = match[0] if match.lastgroup == "sign" else str(match.lastgroup)
        found.append(_Token(kind, match[0], position))
        position = match.end()
    found.append(_Token("end", "", len(text)))
    return found


class _Parser:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rank = 1
        self.nesting = 0
        self.work = 0
        if len(text) > MAX_TEXT:
            raise TargetSyntaxError(
                f"the text has {len(text)} characters, at most {MAX_TEXT} are read; "
                "build large targets from a dictionary of coefficients",
                text,
                MAX_TEXT,
            )
        self.tokens = _tokens(text)
        self.next = 0

    # -- tokens ---------------------------------------------------------------------------

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def take(self) -> _Token:
        token = self.token
        self.next += 1
        return token

    def fail(self, reason: str, token: _Token) -> NoReturn:
        raise TargetSyntaxError(reason, self.text, token.position)

    def found(self, token: _Token) -> str:
        return "the text ends" if token.kind == "end" else f"found {shown(token.text)}"

    def expect(self, kind: str, after: str) -> _Token:
        if self.token.kind != kind:
            self.fail(f"expected {kind!r} {after}, but {self.found(self.token)}", self.token)
        return self.take()

    def integer(self, purpose: str) -> int:
        token = self.token
        if token.kind != "number" or not token.text.isdigit() or len(token.text) > 4:
            self.fail(
                f"expected {purpose}, a small non-negative integer, but {self.found(token)}", token
            )
        return int(self.take().text)

    # -- grammar --------------------------------------------------------------------------

    def read(self) -> tuple[Coefficients, str | None]:
        result = self.sum()
        if self.token.kind != "end":
            self.fail(f"expected an operator or the end, but {self.found(self.token)}", self.token)
        coefficients = {
            beta[: self.rank]: term.value
            for beta, term in result.items()
            if abs(term.value) > CANCELLED * term.scale
        }
        call, arguments = self.tokens[0].text, self.tokens[1:-1]
        alone = call in FAMILIES and all(t.kind in _CALL for t in arguments)
        numbers = ",".join(t.text for t in arguments if t.kind == "number")
        return coefficients, f"{call}({numbers})" if alone else None

    def sum(self) -> _Expansion:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            self.fail(f"parentheses nest more than {MAX_NESTING} deep; simplify", self.token)
        result: _Expansion = {}
        sign = "+"
        while True:
            for beta, (value, scale) in self.product().items():
                old = result.get(beta, _ZERO)
                signed = -value if sign == "-" else value
                result[beta] = _Term(old.value + signed, old.scale + scale)
            if self.token.kind not in ("+", "-"):
                self.nesting -= 1
                return result
            sign = self.take().kind

    def product(self) -> _Expansion:
        result = self.signed()
        while True:
            operator = self.token
            if operator.kind == "*":
                self.take()
                result = self.multiply(result, self.signed(), operator)
            elif operator.kind == "/":
                self.take()
                divisor = self.constant(self.signed(), "a divisor", operator)
                if divisor == 0:
                    self.fail("division by zero", operator)
                result = {b: _Term(v / divisor, s / abs(divisor)) for b, (v, s) in result.items()}
                self.check_finite(result, operator)
            elif operator.kind in ("name", "("):
                result = self.multiply(result, self.power(), operator)
            else:
                return result

    def signed(self) -> _Expansion:
        negative = False
        while self.token.kind in ("+", "-"):
            negative ^= self.take().kind == "-"
        result = self.power()
        return {b: _Term(-v, s) for b, (v, s) in result.items()} if negative else result

    def power(self) -> _Expansion:
        base = self.atom()
        if self.token.kind not in ("**", "^"):
            return base
        operator = self.take()
        exponent = self.integer("an exponent")
        if self.token.kind in ("**", "^"):
            self.fail("a power of a power needs parentheses", self.token)
        if exponent > MAX_DEGREE:
            self.fail(f"exponent {exponent} is too large; at most {MAX_DEGREE}", operator)
        beta, term = next(iter(base.items()), (_CONSTANT, _ZERO))
        if len(base) == 1 and sum(beta) == 1 and term == _ONE:  # a bare variable
            powers = enumerate(monomial_coefficients(exponent).tolist())
            return {tuple(k * i for i in beta): _Term(c, c) for k, c in powers if c}
        result = self.number(1.0, operator)
        for _ in range(exponent):
            result = self.multiply(result, base, operator)
        return result

    def atom(self) -> _Expansion:
        token = self.take()
        if token.kind == "number":
            return self.number(float(token.text), token)
        if token.kind == "(":
            result = self.sum()
            self.expect(")", f"to close the '(' at character {token.position + 1}")
            return result
        if token.kind == "name":
            return self.named(token)
        self.fail(
            "expected a number, a variable such as z1, a polynomial such as h3(z1) or '(', but "
            + self.found(token),
            token,
        )

    def named(self, token: _Token) -> _Expansion:
        indexed = _INDEXED.fullmatch(token.text)
        if indexed is not None and indexed[1] == "z":
            return self.hermite(1, token)
        if indexed is not None:
            degree = int(indexed[2])
            if degree > MAX_DEGREE:
                self.fail(f"degree {degree} is too large; at most {MAX_DEGREE}", token)
            self.expect("(", f"after {token.text}")
            variable = self.take()
            if not re.fullmatch("z[0-9]{1,4}", variable.text):
                self.fail(
                    f"expected one variable, such as {token.text}(z1), but {self.found(variable)}",
                    variable,
                )
            self.expect(")", f"after {token.text}({variable.text}")
            mode = self.hermite(degree, variable)
            if indexed[1] == "h":
                return mode
            # probabilists' polynomials: He_k = sqrt(k!) h_k
            return self.multiply(mode, self.number(math.sqrt(math.factorial(degree)), token), token)
        if token.text == "sqrt":
            self.expect("(", "after sqrt")
            argument = self.constant(self.sum(), "the argument of sqrt", token)
            self.expect(")", "to close sqrt(")
            if argument < 0:
                self.fail(f"sqrt of the negative number {argument:g}", token)
            return self.number(math.sqrt(argument), token)
        if token.text in FAMILIES:
            return self.family(token)
        known = ["z1", "h1(z1)", "sqrt", *FAMILIES]
        close = difflib.get_close_matches(token.text, known, n=1)
        remedy = f"; did you mean {close[0]}?" if close else ""
        if self.token.kind == "(" and not close:
            remedy = "; other functions are given in Python, as lambda z: ... with rank="
        self.fail(
            f"{shown(token.text)} is unknown; allowed are z1, z2, ..., h1(z1), h2(z1), ..., "
            f"sqrt(2) and the families {', '.join(FAMILIES)}{remedy}",
            token,
        )

    def family(self, token: _Token) -> _Expansion:
        self.expect("(", f"after {token.text}")
        closing = "]" if self.token.kind == "[" else ")"
        if closing == "]":
            self.take()
        arguments = [self.integer(f"an argument of {token.text}")]
        while self.token.kind == ",":
            self.take()
            arguments.append(self.integer(f"an argument of {token.text}"))
        self.expect(closing, f"after the arguments of {token.text}")
        if closing == "]":
            self.expect(")", f"to close {token.text}(")
        try:
            coefficients = FAMILIES[token.text](*arguments)
        except InputError as error:
            self.fail(str(error), token)
        except TypeError:
            self.fail(f"{token.text} takes one integer, got {arguments}", token)
        self.rank = max(self.rank, *map(len, coefficients))
        return {
            beta + (0,) * (MAX_RANK - len(beta)): _Term(c, abs(c))
            for beta, c in coefficients.items()
        }

    # -- values ---------------------------------------------------------------------------

    def number(self, value: float, token: _Token) -> _Expansion:
        result = {_CONSTANT: _Term(value, abs(value))}
        self.check_finite(result, token)
        return result

    def hermite(self, degree: int, variable: _Token) -> _Expansion:
        index = int(variable.text[1:])
        if not 1 <= index <= MAX_RANK:
            self.fail(f"variables are z1 to z{MAX_RANK}, found {variable.text}", variable)
        self.rank = max(self.rank, index)
        return {tuple(degree if i == index else 0 for i in range(1, MAX_RANK + 1)): _ONE}

    def constant(self, expansion: _Expansion, what: str, token: _Token) -> float:
        if any(sum(beta) and term.scale for beta, term in expansion.items()):
            self.fail(f"{what} must be a number, without variables", token)
        return sum(term.value for term in expansion.values())

    def multiply(self, left: _Expansion, right: _Expansion, operator: _Token) -> _Expansion:
        degree = sum(max(map(sum, side), default=0) for side in (left, right))
        if degree > MAX_DEGREE:
            self.fail(f"the product has degree {degree}; at most {MAX_DEGREE}", operator)
        result: _Expansion = {}
        for (beta, a), (gamma, b) in itertools.product(left.items(), right.items()):
            # In each variable h_j h_k = sum_i c_i h_i; a term of the product takes one i from each.
            for choice in itertools.product(*map(_linearised, beta, gamma)):
                self.work += 1
                if self.work > MAX_TERMS:
                    self.fail("the expression expands into too many terms; simplify", operator)
                key, weights = zip(*choice, strict=True)
                weight = math.prod(weights)
                old = result.get(key, _ZERO)
                result[key] = _Term(
                    old.value + weight * a.value * b.value, old.scale + weight * a.scale * b.scale
                )
        self.check_finite(result, operator)
        return result

    def check_finite(self, expansion: _Expansion, token: _Token) -> None:
        if not all(math.isfinite(term.scale) for term in expansion.values()):
            self.fail("a number is too large for double precision", token)
