"""The exact time at which an overlap crosses a level within a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ._compile import FLAG, piece
from ._linear import narrow, trial
from ._observe import BEGIN, SETTLE, fraction, interpolate
from ._state import (
    ACTIVE,
    END,
    HESSIAN,
    KEPT_END,
    POINT,
    SCRATCH,
    START,
    STEPPING,
    TABLES,
    Active,
    Scratch,
    Step,
)
from ._steps import ADVANCE
from ._tables import Tables

__all__ = ["CROSS", "cross"]

CROSS = types.float64(
    TABLES,
    ACTIVE,
    types.int64,
    types.float64,
    types.float64,
    FLAG,
    types.int64,
    types.float64,
    types.float64,
    STEPPING,
    SCRATCH,
    types.FunctionType(ADVANCE),
    types.FunctionType(SETTLE),
    types.FunctionType(BEGIN),
)


@piece(CROSS)
def cross(
    table: Tables,
    active: Active,
    clock: int,
    pace: float,
    h: float,
    explicit: bool,
    direction: int,
    threshold: float,
    close: float,
    step: Step,
    work: Scratch,
    advance: Callable[..., Any],
    settle: Callable[..., Any],
    begin: Callable[..., Any],
) -> float:
    """Time after the start of the step at which log-odds reach a threshold.

    Found on the interpolant, then made as accurate as the steps: a step that ends there, and
    Newton's correction with the slope there.  Overwrites the step, but not its interpolant.
    """
    size = active.size
    state, frame, log_odds = step.state, work.frame[2], work.log_odds[2]
    low, high, theta = 0.0, 1.0, 1.0
    settle(state[KEPT_END], work.frame[0], active, work, log_odds, frame)
    f_high = log_odds[direction] - threshold
    f_low = state[START, direction - active.saturated] - threshold
    for iteration in range(50):
        theta = trial(low, high, f_low, f_high, iteration)
        interpolate(state, size, theta)
        settle(state[POINT], work.frame[0], active, work, log_odds, frame)
        value = log_odds[direction] - threshold
        if abs(value) < close or high - low < 1e-12:
            break
        low, high, f_low, f_high = narrow(low, high, f_low, f_high, theta, value)
    time = 0.0
    for _ in range(3):
        elapsed = advance(table, work.base[0], active, clock, pace, theta * h, explicit, step, work)
        settle(state[END], work.frame[0], active, work, log_odds, frame)
        begin(table, frame, log_odds, active, work, work.base[1])
        missing = threshold - log_odds[direction]
        time = elapsed + missing / (2.0 * work.square[HESSIAN, direction, direction])
        if abs(missing) < 10.0 * close:
            break
        theta = fraction(step.time_dense, time)
    return time
