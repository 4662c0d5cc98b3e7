"""Dictionaries that write something else than they read."""

import json
from pathlib import Path

import pytest
import torch

from stores.dictionary import FeatureDictionary
from stores.names import check_name
from stores.site import Site
from stores.spec import ARCHITECTURES, WITH_K, Spec

SITE = Site(("blocks.0.ln2.hook_normalized",), ("blocks.0.hook_mlp_out",))


def make(architecture: str, skip: bool = False, site: Site = SITE, d_writes: tuple[int, ...] = ()) -> FeatureDictionary:
    """8 → 20 → 6"""
    torch.manual_seed(0)
    k = 4 if architecture in WITH_K else 0
    spec = Spec(architecture, 8, 20, site, k, {"seed": 0}, d_out=6, d_writes=d_writes, skip=skip)
    weights = torch.randn(8, 20), torch.randn(20), torch.randn(20, 6), torch.randn(6)
    others = {name: torch.rand(20) for name in ARCHITECTURES[architecture]}
    return FeatureDictionary(spec, *weights, **others, **({"W_skip": torch.randn(8, 6)} if skip else {}))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a not in ("bases", "matching_pursuit")])
def test_save_and_load_give_the_same_transcoder(tmp_path: Path, architecture: str, skip: bool) -> None:
    dictionary, x = make(architecture, skip), torch.randn(3, 5, 8)
    dictionary.save(tmp_path)
    loaded = FeatureDictionary.load(tmp_path)
    assert torch.equal(loaded(x), dictionary(x))
    assert loaded(x).shape == (3, 5, 6)
    assert (loaded.site, loaded.d_out, loaded.spec.skip) == (SITE, 6, skip)


def test_b_dec_is_of_what_is_written_and_the_skip_is_linear() -> None:
    eye, x = torch.eye(2), torch.tensor([[3.0, -2.0]])
    spec = Spec("standard", 2, 2, d_out=3, skip=True)
    W_dec, W_skip = torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.tensor([[0.0, 0, 10], [0, 0, 1]])
    transcoder = FeatureDictionary(spec, eye, torch.zeros(2), W_dec, torch.tensor([0.5, 0.5, 0.5]), W_skip=W_skip)
    assert transcoder.encode(x).tolist() == [[3.0, 0.0]]  # nothing is subtracted from x
    assert transcoder(x).tolist() == [[3.5, 0.5, 28.5]]


def test_decoder_rows_by_hook_point(tmp_path: Path) -> None:
    names = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    dictionary = make("topk", site=Site(("blocks.0.hook_resid_post",), names), d_writes=(2, 4))
    dictionary.save(tmp_path)
    written = FeatureDictionary.load(tmp_path).written()
    assert list(written) == list(names)
    assert [w.shape for w in written.values()] == [(20, 2), (20, 4)]
    assert torch.equal(torch.cat(list(written.values()), dim=-1), dictionary.W_dec)
    both = Site(names, names)  # an autoencoder of both
    spec = Spec("standard", 6, 20, both, d_writes=(2, 4))
    FeatureDictionary(spec, torch.zeros(6, 20), torch.zeros(20), torch.zeros(20, 6), torch.zeros(6)).save(
        tmp_path / "b"
    )
    loaded = FeatureDictionary.load(tmp_path / "b").spec
    assert (loaded.site, loaded.d_out, loaded.d_writes) == (both, None, (2, 4))


def test_names_of_sites() -> None:
    assert Site.at("a").name == "a"
    assert SITE.name == "blocks.0.ln2.hook_normalized--blocks.0.hook_mlp_out"
    assert Site(("a", "b"), ("a", "b")).name == "a+b"
    layers = tuple(f"blocks.{layer}.hook_resid_post" for layer in (0, 1, 2, 5))
    assert Site(layers, layers).name == "blocks.0-2.hook_resid_post+blocks.5.hook_resid_post"
    assert Site(layers[:2], layers[1:2]).name == "blocks.0-1.hook_resid_post--blocks.1.hook_resid_post"
    with pytest.raises(ValueError, match="comes twice"):
        Site(("a", "a"), ("b",))
    with pytest.raises(ValueError, match="no slashes"):
        Site(("../a",), ("b",))


