"""Hold a catalog against the tools of others, in an environment of their own.

``python -m tests.verification.interoperability [CATALOG]`` takes minutes and about 1.5 GB: it
installs frictionless, intake-esm, compliance-checker and h5py beside this package, and ends with
exit code 1 if one of them has a complaint that is not expected.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("frictionless", "intake-esm", "compliance-checker", "h5py")
EXPECTED = "Coordinate variable 'time' should have standard_name='time'"
"""The only complaint about CF: times here are dimensionless, and standard names are for seconds."""

INTAKE = """
import sys, dask.system, intake, mids
dask.system.CPU_COUNT = 1  # files are opened in as many threads, in which netCDF is not safe
catalog = intake.open_esm_datastore("catalog.json")
datasets = catalog.to_dataset_dict(threaded=False, progressbar=False)
assert len(datasets) == len(catalog.df) == int(sys.argv[1]), len(datasets)
for ds in datasets.values():
    ds.mi.validate()
flow = catalog.df.flow.iloc[0]
found = catalog.search(flow=flow).to_dataset_dict(threaded=False, progressbar=False)
assert len(found) == (catalog.df.flow == flow).sum()
print(f"intake-esm: {len(datasets)} datasets pass validate")
"""
XARRAY = """
import sys, xarray as xr
for path in sys.argv[1:]:
    with xr.open_dataset(path) as ds:
        assert ds.load().loss.dims == ("dim", "run", "time")
assert "mids" not in sys.modules
print(f"xarray: {len(sys.argv) - 1} files read")
"""
H5PY = """
import sys, h5py
for path in sys.argv[1:]:
    with h5py.File(path) as file:
        names = ("title", "summary", "source", "references", "comment", "license", "mids_recipes")
        for name in names:
            assert file.attrs[name], name
        loss = file["loss"]
        assert (loss.compression, loss.shuffle, loss.fletcher32) == ("gzip", True, True)
        assert loss.dtype == "f4" and file["time"].dtype == "f8"
        assert file["crossing_time"].dtype == "f8"
        loss[...]
print(f"h5py: {len(sys.argv) - 1} files say what they are, and their encoding is right")
"""


def environment(folder: Path) -> Path:
    """Return the programs of an environment with the tools, made if it is not there."""
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    if not programs.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [programs / "python", "-m", "pip", "install", "-q", str(ROOT), *TOOLS]
        subprocess.run(pip, check=True)
    return programs


def check(catalog: Path, programs: Path) -> list[str]:
    """Run all tools and return the complaints."""
    files = sorted(str(path.relative_to(catalog)) for path in catalog.glob("data/*.nc"))

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(programs / str(command[0])), *map(str, command[1:])],
            cwd=catalog,
            env={**os.environ, "ITK_ESM_THREADING": "False"},
            capture_output=True,
            text=True,
        )

    complaints = []
    runs = {
        "frictionless": run("frictionless", "validate", "datapackage.json"),
        "intake-esm": run("python", "-c", INTAKE, len(files)),
        "xarray": run("python", "-c", XARRAY, *files),
        "h5py": run("python", "-c", H5PY, *files),
    }
    for name, done in runs.items():
        print(done.stdout if name != "frictionless" else f"frictionless: {done.returncode}")
        if done.returncode != 0:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            complaints.append(f"{name}: exit code {done.returncode}, {said}")
    for file in files:
        report = run("compliance-checker", "-t", "cf:1.11", "-f", "json", "-o", "-", file)
        found = set(messages(json.loads(report.stdout[report.stdout.index("{") :])))
        complaints += [f"CF, {file}: {text}" for text in found if not text.startswith(EXPECTED)]
    print(f"compliance-checker: {len(files)} files, nothing but the wish about time")
    if ncdump := shutil.which("ncdump"):
        header = subprocess.run([ncdump, "-h", catalog / files[0]], capture_output=True, text=True)
        print(header.stdout)
    return complaints


def messages(report: object) -> list[str]:
    """Return all messages of a compliance report, however deep."""
    if isinstance(report, dict):
        found = [str(text) for text in report.get("msgs", [])]
        return found + [text for value in report.values() for text in messages(value)]
    if isinstance(report, list):
        return [text for value in report for text in messages(value)]
    return []


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalog", type=Path, nargs="?", default=ROOT / "catalog")
    parser.add_argument("--environment", type=Path, help="folder of the environment, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        programs = environment((options.environment or Path(folder, "environment")).absolute())
        complaints = check(options.catalog.absolute(), programs)
    print("\n".join(complaints) or "no complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
