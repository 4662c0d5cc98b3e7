"""A run whose store keeps a fifth of its rows ends as one whose store keeps them all."""

import json
from pathlib import Path
from signal import SIGTERM

import numpy as np
import pytest

from pipeline.score.rows import batches
from pipeline.stages import Run, load_recipe, run_extract, run_score, run_train
from stores.activations import ActivationStore
from stores.place import place_at
from stores.rolling import ROLLING as ROLLING_FILE
from stores.rolling import Bound, Rolling
from stores.site import Site
from stores.verify import damage
from tests.conftest import kill_at, start, unmix
from tests.pipeline.conftest import MLP, RESID
from tests.stores.test_rolling import make, rolling_store

CHUNK = (
    310 * 4 * 128 + 4 + 16 + 4
)  # bytes of a file of the wider hook point: rows, their checksum, index and its checksum
KEEP = 4 * CHUNK  # of 20 chunks
ROLLING = ["extract.keep=rolling", f"extract.keep_bytes={KEEP}"]


@pytest.fixture
def folder(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a recipe that trains little. It is the working folder."""
    text = (recipe / "tiny.toml").read_text().replace("n_tokens = 12_800", "n_tokens = 7_680")
    text = text.replace("shard_chunks = 2", "shard_chunks = 1")
    train = """window_chunks = 3
residency = "stream"
[train.topk]
d_sae = 48
k = 4
[train.pca]
n_rows = 2000
[score]
n_sequences = 8
"""
    (recipe / "tiny.toml").write_text(text[: text.index("[train.topk]")] + train)
    monkeypatch.chdir(recipe)
    return recipe


def run_of(runs: str, sets: list[str]) -> Run:
    return Run(load_recipe("tiny.toml", sets), Path(runs) / "tiny", "cpu")


def rows_bytes(run: Run) -> int:
    path = Path(str(run.store_path))
    return sum(f.stat().st_size for h in (RESID, MLP) for f in (path / h / "c").rglob("*") if f.is_file())


def results(run: Run) -> dict[str, str]:
    """Digests of all that the run ends with."""
    units = sorted([*run.folder.glob("train/*/*/manifest.json"), *run.folder.glob("score/*/*/manifest.json")])
    found = {str(f.relative_to(run.folder)): json.dumps(json.loads(f.read_text())["files"]) for f in units}
    return found | {"store": ActivationStore.open(run.store_path).digest}


def all_of(run: Run) -> dict[str, str]:
    run_extract(run)
    run_train(run)
    run_score(run)
    return results(run)


def arguments(*sets: str) -> list[str]:
    return ["tiny.toml", *(word for setting in sets for word in ("--set", setting))]


@pytest.mark.slow
def test_it_ends_with_the_digests_of_one_that_keeps_all_and_stays_within_its_bound(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = []
    put = Rolling._put

    def watched(self: Rolling, *arguments) -> None:
        put(self, *arguments)
        most.append(rows_bytes(rolling))

    monkeypatch.setattr(Rolling, "_put", watched)
    rolling, whole = run_of("rolling", ROLLING), run_of("whole", [])
    run_extract(rolling)
    assert rows_bytes(rolling) == 0
    found = all_of(rolling)
    assert KEEP / 2 < max(most) <= KEEP
    assert not [one for _, some in damage(place_at(rolling.store_path)) for one in some]
    assert found == all_of(whole)
    assert max(most) < rows_bytes(whole) / 5
    plan = json.loads((whole.folder / "extract" / "plan.json").read_text())
    assert not {"keep", "keep_bytes", "batch_sequences"} & set(plan["settings"])


@pytest.mark.slow
def test_killed_as_it_makes_rows_again_it_goes_on_to_the_same_end(folder: Path) -> None:
    killed, alone = run_of("killed", ROLLING), run_of("alone", ROLLING)
    expected = all_of(alone)
    kill_at("*/commits/00007.json", 1, "extract", *arguments(*ROLLING), "--runs", "killed", cwd=folder)
    run_extract(killed)
    for hook_point in (RESID, MLP):
        kill_at(f"*/{hook_point}/c/*/0", 6, "train", *arguments(*ROLLING), "--runs", "killed", cwd=folder)
        assert any(Path("killed").rglob("*.partial"))
    assert all_of(killed) == expected
    assert rows_bytes(killed) <= KEEP


@pytest.mark.slow
def test_asked_to_stop_as_it_makes_rows_again_it_saves_and_goes_on_to_the_same_end(folder: Path) -> None:
    sets, said = [*arguments(*ROLLING, "train.n_tokens=1280"), "--only", f"{MLP}/topk*"], folder / "stderr.txt"
    for name in ("stopped", "alone"):
        unmix("extract", *arguments(*ROLLING), "--runs", name, cwd=folder)
    before_first_batch = [(f"*/{MLP}/c/*/0", 2, SIGTERM)]
    stopped = start("train", *sets, "--runs", "stopped", cwd=folder, signals=before_first_batch, stderr=said)
    assert stopped.wait() == 75
    assert f"stopped by SIGTERM: 1 dictionary at {MLP} saved at step 1 of 10" in said.read_text()
    for name in ("stopped", "alone"):
        unmix("train", *sets, "--runs", name, cwd=folder)
    found = results(run_of("stopped", ROLLING))
    assert found == results(run_of("alone", ROLLING))
    assert len(found) == 2  # the dictionary and the store


def test_a_bound_below_one_window_is_refused_and_a_larger_one_serves(folder: Path) -> None:
    less = f"extract.keep_bytes={2 * CHUNK}"
    unmix("extract", *arguments("extract.keep=rolling", less), cwd=folder)
    refused = unmix("train", *arguments("extract.keep=rolling", less), cwd=folder, check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert (
        f"extract.keep_bytes = {2 * CHUNK} is less than one window of {MLP}, 3 chunks of {3 * CHUNK} bytes"
        in refused.stderr
    )
    assert f"set it to {3 * CHUNK} at least" in refused.stderr
    unmix(
        "train", *arguments("extract.keep=rolling", f"extract.keep_bytes={3 * CHUNK}"), "--only", "*/pca*", cwd=folder
    )


def test_scoring_makes_a_chunk_once_at_all_hook_points(tmp_path: Path) -> None:
    made = []

    def watched(sequences: tuple[int, int], hook_points: tuple[str, ...]) -> dict[str, np.ndarray]:
        made.append(hook_points)
        return make(sequences, hook_points)

    store = rolling_store(tmp_path / "r", make=watched)
    pieces = store.heldout_pieces(store.n_heldout_rows)
    n = sum(len(rows["a"]) for _, rows in batches(store, Site(("a",), ("b",)), pieces, 64, "cpu"))
    assert n == store.n_heldout_rows > 0
    assert made == [("a", "b")] * len(pieces)


def test_a_recipe_that_has_no_extraction_changes_the_bound_where_the_store_has_it(folder: Path) -> None:
    less = ["extract.keep=rolling", f"extract.keep_bytes={2 * CHUNK}", "extract.store=s.zarr"]
    unmix("extract", *arguments(*less), cwd=folder)
    table = f'[train]\nbatch_size = 128\nn_tokens = 128\nwindow_chunks = 3\n[train.pca]\nhook_points = ["{MLP}"]\n'
    (folder / "tiny.toml").write_text(f'store = "s.zarr"\n{table}')
    refused = unmix("train", "tiny.toml", cwd=folder, check=False)
    assert refused.returncode == 2
    assert f"keep_bytes in s.zarr/{ROLLING_FILE} = {2 * CHUNK} is less than one window" in refused.stderr
    assert f"set it to {3 * CHUNK} at least" in refused.stderr
    Bound(3 * CHUNK, 5).put(place_at(folder / "s.zarr"))
    unmix("train", "tiny.toml", cwd=folder)


def test_a_store_that_keeps_all_is_not_taken_for_a_rolling_one(folder: Path) -> None:
    unmix("extract", *arguments(), cwd=folder)
    refused = unmix("extract", *arguments(*ROLLING), cwd=folder, check=False)
    assert refused.returncode == 2
    assert "keep" in refused.stderr
    elsewhere = ["extract.store=runs/tiny/extract/activations.zarr", "--runs", "others"]
    refused = unmix("extract", *arguments(*ROLLING, elsewhere[0]), *elsewhere[1:], cwd=folder, check=False)
    assert refused.returncode == 2
    assert "holds a store that was not extracted so" in refused.stderr


def test_what_a_killed_start_of_a_rolling_store_left_is_not_taken_for_one_that_keeps_all(folder: Path) -> None:
    Bound(KEEP, 5).put(place_at(folder / "s.zarr"))
    refused = unmix("extract", *arguments("extract.store=s.zarr"), cwd=folder, check=False)
    assert refused.returncode == 2
    assert 'extract.keep = "all": s.zarr holds a store that was not extracted so' in refused.stderr
    (folder / "s.zarr" / ROLLING_FILE).unlink()
    unmix("extract", *arguments("extract.store=s.zarr"), cwd=folder)
    assert len(list((folder / "s.zarr" / MLP / "c").iterdir())) == 20


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (["extract.keep=rolling"], "belong together"),
        (["extract.keep_bytes=1000"], "belong together"),
        ([*ROLLING, "extract.shard_chunks=2"], "set shard_chunks = 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(folder: Path, sets: list[str], line: str) -> None:
    refused = unmix("extract", *arguments(*sets), cwd=folder, check=False)
    assert refused.returncode == 2
    assert line in refused.stderr
