"""Matching pursuit: latents that are selected one after another."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import stores.dictionary
from stores.dictionary import FeatureDictionary
from stores.pursuit import matching_pursuit
from stores.site import Site
from stores.spec import Spec

SITE = Site.at("blocks.0.hook_resid_post")


def make(d_in: int = 8, d_sae: int = 20, k: int = 4, **options: float) -> FeatureDictionary:
    torch.manual_seed(0)
    spec = Spec("matching_pursuit", d_in, d_sae, SITE, k, **options)  # type: ignore[arg-type]
    return FeatureDictionary(spec, None, None, normalize(torch.randn(d_sae, d_in)), torch.randn(d_in))


def orthonormal(n: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(n, n))[0]


def test_orthonormal_rows_are_recovered_in_as_many_steps_as_are_active() -> None:
    torch.manual_seed(0)
    W = orthonormal(16)
    z = torch.zeros(50, 16).scatter(1, torch.rand(50, 16).topk(3).indices, 0.5 + torch.rand(50, 3))
    torch.testing.assert_close(matching_pursuit(z @ W, W, 3), z)
    torch.testing.assert_close(matching_pursuit(z @ W, W, 9), z)  # further steps find nothing


def test_with_orthonormal_rows_it_is_topk() -> None:
    torch.manual_seed(0)
    W, b_dec, x = orthonormal(16), torch.randn(16), torch.randn(200, 16)
    pursuit = FeatureDictionary(Spec("matching_pursuit", 16, 16, k=5), None, None, W, b_dec)
    topk = FeatureDictionary(Spec("topk", 16, 16, k=5), W.T, torch.zeros(16), W, b_dec)
    torch.testing.assert_close(pursuit.encode(x), topk.encode(x))
    torch.testing.assert_close(pursuit(x), topk(x))


def test_rows_that_are_alike_mislead_topk_and_not_the_pursuit() -> None:
    W = normalize(torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0, 0, 1]]))
    x = torch.tensor([[2.0, 0, 1]])  # two of the first, one of the third
    topk = FeatureDictionary(Spec("topk", 3, 3, k=2), W.T, torch.zeros(3), W, torch.zeros(3))
    assert (topk.encode(x) != 0).tolist() == [[True, True, False]]
    assert matching_pursuit(x, W, 2).tolist() == [[2, 0, 1]]


def test_each_step_takes_the_square_of_its_value_away() -> None:
    dictionary, x = make(), torch.randn(100, 8)
    x_c, before, z_before = x - dictionary.b_dec, (x - dictionary.b_dec).square().sum(1), torch.zeros(100, 20)
    for k in range(1, 12):
        z = matching_pursuit(x_c, dictionary.W_dec, k)
        after = (x_c - z @ dictionary.W_dec).square().sum(1)
        assert bool(torch.all(after < before))
        torch.testing.assert_close(before - after, (z - z_before).square().sum(1), rtol=1e-3, atol=1e-5)
        before, z_before = after, z
        assert bool(torch.all(z >= 0))


def test_a_row_ends_below_the_threshold_and_no_sooner() -> None:
    dictionary, x = make(), 3 * torch.randn(300, 8)
    x_c, W = x - dictionary.b_dec, dictionary.W_dec
    z = matching_pursuit(x_c, W, 12, residual_threshold=1.5)
    steps = [matching_pursuit(x_c, W, k) for k in range(1, 13)]
    length = torch.stack([(x_c - own @ W).norm(dim=1) for own in steps])
    first = torch.where((length < 1.5).any(0), (length < 1.5).int().argmax(0), 11)
    assert first.unique().numel() > 3
    torch.testing.assert_close(z, torch.stack(steps)[first, torch.arange(300)])


def test_a_row_ends_when_a_latent_comes_again_if_it_is_told_to() -> None:
    dictionary, x = make(), torch.randn(300, 8)
    x_c, W = x - dictionary.b_dec, dictionary.W_dec
    free, ends = (matching_pursuit(x_c, W, 12, stop_on_duplicate_support=stop) for stop in (False, True))
    again = torch.tensor([bool((a != b).any()) for a, b in zip(free, ends, strict=True)])
    assert 20 < int(again.sum()) < 300
    assert ((ends != 0).sum(1) < 12)[again].all()
    torch.testing.assert_close(free[~again], ends[~again])


def test_no_more_than_a_part_of_the_codes_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary, x = make(d_sae=50), torch.randn(7, 13, 8)
    whole, sparse = dictionary.encode(x), dictionary.encode_sparse(x)
    seen: list[int] = []

    def watched(rows: torch.Tensor, *args: object) -> torch.Tensor:
        seen.append(len(rows))
        return matching_pursuit(rows, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(stores.dictionary, "_CODE_NUMBERS", 250)
    monkeypatch.setattr(stores.dictionary, "matching_pursuit", watched)
    torch.testing.assert_close(dictionary.encode(x), whole)
    values, indices = dictionary.encode_sparse(x)
    assert (max(seen), sum(seen)) == (5, 2 * 91)
    torch.testing.assert_close(values, sparse.values)
    torch.testing.assert_close(torch.zeros(7, 13, 50).scatter(-1, indices, values), whole)
    assert dictionary.encode(x[:0]).shape == (0, 13, 50)


def test_more_steps_than_latents_have_a_sparse_code() -> None:
    dictionary, x = make(d_sae=3, k=9), torch.randn(5, 8)
    values, indices = dictionary.encode_sparse(x)
    assert torch.equal(torch.zeros(5, 3).scatter(-1, indices, values), dictionary.encode(x))


def test_options_are_saved(tmp_path: Path) -> None:
    dictionary, x = make(k=9, residual_threshold=0.75, stop_on_duplicate_support=True), torch.randn(30, 8)
    dictionary.save(tmp_path)
    loaded = FeatureDictionary.load(tmp_path)
    assert (loaded.spec.k, loaded.spec.residual_threshold, loaded.spec.stop_on_duplicate_support) == (9, 0.75, True)
    assert torch.equal(loaded(x), dictionary(x))
    assert not loaded.signed
    assert loaded.sparse


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_iterations", 0, "k = 0 is less than 1"),
        ("max_iterations", 2.5, "max_iterations = 2.5, expected a whole number, or null for d_in"),
        ("residual_threshold", float("nan"), "residual_threshold = nan is no length"),
        ("residual_threshold", -1, "residual_threshold = -1 is no length"),
        ("residual_threshold", None, "residual_threshold = None, expected a number"),
        ("stop_on_duplicate_support", 1, "stop_on_duplicate_support = 1, expected true or false"),
        ("rescale_acts_by_decoder_norm", True, "rescale_acts_by_decoder_norm of matching_pursuit cannot be read"),
    ],
)
def test_an_option_of_another_kind_is_named(tmp_path: Path, option: str, value: object, message: str) -> None:
    make().save(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, option: value}))
    with pytest.raises(ValueError, match=message) as error:
        FeatureDictionary.load(tmp_path)
    assert str(tmp_path / "cfg.json") in str(error.value)


def test_what_a_pursuit_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="writes what it reads"):
        Spec("matching_pursuit", 8, 20, SITE, 4, d_out=8)
    with pytest.raises(ValueError, match="topk selects at once"):
        Spec("topk", 8, 20, SITE, 4, residual_threshold=0.1)
    W = torch.zeros(20, 8)
    with pytest.raises(ValueError, match="has the weights W_dec, b_dec, got W_enc, b_enc, W_dec, b_dec"):
        FeatureDictionary(Spec("matching_pursuit", 8, 20, k=4), W.T, torch.zeros(20), W, torch.zeros(8))
    with pytest.raises(ValueError, match="got W_dec, b_dec"):
        FeatureDictionary(Spec("topk", 8, 20, k=4), None, None, W, torch.zeros(8))


THEIRS = {
    "defaults": {},
    "all steps": {"residual_threshold": 0.0, "stop_on_duplicate_support": False, "max_iterations": 12},
    "threshold": {"residual_threshold": 1.5, "stop_on_duplicate_support": False, "max_iterations": 12},
    "no bias": {"apply_b_dec_to_input": False, "max_iterations": 5},
}


@pytest.mark.interop
@pytest.mark.parametrize("options", THEIRS.values(), ids=THEIRS)
def test_saelens_own_is_loaded_computes_the_same_and_goes_back(tmp_path: Path, options: dict[str, object]) -> None:
    saelens = pytest.importorskip("sae_lens.saes.matching_pursuit_sae", reason="SAELens is not installed")
    from sae_lens import SAE

    torch.manual_seed(0)
    theirs = saelens.MatchingPursuitSAE(saelens.MatchingPursuitSAEConfig(d_in=8, d_sae=20, **options))
    theirs.W_dec.data *= 0.8  # rows of lengths from 0.9 to 1.3
    theirs.b_dec.data = torch.randn(8)
    x = 3 * torch.randn(200, 8)
    theirs.save_model(tmp_path / "theirs")
    ours = FeatureDictionary.load(tmp_path / "theirs")
    ours.save(tmp_path / "ours")
    back = SAE.load_from_disk(str(tmp_path / "ours"), device="cpu")
    for made in (ours, back):
        torch.testing.assert_close(made.encode(x), theirs.encode(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(made(x), theirs(x), rtol=0, atol=1e-5)
