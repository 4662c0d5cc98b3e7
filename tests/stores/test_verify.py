"""Whatever is done to a store, one command leads it to health, and the message names it."""

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.activations import ActivationStore
from stores.commits import file_key
from stores.description import StoreError
from stores.place import Folder
from stores.verify import damage, repair
from stores.writer import StoreWriter
from tests.conftest import make_store, unmix, write_shard

HOOK = "blocks.0.hook_resid_post"
EVERY_FILE = [f"commits/0000{i}.{end}" for i in range(4) for end in ("json", "npz")]
EVERY_FILE += [f"{array}/c/{i}/0" for array in ("tokens", HOOK) for i in range(4)]
EVERY_FILE += ["manifest.json", "zarr.json", "tokens/zarr.json", f"{HOOK}/zarr.json"]


def values() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Tokens and rows of make_store's."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 100, (60, 11), dtype=np.int32)
    return tokens, {HOOK: rng.normal(size=(600, 6)).astype(np.float32)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": cut,
    "emptied": lambda data: b"",
    "removed": lambda data: None,
    "garbage": lambda data: b"\0\xff{" * 100,
    "other JSON": lambda data: b"[1, null]",
    "no keys": lambda data: b"{}",
    "a digit": lambda data: re.sub(rb"[1-9]", lambda found: b"7" if found[0] != b"7" else b"8", data, count=1),
    "one bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
}


def damaged(path: Path, how: str) -> None:
    found = DAMAGES[how](path.read_bytes())
    path.unlink() if found is None else path.write_bytes(found)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["commits/00001.json", "commits/00001.npz", f"{HOOK}/c/1/0", "manifest.json",
                                  "zarr.json", "tokens/zarr.json", f"{HOOK}/zarr.json"])  # fmt: skip
def test_verify_names_what_leads_to_health(tmp_path: Path, name: str, how: str, finished: bool) -> None:
    path = tmp_path / "a store"  # the command that is named is one for a shell
    whole = make_store(path)
    assert isinstance(whole, ActivationStore)
    if not finished:
        if how not in ("cut", "removed", "a digit"):
            return
        if name == "manifest.json" or (name == "commits/00001.json" and how == "removed"):
            return  # nothing is there, or nothing is wrong
        (path / "manifest.json").unlink()
    damaged(path / name, how)
    before = tree(path)
    found = unmix("verify", str(path), cwd=tmp_path, check=False)
    if (name, how, finished) == ("manifest.json", "removed", True):
        assert (found.returncode, "4 of 4 shards are there" in found.stdout) == (0, True)
    else:
        assert found.returncode == 1
        assert str(path / name) in found.stdout
        assert f"unmix verify '{path}' --repair" in found.stderr
    assert tree(path) == before
    repaired = unmix("verify", str(path), "--repair", cwd=tmp_path)
    assert ("unmix extract" in repaired.stdout) == (found.returncode == 0 or name[-1] == "0" or "commits" in name)
    assert healed(path).digest == whole.digest
    assert unmix("verify", str(path), cwd=tmp_path).returncode == 0


def healed(path: Path) -> ActivationStore:
    """As extract does: write what is missing, and close."""
    writer = StoreWriter.resume(path)
    for shard in writer.missing():
        write_shard(writer, shard, *values())
    return writer.close()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(EVERY_FILE), st.sampled_from(sorted(DAMAGES))), max_size=4, unique_by=lambda x: x[0]
    )
)
def test_any_damage_then_repair_and_extract_ends_in_the_same_digest(
    tmp_path_factory, done: list[tuple[str, str]]
) -> None:
    if {"zarr.json", "tokens/zarr.json"} <= {name for name, _ in done}:
        return  # of two copies one has to be left
    path = tmp_path_factory.mktemp("any") / "s"
    whole = make_store(path)
    assert isinstance(whole, ActivationStore)
    for name, how in done:
        damaged(path / name, how)
    repair(whole.place, [d for _, some in damage(whole.place) for d in some])
    assert healed(path).digest == whole.digest
    assert not [d for _, some in damage(whole.place) for d in some]
    assert np.array_equal(ActivationStore.open(path).rows(HOOK, 0, 600), values()[1][HOOK])


@pytest.mark.parametrize("name", ["commits/00001.json", "manifest.json", "zarr.json", f"{HOOK}/c/1/0"])
@pytest.mark.parametrize("how", DAMAGES)
def test_every_error_names_a_command_that_works(store: ActivationStore, name: str, how: str) -> None:
    damaged(Path(store.place.root) / name, how)
    with pytest.raises(StoreError) as error:
        ActivationStore.open(store.place.root).rows(HOOK, 0, 600)
    if name in ("commits/00001.json", "manifest.json") and how == "removed":
        assert "run `unmix extract` again" in str(error.value)
    else:
        assert f"run `unmix verify {store.place.root} --repair`" in str(error.value)
        assert name in str(error.value)


