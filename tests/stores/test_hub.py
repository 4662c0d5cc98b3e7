"""Dictionaries on the hub: what is uploaded comes back with the same bits, without a network too; the rest is told."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stores.dictionary import FeatureDictionary
from stores.model_card import public
from tests.stores.fake_hub import Hub, Repository, fake_hub
from tests.stores.formats.test_cross_layer import write as cross_layer
from tests.stores.test_dictionary import make

REPO = "someone/dictionaries"
HOOK = "blocks.3.hook_resid_post"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with fake_hub(tmp_path / "cache") as found:
        yield found


def offline(monkeypatch: pytest.MonkeyPatch, cache: Path | None = None) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if cache is not None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the commit 0…0, which is main and the tag v1, in an empty cache of the hub, without a network."""
    offline(monkeypatch, tmp_path)
    repository = tmp_path / "models--someone--dictionaries"
    for name in ("main", "v1"):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return repository / "snapshots" / ("0" * 40)


def test_what_is_pushed_comes_back_with_its_bits_also_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import ModelCard

    one, two = make("topk"), make("jumprelu")
    x = torch.randn(4, 8)
    commit = one.push_to_hub(REPO, "layer-3/topk", private=True)
    repository = hub.repositories[REPO]
    assert commit == f"{hub.url}/{REPO}/commit/{repository.commit}"
    assert repository.private
    assert hub.tokens <= {"Bearer hf_of_the_test", None}
    card = ModelCard(repository.files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("mit", "saelens")
    assert f'from_hub("{REPO}", "layer-3/topk")' in card.text

    repository.files["README.md"] = b"mine"
    two.push_to_hub(REPO, "layer-3/jumprelu", private=True)
    assert repository.files["README.md"] == b"mine"
    assert repository.commits == ["Add topk", "Add jumprelu"]

    found = FeatureDictionary.from_hub(REPO, "layer-3/topk")
    assert found.encode(x).equal(one.encode(x))
    assert not any("jumprelu" in path for path in hub.asked if path.startswith("GET /someone"))
    n_asked = len(hub.asked)
    offline(monkeypatch)
    assert FeatureDictionary.from_hub(REPO, "layer-3/topk").encode(x).equal(one.encode(x))
    with pytest.raises(ValueError, match="^HF_HUB_OFFLINE is set, and the hub's cache .* lacks someone/dictionaries"):
        FeatureDictionary.from_hub(REPO, "layer-3/jumprelu")
    assert len(hub.asked) == n_asked


def test_what_the_hub_has_not_is_told_in_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="^the hub has no repository someone/dictionaries, or it is private: check"):
        FeatureDictionary.from_hub(REPO)
    make("topk").push_to_hub(REPO, "layer-3/topk", private=False)
    with pytest.raises(ValueError, match="has no dictionary at 'layer-4/topk'; there are layer-3/topk$"):
        FeatureDictionary.from_hub(REPO, "layer-4/topk")
    with pytest.raises(ValueError, match="^the hub has no someone/dictionaries at revision v2$"):
        FeatureDictionary.from_hub(REPO, "layer-3/topk", revision="v2")
    with pytest.raises(ValueError, match="is there already and is public"):
        make("topk").push_to_hub(REPO, "layer-4/topk", private=True)
    assert len(hub.repositories[REPO].commits) == 1
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match="no token to write to the hub: set HF_TOKEN"):
        make("topk").push_to_hub(REPO, "layer-4/topk")
    offline(monkeypatch)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, so nothing is uploaded"):
        make("topk").push_to_hub(REPO, "layer-4/topk")


def test_a_folder_is_read_from_the_hubs_cache(commit: Path) -> None:
    dictionary, x = make("topk"), torch.randn(4, 8)
    dictionary.save(commit / "layer-3")
    for revision in (None, "v1", "0" * 40):
        assert FeatureDictionary.from_hub("someone/dictionaries", "layer-3", revision=revision)(x).equal(dictionary(x))
    with pytest.raises(ValueError, match="has no dictionary at 'layer-4'; there are layer-3$"):
        FeatureDictionary.from_hub(REPO, "layer-4")
    with pytest.raises(ValueError, match="has no dictionary at its root; there are layer-3$"):
        FeatureDictionary.from_hub(REPO)
    with pytest.raises(ValueError, match="lacks someone/dictionaries at revision v2, or files of it$"):
        FeatureDictionary.from_hub(REPO, "layer-3", revision="v2")


