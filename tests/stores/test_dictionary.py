import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stores.dictionary import FeatureDictionary
from stores.formats.found import path_digest
from stores.site import Site
from stores.spec import ARCHITECTURES, WITH_K, Spec


def make(architecture: str, d_in: int = 8, d_sae: int = 20, k: int = 4) -> FeatureDictionary:
    torch.manual_seed(0)
    k = k if architecture in WITH_K else 0
    spec = Spec(architecture, d_in, d_sae, Site.at("blocks.0.hook_resid_post"), k, {"seed": 0})
    encoder, decoder = (torch.randn(d_in, d_sae), torch.randn(d_sae)), (torch.randn(d_sae, d_in), torch.randn(d_in))
    if architecture == "matching_pursuit":
        return FeatureDictionary(spec, None, None, torch.nn.functional.normalize(decoder[0]), decoder[1])
    others = {name: torch.rand(d_sae) for name in ARCHITECTURES[architecture]}
    return FeatureDictionary(spec, *encoder, *decoder, **others)


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "bases"])
def test_save_and_load_give_the_same_dictionary(tmp_path: Path, architecture: str) -> None:
    dictionary, x = make(architecture), torch.randn(3, 5, 8)
    dictionary.save(tmp_path / "d")
    loaded = FeatureDictionary.load(tmp_path / "d")
    assert torch.equal(loaded.encode(x), dictionary.encode(x))
    assert torch.equal(loaded(x), dictionary(x))
    dictionary.save(tmp_path / "again")
    assert path_digest(tmp_path / "again") == path_digest(tmp_path / "d")
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


@pytest.mark.parametrize("architecture", ["standard", "topk", "abs_topk", "jumprelu", "gated", "matching_pursuit"])
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
    with pytest.raises(ValueError, match="k = 4 of standard, which has none"):
        Spec("standard", 8, 20, k=4)
    with pytest.raises(ValueError, match=r"W_enc is \(8, 20\), expected \(8, 21\)"):
        FeatureDictionary(
            Spec("standard", 8, 21), torch.zeros(8, 20), torch.zeros(20), torch.zeros(20, 8), torch.zeros(8)
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
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "architecture": "temporal"}))
    with pytest.raises(ValueError, match="architecture 'temporal' is not one of"):
        FeatureDictionary.load(tmp_path)


@pytest.mark.interop
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "matching_pursuit"])
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


BIG = 10**12
CONFIG_MISTAKES = {
    "[1, 2]": "cfg.json holds",
    "{": "cfg.json is damaged: not JSON",
    "[" * 100_000: "cfg.json is damaged: not JSON",
    "\x00": "cfg.json is damaged: not JSON",
    '{"d_in": ' + "9" * 5000 + "}": "cfg.json is damaged: not JSON",
    '{"architecture": "standard"}': "cfg.json lacks d_in, d_sae",
}
VALUE_MISTAKES: list[tuple[str, object, str]] = [
    ("d_in", "8", "cfg.json: d_in = '8' is not a whole number"),
    ("d_in", BIG, f"W_enc is .*, expected \\({BIG}, 20\\) by cfg.json"),
    ("d_sae", -1, "cfg.json: d_sae = -1"),
    ("d_sae", True, "cfg.json: d_sae = True"),
    ("architecture", ["topk"], "cfg.json: architecture .* is not one of standard, topk"),
    ("architecture", "temporal", "cfg.json: architecture 'temporal' is not one of standard, topk, abs_topk, jumprelu, gated"),
    ("architecture", "transcoder", "cfg.json lacks d_out"),
    ("metadata", {"reads": "x"}, "cfg.json: metadata.reads is 'x', expected a list"),
    ("metadata", {"reads": ["a"], "writes": ["b"]}, "cfg.json: d_out is missing"),
    ("k", None, "cfg.json: k = None is not a whole number"),
    ("k", 2.0, "cfg.json: k = 2.0 is not a whole number"),
    ("k", 21, "cfg.json: k = 21 is not between 1 and d_sae = 20"),
    ("metadata", "x", "cfg.json: metadata is 'x', expected an object"),
    ("metadata", {"hook_name": 5}, "cfg.json: metadata.hook_name is 5, expected text"),
    ("apply_b_dec_to_input", "no", "cfg.json: apply_b_dec_to_input = 'no', expected true or false"),
]  # fmt: skip


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        FeatureDictionary.load(folder)
    assert str(error.value).isprintable()
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("text", CONFIG_MISTAKES, ids=["list", "cut", "deep", "nul", "long", "few"])
def test_a_config_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    make("topk").save(tmp_path)
    (tmp_path / "cfg.json").write_text(text)
    refused(tmp_path, CONFIG_MISTAKES[text])


