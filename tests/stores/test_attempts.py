"""Two processes write one shard with other last bits: what is there is whole and one of the two."""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import pytest

from stores.activations import ActivationStore
from stores.description import Description
from stores.place import Place, place_at
from stores.verify import damage as damage_of
from stores.writer import StoreWriter
from tests.conftest import make_store, write_shard

HOOKS = {"blocks.0.hook_resid_post": 6, "blocks.0.mlp.hook_post": 4}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Description:
    """Of a store of two shards."""
    store = make_store(tmp_path_factory.mktemp("like") / "s", n_sequences=20, d=HOOKS)
    assert isinstance(store, ActivationStore)
    return store.description


class Killed(BaseException):
    """What a process is that does nothing any more."""


class Stepped(Place):
    """A place that calls before_step(n) before the n-th change that is made through it, one change at a time."""

    def __init__(self, place: Place, before_step: Callable[[int], None]) -> None:
        self._place, self.root, self._before, self._n, self._lock = place, place.root, before_step, 0, RLock()

    def _step(self, verb: str, *args: Any, **options: Any) -> Any:
        with self._lock:
            self._before(self._n)
            self._n += 1
            return getattr(self._place, verb)(*args, **options)

    def put(self, key: str, data: bytes | memoryview, *, exclusive: bool = False) -> bool:
        return self._step("put", key, data, exclusive=exclusive)

    def move(self, key: str, to: str) -> bool:
        return self._step("move", key, to)

    def remove(self, key: str) -> None:
        self._step("remove", key)

    def remove_folder(self, folder: str) -> None:
        self._step("remove_folder", folder)

    def remove_empty(self, folder: str) -> None:
        self._step("remove_empty", folder)

    def check_writable(self) -> None:
        self._place.check_writable()

    def read(self, key: str) -> bytes:
        return self._place.read(key)

    def fill(self, key: str, offset: int, out: memoryview):
        return self._place.fill(key, offset, out)

    def size(self, key: str) -> int | None:
        return self._place.size(key)

    def names(self, folder: str) -> list[str]:
        return self._place.names(folder)

    def modified(self, key: str) -> float | None:
        return self._place.modified(key)

    def sweep(self) -> None:
        self._place.sweep()


def write(place: Place, description: Description, bits: int, shards: tuple[int, ...] = (0,)) -> StoreWriter:
    """Write shards as a processor does whose last bits are these."""
    writer = StoreWriter(place, description)
    tokens = np.zeros((description.n_sequences, description.context), np.int32)
    values = {h: np.full((description.n_rows, d), 1 + bits * 1e-6, np.float32) for h, d in HOOKS.items()}
    for shard in shards:
        write_shard(writer, shard, tokens, values)
    return writer


def dies_at(step: int) -> Callable[[int], None]:
    def before(n: int) -> None:
        if n >= step:
            raise Killed

    return before


def survives(work: Callable[[], Any]) -> bool:
    try:
        work()
    except Killed:
        return False
    return True


def whose(store: ActivationStore) -> list[float]:
    """Per shard: whose bits it has. Fails when it is a mixture, or not as committed."""
    assert not [damage for _, found in damage_of(store.place) for damage in found]
    first = store.description.sequences(0)[1] * store.description.n_positions
    shards = [(0, first), (first, store.n_rows)]
    values = [{float(v) for h in HOOKS for v in np.unique(store.rows(h, *shard))} for shard in shards]
    assert all(len(v) == 1 for v in values)
    parts = map(store.description.shard_parts, range(2))
    n_train = [sum(n for part, n in own if part == "train") * store.description.n_positions for own in parts]
    sums = sum(n * v.copy().pop() for n, v in zip(n_train, values, strict=True))
    for h in HOOKS:
        np.testing.assert_allclose(store.stats(h).mean, sums / store.n_train_rows, rtol=1e-14)
    return [round((v.pop() - 1) * 1e6) for v in values]


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, description: Description) -> Callable[[], Place]:
    """Makes empty stores."""

    def make() -> Place:
        where = f"memory://attempts/{next(_numbers)}" if request.param == "memory" else tmp_path / str(next(_numbers))
        return StoreWriter.create(where, description).place

    return make


N_STEPS = 10  # of a shard: three arrays and their sums are put, the commit is; four are moved, the folder is removed


def test_one_goes_through_while_the_other_stands_at_any_step(place: Callable[[], Place], description) -> None:
    for step in range(N_STEPS):
        there = place()

        def other(n: int, step: int = step, there: Place = there) -> None:
            if n == step:
                write(there, description, 2)

        first = write(Stepped(there, other), description, 1)
        store = write(there, description, 3, (0, 1)).close()
        winner = whose(store)[0]
        assert winner == (2 if step <= 4 else 1)
        assert len(first.differences) == (winner == 2)
        assert not there.names("attempts")