@pytest.mark.parametrize("folder", ["layer_3/params.npz", "layer_3"])
def test_another_librarys_file_is_read_from_the_hub(commit: Path, folder: str) -> None:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(8, 20)).astype(np.float32)
    vectors = {"b_enc": np.zeros(20, np.float32), "threshold": np.ones(20, np.float32), "b_dec": np.ones(8, np.float32)}
    (commit / "layer_3").mkdir()
    np.savez(commit / "layer_3" / "params.npz", W_enc=W, W_dec=W.T, **vectors)
    found = FeatureDictionary.from_hub(REPO, folder, hook_point=HOOK)
    x = torch.randn(5, 8)
    pre = x @ torch.from_numpy(W)
    assert found.hook_point == HOOK
    torch.testing.assert_close(found.encode(x), pre * (pre > 1))


def hosted(hub: Hub, folder: Path, place: str) -> None:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.repositories[REPO] = Repository(private=False)
    hub.repositories[REPO].files = {f"{place}/{name}": data for name, data in files.items()}


@pytest.mark.parametrize("weights", ["checkpoints/final.safetensors", "sae_weights.safetensors"])
@pytest.mark.parametrize("asked", ["L3", "the file", "its folder"])
def test_the_first_version_of_openmoss_is_read_from_the_hub(
    hub: Hub, tmp_path: Path, weights: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (20, 8), "encoder.bias": (20,), "decoder.weight": (8, 20), "decoder.bias": (8,)}
    (tmp_path / "made" / weights).parent.mkdir(parents=True)
    save_file({name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}, tmp_path / "made" / weights)
    config = {"d_model": 8, "act_fn": "jumprelu", "jump_relu_threshold": 0.5, "norm_activation": "dataset-wise"}
    config |= {"hook_point_in": HOOK, "dataset_average_activation_norm": {"in": 3.0, "out": 3.0}}
    (tmp_path / "made" / "hyperparams.json").write_text(json.dumps(config))
    hosted(hub, tmp_path / "made", "L3")
    others = {f"L3/{name}/x.safetensors": b"" for name in ("other", "checkpoints/older")}
    hub.repositories[REPO].files |= others

    place = {"L3": "L3", "the file": f"L3/{weights}", "its folder": str(Path("L3", weights).parent)}[asked]
    expected = FeatureDictionary.load(tmp_path / "made")
    assert expected.spec.architecture == "jumprelu"
    for online in (True, False):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", not online)
        found = FeatureDictionary.from_hub(REPO, place)
        assert found.spec == expected.spec
        assert all(weight.equal(found.weights[name]) for name, weight in expected.weights.items())
    assert not any(name in request for name in others for request in hub.asked)


def test_a_layer_of_a_cross_layer_transcoder_is_read_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    cross_layer(tmp_path / "made")
    hosted(hub, tmp_path / "made", "clt")
    found = FeatureDictionary.from_hub(REPO, "clt/W_enc_1.safetensors")
    assert found.W_dec.equal(FeatureDictionary.load(tmp_path / "made" / "W_enc_1.safetensors").W_dec)
    assert not any("_0.safetensors" in path for path in hub.asked)


@pytest.mark.parametrize("folder", ["..", "../other", "/etc", "a/../../b", "a\\b", "a\0b", "~/../../x"])
def test_a_path_out_of_the_repository_is_refused(commit: Path, folder: str) -> None:
    make("topk").save(commit.parents[2] / "other")
    for what in (FeatureDictionary.from_hub, make("topk").push_to_hub):
        with pytest.raises(ValueError, match="leads out of the repository: name one in it"):
            what(REPO, folder)


def test_a_link_out_of_the_repository_is_refused(commit: Path) -> None:
    make("topk").save(commit.parents[2] / "other")
    (commit / "layer-3").symlink_to(commit.parents[2] / "other")
    with pytest.raises(ValueError, match="is a link out of the repository's folder"):
        FeatureDictionary.from_hub(REPO, "layer-3")


@pytest.mark.parametrize("revision", ["../../../x", "/main", "a b", ""])
def test_a_revision_that_is_none_is_refused(commit: Path, revision: str) -> None:
    with pytest.raises(ValueError, match="is none: expected a branch, a tag or a commit"):
        FeatureDictionary.from_hub(REPO, "layer-3", revision=revision)


@pytest.mark.parametrize("repo", ["a", "a/b/c", "a b/c", "../x", ""])
def test_a_repository_without_a_name_is_refused(repo: str) -> None:
    with pytest.raises(ValueError, match="is no name of a repository: expected OWNER/NAME"):
        make("topk").push_to_hub(repo)


def test_no_path_of_this_machine_is_published() -> None:
    found = public(
        {"model": "/home/me/gpt", "text": "~/a.txt, b.txt", "settings": {"files": ["/home/me/x.py"], "lr": 0.1}}
    )
    assert found == {"model": "gpt", "text": "a.txt, b.txt", "settings": {"files": ["x.py"], "lr": 0.1}}