@pytest.mark.parametrize(("key", "value", "message"), VALUE_MISTAKES)
def test_a_config_with_another_value_is_named(tmp_path: Path, key: str, value: object, message: str) -> None:
    make("topk").save(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, key: value}))
    refused(tmp_path, message)


def test_topk_without_k_is_named(tmp_path: Path) -> None:
    make("topk").save(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["k"]
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    refused(tmp_path, "cfg.json lacks k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "provenance.json holds"),
        ('{"model_digest": 5}', "provenance.json: model_digest is 5, expected text"),
        ('{"model": "a\\nb"}', "provenance.json: model is .*, expected text of one line"),
        ("{", "provenance.json is damaged"),
        ('{"method": "a/b"}', "provenance.json: method is called"),
    ],
)
def test_a_provenance_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    make("topk").save(tmp_path)
    (tmp_path / "provenance.json").write_text(text)
    refused(tmp_path, message)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors", "provenance.json"])
@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, name: str, what: str) -> None:
    make("topk").save(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir() if what == "folder" else os.mkfifo(tmp_path / name)
    refused(tmp_path, f"{name} is no file")


def write_header(folder: Path, header: bytes, data: bytes = b"", n: int | None = None) -> None:
    n = len(header) if n is None else n
    (folder / "sae_weights.safetensors").write_bytes(n.to_bytes(8, "little") + header + data)
    (folder / "provenance.json").unlink(missing_ok=True)


@pytest.mark.parametrize("n", [0, 3, 2**40, 2**63])
def test_a_header_that_claims_more_than_the_file_has_is_damaged(tmp_path: Path, n: int) -> None:
    make("topk").save(tmp_path)
    write_header(tmp_path, b"{}", n=n)
    refused(tmp_path, "sae_weights.safetensors is damaged")
    (tmp_path / "sae_weights.safetensors").write_bytes(b"")
    refused(tmp_path, "sae_weights.safetensors is damaged")


def test_weights_that_claim_more_than_the_file_has_are_damaged(tmp_path: Path) -> None:
    make("standard").save(tmp_path)
    shape = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    write_header(tmp_path, json.dumps({"W_enc": shape}).encode())
    refused(tmp_path, "sae_weights.safetensors is damaged")


def test_weights_of_another_dtype_or_not_finite_are_named(tmp_path: Path) -> None:
    make("standard").save(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    weights = load_file(file)
    (tmp_path / "provenance.json").unlink()
    save_file({**weights, "b_dec": torch.zeros(8, dtype=torch.int64)}, file)
    refused(tmp_path, "b_dec is of I64, expected one of F64, F32, F16, BF16")
    save_file({**weights, "b_enc": torch.full((20,), float("nan"))}, file)
    refused(tmp_path, "20 of 20 numbers in b_enc are not finite")
    save_file({**weights, "b_dec": torch.full((8,), 1e300, dtype=torch.float64)}, file)
    refused(tmp_path, "8 of 8 numbers in b_dec are not finite in float32")


def test_weights_in_half_precision_are_read_with_saelens_options(tmp_path: Path) -> None:
    make("topk").save(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    weights = load_file(file)
    (tmp_path / "provenance.json").unlink()
    mixed = {name: x.half() if name == "W_enc" else x for name, x in weights.items()}
    mixed["W_dec"][3] = 0  # a feature that writes nothing
    save_file(mixed, file)
    config = json.loads((tmp_path / "cfg.json").read_text())
    options = {"apply_b_dec_to_input": False, "rescale_acts_by_decoder_norm": True}
    (tmp_path / "cfg.json").write_text(json.dumps({**config, **options}))
    assert FeatureDictionary.load(tmp_path)(torch.randn(5, 8)).isfinite().all()
