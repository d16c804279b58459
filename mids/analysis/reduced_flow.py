"""Compiled steps of the flow reduced to what is not learned, one run after the other.

A congruence flow ``X' = H X + X H`` with ``X = L L^T`` spans many orders of magnitude, so L is kept
with orthogonal columns, longest first. Errors count relative to the longer of the two columns they
mix, so that small directions keep their own relative accuracy; those within what is learned
already do not count. Steps, of Dormand and Prince, are taken in units of the inverse norm of H.

H comes from the polynomial of the target in the frame [U, V] (`mids.targets.polynomial`): with
``D = B diag(F) B^T`` it is, for the coefficients a of ``p(B z)``,
``B^T H B = sum_gamma w_gamma F^gamma (grad a)_gamma (grad a)_gamma^T``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

__all__ = [
    "LARGEST",
    "LEAVES",
    "LEFT",
    "MEETS",
    "NEVER",
    "Link",
    "Rules",
    "Runs",
    "Work",
    "criticals",
    "follow",
]

LARGEST = 1e4
"""Root of the odds to which a learned direction is followed (1 - overlap = 1e-8)."""
OVERSHOT = 100 * LARGEST
LEARNED, NEVER, LEAVES, MEETS, LEFT = range(5)
"""All learned; stands still; U begins to turn; may be at a larger one; takes too many steps."""
STAGE = np.zeros((7, 6))
STAGE[1, :1] = 1 / 5
STAGE[2, :2] = 3 / 40, 9 / 40
STAGE[3, :3] = 44 / 45, -56 / 15, 32 / 9
STAGE[4, :4] = 19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729
STAGE[5, :5] = 9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656
STAGE[6] = 35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84
ERROR = np.array([-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40])
"""Coefficients of Dormand and Prince's pair."""


class Link(NamedTuple):
    """A target's polynomial in some frame, of which the first `known` variables are learned."""

    base: np.ndarray  # (monomials,)
    weight: np.ndarray  # (monomials,)
    last: (
        np.ndarray
    )  # (monomials, 2): a monomial of one degree less, and the variable that it lacks
    start: np.ndarray
    place: np.ndarray
    source: np.ndarray
    power: np.ndarray
    factor: np.ndarray
    lower: np.ndarray  # (gamma, rank)
    successor: np.ndarray  # (gamma, rank)
    root: np.ndarray  # (gamma,), w_gamma
    top: int


class Rules(NamedTuple):
    """When a run is sent elsewhere; see `mids.analysis.coupled`."""

    steps: int
    rtol: float
    levels: np.ndarray
    reach: float
    learned: float
    small: float
    slower: float
    turn: float
    at_once: float


class Runs(NamedTuple):
    """State and record of runs, shapes as in `mids.analysis.coupled`."""

    factor: np.ndarray  # (n, m, c)
    frames: np.ndarray  # (n, rank, rank)
    step: np.ndarray  # (n,)
    tried: np.ndarray  # (n, c + 1)
    code: np.ndarray  # (n,)
    learned: np.ndarray  # (n,), further directions, where the code is MEETS
    row: np.ndarray  # (n,), in what follows
    clock: np.ndarray
    crossing: np.ndarray
    apart: np.ndarray
    between: np.ndarray
    newest: np.ndarray


class Work(NamedTuple):
    """Scratch space, and the nodes: run, time, loss and slope at each step."""

    moved: np.ndarray
    lowered: np.ndarray
    square: np.ndarray  # (40, size, size)
    slopes: np.ndarray  # (7, size, size)
    wide: np.ndarray  # (3, entries, entries)
    nodes: np.ndarray
    used: np.ndarray  # (1,), nodes


compiled = njit(nogil=True, error_model="numpy", fastmath={"contract"})


