"""AbsTopK: codes of either sign."""

import json
from pathlib import Path

import pytest
import torch

from stores.dictionary import FeatureDictionary
from stores.spec import Spec


def test_codes_by_hand() -> None:
    eye, weights = torch.eye(3), (torch.tensor([0.0, 0.0, 0.5]), 2 * torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
    dictionary = FeatureDictionary(Spec("abs_topk", 3, 3, k=2), eye, *weights)
    x = torch.tensor([[2.0, -3.0, 1.0]])  # pre-activations (1, -3, 1.5)
    assert dictionary.encode(x).tolist() == [[0.0, -3.0, 1.5]]
    assert dictionary(x).tolist() == [[1.0, -6.0, 3.0]]
    values, indices = dictionary.encode_sparse(x)
    assert (values.tolist(), indices.tolist()) == ([[-3.0, 1.5]], [[1, 2]])
    assert dictionary.signed
    assert dictionary.sparse


def test_it_is_topk_with_every_latent_and_its_opposite() -> None:
    torch.manual_seed(0)
    W_enc, b_enc, W_dec, b_dec = torch.randn(8, 20), torch.randn(20), torch.randn(20, 8), torch.randn(8)
    dictionary = FeatureDictionary(Spec("abs_topk", 8, 20, k=5), W_enc, b_enc, W_dec, b_dec)
    both = torch.cat([W_enc, -W_enc], 1), torch.cat([b_enc, -b_enc]), torch.cat([W_dec, -W_dec]), b_dec
    topk, x = FeatureDictionary(Spec("topk", 8, 40, k=5), *both), torch.randn(300, 8)
    up, down = topk.encode(x).split(20, dim=-1)
    torch.testing.assert_close(dictionary.encode(x), up - down)
    assert (down > 0).any()
    torch.testing.assert_close(dictionary(x), topk(x))


@pytest.fixture
def saved(tmp_path: Path) -> FeatureDictionary:
    """One that lies in tmp_path."""
    torch.manual_seed(0)
    weights = torch.randn(8, 20), torch.randn(20), torch.randn(20, 8), torch.randn(8)
    dictionary = FeatureDictionary(Spec("abs_topk", 8, 20, k=5), *weights)
    dictionary.save(tmp_path)
    return dictionary


def test_it_is_saved_under_the_name_of_saelens_and_read_under_both(saved: FeatureDictionary, tmp_path: Path) -> None:
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "abstopk"
    for name in ("abstopk", "abs_topk"):
        (tmp_path / "cfg.json").write_text(json.dumps({**config, "architecture": name}))
        found = FeatureDictionary.load(tmp_path).spec
        assert (found.architecture, found.k) == (saved.spec.architecture, 5)


@pytest.mark.interop
def test_saelens_loads_what_is_saved(saved: FeatureDictionary, tmp_path: Path) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    theirs, x = saelens.SAE.load_from_disk(str(tmp_path), device="cpu"), torch.randn(30, 8)
    torch.testing.assert_close(theirs.encode(x), saved.encode(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs(x), saved(x), rtol=0, atol=1e-5)
