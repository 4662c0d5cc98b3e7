import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stores.dictionary import ARCHITECTURES, FeatureDictionary, Spec, folder_digest


def make(architecture: str, d_in: int = 8, d_sae: int = 20, k: int = 4) -> FeatureDictionary:
    torch.manual_seed(0)
    spec = Spec(architecture, d_in, d_sae, "blocks.0.hook_resid_post", k if architecture == "topk" else 0, {"seed": 0})
    weights = torch.randn(d_in, d_sae), torch.randn(d_sae), torch.randn(d_sae, d_in), torch.randn(d_in)
    others = {name: torch.rand(d_sae) for name in ARCHITECTURES[architecture]}
    return FeatureDictionary(spec, *weights, **others)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_save_and_load_give_the_same_dictionary(tmp_path: Path, architecture: str) -> None:
    dictionary, x = make(architecture), torch.randn(3, 5, 8)
    dictionary.save(tmp_path / "d")
    loaded = FeatureDictionary.load(tmp_path / "d")
    assert torch.equal(loaded.encode(x), dictionary.encode(x))
    assert torch.equal(loaded(x), dictionary(x))
    dictionary.save(tmp_path / "again")
    assert folder_digest(tmp_path / "again") == folder_digest(tmp_path / "d")
    assert loaded.provenance["seed"] == 0
    assert loaded.hook_point == dictionary.hook_point


def test_codes_by_hand() -> None:
    eye = torch.eye(3)
    x = torch.tensor([[3.0, -2.0, 1.0]])
    weights = (eye, torch.tensor([0.0, 0.0, 0.5]), 2 * eye, torch.tensor([1.0, 0.0, 0.0]))
    encode = {
        a: FeatureDictionary(Spec(a, 3, 3, k=k), *weights) for a, k in (("standard", 0), ("topk", 1), ("linear", 0))
    }
    assert encode["standard"].encode(x).tolist() == [[2.0, 0.0, 1.5]]
    assert encode["topk"].encode(x).tolist() == [[2.0, 0.0, 0.0]]
    assert encode["linear"].encode(x).tolist() == [[2.0, -2.0, 1.5]]
    assert encode["linear"](x).tolist() == [[5.0, -4.0, 3.0]]
    assert encode["linear"].signed
    assert not encode["topk"].signed
    torch.testing.assert_close(encode["topk"].directions, eye)
    # pre-activations are (2, -2, 1.5)
    jumprelu = FeatureDictionary(Spec("jumprelu", 3, 3), *weights, threshold=torch.tensor([1.9, 0.0, 1.6]))
    assert jumprelu.encode(x).tolist() == [[2.0, 0.0, 0.0]]
    r_mag, b_mag = torch.tensor([2.0, 2.0, 1.0]).log(), torch.tensor([-1.0, 9.0, -1.5])
    gated = FeatureDictionary(Spec("gated", 3, 3), *weights, r_mag=r_mag, b_mag=b_mag)
    torch.testing.assert_close(gated.encode(x), torch.tensor([[3.0, 0.0, 0.0]]))


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_the_sparse_code_is_the_code(architecture: str) -> None:
    dictionary, x = make(architecture), torch.randn(2, 7, 8)
    values, indices = dictionary.encode_sparse(x)
    dense = torch.zeros(2, 7, 20).scatter(-1, indices, values)
    assert torch.equal(dense, dictionary.encode(x))


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    make("topk").save(tmp_path)
    data = bytearray((tmp_path / "sae_weights.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "sae_weights.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="was altered"):
        FeatureDictionary.load(tmp_path)


def test_other_sizes_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x has 9 coordinates, the dictionary takes d_in = 8"):
        make("standard").encode(torch.zeros(9))
    with pytest.raises(ValueError, match="no feature dictionary"):
        FeatureDictionary.load(tmp_path)
    with pytest.raises(ValueError, match="k = 21 is not between"):
        Spec("topk", 8, 20, k=21)
    with pytest.raises(ValueError, match=r"W_enc is \(8, 20\), expected \(8, 21\)"):
        FeatureDictionary(
            Spec("standard", 8, 21), torch.zeros(8, 20), torch.zeros(21), torch.zeros(21, 8), torch.zeros(8)
        )


@pytest.mark.parametrize(("option", "value"), [("apply_b_dec_to_input", False), ("rescale_acts_by_decoder_norm", True)])
def test_options_of_saelens_are_folded_into_the_weights(tmp_path: Path, option: str, value: bool) -> None:
    dictionary, x = make("topk"), torch.randn(50, 8)
    dictionary.save(tmp_path)
    (tmp_path / "provenance.json").unlink()
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, option: value}))
    w = load_file(tmp_path / "sae_weights.safetensors")
    pre = (x - (0 if option == "apply_b_dec_to_input" else w["b_dec"])) @ w["W_enc"] + w["b_enc"]
    norm = w["W_dec"].norm(dim=-1) if option == "rescale_acts_by_decoder_norm" else torch.ones(20)
    values, indices = (pre * norm).topk(4)
    z = torch.zeros(50, 20).scatter(-1, indices, values.relu())
    torch.testing.assert_close(FeatureDictionary.load(tmp_path)(x), (z / norm) @ w["W_dec"] + w["b_dec"])


def test_what_cannot_be_expressed_is_refused(tmp_path: Path) -> None:
    make("standard").save(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "normalize_activations": "layer_norm"}))
    with pytest.raises(ValueError, match="normalize_activations = 'layer_norm'"):
        FeatureDictionary.load(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "architecture": "transcoder"}))
    with pytest.raises(ValueError, match="architecture 'transcoder' is not one of"):
        FeatureDictionary.load(tmp_path)


def test_stores_need_no_transformers() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None; sys.modules['pipeline'] = None\n"
        "from stores import FeatureDictionary, ActivationStore, BatchLoader"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_hub_folder_is_read_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--dictionaries"
    dictionary = make("topk")
    dictionary.save(repository / "snapshots" / ("0" * 40) / "layer-3")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    x = torch.randn(4, 8)
    assert torch.equal(FeatureDictionary.from_hub("someone/dictionaries", "layer-3")(x), dictionary(x))


@pytest.mark.interop
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_saelens_loads_the_folder_and_computes_the_same(tmp_path: Path, architecture: str) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    dictionary, x = make(architecture), torch.randn(30, 8)
    dictionary.save(tmp_path)
    theirs = saelens.SAE.load_from_disk(str(tmp_path), device="cpu")
    torch.testing.assert_close(theirs.encode(x), dictionary.encode(x))
    torch.testing.assert_close(theirs(x), dictionary(x))


def test_a_foreign_folder_without_provenance_loads(tmp_path: Path) -> None:
    dictionary = make("standard")
    dictionary.save(tmp_path)
    (tmp_path / "provenance.json").unlink()
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file(weights, tmp_path / "sae_weights.safetensors")
    assert FeatureDictionary.load(tmp_path).provenance == {}