@compiled
def _hessian(link, work, known, size, D, H):  # type: ignore[no-untyped-def]
    """H over `size` variables after the known ones, for their overlaps D; returns h."""
    rank = link.lower.shape[1]
    B, rest, rows, powers = work.square[0], work.square[1], work.square[2], work.square[3]
    order, F, slope = rows[0], rows[1], rows[2]
    for i in range(size):
        order[i] = i
        for j in range(size):
            rest[i, j] = D[i, j]
            B[i, j] = 0.0
    # Cholesky's factors without roots, the largest pivot first; rows of B in this order.
    for j in range(size):
        best = j
        for i in range(j + 1, size):
            if rest[int(order[i]), int(order[i])] > rest[int(order[best]), int(order[best])]:
                best = i
        order[j], order[best] = order[best], order[j]
        for i in range(j):
            B[j, i], B[best, i] = B[best, i], B[j, i]
        p = int(order[j])
        F[p] = max(rest[p, p], 0.0)
        B[j, j] = 1.0
        for i in range(j + 1, size):
            B[i, j] = rest[int(order[i]), p] / F[p] if F[p] > 0.0 else 0.0
        for i in range(j + 1, size):
            for o in range(j + 1, size):
                rest[int(order[i]), int(order[o])] -= B[i, j] * F[p] * B[o, j]
    moved = work.moved
    for row in range(moved.shape[0]):
        moved[row] = link.base[row]
    for j in range(size):
        for i in range(j + 1, size):
            t = B[i, j]
            if t == 0.0:
                continue
            pair = (known + int(order[i])) * rank + known + int(order[j])
            for row in range(link.start[pair], link.start[pair + 1]):
                value = link.factor[row] * moved[link.source[row]]
                if value != 0.0:
                    for _ in range(link.power[row]):
                        value *= t
                    moved[link.place[row]] += value
    for v in range(size):
        powers[v, 0] = 1.0
        for e in range(link.top - 1):
            powers[v, e + 1] = powers[v, e] * F[v]
    for i in range(size):
        for j in range(size):
            rest[i, j] = 0.0
    lowered = work.lowered
    for g in range(lowered.shape[0]):
        weight = 1.0
        for v in range(size):
            weight *= powers[v, link.lower[g, known + v]]
        lowered[g] = weight
        weight *= link.root[g]
        for v in range(size):
            slope[v] = (link.lower[g, known + v] + 1) * moved[link.successor[g, known + v]]
        for i in range(size):
            if slope[i] != 0.0:
                for j in range(i + 1):
                    rest[i, j] += weight * slope[i] * slope[j]
    value = 0.0
    for row in range(moved.shape[0]):
        v = link.last[row, 1] - known
        if v >= 0 and moved[row] != 0.0:
            value += link.weight[row] * moved[row] ** 2 * lowered[link.last[row, 0]] * F[v]
    # H = B^-T (rest) B^-1, in the order of the pivots
    for i in range(size):
        for j in range(size):
            p, q = int(order[i]), int(order[j])
            H[i, j] = rest[max(p, q), min(p, q)]
    for j in range(size):
        for i in range(size - 1, -1, -1):
            for o in range(i + 1, size):
                H[i, j] -= B[o, i] * H[o, j]
    for i in range(size):
        for j in range(size - 1, -1, -1):
            for o in range(j + 1, size):
                H[i, j] -= B[o, j] * H[i, o]
    for i in range(size):
        for j in range(size):
            rest[int(order[i]), int(order[j])] = 0.5 * (H[i, j] + H[j, i])
    for i in range(size):
        for j in range(size):
            H[i, j] = rest[i, j]
    return value


@compiled
def _overlaps(L, m, c, root, Z, D):  # type: ignore[no-untyped-def]
    """``D = L (I + L^T L)^-1 L^T``."""
    for i in range(c):
        for j in range(i + 1):
            total = 1.0 if i == j else 0.0
            for p in range(m):
                total += L[p, i] * L[p, j]
            for o in range(j):
                total -= root[i, o] * root[j, o]
            root[i, j] = np.sqrt(total) if i == j else total / root[j, j]
    for p in range(m):
        for i in range(c):
            total = L[p, i]
            for o in range(i):
                total -= root[i, o] * Z[p, o]
            Z[p, i] = total / root[i, i]
    for p in range(m):
        for q in range(m):
            total = 0.0
            for i in range(c):
                total += Z[p, i] * Z[q, i]
            D[p, q] = total


