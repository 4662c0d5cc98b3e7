import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from stores.lease import Leases, sweep
from stores.place import Folder, Place, place_at
from tests.conftest import environment

HOLDER = """
import sys, time
from pathlib import Path
from stores.lease import Leases
from stores.place import Folder
leases = Leases(Folder(Path(sys.argv[1])))
print(leases.acquire("u"), flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Folder(tmp_path)
    return place_at(f"{request.getfixturevalue('s3')}/{tmp_path.name}")


def test_one_holder_at_a_time_and_the_next_one_after_it_gave_back(place: Place) -> None:
    with Leases(place) as a, Leases(place) as b:
        assert a.acquire("u")
        assert a.acquire("u")
        assert not b.acquire("u")
        assert b.acquire("v")
        a.release("u")
        assert b.acquire("u")
        assert b.holds("u")
        assert not a.holds("u")


def test_at_its_end_a_process_gives_all_back(place: Place) -> None:
    with Leases(place) as a:
        a.acquire("u")
    with Leases(place) as b:
        assert b.acquire("u")


def test_who_is_silent_for_long_enough_of_the_watchers_clock_has_lost_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("stores.lease.time.monotonic", lambda: now)
    with Leases(place, beat_s=1e9) as silent, Leases(place) as b:
        assert silent.acquire("u")
        monkeypatch.setattr("stores.lease._here", lambda: {"machine": "another"})
        assert not b.acquire("u")  # the first look begins the count, whatever the file's own time says
        now = 29.0
        assert not b.acquire("u")
        silent._beat()
        now = 58.0
        assert not b.acquire("u")
        now = 89.0
        assert b.acquire("u")
        assert not silent.holds("u")
        silent.release("u")  # of no effect: it is not its own any more
        assert b.holds("u")


def test_a_killed_holder_on_this_machine_is_gone_at_once(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with Leases(Folder(tmp_path)) as leases:
        assert not leases.acquire("u")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert leases.acquire("u")


@pytest.mark.parametrize("word", [b"", b'{"beats": 3}'])
def test_whatever_its_last_word_was_a_silent_process_has_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: bytes
) -> None:
    now, place = 0.0, Folder(tmp_path)
    place.put("leases/held/u/00000001.json", json.dumps({"process": "a" * 32, "machine": "another"}).encode())
    place.put(f"leases/alive/{'a' * 32}.json", word)
    monkeypatch.setattr("stores.lease.time.monotonic", lambda: now)
    with Leases(place) as leases:
        assert not leases.acquire("u")
        now = 31.0
        assert leases.acquire("u")


def test_a_lease_of_which_the_answer_was_lost_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that is asked twice says that the file of its own first answer exists."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    with Leases(Folder(tmp_path)) as leases:
        assert leases.acquire("u")
    monkeypatch.undo()
    place = Folder(tmp_path / "s3")
    put = place.put
    monkeypatch.setattr(place, "put", lambda *args, **options: put(*args, **options) and not options)
    with Leases(place) as leases:
        assert not leases.acquire("u")
        assert leases.acquire("u")
        assert leases.holds("u")


def test_errors_that_pass_cost_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Folder(tmp_path)
    with Leases(place, beat_s=0.01) as leases, Leases(Folder(tmp_path)) as other:
        assert leases.acquire("u")
        with monkeypatch.context() as patch:
            failed = threading.Event()

            def unreachable(*_: object, **__: object) -> bool:
                failed.set()
                raise RuntimeError("no route to the service")  # of a library's own kind

            patch.setattr(place, "put", unreachable)
            assert failed.wait(10)
        beats = place.read(f"leases/alive/{leases.process}.json")
        until = time.monotonic() + 10
        while place.read(f"leases/alive/{leases.process}.json") == beats:
            assert time.monotonic() < until
        stale = OSError(errno.ESTALE, "stale file handle")
        with monkeypatch.context() as patch:
            patch.setattr(other.place, "read", lambda key: throw(stale) if "alive" in key else place.read(key))
            assert not other.acquire("u")


def throw(error: Exception) -> bytes:
    raise error


def test_a_damaged_lease_is_free(tmp_path: Path) -> None:
    with Leases(Folder(tmp_path)) as a, Leases(Folder(tmp_path)) as b:
        assert a.acquire("u")
        (tmp_path / "leases" / "held" / "u" / "00000001.json").write_text("[")
        assert b.acquire("u")
        assert not a.holds("u")


def test_a_number_that_was_swept_and_taken_again_gives_no_lease(tmp_path: Path) -> None:
    """b looked before others took the lease, gave it back, and the third of them swept the second's file."""
    with Leases(Folder(tmp_path)) as a, Leases(Folder(tmp_path)) as b, Leases(Folder(tmp_path)) as c:
        assert a.acquire("u")
        a.release("u")
        look, b._newest = b._newest, lambda key: 1  # what b saw then
        for other in (a, c):
            assert other.acquire("u")
            if other is a:
                a.release("u")
        assert not b.acquire("u")
        b._newest = look
        assert c.holds("u")
        assert not b.holds("u")


def race(folder: Path, i: int, start) -> None:
    """Enter a room that has place for one, forty times."""
    with Leases(Folder(folder)) as leases:
        for turn in range(40):
            start.wait()
            if leases.acquire(f"u{turn}"):
                (folder / f"{turn}-{i}").touch()
            start.wait()


@pytest.mark.slow
def test_of_four_that_begin_at_once_one_wins_in_each_of_forty_rounds(tmp_path: Path) -> None:
    context = get_context("spawn")
    start = context.Barrier(4)
    processes = [context.Process(target=race, args=(tmp_path, i, start)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for turn in range(40):
        assert len(list(tmp_path.glob(f"{turn}-*"))) == 1


def test_sweeping_stops_nobody_who_asks_for_a_lease_meanwhile(tmp_path: Path) -> None:
    place, n_taken = Folder(tmp_path), 0
    done = threading.Event()

    def keep_sweeping() -> None:
        while not done.is_set():
            sweep(place)

    with ThreadPoolExecutor(2) as pool, Leases(place) as leases:
        sweepers = [pool.submit(keep_sweeping) for _ in range(2)]
        try:
            for i in range(600):
                n_taken += leases.acquire(f"u{i % 5}")
                leases.release(f"u{i % 5}")
        finally:
            done.set()
        for sweeper in sweepers:
            sweeper.result()
    assert n_taken
    sweep(place)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("machine", ["this", "another"])
def test_sweeping_leaves_the_living_their_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    place = Folder(tmp_path)
    dead = f"leases/alive/{'d' * 32}.json"
    place.put(dead, b"")
    os.utime(tmp_path / dead, (0, 0))
    with Leases(place) as living, Leases(place) as other:
        assert living.acquire("u")
        if machine == "another":
            monkeypatch.setattr("stores.lease._here", lambda: {"machine": "another"})
        sweep(place)
        assert living.holds("u")
        assert not other.acquire("u")
        assert not place.exists(dead)


def test_a_lease_says_who_holds_it(tmp_path: Path) -> None:
    with Leases(Folder(tmp_path)) as a:
        a.acquire("u")
        word = json.loads((tmp_path / "leases" / "held" / "u" / "00000001.json").read_text())
        assert word["pid"] == os.getpid()
        assert word["host"]
