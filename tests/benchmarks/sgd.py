"""Samples per second of online gradient descent on one core, beside plain loops of the same steps.

Seconds are CPU time, which other programs on the machine change least.

``python -m tests.benchmarks.sgd --peer PYTHON`` also times a loop in torch, with a Python that has
NumPy and torch. This file imports nothing else at the top, so that it runs there as a script. The
last column is ``sampling="projected"``, the same law without samples in R^d.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CASES = ((256, 1), (256, 256), (1024, 256), (4096, 256), (4096, 4096))
STEP, KEEP, RIDGE = 0.01, 0.875, 1e-4
ROOT = 2**0.5


def loop(xp: Any, normal: Any, dim: int, batch: int, seconds: float) -> float:
    """Run steps on h1(z1) + h1(z1) h1(z2), written for arrays; return samples per second.

    Features of degree 2, link by ridge regression with forgetting, QR retraction.
    """
    W = xp.linalg.qr(normal(dim, 2))[0]
    gram, moment, weight, link = 0.0, 0.0, 0.0, None
    eye = xp.eye(6, dtype=W.dtype)
    started, steps = time.process_time(), 0
    while time.process_time() < started + seconds:
        x = normal(batch, dim)
        label = x[:, 0] * (1 + x[:, 1])
        z = x @ W
        one, two = z[:, 0], z[:, 1]
        unit = xp.ones_like(one)
        values = xp.stack(
            [unit, one, two, (one * one - 1) / ROOT, one * two, (two * two - 1) / ROOT], 1
        )
        if link is not None:
            error = values @ link - label
            first = link[1] + ROOT * link[3] * one + link[4] * two
            second = link[2] + link[4] * one + ROOT * link[5] * two
            gradient = x.T @ xp.stack([error * first, error * second], 1) / batch
            gradient = gradient - W @ (W.T @ gradient)
            W, R = xp.linalg.qr(W - STEP * gradient)
            W = W * xp.sign(xp.stack([R[0, 0], R[1, 1]]))
        gram = KEEP * gram + values.T @ values
        moment = KEEP * moment + values.T @ label
        weight = KEEP * weight + batch
        link = xp.linalg.solve(gram + RIDGE * weight * eye, moment)
        steps += 1
    return steps * batch / (time.process_time() - started)


def numpy_speed(dim: int, batch: int, seconds: float) -> float:
    """Samples per second of the loop in NumPy, double precision."""
    rng = np.random.default_rng(0)
    return loop(np, lambda *shape: rng.standard_normal(shape), dim, batch, seconds)


def torch_speed(dim: int, batch: int, seconds: float) -> float:
    """Samples per second of the loop in torch, single precision, one thread."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return loop(torch, lambda *shape: torch.randn(*shape), dim, batch, seconds)


def own_speed(dim: int, batch: int, seconds: float, sampling: str) -> float:
    """Samples per second of `OnlineSGD`, on one thread."""
    import mids

    def run(steps: int) -> float:
        flow = mids.flows.OnlineSGD(step=STEP, batch=batch, ridge=RIDGE, sampling=sampling)
        ds = mids.simulate(
            "h1(z1) + h1(z1)*h1(z2)", dim=dim, runs=1, flow=flow, time=[0.0, STEP * steps]
        )
        started = time.process_time()
        ds.status.compute(scheduler="synchronous")
        return time.process_time() - started

    run(10)  # compiles
    steps = 10
    while (taken := run(steps)) < seconds:
        steps = int(steps * min(8, max(2, 1.2 * seconds / taken)))
    return steps * batch / taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sgd", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a fraction of a second per loop")
    parser.add_argument("--peer", help="Python with NumPy and torch")
    parser.add_argument("--only-torch", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seconds = 0.02 if arguments.smoke else 1.5
    cases = CASES[:2] if arguments.smoke else CASES
    if arguments.only_torch:
        print(json.dumps([torch_speed(*case, seconds) for case in cases]))
        return
    peers = [None] * len(cases)
    if arguments.peer:
        command = [arguments.peer, str(Path(__file__)), "--only-torch"]
        command += ["--smoke"] if arguments.smoke else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peers = json.loads(done.stdout)
    print("samples per second on one core; h1(z1) + h1(z1)*h1(z2)")
    print(
        f"{'d':>6} {'batch':>6} {'mids':>10} {'NumPy':>10} {'ratio':>6} {'torch':>10} {'ratio':>6} "
        f"{'projected':>10}"
    )
    for (dim, batch), peer in zip(cases, peers, strict=True):
        own, projected = (
            own_speed(dim, batch, seconds, sampling) for sampling in ("ambient", "projected")
        )
        plain = numpy_speed(dim, batch, seconds)
        other = f"{peer:10.3g} {own / peer:6.1f}" if peer else f"{'-':>10} {'-':>6}"
        print(
            f"{dim:6} {batch:6} {own:10.3g} {plain:10.3g} {own / plain:6.1f} {other} "
            f"{projected:10.3g}"
        )


if __name__ == "__main__":
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name) != "1":  # read when NumPy is imported: start again
            settings = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            arguments = [sys.executable, str(Path(__file__)), *sys.argv[1:]]
            root = str(Path(__file__).parents[2])
            settings["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
            sys.exit(subprocess.run(arguments, env=settings, check=False).returncode)
    main()