@compiled
def _push(link, work, k, rank, frame, D, push, H):  # type: ignore[no-untyped-def]
    """``V^T H U`` as a vector and ``V^T H V`` for a frame [U, V]; returns h."""
    m = rank - k
    G, whole, half = work.square[4], work.square[5], work.square[6]
    for i in range(rank):
        for b in range(m):
            total = 0.0
            for a in range(m):
                total += frame[i, k + a] * D[a, b]
            half[i, b] = total
    for i in range(rank):
        for j in range(rank):
            total = 0.0
            for a in range(k):
                total += frame[i, a] * frame[j, a]
            for b in range(m):
                total += half[i, b] * frame[j, k + b]
            G[i, j] = total
    value = _hessian(link, work, 0, rank, G, whole)
    for i in range(rank):
        for b in range(m):
            total = 0.0
            for j in range(rank):
                total += whole[i, j] * frame[j, k + b]
            half[i, b] = total
    for b in range(m):
        for a in range(k):
            total = 0.0
            for i in range(rank):
                total += half[i, b] * frame[i, a]
            push[b * k + a] = total
        for a in range(m):
            total = 0.0
            for i in range(rank):
                total += half[i, b] * frame[i, k + a]
            H[a, b] = total
    return value


@compiled
def _angle(pp, qq, pq):  # type: ignore[no-untyped-def]
    """Cosine and sine of the rotation that makes two columns of these products orthogonal."""
    zeta = (qq - pp) / (2.0 * pq)
    t = 1.0 / (abs(zeta) + np.sqrt(1.0 + zeta * zeta))
    t = -t if zeta < 0.0 else t
    cos = 1.0 / np.sqrt(1.0 + t * t)
    return cos, cos * t


@compiled
def _turn(A, p, q, cos, sin, n):  # type: ignore[no-untyped-def]
    """Rotate columns p and q of the first n rows, in place."""
    for i in range(n):
        x, y = A[i, p], A[i, q]
        A[i, p], A[i, q] = cos * x - sin * y, sin * x + cos * y


@compiled
def _rotations(S, vectors, n):  # type: ignore[no-untyped-def]
    """Jacobi's rotations of a symmetric matrix, in place; its eigenvectors are the columns."""
    for i in range(n):
        for j in range(n):
            vectors[i, j] = 1.0 if i == j else 0.0
    for _ in range(30):
        off = 0.0
        size = 0.0
        for i in range(n):
            size += S[i, i] ** 2
            for j in range(i):
                off += S[i, j] ** 2
        if off <= 1e-30 * size or off == 0.0:
            return
        for p in range(n):
            for q in range(p + 1, n):
                if S[p, q] == 0.0:
                    continue
                cos, sin = _angle(S[p, p], S[q, q], S[p, q])
                _turn(S, p, q, cos, sin, n)
                _turn(vectors, p, q, cos, sin, n)
                _turn(S.T, p, q, cos, sin, n)


@compiled
def _tilt(work, k, m, frame, theta, tilted):  # type: ignore[no-untyped-def]
    """Turn a frame [U, V] so that U goes to the span of ``U + V theta``, theta a vector."""
    rank = k + m
    gram, vectors, root = work.square[7], work.square[8], work.square[9]
    for side in range(2):
        n = m if side else k
        for i in range(n):
            for j in range(n):
                total = 0.0
                for a in range(k if side else m):
                    if side:
                        total += theta[i * k + a] * theta[j * k + a]
                    else:
                        total += theta[a * k + i] * theta[a * k + j]
                gram[i, j] = total
        _rotations(gram, vectors, n)
        for i in range(n):
            for j in range(n):
                total = 0.0
                for a in range(n):
                    total += vectors[i, a] * vectors[j, a] / np.sqrt(1.0 + max(gram[a, a], 0.0))
                root[i, j] = total
        for p in range(rank):
            for j in range(n):
                total = 0.0
                for i in range(n):
                    own = frame[p, k + i] if side else frame[p, i]
                    for a in range(k if side else m):
                        if side:
                            own -= frame[p, a] * theta[i * k + a]
                        else:
                            own += frame[p, k + a] * theta[a * k + i]
                    total += own * root[i, j]
                tilted[p, k + j if side else j] = total


