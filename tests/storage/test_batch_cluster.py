"""The manual's batch cluster, with a queue that starts the jobs on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import sys
import time
from pathlib import Path

import dask
import pytest

import mids

pytest.importorskip("distributed")
pytest.importorskip("dask_jobqueue")

ROOT = Path(__file__).parents[2]

SBATCH = """#!/bin/sh
# Start the first two jobs; the others wait for ever. Many are submitted at once.
exec 9> {folder}/lock
flock 9
number=$(ls {folder}/job-*.sh 2>/dev/null | wc -l)
cp "$1" {folder}/job-$number.sh
if [ $number -lt 2 ]; then
    setsid sh {folder}/job-$number.sh > {folder}/job-$number.log 2>&1 9>&- &
    echo $! >> {folder}/running
fi
echo "Submitted batch job $number"
"""

SWEEP = """
target = "h1(z1) + h1(z1)*h3(z2)"
dim = [1e2, 1e6]
runs = 12
chunks = 3
rtol = 1e-5
"""


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Put commands of a queue on the path that start jobs here; return the folder of the jobs."""
    for name, text in (("sbatch", SBATCH), ("scancel", "#!/bin/sh\n")):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(folder=tmp_path))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    if (tmp_path / "running").exists():
        for process in (tmp_path / "running").read_text().split():
            with contextlib.suppress(ProcessLookupError):  # ended with the cluster
                os.killpg(int(process), signal.SIGTERM)


def example():
    """Return the manual's script for a batch cluster."""
    text = (ROOT / "notebooks" / "scale.md").read_text("utf-8")
    (found,) = re.findall(r"```python\n(# sweep\.py.*?)```", text, re.DOTALL)
    return found


@pytest.mark.slow
def test_the_example_of_the_readme(queue):
    (queue / "sweep.toml").write_text(SWEEP)
    loopback = {"scheduler-options": {"host": "127.0.0.1", "dashboard_address": ":0"}}
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **loopback}}):
        exec(compile(example(), "sweep.py", "exec"), {"__name__": "__main__"})
    mids.generate(queue / "sweep.toml", queue / "threads")
    here, there = (mids.open_dataset(queue / name).compute() for name in ("threads", "sweep"))
    assert here.equals(there)

    script = (queue / "job-0.sh").read_text()
    for line in ("-p normal", "-n 1", "--cpus-per-task=1", "--mem=4G", "-t 04:00:00"):
        assert f"\n#SBATCH {line}\n" in script
    (command,) = re.findall(r"^\S+ -m distributed\.cli\.dask_worker .*$", script, re.MULTILINE)
    assert command.startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://127.0.0.1:")
    assert "--nthreads 1 " in command  # netCDF4 is not safe in threads
    assert "--lifetime 230m " in command
    deadline = time.monotonic() + 120  # the second may start when all is done
    for log in (queue / "job-0.log", queue / "job-1.log"):
        while "Start Nanny at: 'tcp://127.0.0.1" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
