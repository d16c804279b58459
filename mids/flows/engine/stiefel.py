"""Right-hand side and Jacobian of the flow of frame and link, compiled.

At a link ``S`` the frame follows the gradient on the Stiefel manifold of
``<S, A_M f*>``: with ``D = d<S, A_M f*>/dM``,

    M' = D - M sym(M^T D),    S' = rate (A_M f* - decay S).

The state is M row by row, then S if the link moves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from .compile import compiled
from .linear import orthogonalise
from .link_tables import LinkTables

__all__ = [
    "Work",
    "averaged_links",
    "jacobian",
    "singular",
    "slope",
    "slope_and_jacobian",
    "work_for",
]


class Work(NamedTuple):
    """Scratch of one thread."""

    buffer: np.ndarray
    coupling: np.ndarray
    bend: np.ndarray
    small: np.ndarray


def work_for(table: LinkTables) -> Work:
    """Scratch for a table; not compiled, because compiled code here allocates nothing."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    entries = rank * students
    return Work(
        np.zeros(table.buffer),
        np.zeros((entries, len(table.root))),
        np.zeros((entries, entries)),
        np.zeros((3, max(entries, students * students))),
    )


@compiled
def evaluate(table: LinkTables, state: np.ndarray, work: Work) -> None:
    """Put the target's derivatives at ``z = M y`` into the buffer, and the coupling."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    buffer = work.buffer
    for node in range(table.node.shape[0]):
        degree, at = table.node[node, 0], table.node[node, 1]
        if degree == 0:
            buffer[at] = table.constant[node]
            continue
        for k in range(table.size[degree]):
            buffer[at + k] = 0.0
        before = table.first[degree - 1]
        for i in range(rank):
            child = table.child[node, i]
            if child < 0:
                continue
            source = table.node[child, 1]
            for j in range(students):
                factor = state[i * students + j] / degree
                if factor == 0.0:
                    continue
                for k in range(table.size[degree - 1]):
                    buffer[at + table.successor[before + k, j]] += factor * buffer[source + k]
    for member in range(table.family.shape[0]):
        degree, link = table.family[member, 0], table.family[member, 1]
        for i in range(rank):
            node = table.slope[member, i]
            if node < 0:
                continue
            at = table.node[node, 1]
            for j in range(students):
                for k in range(table.size[degree - 1]):
                    gamma = link + table.successor[table.first[degree - 1] + k, j]
                    work.coupling[i * students + j, gamma] = table.root[gamma] * buffer[at + k]


@compiled
def averaged(table: LinkTables, work: Work, out: np.ndarray, at: int) -> None:
    """Put the coefficients of ``A_M f*`` at the state evaluated last into ``out[at:]``."""
    for member in range(table.family.shape[0]):
        degree, link, node = (
            table.family[member, 0],
            table.family[member, 1],
            table.family[member, 2],
        )
        source = table.node[node, 1]
        for k in range(table.size[degree]):
            out[at + link + k] = table.root[link + k] * work.buffer[source + k]


@compiled
def _forces(
    table: LinkTables,
    state: np.ndarray,
    link: np.ndarray,
    rate: float,
    force: np.ndarray,
    product: np.ndarray,
    work: Work,
) -> None:
    """D and ``sym(M^T D)`` of a state."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    entries = rank * students
    evaluate(table, state, work)
    for e in range(entries):
        total = 0.0
        for gamma in range(table.root.shape[0]):
            value = link[gamma] if rate == 0.0 else state[entries + gamma]
            total += work.coupling[e, gamma] * value
        force[e] = total
    for a in range(students):
        for b in range(a + 1):
            total = 0.0
            for i in range(rank):
                total += state[i * students + a] * force[i * students + b]
                total += state[i * students + b] * force[i * students + a]
            product[a * students + b] = 0.5 * total
            product[b * students + a] = 0.5 * total


