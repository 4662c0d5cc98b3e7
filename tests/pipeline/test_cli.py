"""The whole path, as a user types it, on a tiny model."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from pipeline.score.similarity import matched_cosine
from stores import ActivationStore, FeatureDictionary
from tests.conftest import kill_at, unmix
from tests.pipeline.conftest import MLP, RESID, contents, tree


def weights(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("sae_weights.safetensors"))}


def test_extract_train_score_and_again(recipe: Path) -> None:
    text = (recipe / "tiny.toml").read_text()
    (recipe / "tiny.toml").write_text(text.replace("n_tokens = 12_800", "n_tokens = 5_120"))
    first = unmix("run", "tiny.toml", cwd=recipe)
    assert "extract: done" in first.stdout
    assert "train: done" in first.stdout
    run = recipe / "runs" / "tiny"

    store = ActivationStore.open(run / "extract" / "activations.zarr")
    assert store.hook_points == (RESID, MLP)
    assert store.n_rows >= 6000
    dictionary = FeatureDictionary.load(run / "train" / RESID / "topk-d48-k4-s0")
    x = store.rows(RESID, 0, 50)
    assert (dictionary.encode(torch.from_numpy(x)) != 0).sum(-1).max() <= 4
    assert dictionary.provenance["store_digest"] == store.digest

    scores = json.loads((run / "score" / "scores.json").read_text())
    rows = {(r["site"], r["name"]): r for r in scores["dictionaries"]}
    assert len(rows) == 2 * 10
    for (hook_point, name), row in rows.items():
        assert row["site"] == hook_point
        if name in ("neuron_basis", "pca", "random-s0", "rotation-s0"):
            assert row["fvu"] < 1e-6, name
            assert row["ce_score_zero"] == pytest.approx(1, abs=1e-3)
            assert row["fvu_at_l0_4"] > row["fvu"]
        else:
            assert 0 < row["fvu"] < 1.5
    assert {p["relation"] for p in scores["pairs"]} == {"seed", "larger", "smaller", "method"}
    assert {p.name for p in (run / "score" / RESID).glob("*.png")} == {"frontier.png", "histograms.png", "mmcs.png"}
    assert not list(run.rglob("*.partial*"))
    assert not list(run.rglob("checkpoints"))

    before = tree(run)
    again = unmix("run", "tiny.toml", cwd=recipe)
    for stage in ("extract", "train", "score"):
        assert f"{stage}: nothing to do" in again.stdout
    assert tree(run) == before
    assert done_by_stage("tiny", recipe) == {"extract": 1, "train": 20, "score": 20}

    # Another value of a setting that the folder's name does not carry: refused, with the difference.
    refused = unmix("train", "tiny.toml", "--set", "train.topk.lr=0.01", cwd=recipe, check=False)
    assert refused.returncode == 2
    assert "train.topk.lr: 0.005 → 0.01. Use --replace" in refused.stderr
    assert tree(run) == before
    # Another seed: trained beside the others, which stay as they are.
    more = unmix("train", "tiny.toml", "--set", "train.topk.seed=[0, 1, 2]", cwd=recipe)
    assert "train: done" in more.stdout
    assert (run / "train" / RESID / "topk-d48-k4-s2" / "cfg.json").exists()
    after, curves = tree(run), {f"train/{h}/curves.png" for h in (RESID, MLP)}  # they have a line more now
    kept = [name for name in before if name not in curves and not name.startswith("leases/")]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


@pytest.mark.parametrize("stage", ["extract", "train"])
def test_killed_at_several_points_it_ends_with_the_same_bytes(recipe: Path, stage: str) -> None:
    kept = ["--set", "train.n_tokens=9600", "--set", "train.checkpoint_every_steps=5", "--set", "train.topk.d_sae=48"]
    if stage == "train":
        kept += ["--set", f'extract.hook_points=["{RESID}"]']
    undisturbed, killed = recipe / "runs" / "undisturbed", recipe / "runs" / "killed"
    if stage == "train":
        unmix("extract", "tiny.toml", *kept, "--name", "undisturbed", cwd=recipe)
        shutil.copytree(undisturbed, killed)
    unmix(stage, "tiny.toml", *kept, "--name", "undisturbed", cwd=recipe)

    points = {
        "extract": [("*/commits/*.json", 1), ("*/commits/*.npz", 3), (f"*/{RESID}/c/*", 5)],
        "train": [("*/checkpoints/step-*", n) for n in (2, 7, 3)],
    }
    for pattern, n in points[stage]:
        kill_at(pattern, n, stage, "tiny.toml", *kept, "--name", "killed", cwd=recipe)
    if stage == "train":  # and the disk has lost the end of one dictionary's newest checkpoint
        saved = killed / "train" / RESID
        newest_file = max(saved.glob("*/checkpoints/step-*"), key=lambda path: path.name)
        newest_file.write_bytes(newest_file.read_bytes()[:-1])
    last = unmix(stage, "tiny.toml", *kept, "--name", "killed", cwd=recipe)

    if stage == "extract":
        first, second = (tree(f / "extract" / "activations.zarr") for f in (undisturbed, killed))
        assert contents(first) == contents(second)
    else:
        assert f"{newest_file.name} is damaged" in last.stdout
        assert weights(undisturbed / "train") == weights(killed / "train")
        for name in weights(undisturbed / "train"):
            log = Path(name).parent / "metrics.jsonl"
            if (undisturbed / "train" / log).exists():
                assert (undisturbed / "train" / log).read_text() == (killed / "train" / log).read_text()


def done_by_stage(name: str, cwd: Path) -> dict[str, int]:
    rows = json.loads(unmix("status", "tiny.toml", "--name", name, "--json", cwd=cwd).stdout)
    return Counter(row["stage"] for row in rows if row["state"] == "done")


@pytest.mark.slow
def test_rotations_of_two_layers_killed_and_scored_with_what_the_layers_write(recipe: Path) -> None:
    """The output axes are scored where the store has their hook point, and compared with what the next layer reads."""
    text = (recipe / "tiny.toml").read_text()
    head, score = text[: text.index("[train.topk]")], text[text.index("[score]") :]
    hooks = ["blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out", "blocks.1.hook_resid_mid"]
    table = '[train.jacobian_rotation]\nreads = "blocks.*.hook_resid_mid"\nwrites = "blocks.*.hook_mlp_out"\nn_inputs = 64\n'
    (recipe / "tiny.toml").write_text(head.replace(json.dumps([RESID, MLP]), json.dumps(hooks)) + table + score)
    for name in ("undisturbed", "killed"):
        unmix("extract", "tiny.toml", "--name", name, cwd=recipe)
    unmix("train", "tiny.toml", "--name", "undisturbed", cwd=recipe)
    folders = [recipe / "runs" / name / "train" for name in ("undisturbed", "killed")]
    for n in (2, 2):  # the search may end after some more
        kill_at(f"*/{hooks[0]}--*/*/checkpoints/step-*", n, "train", "tiny.toml", "--name", "killed", cwd=recipe)
    unmix("train", "tiny.toml", "--name", "killed", cwd=recipe)
    whole, killed = weights(folders[0]), weights(folders[1])
    assert len(whole) == 2
    assert whole == killed
    for found in ("jacobian.json", "jacobian.png"):
        first, second = ([p.read_bytes() for p in sorted(f.rglob(found))] for f in folders)
        assert len(first) == 2
        assert first == second
    measured = json.loads(
        (folders[0] / f"{hooks[0]}--{hooks[1]}" / "jacobian_rotation-s0" / "jacobian.json").read_text()
    )
    assert measured["heldout"]["after"]["log"] < measured["heldout"]["before"]["log"]

    unmix("score", "tiny.toml", "--name", "killed", cwd=recipe)
    scores = json.loads((recipe / "runs" / "killed" / "score" / "scores.json").read_text())
    name = "jacobian_rotation-s0"
    rows = [(row["site"], row["name"]) for row in scores["dictionaries"]]
    assert rows == [(hooks[0], name), (hooks[1], f"{name}-output"), (hooks[2], name)]
    assert all(row["fvu"] < 1e-6 for row in scores["dictionaries"])
    (pair,) = (pair for pair in scores["pairs"] if pair["relation"] == "next layer")
    assert (pair["site"], pair["a"], pair["b"]) == (f"{hooks[1]} → {hooks[2]}", f"{name}-output", name)
    first, second = (
        FeatureDictionary.load(folders[1] / f"blocks.{layer}.hook_resid_mid--blocks.{layer}.hook_mlp_out" / name)
        for layer in (0, 1)
    )
    written, read = first.bases()[1].directions, second.bases()[0].directions
    assert pair["matched_cosine"] == pytest.approx(matched_cosine(written, read, signed=True), abs=1e-4)
    assert 0 < pair["matched_floor"] < 0.6  # random bases in 32 dimensions
    assert done_by_stage("killed", recipe) == {"extract": 1, "train": 2, "score": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "tiny.toml", "--set", "extract.contxt=8"], "unknown key extract.contxt, did you mean context?"),
        (
            ["extract", "tiny.toml", "--set", 'extract.hook_points=["blocks.0.hook_q"]'],
            "unknown hook point 'blocks.0.hook_q'",
        ),
        (
            ["extract", "tiny.toml", "--set", 'extract.hook_points=["blocks.7.hook_resid_pre"]'],
            "layer 7 is out of range",
        ),
        (["extract", "tiny.toml", "--set", "train.topk.k=65"], "k = 65 is more than d_sae = 48"),
        (["extract", "tiny.toml", "--set", "train.topk.d_sae=-1"], "train.topk.d_sae"),
        (["extract", "tiny.toml", "--set", "extract.text.path=none.txt"], "no file or folder none.txt"),
        (["extract", "tiny.toml", "--set", "extract.n_rows=40", "--set", "extract.context=64"], "expected at least 64"),
        (["extract", "tiny.toml", "--set", "extract.context=65"], "extract.context = 65 is more than the 64"),
        (["extract", "tiny.toml", "--device", "tpu"], "expected auto, cpu or cuda"),
        (["train", "tiny.toml"], "no activation store at"),
        (["train", "tiny.toml", "--set", "train.topk.bogus=1"], "unknown key train.topk.bogus"),
        (["status", "runs"], "no recipe 'runs'"),
        (["feature", "tiny", "topk", "0"], "expected a run folder, such as runs/tiny"),
        (["extract", "nothing.toml"], "no recipe file nothing.toml"),
        (["run", "tiny.toml", "--only", "pca", "--only", "blocks.9*/*"], "--only 'blocks.9*/*' fits no dictionary"),
        (["score", "tiny.toml", "--only", "pca"], "no activation store at"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(
    recipe: Path, arguments: list[str], message: str
) -> None:
    done = unmix(*arguments, cwd=recipe, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (recipe / "runs").exists()


def test_dictionaries_that_do_not_fit_the_store_are_refused(recipe: Path) -> None:
    from stores.site import Site
    from stores.spec import Spec

    small = [
        "--set",
        "train.topk.d_sae=48",
        "--set",
        "train.n_tokens=1280",
        "--set",
        f'extract.hook_points=["{RESID}"]',
    ]
    unmix("extract", "tiny.toml", *small, cwd=recipe)
    unmix("train", "tiny.toml", *small, cwd=recipe)
    weights = torch.zeros(7, 9), torch.zeros(9), torch.zeros(9, 7), torch.zeros(7)
    FeatureDictionary(Spec("standard", 7, 9, Site.at(RESID)), *weights).save(recipe / "other")
    done = unmix("score", "tiny.toml", *small, "--set", 'score.dictionaries=["other"]', cwd=recipe, check=False)
    assert done.returncode == 2
    assert f"the store has d = 32 at {RESID}, other takes d_in = 7" in done.stderr
    assert not (recipe / "runs" / "tiny" / "score").exists()


def test_one_that_diverges_stops_alone(recipe: Path) -> None:
    sets = ["--set", "train.topk.d_sae=48", "--set", "train.topk.seed=0", "--set", f"train.topk.hook_points={RESID}"]
    sets += ["--set", "train.relu_l1.seed=0", "--set", "train.n_tokens=5120"]
    unmix("extract", "tiny.toml", cwd=recipe)
    store = ["--set", f"store={recipe / 'runs' / 'tiny' / 'extract' / 'activations.zarr'}"]
    unmix("train", "tiny.toml", *store, *sets, "--set", "train.topk.lr=[5e-3]", "--name", "calm", cwd=recipe)
    done = unmix(
        "train",
        "tiny.toml",
        *store,
        *sets,
        "--set",
        "train.topk.lr=[5e-3, 1e30]",
        "--name",
        "wild",
        cwd=recipe,
        check=False,
    )
    assert done.returncode == 1
    assert f"topk-d48-k4-s0-lr_1e+30 at {RESID} diverged before step" in done.stderr
    assert "lower the lr" in done.stderr
    calm, wild = weights(recipe / "runs" / "calm"), weights(recipe / "runs" / "wild")
    assert calm
    assert wild == calm
    assert not (recipe / "runs" / "wild" / "train" / RESID / "topk-d48-k4-s0-lr_1e+30" / "manifest.json").exists()