def test_both_copies_of_the_description_damaged_is_told(store: ActivationStore, tmp_path: Path) -> None:
    for name in ("zarr.json", "tokens/zarr.json"):
        damaged(Path(store.place.root) / name, "cut")
    done = unmix("verify", store.place.root, "--repair", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert f"remove {store.place.root} and run `unmix extract`" in done.stderr


def test_a_shard_that_was_made_again_since_it_was_found_damaged_stays(store: ActivationStore) -> None:
    place, hook_point = store.place, store.hook_points[0]
    tokens, rows = store.tokens(0, 16), store.rows(hook_point, 0, 160)
    place.put(file_key(hook_point, 0), b"")
    found = [one for _, own in damage(place) for one in own]
    repair(place, found)
    writer = StoreWriter.resume(place.root)
    writer.write_shard(0, tokens, {hook_point: rows})
    assert writer.close().digest == store.digest
    assert not repair(place, found).missing()
    assert ActivationStore.open(place.root).digest == store.digest


@pytest.mark.parametrize("finished", [True, False])
def test_a_commit_of_another_store_is_taken_back(tmp_path: Path, finished: bool) -> None:
    make_store(tmp_path / "s", close=finished)
    place = Folder(tmp_path / "s")
    file = tmp_path / "s" / "commits" / "00001.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"identity": "0" * 64}))
    found = [one for _, own in damage(place) for one in own]
    assert [one.shard for one in found if "of a store of another description" in one.what] == [1]
    assert repair(place, found).missing() == [1]


def test_an_io_error_is_named_and_the_rest_is_checked(
    store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = Folder.fill
    for number, taken_back in ((errno.EACCES, False), (errno.EIO, True)):

        def failing(place: Folder, key: str, offset: int, out: memoryview, number: int = number):
            if key == f"{HOOK}/c/1/0":
                raise OSError(number, "no luck")
            return fill(place, key, offset, out)

        damaged(Path(store.place.root) / HOOK / "c" / "3" / "0", "emptied")
        monkeypatch.setattr(Folder, "fill", failing)
        found = [d for _, some in damage(store.place) for d in some]
        assert [(d.shard, d.passing) for d in found] == [(1, not taken_back), (3, False)]
        assert f"{HOOK}/c/1/0 cannot be read: no luck" in found[0].what
        done = unmix("verify", store.place.root, "--repair", cwd=tmp_path, check=False)
        assert done.returncode == (0 if taken_back else 1)
        monkeypatch.undo()
        assert StoreWriter.resume(store.place.root).missing() == ([1, 3] if taken_back else [3])
        healed(Path(store.place.root))


def test_the_exit_code_says_sound_damaged_or_bad_input(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    assert unmix("verify", "s", cwd=tmp_path).returncode == 0
    assert unmix("verify", "nothing", cwd=tmp_path, check=False).returncode == 2
    damaged(tmp_path / "s" / "commits" / "00000.json", "emptied")
    assert unmix("verify", "s", cwd=tmp_path, check=False).returncode == 1
    assert unmix("verify", "s", "--repair", cwd=tmp_path).returncode == 0
    assert "3 of 4 shards are there" in unmix("verify", "s", cwd=tmp_path).stdout


def test_what_another_gave_the_store_is_ignored_and_stays(tmp_path: Path) -> None:
    writer = make_store(tmp_path / "s", close=False)
    assert isinstance(writer, StoreWriter)
    root = tmp_path / "s" / "zarr.json"
    metadata = json.loads(root.read_text())
    metadata["attributes"]["title"] = {"from": "elsewhere"}
    root.write_text(json.dumps(metadata))
    writer = StoreWriter.resume(tmp_path / "s")
    writer.end_at(48)
    digest = writer.close().digest
    assert json.loads(root.read_text())["attributes"]["title"] == {"from": "elsewhere"}
    assert not [d for _, some in damage(writer.place) for d in some]
    assert ActivationStore.open(tmp_path / "s").digest == digest


BAD = {
    "n_sequences": [0, -3, 10**30, 1.5, "60", None, True],
    "chunk_sequences": [0, 10**12],
    "shard_chunks": [0, None],
    "context": [0, 3],
    "positions": [[], [1, 1], [-1], [11], "x", [1.0]],
    "hook_points": [[], ["a", "a"], ["../../x"], ["commits"], [3], "x"],
    "d": [[], [6, 6], [0], [-1], ["6"], 6, [10**12]],
    "dtype": ["float8", "O", 3],
    "model": [3, None, ["x"]],
    "bos": [1, None],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, some in BAD.items() for v in some])
def test_an_attribute_that_cannot_be_is_named(store: ActivationStore, key: str, value: object) -> None:
    root = Path(store.place.root) / "zarr.json"
    metadata = json.loads(root.read_text())
    metadata["attributes"][key] = value
    root.write_text(json.dumps(metadata))
    with pytest.raises(StoreError) as error:
        ActivationStore.open(store.place.root)
    assert f"{root} is damaged: attribute {'positions' if (key, value) == ('context', 3) else key}" in str(error.value)
    del metadata["attributes"][key]
    root.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=f"attribute {key} is missing"):
        ActivationStore.open(store.place.root)
