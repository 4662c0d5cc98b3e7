"""What other libraries leave, against their formulas; what files do not say is stated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stores.dictionary import FeatureDictionary
from stores.formats.found import dictionaries_in
from stores.site import Site
from tests.stores.formats.making import D_SAE, MLP, SITE, D, Kind, make, rows


def tensors(seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, D), "b_dec": (D,)}
    return {name: torch.randn(*shape, generator=g) / shape[0] ** 0.5 for name, shape in shapes.items()}


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_gemma_scope_is_jumprelu_and_subtracts_nothing(tmp_path: Path) -> None:
    w, x = tensors(), rows()
    threshold = torch.rand(D_SAE)
    np.savez(tmp_path / "params.npz", **{n: v.numpy() for n, v in w.items()}, threshold=threshold.numpy())
    pre = x @ w["W_enc"] + w["b_enc"]
    z = pre * (pre > threshold)
    for path in (tmp_path, tmp_path / "params.npz"):
        found = FeatureDictionary.load(path, hook_point="blocks.3.hook_resid_post")
        same(found.encode(x), z)
        same(found(x), z @ w["W_dec"] + w["b_dec"])
        assert found.hook_point == "blocks.3.hook_resid_post"
    transcoder = FeatureDictionary.load(tmp_path, hook_point=MLP.name)
    assert (transcoder.site, transcoder.d_out, transcoder.spec.d_out) == (MLP, D, D)
    same(transcoder(x), z @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pt"])
@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize("turned", [(), ("W_enc",), ("W_dec",), ("W_enc", "W_dec")])
def test_plain_files_in_either_orientation(tmp_path: Path, ending: str, subtracts: bool, turned: tuple) -> None:
    w, x, file = tensors(), rows(), tmp_path / f"sae.{ending}"
    kept = {name: v.T.contiguous() if name in turned else v for name, v in w.items()}
    if ending == "npz":
        np.savez_compressed(file, **{name: v.numpy() for name, v in kept.items()})
    else:
        save_file(kept, file) if ending == "safetensors" else torch.save(kept, file)
    z = ((x - w["b_dec"] * subtracts) @ w["W_enc"] + w["b_enc"]).relu()
    found = FeatureDictionary.load(file, apply_b_dec_to_input=subtracts)
    same(found.encode(x), z)
    same(found(x), z @ w["W_dec"] + w["b_dec"])
    top = FeatureDictionary.load(file, apply_b_dec_to_input=subtracts, k=3)
    assert (top.spec.architecture, int((top.encode(x) != 0).sum(-1).max())) == ("topk", 3)
    with pytest.raises(
        ValueError, match=r"does not say whether b_dec is subtracted from x: state apply_b_dec_to_input"
    ):
        FeatureDictionary.load(file)


def test_a_linear_decoders_own_bias_is_not_subtracted(tmp_path: Path) -> None:
    w, x = tensors(), rows()
    theirs = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
    theirs |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
    save_file({name: v.contiguous() for name, v in theirs.items()}, tmp_path / "a.safetensors")
    same(FeatureDictionary.load(tmp_path)(x), (x @ w["W_enc"] + w["b_enc"]).relu() @ w["W_dec"] + w["b_dec"])


def test_square_matrices_are_refused_unless_their_names_tell(tmp_path: Path) -> None:
    W, b = torch.randn(D, D), torch.zeros(D)
    save_file({"W_enc": W, "b_enc": b, "W_dec": W.clone(), "b_dec": b.clone()}, tmp_path / "a.safetensors")
    with pytest.raises(
        ValueError, match=r"a.safetensors: W_enc is square, \(8, 8\): which axis is which cannot be told"
    ):
        FeatureDictionary.load(tmp_path)
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    save_file(dict(zip(names, (W, b, W.clone(), b.clone()), strict=True)), tmp_path / "a.safetensors")
    same(FeatureDictionary.load(tmp_path)(rows()), (rows() @ W.T).relu() @ W.T)


def test_means_logs_and_scales_are_folded(tmp_path: Path) -> None:
    w, x, mean, threshold = tensors(), rows(), torch.randn(D), torch.rand(D_SAE)
    scale = torch.rand(D_SAE) + 0.5
    save_file(
        {**w, "act_mean": mean, "log_threshold": threshold.log(), "finetuning_scaling_factor": scale},
        tmp_path / "a.safetensors",
    )
    found = FeatureDictionary.load(tmp_path, apply_b_dec_to_input=True)
    pre = (x - mean - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    z = pre.relu() * (pre > threshold)
    same(found.encode(x), z)
    same(found(x), (z * scale) @ w["W_dec"] + w["b_dec"] + mean)
    pre_bias = w.pop("b_dec")
    save_file({**w, "pre_bias": pre_bias}, tmp_path / "a.safetensors")
    same(
        FeatureDictionary.load(tmp_path)(x),
        ((x - pre_bias) @ w["W_enc"] + w["b_enc"]).relu() @ w["W_dec"] + pre_bias,
    )


def test_gated_weights_with_another_bias_than_ours(tmp_path: Path) -> None:
    w, x, r, b_mag = tensors(), rows(), torch.randn(D_SAE), torch.randn(D_SAE)
    gate = w.pop("b_enc")
    save_file({**w, "gate_bias": gate, "mag_bias": b_mag, "r_mag": r}, tmp_path / "a.safetensors")
    found = FeatureDictionary.load(tmp_path, apply_b_dec_to_input=False)
    linear = x @ w["W_enc"]
    same(found.encode(x), (linear * r.exp() + b_mag).relu() * (linear + gate > 0))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_saelens_folder_from_before_6(tmp_path: Path, factor: float) -> None:
    w, x, scale = tensors(), rows(), torch.full((D_SAE,), factor)
    save_file({**w, "scaling_factor": scale}, tmp_path / "sae_weights.safetensors")
    old = {"d_in": D, "d_sae": D_SAE, "hook_point": SITE.name, "model_name": "gpt2-small", "activation_fn_str": "topk"}
    old |= {"activation_fn_kwargs": {"k": 3}, "normalize_activations": False, "finetuning_scaling_factor": factor == 2}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    found = FeatureDictionary.load(tmp_path)
    values, indices = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).topk(3)
    z = torch.zeros(len(x), D_SAE).scatter(-1, indices, values.relu())
    same(found.encode(x), z)
    same(found(x), (z * factor) @ w["W_dec"] + w["b_dec"])
    assert (found.site, found.provenance["model"]) == (SITE, "gpt2-small")
    if factor != 1:
        (tmp_path / "cfg.json").write_text(json.dumps({**old, "finetuning_scaling_factor": False}))
        with pytest.raises(ValueError, match="scaling_factor is not 1, and cfg.json does not say"):
            FeatureDictionary.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "groupmax"}, "activation = 'groupmax', signed = False, only 'topk' without signs"),
        ({"signed": True}, "signed = True, only 'topk' without signs"),
        ({"skip_connection": True}, "skip_connection = true of an autoencoder"),
        ({"transcode": "yes"}, "transcode = 'yes', skip_connection = False, expected true or false"),
        ({"k": "4"}, "k = '4' is not a whole number"),
        ({"d_in": 9}, "d_in = 9, sae.safetensors has 8"),
    ],
)
def test_what_sparsify_has_and_this_has_not(tmp_path: Path, change: dict, message: str) -> None:
    w = tensors()
    kept = {
        "encoder.weight": w["W_enc"].T.contiguous(),
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    save_file(kept, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({"d_in": D, "k": 4}))
    assert FeatureDictionary.load(tmp_path).spec.k == 4
    (tmp_path / "cfg.json").write_text(json.dumps({"d_in": D, "k": 4, **change}))
    with pytest.raises(ValueError, match=f"cfg.json: .*{message}"):
        FeatureDictionary.load(tmp_path)


def test_dictionary_learnings_other_classes_are_named(tmp_path: Path) -> None:
    torch.save(tensors(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "IdentityDict"}}))
    with pytest.raises(
        ValueError, match=r"config.json: trainer.dict_class is 'IdentityDict', not one of AutoEncoder, "
    ):
        FeatureDictionary.load(tmp_path)


def test_a_hook_point_is_stated_instead_of_what_the_file_says(tmp_path: Path) -> None:
    make(Kind("topk")).save(tmp_path / "layers.5.mlp")
    stated = "blocks.{layer}.hook_mlp_out"
    assert FeatureDictionary.load(tmp_path / "layers.5.mlp", hook_point=stated).site == Site.at("blocks.5.hook_mlp_out")
    with pytest.raises(ValueError, match="k = 4, but 7 is stated"):
        FeatureDictionary.load(tmp_path / "layers.5.mlp", k=7)
    with pytest.raises(ValueError, match="no slashes"):
        FeatureDictionary.load(tmp_path / "layers.5.mlp", hook_point="../x")


def test_all_dictionaries_below_a_folder_are_found(tmp_path: Path) -> None:
    make(Kind("topk")).save(tmp_path / "all" / "ours")
    for place in ("layer_20/width_16k", "layer_21/width_16k"):
        (tmp_path / "all" / place).mkdir(parents=True)
        np.savez(tmp_path / "all" / place / "params.npz", **{name: x.numpy() for name, x in tensors().items()})
    (tmp_path / "all" / "notes.txt").write_text("mine")
    (tmp_path / "all" / "again").symlink_to(tmp_path / "all" / "ours")
    found = [str(path.relative_to(tmp_path / "all")) for path in dictionaries_in(tmp_path / "all")]
    assert found == ["layer_20/width_16k", "layer_21/width_16k", "ours"]
    assert dictionaries_in(tmp_path / "all" / "ours") == [tmp_path / "all" / "ours"]


def test_a_tensor_whose_part_is_not_known_is_refused(tmp_path: Path) -> None:
    save_file({**tensors(), "W_gate": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="holds 'W_gate', whose part in a dictionary is not known here"):
        FeatureDictionary.load(tmp_path)
    weights = load_file(tmp_path / "a.safetensors")
    del weights["W_gate"]
    save_file({**weights, "threshold": torch.zeros(D_SAE), "r_mag": torch.zeros(D_SAE)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="has r_mag, threshold besides its maps"):
        FeatureDictionary.load(tmp_path)
    save_file({**weights, "encoder.bias": torch.zeros(D_SAE)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="has b_enc by two names of b_enc, encoder.bias"):
        FeatureDictionary.load(tmp_path)
    save_file({name: x for name, x in weights.items() if name != "b_enc"}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="lacks b_enc: b_enc, encoder.bias"):
        FeatureDictionary.load(tmp_path)


def test_what_is_stated_and_is_no_site_is_named_with_the_file(tmp_path: Path) -> None:
    make(Kind("topk")).save(tmp_path / "ours")
    save_file(tensors(), tmp_path / "a.safetensors")
    for path in (tmp_path / "ours", tmp_path / "a.safetensors"):
        for hook_point, message in {"blocks.{layer}.x": "no layer stands in the path", "../x": "no slashes"}.items():
            with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
                FeatureDictionary.load(path, hook_point=hook_point)
