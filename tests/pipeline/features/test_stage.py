"""The report stage's tables, end to end: what they say of a tiny run, and that its units are done once."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import UserError
from pipeline.features import stage
from pipeline.features.contexts import AROUND
from pipeline.features.named import SMALL
from pipeline.features.rules import NEGATIVE
from pipeline.models.files import ModelFiles
from pipeline.only import Only
from pipeline.stages import run_report, run_score
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from tests.conftest import kill_at
from tests.pipeline.features.conftest import RESID, run_of

TOPK, PCA = "topk-d48-k4-s0", "pca"


def store_of(folder: Path) -> ActivationStore:
    return ActivationStore.open(folder / "runs" / "tiny" / "extract" / "activations.zarr")


def table(folder: Path, name: str, kind: str, site: str = RESID) -> pa.Table:
    return pq.read_table(folder / "runs" / "tiny" / "features" / site / name / f"{kind}.parquet")


def tables(folder: Path) -> dict[str, bytes]:
    features = folder / "runs" / "tiny" / "features"
    return {str(path.relative_to(features)): path.read_bytes() for path in features.rglob("*.parquet")}


def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of units, as they are begun from now on."""
    names: list[str] = []
    begin = stage.Unit.begin
    monkeypatch.setattr(stage.Unit, "begin", lambda unit, **how: (names.append(unit.name), begin(unit, **how))[1])
    return names


def encoded(folder: Path, name: str, x: np.ndarray) -> np.ndarray:
    """Codes, from the weights alone: the k largest of what is positive, or all coordinates."""
    found = FeatureDictionary.load(folder / "runs" / "tiny" / "train" / RESID / name)
    W_enc, b_enc, b_dec = (w.double().numpy() for w in (found.W_enc, found.b_enc, found.b_dec))
    z = (x - b_dec) @ W_enc + b_enc
    if name == PCA:
        return z
    return np.where(z >= np.sort(z, axis=1)[:, -4:-3], np.maximum(z, 0), 0)


