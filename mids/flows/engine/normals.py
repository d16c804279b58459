"""Normal samples as a function of a key and their index, in compiled code.

The bits are those of the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011):
sample i of a run is a function of the run's key and of i alone, so that it does not matter in which
pieces, or after which interruption, the samples are drawn. The Box-Muller transform takes 64 bits
for two normals. Its logarithm, sine and cosine are polynomials in single precision (those of
Moshier's Cephes library). All is written without branches so that the compiler uses vector
instructions; NumPy's generators, one number at a time, take several times longer.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .compile import entry

f32, i32, u32, u64 = np.float32, np.int32, np.uint32, np.uint64

LANES = 8
"""The number of normals in a sample is a multiple of this."""

_MULTIPLIER = (u64(0xD2511F53), u64(0xCD9E8D57))
_WEYL = (u64(0x9E3779B9), u64(0xBB67AE85))
_LOW, _WORD = u64(0xFFFFFFFF), u64(32)

_UNIT = f32(2.0**-32)
_HALF_UNIT = f32(2.0**-33)  # keeps the logarithm finite
_ROOT_HALF = i32(0x3F3504F3)  # bits of sqrt(1/2)
_EXPONENT = i32(23)
_LOG = tuple(
    f32(c)
    for c in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
_LN2 = (f32(0.693359375), f32(-2.12194440e-4))  # high and low part
_SIN = (f32(-1.9515295891e-4), f32(8.3321608736e-3), f32(-1.6666654611e-1))
_COS = (f32(2.443315711809948e-5), f32(-1.388731625493765e-3), f32(4.166664568298827e-2))
_TURN = f32(2.0 * math.pi * 2.0**-32)
_QUARTER, _EIGHTH = i32(30), i32(2**29)
_ONE, _TWO = i32(1), i32(2)
_HALF, _MINUS_TWO, _ZERO = f32(0.5), f32(-2.0), f32(0.0)


@njit(nogil=True, error_model="numpy")
def bits(key: np.ndarray, index: int, out: np.ndarray) -> None:
    """Fill `out` with random bits.

    Shapes: key (2,); out (n,).
    """
    quarter = out.shape[0] // 4
    low, high = u64(index) & _LOW, u64(index) >> _WORD
    for i in range(quarter):
        c0, c1, c2, c3 = u64(i), low, high, u64(0)
        k0, k1 = key[0], key[1]
        # A round: high and low halves of two products, mixed with the key, which then moves on.
        for _ in range(10):
            p0, p1 = _MULTIPLIER[0] * c0, _MULTIPLIER[1] * c2
            c0 = (p1 >> _WORD) ^ c1 ^ k0
            c1 = p1 & _LOW
            c2 = (p0 >> _WORD) ^ c3 ^ k1
            c3 = p0 & _LOW
            k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
        # Four quarters: neighbouring i write neighbouring numbers, which suits vector instructions.
        out[i] = u32(c0)
        out[quarter + i] = u32(c1)
        out[2 * quarter + i] = u32(c2)
        out[3 * quarter + i] = u32(c3)


@njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "nnan"})
def normals(bits: np.ndarray, work: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with standard normals.

    Shapes: bits (n,); work (2, n / 2); out (n,).
    """
    half = bits.shape[0] // 2
    value, power = work[0], work[1]
    pattern = value.view(np.int32)
    for i in range(half):
        value[i] = f32(np.uint32(bits[i])) * _UNIT + _HALF_UNIT
    for i in range(half):  # value = 2^power times a number around 1
        exponent = i32(pattern[i] - _ROOT_HALF) >> _EXPONENT
        power[i] = f32(exponent)
        pattern[i] = i32(pattern[i] - i32(exponent << _EXPONENT))
    for i in range(half):
        # log(1 + x) = x - x^2 / 2 + x^3 P(x); then power log 2, whose small part is added first.
        x = value[i] - f32(1.0)
        square = x * x
        y = _LOG[0]
        y = y * x + _LOG[1]
        y = y * x + _LOG[2]
        y = y * x + _LOG[3]
        y = y * x + _LOG[4]
        y = y * x + _LOG[5]
        y = y * x + _LOG[6]
        y = y * x + _LOG[7]
        y = y * x + _LOG[8]
        y = y * x * square + _LN2[1] * power[i] - _HALF * square
        logarithm = x + y + _LN2[0] * power[i]
        value[i] = np.sqrt(max(_MINUS_TWO * logarithm, _ZERO))
    for i in range(half):
        # Angles in units of 2^-32 turns: where the integer overflows, a full turn is dropped.
        angle = bits[half + i]
        quadrant = i32(angle + _EIGHTH) >> _QUARTER
        t = f32(i32(angle - i32(quadrant << _QUARTER))) * _TURN
        square = t * t
        sine = ((_SIN[0] * square + _SIN[1]) * square + _SIN[2]) * square * t + t
        cosine = (_COS[0] * square + _COS[1]) * square + _COS[2]
        cosine = cosine * square * square - _HALF * square + f32(1.0)
        odd = i32(quadrant & _ONE) != i32(0)
        first = sine if odd else cosine
        second = cosine if odd else sine
        # The cosine is negative in quadrants 1 and 2, the sine in 2 and 3.
        if i32(i32(quadrant + _ONE) & _TWO) != i32(0):
            first = -first
        if i32(quadrant & _TWO) != i32(0):
            second = -second
        out[i] = value[i] * first
        out[half + i] = value[i] * second


@njit(nogil=True, error_model="numpy")
def sample(
    key: np.ndarray, index: int, words: np.ndarray, work: np.ndarray, out: np.ndarray
) -> None:
    """Fill `out` with the normals of one sample.

    Shapes: key (2,); words (n,); work (2, n / 2); out (n,).
    """
    bits(key, index, words)
    normals(words.view(np.int32), work, out)


@entry({"nogil": True, "error_model": "numpy"})
def _fill(key: np.ndarray, out: np.ndarray) -> None:
    """Fill the rows of `out` with the first samples of a key."""
    width = out.shape[1]
    words, work = np.empty(width, np.uint32), np.empty((2, width // 2), np.float32)
    for n in range(out.shape[0]):
        sample(key, n, words, work, out[n])


def padded(count: int) -> int:
    """Return how many normals a sample has that needs `count`."""
    return -(-count // LANES) * LANES


def samples(key: np.ndarray, n: int, dim: int, noisy: bool) -> tuple[np.ndarray, np.ndarray]:
    """First samples of a key, (n, dim), and the noise of their labels, (n,), or zeros."""
    out = np.zeros((n, padded(dim + noisy)), dtype=np.float32)
    _fill(key, out)
    return out[:, :dim], out[:, dim].astype(np.float64) if noisy else np.zeros(n)
