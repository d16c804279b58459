"""One writer at a time: the second is told who writes, and the claim ends with its process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid

import pytest
from test_generate import TESTS, TOY

import mids
from mids.errors import FileError, InputError
from mids.simulation.simulate import differences
from mids.storage import store as stores

from tests.faults import stores as faults  # isort: skip

HOLDING = """
import sys, time
from mids.storage.store import Location, claimed
with claimed(Location(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_the_second_writer_is_told_who_writes_until_the_first_is_killed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TESTS.parent,
    )
    assert process.stdout.readline() == "claimed\n"
    with pytest.raises(FileError, match=f"is being written by process {process.pid} on .* since"):
        mids.generate(TOY, tmp_path)
    process.kill()
    process.communicate()
    mids.generate(TOY, tmp_path)


@pytest.mark.slow
def test_writers_that_begin_together_never_mix(tmp_path):
    assert faults.race(tmp_path, races=1).startswith("1 races")


def test_claims_of_object_stores(monkeypatch):
    """A claim that is renewed keeps others out; one that is not is passed over; it is released."""
    monkeypatch.setattr(stores, "BEAT", 0.1)
    location = stores.Location(f"memory://{uuid.uuid4()}")
    told = pytest.raises(FileError, match=f"written by process {os.getpid()} on ")
    with stores.claimed(location), told, stores.claimed(location):
        pass
    assert location.names("claims") == []
    location.write("claims/00000004", b"process 1 on elsewhere")  # killed
    with stores.claimed(location) as lost:
        assert location.names("claims") == ["00000005"]
        location.remove("claims/00000005")  # another one has passed it over
        assert lost.wait(10)


def test_of_many_claims_at_once_one_is_granted(monkeypatch):
    monkeypatch.setattr(stores, "BEAT", 0.1)
    location = stores.Location(f"memory://{uuid.uuid4()}")
    granted, refused, barrier = [], [], threading.Barrier(8)

    def claim(number):
        barrier.wait()
        try:
            with stores.claimed(location):
                granted.append(number)
                while len(refused) < 7:
                    threading.Event().wait(0.01)
        except FileError:
            refused.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(granted), len(refused)) == (1, 7)


def test_a_sweep_that_another_has_begun_is_refused(tmp_path):
    mids.generate(TOY, tmp_path)
    with pytest.raises(InputError, match="holds another sweep: seed is 0 there and 1 here"):
        mids.generate(TOY | {"seed": 1}, tmp_path)
    assert not differences(mids.simulate(**TOY), mids.open_dataset(tmp_path))