@compiled
def _graded(L, error, lengths, m, c):  # type: ignore[no-untyped-def]
    """Turn the columns of L orthogonal, longest first, and those of `error` with them."""
    for _ in range(40):
        done = True
        for p in range(c):
            for q in range(p + 1, c):
                pp = qq = pq = 0.0
                for i in range(m):
                    pp += L[i, p] * L[i, p]
                    qq += L[i, q] * L[i, q]
                    pq += L[i, p] * L[i, q]
                if abs(pq) <= 4e-16 * np.sqrt(pp * qq):
                    continue
                done = False
                cos, sin = _angle(pp, qq, pq)
                _turn(L, p, q, cos, sin, m)
                _turn(error, p, q, cos, sin, m)
        if done:
            break
    for p in range(c):
        total = 0.0
        for i in range(m):
            total += L[i, p] ** 2
        lengths[p] = max(np.sqrt(total), 1e-150)
    for p in range(c):
        best = p
        for q in range(p + 1, c):
            if lengths[q] > lengths[best]:
                best = q
        if best != p:
            lengths[p], lengths[best] = lengths[best], lengths[p]
            for i in range(m):
                L[i, p], L[i, best] = L[i, best], L[i, p]
                error[i, p], error[i, best] = error[i, best], error[i, p]


@compiled
def _flow(link, work, k, turning, frame, inverse, L, m, c, H):  # type: ignore[no-untyped-def]
    """H over its norm; returns the inverse of that norm, and h."""
    D, tilted = work.square[10], work.square[11]
    _overlaps(L, m, c, work.square[12], work.square[13], D)
    if turning:
        push, theta = work.wide[1, 0], work.wide[1, 1]
        _push(link, work, k, k + m, frame, D, push, H)
        for a in range(m * k):
            theta[a] = 0.0
            for b in range(m * k):
                theta[a] -= inverse[a, b] * push[b]
        _tilt(work, k, m, frame, theta, tilted)
        value = _push(link, work, k, k + m, tilted, D, push, H)
    else:
        value = _hessian(link, work, k, m, D, H)
    norm = 0.0
    for i in range(m):
        for j in range(m):
            norm += H[i, j] ** 2
    norm = np.sqrt(norm) + 1e-300
    for i in range(m):
        for j in range(m):
            H[i, j] /= norm
    return 1.0 / norm, value


@compiled
def _answer(link, work, k, m, frame, D, inverse):  # type: ignore[no-untyped-def]
    """Inverse of how ``V^T H U`` answers to tilts of U, none along which it does not."""
    n = m * k
    push, theta, columns, turned = work.wide[1, 0], work.wide[1, 1], work.wide[2], work.wide[3]
    H, tilted = work.square[14], work.square[11]
    _push(link, work, k, k + m, frame, D, push, H)
    first = work.wide[1, 2]
    for a in range(n):
        first[a] = push[a]
    for b in range(n):
        for a in range(n):
            theta[a] = 1e-6 if a == b else 0.0
        _tilt(work, k, m, frame, theta, tilted)
        _push(link, work, k, k + m, tilted, D, push, H)
        for a in range(n):
            columns[a, b] = (push[a] - first[a]) / 1e-6
            turned[a, b] = 1.0 if a == b else 0.0
    lengths = work.wide[1, 3]
    _graded(columns, turned, lengths, n, n)
    for a in range(n):
        for b in range(n):
            inverse[a, b] = 0.0
            for o in range(n):
                if lengths[o] > 1e-6 * lengths[0]:
                    inverse[a, b] += turned[a, o] * columns[b, o] / lengths[o] ** 2


@compiled
def _root(u0, u1, d0, d1):  # type: ignore[no-untyped-def]
    """Root in [0, 1] of the cubic with values u0 < 0 <= u1 and slopes d0, d1 at the ends."""
    low, high = 0.0, 1.0
    for _ in range(40):
        x = 0.5 * (low + high)
        if _cubic(x, u0, u1, d0, d1) < 0.0:
            low = x
        else:
            high = x
    return 0.5 * (low + high)


