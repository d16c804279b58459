"""Arguments that nobody should pass, and many that one may: all run or are refused clearly."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import mids
from mids.errors import MidsError, TargetSyntaxError
from mids.simulation.simulate import from_spec

REFUSAL_SECONDS = 1.0
RUN_SECONDS = 0.05

numbers = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([100, 1e2, 1e4, 10**6, 2**53, 2**53 + 1, 10**400, 2**63, -1]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
)
junk = st.one_of(
    st.none(),
    numbers,
    st.text(max_size=12),
    st.binary(max_size=4),
    st.complex_numbers(max_magnitude=2),
    st.lists(numbers, max_size=4),
    st.dictionaries(st.text(max_size=5), numbers, max_size=2),
    st.recursive(st.integers(0, 3), lambda inner: st.lists(inner, max_size=3), max_leaves=8),
    st.sampled_from([np.nan, np.array(3), np.array([]), np.array(["a"]), object, {1, 2}, range(3)]),
    st.lists(numbers, min_size=1, max_size=6).map(lambda v: np.array(v, dtype=object)),
)
texts = st.one_of(
    st.sampled_from(
        [
            "h1(z1)",
            "h1(z1) + h1(z1)*h3(z2)",
            "2*h2(z1) - 1/3*z1*z2",
            "staircase(2)",
            "parity(2)",
            "leaps(1,2)",
            "hermite(3)",
            "z1**3*z2",
        ]
    ),
    st.text("hz123()*+-/., ^e", max_size=20),
    st.text(max_size=10),
    st.builds(
        lambda a, b, c: f"{a}*h{b}(z1) + h{c}(z2)",
        st.floats(-1e300, 1e300),
        st.integers(0, 25),
        st.integers(0, 25),
    ),
)
coefficients = st.dictionaries(
    st.tuples(st.integers(-1, 4), st.integers(0, 4)).map(list).map(str), numbers, max_size=3
)
targets = st.one_of(
    texts,
    texts,
    st.builds(
        lambda modes, values: {"modes": modes, "coefficients": values},
        st.lists(st.lists(st.integers(-1, 5), min_size=1, max_size=3), max_size=3),
        st.lists(numbers, max_size=3),
    ),
    coefficients,
    junk,
)
flows = st.one_of(
    st.sampled_from([*mids.flows.names(), "two-time"]),
    st.builds(
        lambda name, parameters: {"name": name, **parameters},
        st.sampled_from([*mids.flows.names(), "none", 3]),
        st.dictionaries(
            st.sampled_from(["ridge", "epsilon", "kernel", "step", "batch", "readout", "ridges"]),
            st.one_of(numbers, junk),
            max_size=2,
        ),
    ),
    junk,
)
dims = st.one_of(
    st.lists(st.sampled_from([10, 100, 1e4, 10**6, 10**12]), min_size=1, max_size=3, unique=True),
    numbers,
    st.lists(numbers, max_size=3),
    junk,
)
times = st.one_of(
    st.just([0.0, 1.0, 10.0, 1e3]),
    st.lists(st.floats(0, 1e6), max_size=6).map(lambda v: sorted({0.0, *v})),
    st.lists(numbers, max_size=4),
    junk,
)
starts = st.one_of(
    st.builds(
        lambda shape, seed: np.random.default_rng(seed).uniform(-0.6, 0.6, shape).tolist(),
        st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple),
        st.integers(0, 9),
    ),
    st.builds(lambda n, c: (np.eye(n) * c).tolist(), st.integers(1, 3), st.floats(0, 1.2)),
    junk,
)
sweeps = st.fixed_dictionaries(
    {"target": targets, "dim": dims},
    optional={
        "runs": st.one_of(st.integers(1, 3), st.lists(st.integers(0, 9), max_size=3), junk),
        "seed": st.one_of(st.integers(0, 2**70), junk),
        "flow": flows,
        "student_rank": st.one_of(st.integers(1, 4), junk),
        "initial": starts,
        "time": times,
        "rtol": st.one_of(st.floats(1e-12, 1e-2), numbers, junk),
        "chunks": st.one_of(st.integers(1, 4), st.just("auto"), junk),
        "unknown": junk,
    },
)


def good(sweep):
    """Keep about half of the sweeps free of all but one peculiarity."""
    base = {"target": "h1(z1) + h1(z1)*h3(z2)", "dim": [100, 1e4], "runs": 2, "rtol": 1e-4}
    return st.sampled_from(sorted(sweep)).map(lambda name: base | {name: sweep[name]})


arguments = st.one_of(sweeps, sweeps.flatmap(good), sweeps.flatmap(good))


def attempt(sweep):
    """Simulate a sweep if it is small; return how it ended, or raise what should not happen."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            ds = from_spec(sweep)
        except MidsError as error:
            seconds = time.process_time() - started
            message = str(error)
            assert seconds < REFUSAL_SECONDS, f"refused after {seconds:.1f} s: {message}"
            assert len(message) < 1000 and (
                "\n" not in message or isinstance(error, TargetSyntaxError)
            )
            return f"refused ({type(error).__name__})", seconds
        part = ds.isel({name: [0] for name in ds["status"].dims})
        target, flow = part.mi.target, part.mi.flow
        student_rank = mids.schema.recipes(part)[bytes(part["recipe"].values).hex()]["student_rank"]
        work = flow.run_seconds(target, int(part.dim[0]), student_rank, part.time.values)
        small = target.rank <= 3 and work <= RUN_SECONDS and part.nbytes <= 1e7
        if flow.name != "two-timescale" or not small:
            return "accepted (too long to run here)", 0.0
        done = part.compute(scheduler="synchronous")
        mids.validate(done)
        assert done.status.item() in (0, 1, 3)
        assert done.status.item() == 3 or math.isfinite(float(done.loss[..., -1].item()))
    return f"ran (status {done.status.item()})", 0.0


def fuzz(count):
    """Try so many sweeps; return how they ended and the longest time until a refusal."""
    ends: Counter[str] = Counter()
    longest = 0.0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(sweep=arguments)
    def one(sweep):
        nonlocal longest
        end, seconds = attempt(sweep)
        ends[end] += 1
        longest = max(longest, seconds)

    one()
    return ends, longest