@compiled
def slope(
    table: LinkTables,
    state: np.ndarray,
    link: np.ndarray,
    rate: float,
    decay: np.ndarray,
    work: Work,
    out: np.ndarray,
) -> None:
    """Right-hand side; with ``rate`` 0 the link is `link` and not part of the state."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    entries = rank * students
    force, product = work.small[0], work.small[1]
    _forces(table, state, link, rate, force, product, work)
    for i in range(rank):
        for b in range(students):
            total = force[i * students + b]
            for a in range(students):
                total -= state[i * students + a] * product[a * students + b]
            out[i * students + b] = total
    if rate > 0.0:
        averaged(table, work, out, entries)
        for gamma in range(table.root.shape[0]):
            at = entries + gamma
            out[at] = rate * (out[at] - decay[gamma] * state[at])


@compiled
def _bend(table: LinkTables, state: np.ndarray, link: np.ndarray, rate: float, work: Work) -> None:
    """``dD / dM`` at a fixed link, for the state that was evaluated last."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    entries = rank * students
    for e in range(entries):
        for f in range(entries):
            work.bend[e, f] = 0.0
    for member in range(table.family.shape[0]):
        degree, start = table.family[member, 0], table.family[member, 1]
        if degree < 2:
            continue
        low, high = table.first[degree - 2], table.first[degree - 1]
        for i in range(rank):
            for a in range(rank):
                node = table.bend[member, i, a]
                if node < 0:
                    continue
                at = table.node[node, 1]
                for k in range(table.size[degree - 2]):
                    value = work.buffer[at + k]
                    for j in range(students):
                        once = table.successor[low + k, j]
                        for b in range(students):
                            gamma = start + table.successor[high + once, b]
                            own = link[gamma] if rate == 0.0 else state[entries + gamma]
                            work.bend[i * students + j, a * students + b] += (
                                value * table.root[gamma] * own
                            )


@compiled
def _project(
    state: np.ndarray,
    rank: int,
    students: int,
    source: np.ndarray,
    column: int,
    product: np.ndarray,
    out: np.ndarray,
    at: int,
) -> None:
    """Put ``X - M sym(M^T X)`` of a column X of `source` into a column of `out`."""
    for p in range(students):
        for b in range(p + 1):
            total = 0.0
            for i in range(rank):
                total += state[i * students + p] * source[i * students + b, column]
                total += state[i * students + b] * source[i * students + p, column]
            product[p * students + b] = 0.5 * total
            product[b * students + p] = 0.5 * total
    for i in range(rank):
        for b in range(students):
            total = source[i * students + b, column]
            for p in range(students):
                total -= state[i * students + p] * product[p * students + b]
            out[i * students + b, at] = total


@compiled
def jacobian(
    table: LinkTables,
    state: np.ndarray,
    link: np.ndarray,
    rate: float,
    decay: np.ndarray,
    work: Work,
    out: np.ndarray,
) -> None:
    """Exact Jacobian of `slope`."""
    rank, students = table.child.shape[1], table.successor.shape[1]
    entries, count = rank * students, table.root.shape[0]
    force, product, scratch = work.small[0], work.small[1], work.small[2]
    _forces(table, state, link, rate, force, product, work)
    _bend(table, state, link, rate, work)
    for a in range(rank):
        for c in range(students):
            column = a * students + c
            _project(state, rank, students, work.bend, column, scratch, out, column)
            for i in range(rank):
                inner = 0.0
                for p in range(students):
                    inner += state[i * students + p] * force[a * students + p]
                out[i * students + c, column] -= 0.5 * inner
                for b in range(students):
                    out[i * students + b, column] -= (
                        0.5 * state[i * students + c] * force[a * students + b]
                    )
            for b in range(students):
                out[a * students + b, column] -= product[c * students + b]
    if rate > 0.0:
        for gamma in range(count):
            column = entries + gamma
            _project(state, rank, students, work.coupling, gamma, scratch, out, column)
            for e in range(entries):
                out[column, e] = rate * work.coupling[e, gamma]
            for other in range(count):
                out[column, entries + other] = 0.0
            out[column, column] = -rate * decay[gamma]


@compiled
def singular(
    state: np.ndarray, rank: int, students: int, columns: np.ndarray, sizes: np.ndarray
) -> None:
    """Squared singular values of M, descending, and right singular vectors times those values."""
    for i in range(rank):
        for j in range(students):
            columns[j, i] = state[i * students + j]
    orthogonalise(columns, columns.shape[0], rank)
    for i in range(rank):
        sizes[i] = 0.0
        for j in range(students):
            sizes[i] += columns[j, i] * columns[j, i]
    for i in range(rank):  # few: sort by selection
        best = i
        for k in range(i + 1, rank):
            if sizes[k] > sizes[best]:
                best = k
        if best != i:
            sizes[i], sizes[best] = sizes[best], sizes[i]
            for j in range(students):
                columns[j, i], columns[j, best] = columns[j, best], columns[j, i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def slope_and_jacobian(
    table: LinkTables,
    state: np.ndarray,
    link: np.ndarray,
    rate: float,
    decay: np.ndarray,
    work: Work,
    out: np.ndarray,
    matrix: np.ndarray,
) -> None:
    """Right-hand side and Jacobian at a state, for callers in Python."""
    slope(table, state, link, rate, decay, work, out)
    jacobian(table, state, link, rate, decay, work, matrix)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def averaged_links(table: LinkTables, states: np.ndarray, work: Work, out: np.ndarray) -> None:
    """Hermite coefficients of ``A_M f*`` for each row of `states`, which starts with M."""
    for row in range(states.shape[0]):
        evaluate(table, states[row], work)
        averaged(table, work, out[row], 0)
