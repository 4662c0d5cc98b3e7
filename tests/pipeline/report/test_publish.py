"""A run on the hub: what is downloaded has the bits of what was trained, the card says what is there, nothing is lost."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.report.publish import name_repository
from stores.dictionary import FeatureDictionary
from stores.from_rows import write_store
from tests.conftest import planted_rows, unmix
from tests.stores.fake_hub import Hub, fake_hub

REPO, READS, WRITES = "someone/planted", "hidden", "output"
TOPK, MAP, PCA = f"{READS}/topk-d24-k2-s0", f"{READS}--{WRITES}/relu_l1-d24-s0", f"{READS}/pca"
RECIPE = f"""store = "s.zarr"
[train]
batch_size = 64
n_tokens = 640
[[train.topk]]
hook_points = "{READS}"
d_sae = 24
k = 2
seed = [0, 1]
[[train.relu_l1]]
reads = "{READS}"
writes = "{WRITES}"
d_sae = 24
[train.pca]
hook_points = "{READS}"
n_rows = 100
[score]
at_l0 = [4]
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scored run, runs/own, of rows that no language model made; one dictionary has been exported."""
    folder = tmp_path_factory.mktemp("scored")
    x = planted_rows(600, 12)
    write_store(folder / "s.zarr", {READS: x, WRITES: np.roll(x, 3, axis=1)})
    (folder / "own.toml").write_text(RECIPE)
    unmix("run", "own.toml", cwd=folder)
    for place in ("tables", TOPK):
        (folder / "runs/own/report/export" / place).mkdir(parents=True)
        (folder / "runs/own/report/export" / place / "features.csv").write_text("feature\n0\n")
    return folder


@pytest.fixture
def folder(scored: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(scored / "runs", tmp_path / "runs")).parent


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with fake_hub(tmp_path / "cache") as found:
        yield found


def publish(folder: Path, *arguments: str, check: bool = True):
    return unmix("publish", "runs/own", *arguments, cwd=folder, check=check)


def refused(folder: Path, message: str, *arguments: str) -> None:
    done = publish(folder, *arguments, check=False)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def files(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_what_is_uploaded_comes_back_with_its_bits_also_offline(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import ModelCard, constants

    done = publish(folder, "--repo", REPO, "--private", "--license", "apache-2.0")
    repository = hub.repositories[REPO]
    assert done.stdout.splitlines()[-1] == f"publish: {hub.url}/{REPO}/commit/{repository.commit}"
    assert (repository.private, len(repository.commits)) == (True, 1)
    written = files(folder / "runs/own/publish")
    assert repository.files == {name: data for name, data in written.items() if name != "published.json"}
    assert json.loads(repository.files["scores.json"])["dictionaries"]
    assert {f"export/{TOPK}/features.csv", "export/tables/features.csv"} <= repository.files.keys()

    x = torch.from_numpy(planted_rows(9, 12))
    places = (TOPK, TOPK[:-1] + "1", MAP, PCA)
    trained = {place: FeatureDictionary.load(folder / "runs/own/train" / place) for place in places}
    online = {place: FeatureDictionary.from_hub(REPO, place) for place in places}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for place in places:
        offline = FeatureDictionary.from_hub(REPO, place)
        assert offline.provenance["key"] == trained[place].provenance["key"]
        for name, weight in trained[place].weights.items():
            assert weight.equal(online[place].weights[name])
            assert weight.equal(offline.weights[name])
        assert offline.encode(x).equal(trained[place].encode(x))

    card = ModelCard(repository.files["README.md"].decode())
    known = {"license": "apache-2.0", "library_name": "unmix"}
    assert card.data.to_dict() == known | {
        "tags": ["mechanistic-interpretability", "sparse-autoencoder", "transcoder", "saelens", "unmix"]
    }
    code = card.text.split("```python\n")[1].split("```")[0]
    names: dict = {"x": x}
    exec(code, names)
    assert names["z"].equal(trained[TOPK].encode(x))


def test_the_card_has_the_scores_and_what_it_names_is_there(folder: Path) -> None:
    done = publish(folder)
    assert done.stdout.splitlines()[-1].endswith("then upload: unmix publish runs/own --repo OWNER/NAME")
    path = folder / "runs/own/publish"
    card = (path / "README.md").read_text()
    assert str(folder) not in "".join(
        files(path)[name].decode() for name in files(path) if name.endswith((".json", ".md"))
    )
    pictures = [line.split("](")[1][:-1] for line in card.splitlines() if line.startswith("![")]
    assert f"pictures/{READS}/frontier.png" in pictures
    assert sum(name.startswith("pictures/") for name in files(path)) == len(pictures)
    assert all((path / name).is_file() for name in pictures)
    places = [line.split("`")[1] for line in card.splitlines() if line.startswith("| `")]
    assert sorted(places) == sorted(str(p.parent.relative_to(path)) for p in path.rglob("cfg.json"))
    scores = json.loads((folder / "runs/own/score/scores.json").read_text())
    (group,) = [g for g in scores["groups"] if g["name"] == "topk-d24-k2"]
    (line,) = [line for line in card.splitlines() if line.startswith("| topk-d24-k2 |")]
    assert f"{group['scores']['fvu']['mean']:.3f} ± " in line
    assert "CE score" not in card


def test_patterns_choose_dictionaries(folder: Path) -> None:
    publish(folder, "--only", "topk*s0", "--only", "pca")
    found = files(folder / "runs/own/publish")
    assert {name for name in found if name.endswith("cfg.json")} == {f"{TOPK}/cfg.json", f"{PCA}/cfg.json"}
    assert not any(name.startswith(f"pictures/{READS}--") for name in found)
    refused(folder, "--only 'gated*' fits no dictionary; there are", "--only", "gated*")


def test_a_dry_run_writes_nothing(folder: Path, hub: Hub) -> None:
    before = files(folder)
    done = publish(folder, "--dry-run", "--repo", REPO)
    assert files(folder) == before
    assert TOPK in done.stdout.splitlines()
    assert f"publish: would upload it to {hub.url}/{REPO}" in done.stdout
    assert hub.asked == []


def test_a_card_that_was_changed_by_hand_is_kept_and_uploaded(folder: Path, hub: Hub) -> None:
    publish(folder)
    card = folder / "runs/own/publish/README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    publish(folder, "--repo", REPO)
    uploaded = hub.repositories[REPO].files["README.md"].decode()
    assert uploaded == card.read_text()
    assert uploaded.endswith("\nMine.\n")
    assert f'from_hub("{REPO}"' in uploaded
    before = files(folder)
    refused(folder, "publish/README.md was changed by hand, which would be lost: run `mv", "--only", "pca")
    assert files(folder) == before


def test_another_repository_takes_the_place_of_the_first_alone(folder: Path) -> None:
    publish(folder)
    path = folder / "runs/own/publish"
    text = (path / "README.md").read_text()
    name_repository(path, "me/sae")
    assert (path / "README.md").read_text() == text.replace("OWNER/NAME", "me/sae")
    longer = "\nOf me/sae-data, me/sae.v2, some/me/sae and me/sae/x.\n"
    (path / "README.md").write_text((path / "README.md").read_text() + longer + "See me/sae.\n")
    name_repository(path, "me/other")
    assert (path / "README.md").read_text() == text.replace("OWNER/NAME", "me/other") + longer + "See me/other.\n"


def test_what_unmix_did_not_make_is_refused(folder: Path) -> None:
    mine = folder / "runs/own/publish"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    refused(folder, "publish is there without published.json, so unmix did not make it: run `mv")
    assert files(mine) == {"notes.txt": b"mine"}
    shutil.rmtree(mine)
    (folder / "elsewhere").mkdir()
    mine.symlink_to(folder / "elsewhere")
    refused(folder, "publish is there without published.json")


def test_what_is_not_done_yet_is_told_with_the_command(folder: Path) -> None:
    run = folder / "runs/own"
    plan = run / "score" / TOPK / "plan.json"
    found = json.loads(plan.read_text())
    plan.write_text(json.dumps({**found, "inputs": {**found["inputs"], "dictionary_digest": "0"}}))
    refused(folder, f"{TOPK} was made again since it was scored: run `unmix score`")
    publish(folder, "--only", "pca")
    (run / "train" / TOPK / "manifest.json").unlink()
    refused(folder, f"{TOPK} is not trained to its end: run `unmix train` with its recipe first, or leave it out")
    scores = json.loads((run / "score" / "scores.json").read_text())
    rows = [row for row in scores["dictionaries"] if row["name"] != "pca"]
    (run / "score" / "scores.json").write_text(json.dumps({**scores, "dictionaries": rows}))
    refused(folder, f"{PCA} has no scores yet: run `unmix score` with its recipe first", "--only", "pca")
    (run / "score" / "scores.json").unlink()
    refused(folder, "scores.json is missing: run `unmix score` on the recipe of runs/own first")
    refused(folder, "'own' is no name of a repository: expected OWNER/NAME", "--repo", "own")
    refused(folder, "--license 'My own': expected an identifier of the hub's", "--license", "My own")


@pytest.mark.interop
def test_saelens_loads_what_is_published(folder: Path, hub: Hub) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    publish(folder, "--repo", REPO)
    x = torch.from_numpy(planted_rows(9, 12))
    card = hub.repositories[REPO].files["README.md"].decode()
    for place in (TOPK, MAP):
        theirs = saelens.SAE.from_pretrained(REPO, place)
        torch.testing.assert_close(theirs.encode(x), FeatureDictionary.from_hub(REPO, place).encode(x))
    assert f'SAE.from_pretrained("{REPO}", "{TOPK}")' in card
