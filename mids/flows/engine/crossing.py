"""The exact time at which an overlap crosses a level within a step."""

from __future__ import annotations

from numba import types

from .compile import ADDRESS, caller, piece
from .linear import narrow, trial
from .observe import call_begin, call_settle, fraction, interpolate
from .state import (
    ACTIVE,
    ADVANCE,
    BEGIN,
    END,
    HESSIAN,
    KEPT_END,
    POINT,
    SETTLE,
    START,
    Active,
    machine_at,
)
from .steps import call_advance

__all__ = ["call_cross", "cross"]

_SIGNATURE = types.float64(
    ADDRESS,
    ACTIVE,
    types.int64,
    types.float64,
    types.float64,
    types.boolean,
    types.int64,
    types.float64,
    types.float64,
)
call_cross = caller(_SIGNATURE)


@piece(_SIGNATURE)
def cross(
    where: int,
    active: Active,
    clock: int,
    pace: float,
    h: float,
    explicit: bool,
    direction: int,
    threshold: float,
    close: float,
) -> float:
    """Time after the start of the step at which log-odds reach a threshold.

    Found on the interpolant, then made as accurate as the steps: a step that ends there, and
    Newton's correction with the slope there.  Overwrites the step, but not its interpolant.
    """
    _, work, step, pieces = machine_at(where)
    size = active.size
    state, log_odds = step.state, work.log_odds[2]
    low, high, theta = 0.0, 1.0, 1.0
    call_settle(pieces[SETTLE], where, active, KEPT_END, 2)
    f_high = log_odds[direction] - threshold
    f_low = state[START, direction - active.saturated] - threshold
    # A run that starts close to the threshold has a short time, to the same relative accuracy.
    enough = 10.0 * close * min(1.0, abs(f_low))
    for iteration in range(50):
        theta = trial(low, high, f_low, f_high, iteration)
        interpolate(state, size, theta)
        call_settle(pieces[SETTLE], where, active, POINT, 2)
        value = log_odds[direction] - threshold
        if abs(value) < close or high - low < 1e-12:
            break
        low, high, f_low, f_high = narrow(low, high, f_low, f_high, theta, value)
    time = 0.0
    for _ in range(3):
        elapsed = call_advance(pieces[ADVANCE], where, active, clock, pace, theta * h, explicit)
        call_settle(pieces[SETTLE], where, active, END, 2)
        call_begin(pieces[BEGIN], where, active, 2)
        missing = threshold - log_odds[direction]
        time = elapsed + missing / (2.0 * work.square[HESSIAN, direction, direction])
        if abs(missing) < enough:
            break
        theta = fraction(step.time_dense, time)
    return time
