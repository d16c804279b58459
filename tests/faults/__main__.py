"""Make all faults and print a table: python -m tests.faults [NAME ...]."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import traceback

from . import calls, cluster, fuzz, hostile, kills, stores


def fuzzed():
    ends, longest = fuzz.fuzz(10_000)
    listed = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    return f"{listed}; longest until a refusal {longest:.2f} s"


def in_folder(fault):
    def run():
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            return fault(folder)

    return run


FAULTS = {
    "workers killed, store": in_folder(cluster.kill_workers),
    "workers killed, lazy": cluster.kill_workers_lazily,
    "writers of stores killed": in_folder(stores.kill_clients),
    "two writers of one store": in_folder(stores.race),
    "disk full": cluster.fill_disk,
    "10 000 argument sets": fuzzed,
    "writers of catalogs killed": in_folder(kills.kill_writers),
    "1 000 hostile recipes": hostile.recipes,
    "300 hostile files": in_folder(hostile.files),
    "300 hostile indexes": in_folder(hostile.indexes),
    "50 hostile servers": hostile.servers,
    "500 command lines": in_folder(calls.command_lines),
    "1 000 calls with wrong types": calls.calls,
    "100 000 opens in threads": in_folder(calls.opens),
}


MOST = 2**33
"""Bytes of address space of the processes: far more than they should need."""


def main(names):
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))  # what needs more fails alone
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
        owners = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        peak = max(resource.getrusage(owner).ru_maxrss for owner in owners) / 2**20
        print(
            f"| {name} | {result}; memory {peak:.2f} GB | {time.perf_counter() - started:.0f} |",
            flush=True,
        )
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
