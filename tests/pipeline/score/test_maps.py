"""Dictionaries that write something else than they read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.models.protocol import LanguageModel
from pipeline.score.downstream import Replacement, Splice, evaluate
from pipeline.score.rows import batches
from stores.activations import ActivationStore
from stores.site import Site
from tests.conftest import make_store
from tests.pipeline.score.made import dictionary, measured, scored, subject

POST, OUT = "blocks.0.mlp.hook_post", "blocks.0.hook_mlp_out"
RESID = [f"blocks.{layer}.hook_resid_post" for layer in (0, 1)]
POSITIONS = tuple(range(1, 24))


@pytest.mark.parametrize("kind", ["linear", "skip"])
def test_a_map_that_is_the_models_own_loses_nothing(
    mlps: ActivationStore, model: LanguageModel, tmp_path: Path, kind: str
) -> None:
    """What an MLP's second matrix reads and writes: as a linear transcoder, and as a skip matrix beside features that write
    nothing."""
    mlp, reads, writes = model.mlp(0), {POST: 128}, {OUT: 32}
    if kind == "linear":
        weights: dict[str, Any] = {
            "W_enc": mlp.W_out,
            "b_enc": torch.zeros(32),
            "W_dec": torch.eye(32),
            "b_dec": mlp.b_out,
        }
        made = dictionary(reads, writes, 32, architecture="linear", **weights)
    else:
        zeros: dict[str, Any] = {"W_enc": torch.zeros(128, 4), "b_enc": torch.ones(4), "W_dec": torch.zeros(4, 32)}
        made = dictionary(reads, writes, 4, W_skip=mlp.W_out, b_dec=mlp.b_out, **zeros)
    (row,) = scored(tmp_path, mlps, [subject(tmp_path, made)])["dictionaries"]
    assert row["fvu"] < 1e-6
    assert row["normalized_mse"] < 1e-6
    assert row["ce"] == pytest.approx(row["ce_clean"], abs=1e-5)
    assert abs(row["kl"]) < 1e-5
    assert row["top1"] == 1
    assert abs(row["ce_zero"] - row["ce_clean"]) > 1e-3


def test_a_dictionary_that_always_writes_the_mean_is_mean_ablation(mlps: ActivationStore, tmp_path: Path) -> None:
    mean = torch.from_numpy(mlps.stats(OUT).mean)
    made = dictionary({POST: 128}, {OUT: 32}, W_dec=torch.zeros(16, 32), b_dec=mean)
    (row,) = scored(tmp_path, mlps, [subject(tmp_path, made)])["dictionaries"]
    assert row["ce"] == pytest.approx(row["ce_mean"], abs=1e-6)
    assert row["ce_score_mean"] == pytest.approx(0, abs=1e-4)
    assert row["fvu"] == pytest.approx(1, abs=1e-6)


def test_what_is_read_is_of_the_clean_pass(model: LanguageModel, tokens: np.ndarray) -> None:
    """The last layer is written as the clean pass has it, after the first was set to zero."""
    site = Site(tuple(RESID), tuple(RESID))
    last = Splice(site, lambda x: torch.cat([torch.zeros_like(x[..., :32]), x[..., 32:]], dim=-1))
    first = Splice(Site.at(RESID[0]), torch.zeros_like)
    clean, zero = evaluate(model, tokens, POSITIONS, [Replacement([last]), Replacement([first])])
    assert abs(clean.kl) < 1e-6
    assert zero.kl > 0.01


def test_each_hook_point_alone_shows_what_the_last_one_hides(mlps: ActivationStore, tmp_path: Path) -> None:
    """The first is written as its mean, the last as it is: both lie on one residual stream."""
    stream = {f"blocks.{layer}.hook_resid_mid": 32 for layer in (0, 1)}
    first, last = stream
    keep = torch.diag(torch.tensor([0.0] * 32 + [1] * 32))
    mean = torch.cat([torch.from_numpy(mlps.stats(first).mean).float(), torch.zeros(32)])
    made = dictionary(
        stream, stream, 64, architecture="linear", W_enc=keep, b_enc=torch.zeros(64), W_dec=keep, b_dec=mean
    )
    (row,) = scored(tmp_path, mlps, [subject(tmp_path, made)])["dictionaries"]
    assert abs(row["kl"]) < 1e-5
    assert abs(row[f"kl[{last}]"]) < 1e-5
    assert row[f"kl[{first}]"] > 0.01
    assert row[f"top1[{first}]"] < row[f"top1[{last}]"] == 1


def test_writing_before_reading_is_said_and_works(mlps: ActivationStore, tmp_path: Path, capsys) -> None:
    made = dictionary({"blocks.1.hook_resid_mid": 32}, {OUT: 32})
    (row,) = scored(tmp_path, mlps, [subject(tmp_path, made)])["dictionaries"]
    assert row["ce"] != row["ce_clean"]
    said = [line for line in capsys.readouterr().err.split("\n") if line.startswith("score: ")]
    assert len(said) == 1
    assert f"{OUT} is written before blocks.1.hook_resid_mid is read" in said[0]


def test_each_hook_point_that_is_written_counts_the_same(tmp_path: Path) -> None:
    """One is written as it is, the other, of a larger scale, as its mean."""
    generator = np.random.default_rng(0)
    values = {RESID[0]: generator.normal(size=(600, 4)), RESID[1]: 50 * generator.normal(size=(600, 6)) + 9}
    d = {h: x.shape[1] for h, x in values.items()}
    store = make_store(tmp_path / "s.zarr", d=d, rows=lambda h, n, _: values[h].astype(np.float32))
    assert isinstance(store, ActivationStore)
    mean = torch.cat([torch.zeros(4), torch.from_numpy(store.stats(RESID[1]).mean).float()])
    keep = torch.diag(torch.tensor([1.0] * 4 + [0] * 6))
    made = dictionary(d, d, 10, architecture="linear", W_enc=keep, b_enc=torch.zeros(10), W_dec=keep, b_dec=mean)
    (row,) = scored(tmp_path / "run", store, [subject(tmp_path / "run", made)])["dictionaries"]
    assert row[f"fvu[{RESID[0]}]"] == pytest.approx(0, abs=1e-6)
    assert row[f"fvu[{RESID[1]}]"] == pytest.approx(1, abs=0.02)  # the mean is of the rows that are learned from
    assert row["fvu"] == pytest.approx(row[f"fvu[{RESID[1]}]"] / 2, abs=2e-6)
    assert row["normalized_mse"] < row["fvu"]
    assert (row["d_in"], row["d_out"]) == (10, 10)
    assert "ce" not in row


def test_hook_points_are_read_in_step(tmp_path: Path) -> None:
    """In batches that do not divide chunks; so that a known linear map from one to the other has nothing unexplained."""
    x = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    A = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    store = make_store(
        tmp_path / "s.zarr",
        d={RESID[0]: 4, RESID[1]: 6},
        rows=lambda h, n, d: x if d == 4 else x @ A,
        chunk_sequences=3,
    )
    assert isinstance(store, ActivationStore)
    eye, zeros = torch.eye(6), torch.zeros(6)
    made = dictionary(
        {RESID[0]: 4},
        {RESID[1]: 6},
        6,
        architecture="linear",
        W_enc=torch.from_numpy(A),
        b_enc=zeros,
        W_dec=eye,
        b_dec=zeros,
    )
    rows, _ = measured(store, {"map": made}, tmp_path, n_rows=100, batch_size=7)
    assert rows["map"]["n_rows"] == 100
    assert rows["map"]["fvu"] < 1e-10
    found = [rows for _, rows in batches(store, made.site, store.heldout_pieces(100), 7, "cpu")]
    assert {len(values) for batch in found for values in batch.values()} == {7, 2, 3}
    both = [np.concatenate([batch[h] for batch in found]) for h in RESID]
    np.testing.assert_array_equal(both[0], np.concatenate(list(store.heldout(RESID[0], 100))))
    np.testing.assert_allclose(both[0] @ A, both[1], rtol=1e-4, atol=1e-4)


def test_sites_of_several_hook_points_come_last(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", d=dict.fromkeys(RESID, 6))
    assert isinstance(store, ActivationStore)
    sites = [dict.fromkeys(RESID, 6), {RESID[1]: 6}, {RESID[0]: 6}]
    subjects = [subject(tmp_path, dictionary(d, d)) for d in sites]
    rows = scored(tmp_path, store, subjects)["dictionaries"]
    assert [row["site"] for row in rows] == [RESID[0], RESID[1], "blocks.0-1.hook_resid_post"]
