"""Run the benchmarks; the peers live in an environment of their own, made on the first run."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = (
    *("diffrax==0.7.2", "jax==0.10.2", "numbalsoda==0.3.4", "heyoka==7.13.2"),
    *("scikit-sundae==1.2.0", "sympy"),
)
SECTIONS = (
    "speed",
    "compiled",
    "analyses",
    "limit",
    "threads",
    "startup",
    "memory",
    "graph",
    "sgd",
)


def environment(folder: Path) -> Path:
    """Python of an environment with the peers and what the package needs."""
    python = folder / "bin" / "python"
    marker = folder / "complete"
    if not marker.exists():
        if shutil.which("gfortran") is None:
            raise SystemExit("numbalsoda is built with a Fortran compiler: install gfortran")
        print(f"installing the peers into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", f"{ROOT}[distributed]", *PEERS], check=True
        )
        marker.touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"some of {', '.join(SECTIONS)}; all if none")
    parser.add_argument(
        "--smoke", action="store_true", help="seconds instead of minutes, SciPy as the only peer"
    )
    parser.add_argument(
        "--environment",
        type=Path,
        default=Path(tempfile.gettempdir()) / "mids-benchmarks",
        help="folder of the environment with the peers (default: %(default)s)",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    python = Path(sys.executable) if arguments.smoke else environment(arguments.environment)
    settings = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    }
    for section in arguments.sections or SECTIONS:
        command = [python, "-m", f"tests.benchmarks.{section}", *["--smoke"] * arguments.smoke]
        subprocess.run(command, check=True, cwd=ROOT, env=settings)


if __name__ == "__main__":
    main()