@pytest.mark.parametrize("name", [TOPK, PCA])
def test_what_is_counted_of_features_is_that_of_their_codes(whole: Path, name: str) -> None:
    """Densities are of all rows that were scored, strengths of those in which contexts were looked for."""
    store, found = store_of(whole), table(whole, name, "features")
    z = encoded(whole, name, store.rows(RESID, 0, store.n_heldout_rows, "heldout"))
    assert found["feature"].to_pylist() == list(range(z.shape[1]))
    assert found["n_active"].to_pylist() == np.count_nonzero(z, 0).tolist()
    np.testing.assert_allclose(found["density"], (z != 0).mean(0), rtol=1e-6)
    rows = np.concatenate([np.arange(a, b) for a, b in store.heldout_pieces(930)])
    assert len(rows) == 930 < len(z)
    size = abs(z[rows])
    np.testing.assert_allclose(found["max"], size.max(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["mean"], size.sum(0) / np.maximum((size > 0).sum(0), 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [TOPK, PCA])
def test_contexts_are_the_stores_tokens_with_the_codes_at_them(whole: Path, name: str) -> None:
    store, found = store_of(whole), table(whole, name, "contexts").to_pylist()
    positions = store.description.positions
    z = encoded(whole, name, store.rows(RESID, 0, store.n_heldout_rows, "heldout"))
    z = z.reshape(-1, len(positions), z.shape[1])
    assert len(found) > 300
    for one in found:
        tokens = store.tokens(one["sequence"], one["sequence"] + 1, "heldout")[0]
        near = range(max(0, one["position"] - AROUND), min(len(tokens), one["position"] + AROUND + 1))
        assert one["start"] == near[0]
        assert one["tokens"] == tokens[near].tolist()
        codes = dict(zip(positions, z[one["sequence"], :, one["feature"]].tolist(), strict=True))
        assert one["value"] == pytest.approx(codes[one["position"]], rel=1e-4, abs=1e-5)
        assert [value is None for value in one["activations"]] == [at not in positions for at in near]
        known = [value for value in one["activations"] if value is not None]
        assert known == pytest.approx([codes[at] for at in near if at in codes], rel=1e-4, abs=1e-5)


def test_the_strongest_contexts_are_of_the_strongest_sequences(whole: Path) -> None:
    store, found = store_of(whole), table(whole, TOPK, "contexts").to_pylist()
    n_positions = store.description.n_positions
    z = encoded(whole, TOPK, store.rows(RESID, 0, store.n_heldout_rows, "heldout"))
    sequences = np.unique([row // n_positions for a, b in store.heldout_pieces(930) for row in range(a, b)])
    strongest = z.reshape(-1, n_positions, z.shape[1])[sequences].max(1)
    for feature in range(z.shape[1]):
        own = sorted((one["value"] for one in found if one["feature"] == feature and one["group"] == 0), reverse=True)
        best = np.sort(strongest[:, feature])[::-1][:3]
        assert own == pytest.approx(best[best > 0], rel=1e-4)


def test_labels_and_rules_say_what_the_text_is(whole: Path) -> None:
    """A label's rows are those of its tokens, and a rule on the token alone holds where the token is."""
    probes = {one["label"]: one for one in table(whole, TOPK, "probes").to_pylist()}
    store = store_of(whole)
    tokenizer = ModelFiles.of_store(store.description).tokenizer
    tokens = store.tokens(0, 1240 // 31, "heldout")[:, list(store.description.positions)]
    spaced = np.array([tokenizer.decode([i]).startswith(" ") for i in tokens.reshape(-1).tolist()])
    assert abs(probes["begins with a space"]["n_positive"] - spaced.sum()) < 40  # of the whole statements alone
    assert {"comment", "in a function", "argument"} <= probes.keys()
    assert all(0 <= one["f1_1"] <= 1 and 0 <= one["auroc_all"] <= 1 for one in probes.values())
    assert max(one["f1_1"] for one in probes.values()) > 0.6
    rules = table(whole, TOPK, "features").select(["rule", "rule_f1", "n_active"]).to_pylist()
    assert sum(one["rule"] is not None for one in rules) > 5
    assert all((one["rule"] is None) == (one["rule_f1"] is None) for one in rules)


def test_beside_a_sparse_dictionary_stands_what_its_shuffled_codes_give(whole: Path) -> None:
    """Of its densest features. On 1,240 rows chance is far from even."""
    probes, features = table(whole, TOPK, "probes"), table(whole, TOPK, "features")
    ours, chance = (np.array(probes[column]) for column in ("f1_1", "f1_shuffled"))
    assert ours.mean() > chance.mean() + 0.1
    assert np.nanmean(np.array(probes["auroc_shuffled"])) == pytest.approx(0.5, abs=0.06)
    rules = features.select(["n_active", "rule_f1", "rule_f1_shuffled"]).to_pylist()
    shuffled = [one for one in rules if one["rule_f1_shuffled"] is not None]
    assert 5 < len(shuffled) <= 32 < len(rules)
    assert max(one["rule_f1_shuffled"] for one in shuffled) < max(one["rule_f1"] for one in shuffled)
    assert not [c for kind in ("features", "probes") for c in table(whole, PCA, kind).column_names if "shuffled" in c]


def test_a_label_or_a_rule_of_the_other_sign_says_so(whole: Path) -> None:
    features, probes = table(whole, PCA, "features"), table(whole, PCA, "probes")
    unsigned = table(whole, TOPK, "features")
    for column, begin in (("label", SMALL), ("rule", NEGATIVE)):
        names = [name for name in features[column].to_pylist() if name]
        assert 0 < sum(name.startswith(begin) for name in names) < len(names)
        assert not any(name.startswith(begin) for name in unsigned[column].to_pylist() if name)
    assert {name.removeprefix(SMALL) for name in features["label"].to_pylist()} <= set(probes["label"].to_pylist())


def test_a_second_run_begins_no_unit_and_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = begun(monkeypatch)
    run = folder / "runs" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and "leases" not in path.parts}
    assert not run_report(run_of(folder))
    assert not names
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_those_that_are_asked_for_are_described_alone_and_the_others_join_them(folder: Path) -> None:
    """Whether the others are scored or not."""
    run, whole = folder / "runs" / "tiny", tables(folder)
    for part in ("features", "report"):
        shutil.rmtree(run / part)
    scored = run / "score" / RESID / TOPK / "manifest.json"
    scored.rename(folder / "kept.json")
    with pytest.raises(UserError, match=f"{TOPK} at {RESID} is not scored: run `unmix score` first"):
        run_report(replace(run_of(folder), only=Only((f"{RESID}/topk-*",))))
    with pytest.raises(UserError, match="--only 'topk' fits no dictionary; there are"):
        run_report(replace(run_of(folder), only=Only(("topk",))))
    assert not (run / "features").exists()
    assert run_report(replace(run_of(folder), only=Only((PCA,))))
    assert set(tables(folder)) == {f"{RESID}/{PCA}/{kind}.parquet" for kind in ("features", "contexts", "probes")}
    assert {page.parent.name for page in (run / "report").glob("*/*/index.html")} == {PCA}
    (folder / "kept.json").rename(scored)
    assert run_report(run_of(folder))
    assert tables(folder) == whole
    assert {page.parent.name for page in (run / "report").glob("*/*/index.html")} == {PCA, TOPK}


def test_one_that_was_interrupted_goes_on_to_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tables(folder)
    assert len(expected) == 2 * 4  # of two dictionaries
    shutil.rmtree(folder / "runs" / "tiny" / "features")
    left = 4  # tables that are written before the end

    def dies(write: Callable[..., None]) -> Callable[..., None]:
        def written(path: Path, columns: dict[str, Any]) -> None:
            nonlocal left
            if not left:
                raise OSError("the disk is full")
            left -= 1
            write(path, columns)

        return written

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_table", dies(stage.write_table))
        with pytest.raises(RuntimeError, match="the disk is full"):
            run_report(run_of(folder))
    assert len(tables(folder)) == 4
    names = begun(monkeypatch)
    assert run_report(run_of(folder))
    assert len(names) == 1
    assert tables(folder) == expected


@pytest.mark.slow
def test_one_that_was_killed_goes_on_to_the_same_bytes(folder: Path) -> None:
    expected = tables(folder)
    shutil.rmtree(folder / "runs" / "tiny" / "features")
    for kind, time in (("contexts", 2), ("probes", 1)):  # of the second dictionary, both times
        kill_at(f"*/features/*/{kind}.parquet", time, "report", "tiny.toml", cwd=folder)
    assert run_report(run_of(folder))
    assert tables(folder) == expected


def test_without_labels_there_are_features_and_contexts_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text that has none says so; where none are asked for, nothing is said."""
    (folder / "none.py").write_text("def none(text):\n    raise ValueError\n")
    expected = {name: data for name, data in tables(folder).items() if name.endswith("contexts.parquet")}
    for labels, told in (("none.py:none", 1), ("", 0)):
        shutil.rmtree(folder / "runs" / "tiny" / "features")
        assert run_report(run_of(folder, f"report.labels={labels}"))
        assert capsys.readouterr().err.count("no text of the store has labels") == told
        found = tables(folder)
        assert {name: data for name, data in found.items() if name.endswith("contexts.parquet")} == expected
        assert not any(name.endswith("probes.parquet") for name in found)
        names = table(folder, TOPK, "features").column_names
        assert {"density", "cofiring"} <= set(names)
        assert not {"label", "rule"} & set(names)


def test_a_changed_labels_file_is_another_input_and_an_unchanged_one_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "def {0}(text):\n    return {{'{0}': [(i, i + 1) for i, byte in enumerate(text) if byte in b'{1}']}}\n"
    (folder / "own.py").write_text(own.format("marks", "()"))
    shutil.rmtree(folder / "runs" / "tiny" / "features")
    names, labels = begun(monkeypatch), "report.labels=own.py:marks"
    assert run_report(run_of(folder, labels))
    assert len(names) == 2
    before = table(folder, TOPK, "probes")
    assert not run_report(run_of(folder, labels))
    assert len(names) == 2
    (folder / "own.py").write_text(own.format("marks", "[]"))
    with pytest.raises(UserError, match="input labels_digest: [0-9a-f]{12}… → [0-9a-f]{12}…. Use --replace"):
        run_report(run_of(folder, labels))
    assert run_report(run_of(folder, labels, replace=True))
    assert len(names) == 4
    after = table(folder, TOPK, "probes")
    assert after["label"].to_pylist() == before["label"].to_pylist()
    assert after["n_positive"].to_pylist() != before["n_positive"].to_pylist()


@pytest.mark.slow
def test_scores_of_other_rows_are_another_input(folder: Path) -> None:
    fewer = "score.n_rows=620"
    with pytest.raises(UserError, match="is not scored|made with other settings: score.n_rows"):
        run_report(run_of(folder, fewer))
    assert run_score(run_of(folder, fewer, replace=True))
    with pytest.raises(UserError, match="input histogram_digest: "):
        run_report(run_of(folder, fewer))
    assert run_report(run_of(folder, fewer, replace=True))
    z = encoded(folder, TOPK, store_of(folder).rows(RESID, 0, 620, "heldout"))
    assert sum(table(folder, TOPK, "features")["n_active"].to_pylist()) == 620 / len(z) * np.count_nonzero(z) != 0
    again = "score.n_sequences=3"  # which counts nothing of features
    assert run_score(run_of(folder, fewer, again, replace=True))
    assert not run_report(run_of(folder, fewer, again))
