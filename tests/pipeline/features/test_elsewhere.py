"""The nearest feature of each other dictionary of a site."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.features import elsewhere
from pipeline.features.elsewhere import N_DICTIONARIES, write_elsewhere
from pipeline.score.subjects import Subject
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec

SITE, D = Site.at("blocks.0.hook_resid_post"), 8


def subject(folder: Path, seed: int, d_sae: int, architecture: str = "topk") -> Subject:
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(d_sae, D, generator=generator)
    spec = Spec(architecture, D, d_sae, SITE, 2)
    made = FeatureDictionary(spec, W_enc=W.T.clone(), b_enc=torch.zeros(d_sae), W_dec=W, b_dec=torch.zeros(D))
    made.save(folder / "train" / str(seed))
    return Subject(SITE, f"{architecture}-{seed}", architecture, {}, folder / "train" / str(seed))


def test_nearest_features_are_those_of_all_cosines(tmp_path: Path) -> None:
    """Of signed codes a direction and its opposite are one."""
    own = [subject(tmp_path, 0, 30), subject(tmp_path, 1, 20), subject(tmp_path, 2, 40, "abs_topk")]
    write_elsewhere(tmp_path, own, "cpu")
    found = {s.name: s.load("cpu") for s in own}
    unit = {name: f.W_dec / f.W_dec.norm(dim=1, keepdim=True) for name, f in found.items()}
    for name, W in unit.items():
        table = pq.read_table(tmp_path / "elsewhere" / SITE.name / f"{name}.parquet")
        for i, row in enumerate(table.to_pylist()):
            wanted = {}
            for other in unit.keys() - {name}:
                cosines = unit[other] @ W[i]
                cosines = cosines.abs() if found[name].signed or found[other].signed else cosines
                wanted[other] = (int(cosines.argmax()), float(cosines.max()))
            names = row["elsewhere_dictionary"]
            assert names == sorted(wanted, key=lambda n: -wanted[n][1])
            assert row["elsewhere_feature"] == [wanted[n][0] for n in names]
            np.testing.assert_allclose(row["elsewhere_cosine"], [wanted[n][1] for n in names], atol=1e-6)


def test_of_many_dictionaries_the_nearest_are_kept(tmp_path: Path) -> None:
    own = [subject(tmp_path, seed, 5) for seed in range(N_DICTIONARIES + 3)]
    write_elsewhere(tmp_path, own, "cpu")
    cosines = pq.read_table(tmp_path / "elsewhere" / SITE.name / f"{own[0].name}.parquet")[
        "elsewhere_cosine"
    ].to_pylist()
    assert all(len(of_one) == N_DICTIONARIES and of_one == sorted(of_one, reverse=True) for of_one in cosines)


def test_tables_are_made_again_where_a_dictionary_joins_or_one_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [subject(tmp_path, seed, 10) for seed in range(3)]
    write_elsewhere(tmp_path, own[:2], "cpu")
    write_elsewhere(tmp_path, own, "cpu")
    files = [tmp_path / "elsewhere" / SITE.name / f"{s.name}.parquet" for s in own]
    whole = [file.read_bytes() for file in files]
    assert {len(row) for row in pq.read_table(files[0])["elsewhere_dictionary"].to_pylist()} == {2}
    files[1].write_bytes(whole[1][:50])
    write_elsewhere(tmp_path, own, "cpu")
    assert [file.read_bytes() for file in files] == whole
    monkeypatch.setattr(elsewhere, "nearest_both_ways", lambda *_, **__: pytest.fail("it was measured again"))
    write_elsewhere(tmp_path, own, "cpu")


def test_one_that_is_alone_has_none(tmp_path: Path) -> None:
    """Nor has one that is left alone."""
    own = [subject(tmp_path, seed, 10) for seed in range(2)]
    write_elsewhere(tmp_path, own, "cpu")
    write_elsewhere(tmp_path, [own[0], replace(own[1], site=Site.at("blocks.1.hook_resid_post"))], "cpu")
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*.parquet")] == [f"{own[1].name}.parquet"]
