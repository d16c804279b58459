"""Make all faults and print a table: python -m tests.faults [NAME ...]."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback

from . import cluster, fuzz


def fuzzed():
    ends, longest = fuzz.fuzz(10_000)
    listed = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    return f"{listed}; longest until a refusal {longest:.2f} s"


def in_folder(fault):
    def run():
        with tempfile.TemporaryDirectory() as folder:
            return fault(folder)

    return run


FAULTS = {
    "workers killed, store": in_folder(cluster.kill_workers),
    "workers killed, lazy": cluster.kill_workers_lazily,
    "client killed": in_folder(cluster.kill_clients),
    "disk full": cluster.fill_disk,
    "10 000 argument sets": fuzzed,
}


def main(names):
    chosen = {name: FAULTS[name] for name in names} if names else FAULTS
    failed = 0
    print("| fault | what came of it | seconds |\n|---|---|---|", flush=True)
    for name, fault in chosen.items():
        started = time.perf_counter()
        try:
            result = fault()
        except Exception as error:
            traceback.print_exc()
            result = f"FAILED: {type(error).__name__}: {error}"
            failed += 1
        print(f"| {name} | {result} | {time.perf_counter() - started:.0f} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