def test_a_site_of_many_hook_points_is_still_a_folders_name() -> None:
    many = [tuple(f"blocks.{layer}.hook_resid_post" for layer in range(start, 40, 2)) for start in (0, 1)]
    site = Site(many[0], many[1])
    assert check_name(site.name, "a site") == site.name
    assert site.name != Site(many[0], (*many[1][:-1], "blocks.41.hook_resid_post")).name


def test_bases_are_two_linear_dictionaries(tmp_path: Path) -> None:
    R_in, R_out = (torch.linalg.qr(torch.randn(8, 8))[0] for _ in range(2))
    mean, written = torch.randn(8), torch.randn(8)
    both = FeatureDictionary(Spec("bases", 8, 8, SITE, d_out=8), R_in.T, -R_in @ mean, R_out, written)
    both.save(tmp_path)
    reading, writing = FeatureDictionary.load(tmp_path).bases()
    x = torch.randn(5, 8)
    for dictionary, R, middle in ((reading, R_in, mean), (writing, R_out, written)):
        torch.testing.assert_close(dictionary.encode(x), (x - middle) @ R.T)
        torch.testing.assert_close(dictionary(x), x)
    assert (reading.site, writing.site) == (Site.at(SITE.reads[0]), Site.at(SITE.writes[0]))
    with pytest.raises(ValueError, match="two dictionaries"):
        both(x)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="d_out is missing"):
        Spec("standard", 8, 20, SITE)
    with pytest.raises(ValueError, match=r"d_writes = \[2, 3\] are not the sizes of 1 hook points, 6 in all"):
        Spec("standard", 8, 20, SITE, d_out=6, d_writes=(2, 3))
    with pytest.raises(ValueError, match=r"W_dec is \(20, 8\), expected \(20, 6\)"):
        FeatureDictionary(
            Spec("standard", 8, 20, SITE, d_out=6),
            torch.zeros(8, 20),
            torch.zeros(20),
            torch.zeros(20, 8),
            torch.zeros(8),
        )


def test_an_option_that_a_transcoder_cannot_have_is_refused(tmp_path: Path) -> None:
    make("standard").save(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "apply_b_dec_to_input": True}))
    with pytest.raises(ValueError, match="apply_b_dec_to_input of a transcoder cannot be read"):
        FeatureDictionary.load(tmp_path)


@pytest.mark.interop
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_saelens_loads_the_folder_and_we_load_its(tmp_path: Path, architecture: str, skip: bool) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    dictionary, x = make(architecture, skip), torch.randn(30, 8)
    dictionary.save(tmp_path / "ours")
    theirs = saelens.SAE.load_from_disk(str(tmp_path / "ours"), device="cpu")
    torch.testing.assert_close(theirs(x), dictionary(x), rtol=0, atol=1e-5)
    theirs.save_model(tmp_path / "theirs")
    again = FeatureDictionary.load(tmp_path / "theirs")
    torch.testing.assert_close(again(x), dictionary(x), rtol=0, atol=1e-5)


@pytest.mark.interop
def test_saelens_loads_a_crosscoder_as_an_autoencoder_of_all_hook_points_side_by_side(tmp_path: Path) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    names = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    spec = Spec("topk", 8, 20, Site(names, names), 3, d_writes=(4, 4))
    crosscoder = FeatureDictionary(spec, torch.randn(8, 20), torch.randn(20), torch.randn(20, 8), torch.randn(8))
    crosscoder.save(tmp_path)
    theirs, x = saelens.SAE.load_from_disk(str(tmp_path), device="cpu"), torch.randn(30, 8)
    torch.testing.assert_close(theirs(x), crosscoder(x), rtol=0, atol=1e-5)
