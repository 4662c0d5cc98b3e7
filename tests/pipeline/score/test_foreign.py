"""Dictionaries that others made, beside a run's own."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.config import UserError
from pipeline.score.config import ScoreConfig
from pipeline.score.similarity import mmcs
from pipeline.score.subjects import foreign_subjects
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.conftest import make_store, planted_rows, unmix

HOOK = "blocks.0.hook_resid_post"
D = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of planted rows, a recipe that trains PCA on it, trained."""
    make_store(tmp_path / "s.zarr", d={HOOK: D}, rows=lambda _, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(
        f'store = "{tmp_path}/s.zarr"\n[extract]\nhook_points = ["{HOOK}"]\nn_rows = 1\n'
        "[train]\nbatch_size = 64\nn_tokens = 64\n[train.pca]\nn_rows = 100\n[score]\nat_l0 = [4]\n"
    )
    unmix("train", "r.toml", cwd=tmp_path)
    return tmp_path


def foreign(folder: Path, seed: int = 0, d_sae: int = 20, architecture: str = "standard", **provenance: object) -> Path:
    """A dictionary as another library might have left it: without provenance.json, unless something is to stand in it."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(D, d_sae, generator=generator)
    FeatureDictionary(Spec(architecture, D, d_sae, Site.at(HOOK)), W, torch.zeros(d_sae), W.T, torch.zeros(D)).save(
        folder
    )
    (folder / "provenance.json").unlink()
    if provenance:
        (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def alter(folder: Path, file: str, change: Callable[[dict], object]) -> None:
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))


def score(folder: Path, *dictionaries: str, check: bool = True, cwd: Path | None = None):
    sets = ["--set", f"score.dictionaries={json.dumps([d for d in dictionaries if not d.startswith('--')])}"]
    sets += [option for option in dictionaries if option.startswith("--")]
    return unmix("score", str(folder / "r.toml"), "--runs", str(folder / "runs"), *sets, cwd=cwd or folder, check=check)


def scores(folder: Path) -> dict:
    return json.loads((folder / "runs" / "r" / "score" / "scores.json").read_text())


def refused(done, message: str) -> None:
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_dot_is_called_as_its_folder_and_removes_nothing(folder: Path) -> None:
    score(folder)
    kept = folder / "runs" / "r" / "score" / HOOK / "notes.txt"
    kept.write_text("mine")
    here = foreign(folder / "theirs")
    score(folder, ".", cwd=here)
    assert kept.read_text() == "mine"
    assert [row["name"] for row in scores(folder)["dictionaries"]] == ["pca", "theirs"]


def transcoder(
    folder: Path, reads: tuple[str, ...], d_in: int, writes: tuple[str, ...], d_writes: tuple[int, ...]
) -> Path:
    """Of 3 features, which are always active and write nothing."""
    d_out = sum(d_writes)
    spec = Spec("standard", d_in, 3, Site(reads, writes), d_out=d_out, d_writes=d_writes)
    weights = torch.zeros(d_in, 3), torch.ones(3), torch.zeros(3, d_out), torch.zeros(d_out)
    FeatureDictionary(spec, *weights).save(folder)
    return folder


OUT, PAST = "blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"
CONTRARY = [
    ((HOOK,), D, (OUT,), (D,), f"map is of '{HOOK}--{OUT}', the store has {HOOK}, {PAST}: {OUT} is missing"),
    ((OUT,), D, (HOOK,), (D,), f"map is of '{OUT}--{HOOK}', the store has {HOOK}, {PAST}: {OUT} is missing"),
    ((HOOK,), 7, (PAST,), (8,), f"the store has d = {D} at {HOOK}, ./map takes d_in = 7: was it trained"),
    ((HOOK, PAST), D, (PAST,), (8,), f"the store has d = 20 at {HOOK} + {PAST}, ./map takes d_in = {D}: was it"),
    ((HOOK,), D, (PAST,), (D,), f"the store has d = 8 at {PAST}, ./map writes d_out = {D}: was it trained"),
    ((HOOK,), D, (HOOK, PAST), (8, D), f"the store has d = {D} at {HOOK}, ./map writes d_out = 8: was it trained"),
    (
        (HOOK,),
        D,
        (),
        (),
        f"map is of '', no hook point is known that is written: state hook_point; the store has {HOOK}",
    ),
]


@pytest.mark.parametrize(("reads", "d_in", "writes", "d_writes", "message"), CONTRARY)
def test_a_transcoder_that_does_not_fit_the_store_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reads: tuple[str, ...],
    d_in: int,
    writes: tuple[str, ...],
    d_writes: tuple[int, ...],
    message: str,
) -> None:
    store = make_store(tmp_path / "s.zarr", d={HOOK: D, PAST: 8})
    assert isinstance(store, ActivationStore)
    if writes:
        transcoder(tmp_path / "map", reads, d_in, writes, d_writes)
    else:  # as another library might leave it
        transcoder(tmp_path / "map", reads, d_in, (PAST,), (8,))
        alter(tmp_path / "map", "cfg.json", lambda c: c["metadata"].pop("hook_name_out"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        foreign_subjects(ScoreConfig(dictionaries=("./map",)), store)


def test_a_transcoder_is_scored_at_its_site(folder: Path) -> None:
    make_store(folder / "two.zarr", d={HOOK: D, PAST: 8}, rows=lambda _, n, d: planted_rows(n, d))
    recipe = (folder / "r.toml").read_text().replace("s.zarr", "two.zarr")
    (folder / "two.toml").write_text(recipe.replace("[train.pca]", f'[train.pca]\nhook_points = ["{HOOK}"]'))
    unmix("train", "two.toml", cwd=folder)
    transcoder(folder / "map", (HOOK,), D, (PAST,), (8,))
    done = unmix("score", "two.toml", "--set", 'score.dictionaries=["map"]', cwd=folder)
    assert "is written before" not in done.stderr
    row = json.loads((folder / "runs/two/score/scores.json").read_text())["dictionaries"][1]
    assert row["site"] == f"{HOOK}--{PAST}"
    assert (row["name"], row["method"]) == ("map", "foreign transcoder")
    assert (row["reads"], row["writes"], row["d_in"], row["d_out"]) == ([HOOK], [PAST], D, 8)
    assert row["normalized_mse"] == 1  # it writes zeros
    assert row["l0"] == 3
    assert f"{HOOK}--{PAST}, " in done.stdout


@pytest.mark.parametrize("name", [".hidden", "tab\there"])
def test_a_folder_whose_name_is_none_is_refused(folder: Path, name: str) -> None:
    foreign(folder / name)
    refused(score(folder, f"./{name}", check=False), "the folder is called")
    assert not (folder / "runs" / "r" / "score").exists()


@pytest.mark.parametrize(
    ("hook", "found"),
    [
        ("../../x", "called "),
        ("/tmp/x", "called "),
        ("..", "called "),
        ("a\0b", "'a\\x00b', expected text of one line"),
    ],
)
def test_a_hook_point_that_leads_elsewhere_is_refused(folder: Path, hook: str, found: str) -> None:
    alter(foreign(folder / "theirs"), "cfg.json", lambda c: c["metadata"].update(hook_name=hook))
    refused(score(folder, "theirs", check=False), f"theirs/cfg.json: metadata.hook_name is {found}")
    assert not (folder / "runs" / "r" / "score").exists()


def test_a_method_that_is_no_name_is_refused(folder: Path) -> None:
    foreign(folder / "theirs", method="../x")
    refused(score(folder, "theirs", check=False), 'theirs/provenance.json: method is called "../x"')


def test_a_dictionary_of_another_model_is_refused(folder: Path) -> None:
    foreign(folder / "theirs", model="other/model", model_digest="f" * 64)
    refused(score(folder, "theirs", check=False), "theirs was learned on model ffffffffffff (other/model), the store")
    assert not (folder / "runs" / "r" / "score").exists()


def test_a_model_known_by_another_name_alone_is_a_warning(folder: Path) -> None:
    alter(foreign(folder / "theirs"), "cfg.json", lambda c: c["metadata"].update(model_name="gpt2-small"))
    done = score(folder, "theirs")
    assert "theirs says that it is of model gpt2-small, the store is of none" in done.stderr
    alter(folder / "theirs", "cfg.json", lambda c: c["metadata"].update(model_name="none"))
    assert "model" not in score(folder, "theirs", "--replace").stderr


def test_what_provenance_says_of_the_method_is_in_the_key(folder: Path) -> None:
    """It decides about fvu_first_K and about what a dictionary is compared with, and cfg.json does not have it."""
    foreign(folder / "theirs", architecture="linear")
    score(folder, "theirs")
    (folder / "theirs" / "provenance.json").write_text('{"method": "pca"}')
    refused(score(folder, "theirs", check=False), "input ordered: False → True. Use --replace")
    score(folder, "theirs", "--replace")
    assert "fvu_first_4" in scores(folder)["dictionaries"][1]
    (folder / "theirs" / "provenance.json").write_text('{"method": "truth"}')
    refused(score(folder, "theirs", check=False), "input method: foreign linear → truth")


def test_foreign_dictionaries_are_compared_with_each_other_and_with_ours(folder: Path) -> None:
    names = ["one", "two", "three"]
    for i, name in enumerate(names):
        foreign(folder / name, seed=i, d_sae=16 + 8 * (i > 1))
    score(folder, *names)
    pairs = {(p["a"], p["b"]): p for p in scores(folder)["pairs"]}
    assert set(pairs) == {(a, b) for a in ["pca", *names] for b in ["pca", *names] if a != b}
    assert {p["relation"] for p in pairs.values()} == {"foreign"}
    a, b = (FeatureDictionary.load(folder / name) for name in names[:2])
    expected = mmcs(a.directions, b.directions, signed=False)
    assert pairs["one", "two"]["mmcs"] == pytest.approx(expected, abs=0.05)  # without what is dead
