"""What is scored of codes of either sign, and of codes that are made one latent after another."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from pipeline.score.config import ScoreConfig
from pipeline.score.measures import measures_of
from pipeline.score.pairs import Entry, compare
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.conftest import make_store
from tests.pipeline.score.made import measured

SITE = Site.at("blocks.0.hook_resid_post")


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    made = make_store(tmp_path / "s.zarr", d={SITE.name: 8})
    assert isinstance(made, ActivationStore)
    return made


def weights(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(8, n), torch.randn(n), torch.randn(n, 8), torch.randn(8)


def test_negative_codes_count_as_active(store: ActivationStore, tmp_path: Path) -> None:
    """AbsTopK is TopK with every latent and its opposite: alike in all but which of the two is active."""
    W_enc, b_enc, W_dec, b_dec = weights(20)
    both = torch.cat([W_enc, -W_enc], 1), torch.cat([b_enc, -b_enc]), torch.cat([W_dec, -W_dec]), b_dec
    found = {
        "abs": FeatureDictionary(Spec("abs_topk", 8, 20, SITE, 3), W_enc, b_enc, W_dec, b_dec),
        "both": FeatureDictionary(Spec("topk", 8, 40, SITE, 3), *both),
    }
    rows, histograms = measured(store, found, tmp_path)
    assert rows["abs"]["l0"] == rows["both"]["l0"] == 3
    assert rows["abs"]["fvu"] == pytest.approx(rows["both"]["fvu"], rel=1e-6)
    folded = histograms["both"].counts.view(2, 20, -1).sum(0)
    assert (histograms["abs"].counts == folded).all()
    assert rows["abs"]["dead"] == int((folded.sum(1) == 0).sum())


def test_only_dense_codes_are_cut_to_their_largest() -> None:
    config = ScoreConfig(at_l0=(4,))
    made = {a: FeatureDictionary(Spec(a, 8, 20, SITE, k), *weights(20)) for a, k in (("abs_topk", 3), ("linear", 0))}
    assert set(measures_of(made["abs_topk"], config, ordered=False)) == {"sparsity", "whole"}
    assert set(measures_of(made["linear"], config, ordered=False)) == {"sparsity", "whole", "largest"}
    assert (made["abs_topk"].sparse, made["linear"].sparse) == (True, False)


def test_an_axis_and_its_opposite_are_one_feature_where_either_is_signed() -> None:
    dictionary = FeatureDictionary(Spec("abs_topk", 8, 20, SITE, 3), *weights(20))
    a, b = (
        Entry.of(name, name, {}, 20, signed, sign * dictionary.directions)
        for name, signed, sign in (("abs_topk", dictionary.signed, 1), ("topk", False, -1))
    )
    assert compare(a, b)[0]["mmcs"] == 1


def test_a_pursuit_is_scored_as_what_it_computes(store: ActivationStore, tmp_path: Path) -> None:
    _, _, W_dec, b_dec = weights(20)
    pursuit = FeatureDictionary(Spec("matching_pursuit", 8, 20, SITE, 3), None, None, normalize(W_dec), b_dec)
    rows, _ = measured(store, {"it": pursuit}, tmp_path)
    x = torch.cat([torch.from_numpy(rows) for rows in store.heldout(SITE.name, rows["it"]["n_rows"])])
    mean = torch.from_numpy(store.stats(SITE.name).mean)
    expected = (x - pursuit(x)).square().sum() / (x - mean).square().sum()
    assert rows["it"]["fvu"] == pytest.approx(float(expected), rel=1e-4)
    assert rows["it"]["l0"] == pytest.approx(float((pursuit.encode(x) != 0).sum(1).float().mean()))
    assert rows["it"]["l0"] < 3.001