@compiled
def _cubic(x, u0, u1, d0, d1):  # type: ignore[no-untyped-def]
    start = (1 - x) ** 2 * ((1 + 2 * x) * u0 + x * d0)
    return start + x**2 * ((3 - 2 * x) * u1 + (x - 1) * d1)


@compiled
def _arrives(rules, work, L, lengths, H, m, c, tried):  # type: ignore[no-untyped-def]
    """How many directions a subspace has at which a run has arrived, or 0."""
    odds = 2.0 * np.log(lengths[0])
    j = 0
    while j < c and 2.0 * np.log(lengths[j]) > rules.learned:
        j += 1
    if j == 0 or j == c or lengths[j] >= 1.0:
        return 0
    U, HU, S, vectors = work.square[15], work.square[16], work.square[17], work.square[18]
    for p in range(m):
        for a in range(j):
            U[p, a] = L[p, a] / lengths[a]
    for p in range(m):
        for a in range(j):
            total = 0.0
            for q in range(m):
                total += H[p, q] * U[q, a]
            HU[p, a] = total
    inner = work.square[19]
    for a in range(j):
        for b in range(j):
            total = 0.0
            for p in range(m):
                total += U[p, a] * HU[p, b]
            inner[a, b] = total
            S[a, b] = total
    _rotations(S, vectors, j)
    own = S[0, 0]
    for a in range(j):
        own = min(own, S[a, a])
    if own <= 0.0:
        return 0
    # (I - U U^T) H U, and (I - U U^T) H (I - U U^T)
    side, others = work.square[20], work.square[21]
    for p in range(m):
        for a in range(j):
            total = HU[p, a]
            for b in range(j):
                total -= U[p, b] * inner[b, a]
            side[p, a] = total
    for a in range(j):
        for b in range(j):
            total = 0.0
            for p in range(m):
                total += side[p, a] * side[p, b]
            S[a, b] = total
    _rotations(S, vectors, j)
    push = 0.0
    for a in range(j):
        push = max(push, S[a, a])
    push = np.sqrt(push)
    if push > min(rules.turn * own, 0.7 * tried[j]):
        return 0
    for p in range(m):
        for q in range(m):
            total = H[p, q]
            for a in range(j):
                total -= U[p, a] * HU[q, a] + side[p, a] * U[q, a]
            others[p, q] = total
    _rotations(others, vectors, m)
    fast = 0.0
    for p in range(m):
        fast = max(fast, others[p, p])
    odds = 2.0 * np.log(lengths[j])
    if not (odds < rules.small or fast < 0.5 * rules.at_once * own) or fast > rules.slower * own:
        return 0
    tried[j] = push
    return j


@compiled
def _note(work, row, clock, level, L, H, pace, value, m, c):  # type: ignore[no-untyped-def]
    """Keep time, loss and its slope."""
    D, HD = work.square[10], work.square[12]
    _overlaps(L, m, c, work.square[12], work.square[13], D)
    for i in range(m):
        for j in range(m):
            total = 0.0
            for o in range(m):
                total += H[i, o] * D[o, j]
            HD[i, j] = total
    slope = 0.0
    for i in range(m):
        for j in range(m):
            slope -= (H[i, j] - HD[i, j]) * HD[j, i]
    node = work.nodes[work.used[0]]
    node[0], node[1], node[2], node[3] = row, clock, level - 0.5 * value, slope / pace**2
    work.used[0] += 1


@compiled
def _rates(H, L, lengths, m, c, rates):  # type: ignore[no-untyped-def]
    """Growth of the log-odds of each direction."""
    for a in range(c):
        total = 0.0
        for i in range(m):
            for j in range(m):
                total += L[i, a] * H[i, j] * L[j, a]
        rates[a] = 2.0 * total / lengths[a] ** 2