@pytest.mark.parametrize(
    "own_step", [pytest.param(0, marks=pytest.mark.slow), 3, 5, pytest.param(7, marks=pytest.mark.slow)]
)
def test_either_is_killed_at_any_step_of_the_other(place: Callable[[], Place], description, own_step: int) -> None:
    for step, first_goes_on in itertools.product(range(N_STEPS), (True, False)):
        there = place()

        def other(n: int, there: Place = there, at: int = step, goes_on: bool = first_goes_on) -> None:
            if n == at:
                survives(lambda: write(Stepped(there, dies_at(own_step)), description, 2))
            if n >= at and not goes_on:
                raise Killed

        stepped = Stepped(there, other)
        survives(lambda p=stepped: write(p, description, 1))
        store = write(StoreWriter.create(there.root, description).place, description, 3, (0, 1)).close()
        assert whose(store)[0] in (1, 2, 3)


def test_equal_bits_are_silent_and_other_bits_are_told_in_one_line(tmp_path: Path, description: Description) -> None:
    for bits, differ in ((1, False), (2, True)):
        there = StoreWriter.create(tmp_path / str(bits), description).place
        late = write(Stepped(there, lambda n: n or write(there, description, 1)), description, bits)  # noqa: B023
        assert len(late.differences) == differ
        if differ:
            assert "another process wrote shard 0" in late.differences[0]
            assert "blocks.0.mlp.hook_post/c/0/0" in late.differences[0]
            assert "tokens" not in late.differences[0]


def test_a_process_that_wakes_up_after_all_is_closed_touches_nothing(tmp_path: Path, description: Description) -> None:
    for step in range(N_STEPS):
        there = StoreWriter.create(tmp_path / str(step), description).place

        def finish(n: int, step: int = step, there: Place = there) -> None:
            if n == step:
                write(there, description, 2, (0, 1)).close()

        write(Stepped(there, finish), description, 1)
        assert whose(ActivationStore.open(there.root)) == [2 if step <= 4 else 1, 2]


def test_two_processes_at_once_with_other_bits(tmp_path: Path, description: Description) -> None:
    for n in range(5):
        path = tmp_path / str(n)
        children = [forked(lambda bits=bits, path=path: write_and_close(path, description, bits)) for bits in (1, 2, 3)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        assert all(bits in (1, 2, 3) for bits in whose(ActivationStore.open(path)))


@pytest.mark.parametrize("step", range(9))
def test_a_process_is_killed_at_any_rename_or_link(tmp_path: Path, description: Description, step: int) -> None:
    """Four files get their names in the attempt, then the commit does, then four are moved."""
    StoreWriter.create(tmp_path / "s", description)
    child = forked(lambda: write(place_at(tmp_path / "s"), description, 1), dies_at=step)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert StoreWriter.resume(tmp_path / "s").missing() == ([0, 1] if step <= 4 else [1])
    assert whose(write_and_close(tmp_path / "s", description, 2)) == [1 if step > 4 else 2, 2]


def write_and_close(path: Path, description: Description, bits: int) -> ActivationStore:
    place = StoreWriter.create(path, description).place
    return write(place, description, bits, (0, 1)).close()


def forked(work: Callable[[], Any], dies_at: int = -1) -> int:
    """The id of a child that does this, and kills itself before its dies_at-th rename or link."""
    if child := os.fork():
        return child
    status = 1
    try:
        n = itertools.count()
        sys.addaudithook(lambda e, _: e in ("os.rename", "os.link") and next(n) == dies_at and os.kill(os.getpid(), 9))
        work()
        status = 0
    finally:
        os._exit(status)


def test_what_killed_processes_left_is_swept_when_it_is_old(tmp_path: Path, description: Description) -> None:
    there = StoreWriter.create(tmp_path / "s", description).place
    for _ in range(2):
        survives(lambda: write(Stepped(there, dies_at(3)), description, 1))
    old, young = (tmp_path / "s" / "attempts" / name for name in there.names("attempts"))
    for path in (*old.iterdir(), old):
        os.utime(path, (0, path.stat().st_mtime - 3600))
    write(there, description, 2, (0, 1)).close()
    assert [young.name] == there.names("attempts")


@pytest.mark.slow
def test_on_s3_a_loser_compares_and_a_killed_winners_files_are_moved(s3: str, description: Description) -> None:
    for step in (0, 4, 5, 7):
        there = StoreWriter.create(f"{s3}/attempts/{step}", description).place
        survives(lambda there=there, step=step: write(Stepped(there, dies_at(step)), description, 1))
        late = write(Stepped(there, lambda n, t=there: n or write(t, description, 2, (0, 1))), description, 3, (0, 1))
        assert len(late.differences) == 1
        assert whose(late.close()) == [1 if step > 4 else 2, 2]