@compiled
def _remember(runs, row, frame, L, lengths, levels, k, m, c):  # type: ignore[no-untyped-def]
    """Keep the frames in which some directions are learned, and the next is not."""
    rank = k + m
    for j in range(max(k, 1), k + c):
        apart = -2.0 * np.log(lengths[j - k])
        if j > k:
            apart = min(apart, 2.0 * np.log(lengths[j - k - 1]))
        if apart > runs.apart[row, j]:
            runs.apart[row, j] = apart
            for p in range(rank):
                for a in range(k + c):
                    if a < k:
                        runs.between[row, j, p, a] = frame[p, a]
                    else:
                        total = 0.0
                        for q in range(m):
                            total += frame[p, k + q] * L[q, a - k]
                        runs.between[row, j, p, a] = total / lengths[a - k]
    for a in range(c):
        if levels[0] < 2.0 * np.log(lengths[a]) < levels[2]:
            for p in range(rank):
                total = 0.0
                for q in range(m):
                    total += frame[p, k + q] * L[q, a]
                runs.newest[row, k + a, p] = total / lengths[a]


entry = njit(nogil=True, error_model="numpy", fastmath={"contract"}, cache=True)


@entry
def criticals(link, work, frames, known, floor):  # type: ignore[no-untyped-def]
    """Turn frames [U, V] until U is critical, by Newton's method, which needs no stability."""
    rank = frames.shape[1]
    m = rank - known
    D, H, tilted = work.square[10], work.square[14], work.square[11]
    push, theta = work.wide[1, 0], work.wide[1, 1]
    for i in range(m):
        for j in range(m):
            D[i, j] = 0.0
    for i in range(frames.shape[0]):
        for _ in range(12):
            _push(link, work, known, rank, frames[i], D, push, H)
            largest = 0.0
            for a in range(m * known):
                largest = max(largest, abs(push[a]))
            if largest < floor:
                break
            _answer(link, work, known, m, frames[i], D, work.wide[0])
            _push(link, work, known, rank, frames[i], D, push, H)
            size = 0.0
            for a in range(m * known):
                theta[a] = 0.0
                for b in range(m * known):
                    theta[a] -= work.wide[0, a, b] * push[b]
                size = max(size, abs(theta[a]))
            for a in range(m * known):
                theta[a] *= min(1.0, 0.1 / size) if size > 0.0 else 1.0
            _tilt(work, known, m, frames[i], theta, tilted)
            for p in range(rank):
                for q in range(rank):
                    frames[i, p, q] = tilted[p, q]


@entry
def follow(link, rules, runs, work, first, known, turning, limited, level):  # type: ignore[no-untyped-def]
    """Follow runs, from the `first` on, until each has a code; returns where it ran out of nodes.

    `level` is the loss of what is reduced from; `limited` where U turns when others are learned.
    """
    n, m, c = runs.factor.shape
    H, stage, error, trial = work.square[22], work.square[23], work.square[24], work.square[25]
    new, inverse = work.square[26], work.wide[0]
    lengths, before, rates, later = (
        work.square[27, 0],
        work.square[27, 1],
        work.square[28, 0],
        work.square[28, 1],
    )
    paces = work.square[29, 0]
    longer = work.square[30, 0]
    tilted = work.square[31]
    for i in range(first, n):
        if work.used[0] + rules.steps + 2 > work.nodes.shape[0]:
            return i
        row = runs.row[i]
        L, frame = runs.factor[i], runs.frames[i]
        _graded(L, error, lengths, m, c)
        if turning:
            _overlaps(L, m, c, work.square[12], work.square[13], work.square[10])
            _answer(link, work, known, m, frame, work.square[10], inverse)
        pace, value = _flow(link, work, known, turning, frame, inverse, L, m, c, H)
        _rates(H, L, lengths, m, c, rates)
        _note(work, row, runs.clock[row], level, L, H, pace, value, m, c)
        step, clock = runs.step[i], runs.clock[row]
        code = LEFT
        for _ in range(rules.steps):
            for p in range(m):
                for a in range(c):
                    total = 0.0
                    for q in range(m):
                        total += H[p, q] * L[q, a]
                    work.slopes[0, p, a] = total
            paces[0] = pace
            for s in range(1, 7):
                place = trial if s == 6 else stage
                for p in range(m):
                    for a in range(c):
                        total = 0.0
                        for o in range(s):
                            total += STAGE[s, o] * work.slopes[o, p, a]
                        # A stage of a step much too long must stay finite, to be rejected.
                        place[p, a] = min(max(L[p, a] + step * total, -OVERSHOT), OVERSHOT)
                paces[s], value = _flow(
                    link, work, known, turning, frame, inverse, place, m, c, new
                )
                for p in range(m):
                    for a in range(c):
                        total = 0.0
                        for q in range(m):
                            total += new[p, q] * place[q, a]
                        work.slopes[s, p, a] = total
            for p in range(m):
                for a in range(c):
                    total = 0.0
                    for o in range(7):
                        total += ERROR[o] * work.slopes[o, p, a]
                    error[p, a] = step * total
            _graded(trial, error, longer, m, c)
            size = 0.0
            for a in range(c):
                for b in range(c):
                    mixed = 0.0
                    for p in range(m):
                        mixed += trial[p, a] * error[p, b]
                    most = max(longer[a], longer[b])
                    least = min(min(longer[a], longer[b]), LARGEST)
                    size = max(size, abs(mixed) / longer[a] / (most * (1.0 + least * least)))
            elapsed = late = 0.0
            for o in range(7):
                late += ERROR[o] * paces[o]
                if o < 6:
                    elapsed += STAGE[6, o] * paces[o]
            elapsed *= step
            late = abs(step * late)
            then = clock + elapsed
            size = max(size, late / then) / rules.rtol if then > 0.0 else np.inf
            if not np.isfinite(size):
                size = np.inf
            good = size <= 1.0 and then >= clock
            taken = step
            step *= min(max(0.9 * max(size, 1e-10) ** -0.2, 0.2), 4.0)
            if not good:
                continue
            for a in range(c):
                before[a] = 2.0 * np.log(lengths[a])
                lengths[a] = min(longer[a], LARGEST)
                for p in range(m):
                    L[p, a] = trial[p, a] / longer[a] * lengths[a]
            for p in range(m):
                for q in range(m):
                    H[p, q] = new[p, q]
            old, pace = pace, paces[6]
            _rates(H, L, lengths, m, c, later)
            for a in range(c):
                after = 2.0 * np.log(lengths[a])
                for o in range(3):
                    height = rules.levels[o]
                    if before[a] < height <= after and np.isnan(runs.crossing[row, known + a, o]):
                        part = _root(
                            before[a] - height, after - height, rates[a] * taken, later[a] * taken
                        )
                        time = _cubic(part, clock, then, old * taken, pace * taken)
                        runs.crossing[row, known + a, o] = min(max(time, clock), then)
                rates[a] = later[a]
            clock = then
            if turning:
                D, theta, push = work.square[10], work.wide[1, 1], work.wide[1, 0]
                _overlaps(L, m, c, work.square[12], work.square[13], D)
                _answer(link, work, known, m, frame, D, inverse)
                _push(link, work, known, known + m, frame, D, push, new)
                for a in range(m * known):
                    theta[a] = 0.0
                    for b in range(m * known):
                        theta[a] -= inverse[a, b] * push[b]
                _tilt(work, known, m, frame, theta, tilted)
                for p in range(known + m):
                    for q in range(known + m):
                        frame[p, q] = tilted[p, q]
            _remember(runs, row, frame, L, lengths, rules.levels, known, m, c)
            _note(work, row, clock, level, L, H, pace, value, m, c)
            if 2.0 * np.log(lengths[c - 1]) > rules.levels[2]:
                code = LEARNED
            elif pace > 1e290:
                code = NEVER
            elif limited and lengths[0] ** 2 > rules.reach:
                code = LEAVES
            else:
                j = _arrives(rules, work, L, lengths, H, m, c, runs.tried[i])
                if j:
                    code, runs.learned[i] = MEETS, j
            if code != LEFT:
                break
        runs.code[i], runs.step[i], runs.clock[row] = code, step, clock
    return n
