"""OpenMOSS's folders against the formulas of its own code."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stores.dictionary import FeatureDictionary
from stores.formats.found import dictionaries_in
from stores.site import Site
from tests.stores.formats.making import D_SAE, MLP, SITE, D, rows

NORMS = {"in": 3.0, "out": 5.0}
BASE = {"d_model": D, "expansion_factor": D_SAE / D, "top_k": 4, "norm_activation": "dataset-wise"}


def drawn(seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_E": (D, D_SAE), "b_E": (D_SAE,), "W_D": (D_SAE, D), "b_D": (D,)}
    return {name: torch.randn(*shape, generator=g) for name, shape in shapes.items()}


def write_2(folder: Path, w: dict[str, Tensor], **changes: Any) -> dict[str, Any]:
    config = {**BASE, "sae_type": "sae", "hook_point_in": MLP.reads[0], "hook_point_out": MLP.writes[0], **changes}
    names = dict(zip((config["hook_point_in"], config["hook_point_out"]), NORMS.values(), strict=True))
    folder.mkdir(exist_ok=True, parents=True)
    norms = {f"dataset_average_activation_norm.{hook}": torch.tensor(x) for hook, x in names.items()}
    save_file({**w, **norms}, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return config


def f(pre: Tensor, act_fn: str, threshold: Tensor | float) -> Tensor:
    if act_fn == "topk":
        values, indices = pre.relu().topk(4)
        return torch.zeros_like(pre).scatter(-1, indices, values)
    return pre * (pre > threshold) if act_fn == "jumprelu" else pre.relu()


@pytest.mark.parametrize("act_fn", ["relu", "topk", "jumprelu"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("scaled", ["dataset-wise", "inference"])
@pytest.mark.parametrize("site", [MLP, SITE])
def test_version_2(tmp_path: Path, act_fn: str, norm: bool, scaled: str, site: Site) -> None:
    w, x = drawn(), rows()
    a, c = (math.sqrt(D) / n if scaled == "dataset-wise" else 1.0 for n in NORMS.values())
    a = c if site is SITE else a  # one hook point has one norm
    log = {"activation_function.log_jumprelu_threshold": torch.rand(D_SAE).log()} if act_fn == "jumprelu" else {}
    hooks = {"hook_point_in": site.reads[0], "hook_point_out": site.writes[0]}
    options = {"act_fn": act_fn, "sparsity_include_decoder_norm": norm, "norm_activation": scaled, **hooks}
    write_2(tmp_path, {**w, **log}, **options)
    length = w["W_D"].norm(dim=1) if norm else torch.ones(D_SAE)
    z = f((a * x @ w["W_E"] + w["b_E"]) * length, act_fn, next(iter(log.values()), torch.zeros(1)).exp()) / length
    ours = FeatureDictionary.load(tmp_path)
    torch.testing.assert_close(ours(x), (z @ w["W_D"] + w["b_D"]) / c, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.encode(x), z / a * (length * a / c if norm else 1), rtol=1e-4, atol=1e-4)
    assert (ours.site, dictionaries_in(tmp_path)) == (site, [tmp_path])
    if norm:
        torch.testing.assert_close(ours.W_dec.norm(dim=1), torch.ones(D_SAE))


@pytest.mark.parametrize("place", ["sae_weights.safetensors", "checkpoints/final.safetensors"])
@pytest.mark.parametrize(("act_fn", "threshold"), [("relu", 0.0), ("topk", 0.0), ("topk", 0.4), ("jumprelu", 0.4)])
@pytest.mark.parametrize("subtracts", [False, True])
def test_version_1(tmp_path: Path, place: str, act_fn: str, threshold: float, subtracts: bool) -> None:
    w, x = drawn(), rows()
    hook = {"hook_point_in": SITE.reads[0], "hook_point_out": None}
    options = {"act_fn": act_fn, "jump_relu_threshold": threshold, "apply_decoder_bias_to_pre_encoder": subtracts}
    config = {**BASE, **hook, **options, "dataset_average_activation_norm": {"in": 3.0, "out": 3.0}}
    (tmp_path / place).parent.mkdir(exist_ok=True)
    theirs = {"encoder.weight": w["W_E"].T, "encoder.bias": w["b_E"], "decoder.weight": w["W_D"].T}
    kept = {name: weight.contiguous() for name, weight in {**theirs, "decoder.bias": w["b_D"]}.items()}
    save_file(kept, tmp_path / place)
    (tmp_path / "hyperparams.json").write_text(json.dumps(config))
    a = math.sqrt(D) / 3  # its loader folds this, and then the decoder's norms
    length, b_D = w["W_D"].norm(dim=1), w["b_D"] / a
    pre = ((x - b_D * subtracts) @ w["W_E"] + w["b_E"] / a) * length
    z = f(pre, "jumprelu" if threshold else act_fn, threshold)
    for path in (tmp_path, tmp_path / place, (tmp_path / place).parent):
        ours = FeatureDictionary.load(path)
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(x), z @ (w["W_D"] / length[:, None]) + b_D, rtol=1e-4, atol=1e-4)
    assert ours.site == SITE


def test_weights_whose_activation_nobody_says_are_refused(tmp_path: Path) -> None:
    w = drawn()
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "final.safetensors"
    save_file({"W_enc": w["W_E"], "b_enc": w["b_E"], "W_dec": w["W_D"], "b_dec": w["b_D"]}, file)
    for path in (file, file.parent):
        with pytest.raises(
            ValueError, match="final.safetensors: what .* is said by the hyperparams.json above it, and there"
        ):
            FeatureDictionary.load(path)


def test_version_2_may_lie_in_a_folder_named_checkpoints(tmp_path: Path) -> None:
    write_2(tmp_path / "checkpoints", drawn(), norm_activation="inference")
    for path in (tmp_path / "checkpoints", tmp_path / "checkpoints" / "sae_weights.safetensors"):
        assert FeatureDictionary.load(path).site == MLP


def test_a_decoder_without_a_bias(tmp_path: Path) -> None:
    w = drawn()
    del w["b_D"]
    write_2(tmp_path, w, use_decoder_bias=False, norm_activation="inference")
    assert not FeatureDictionary.load(tmp_path).b_dec.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sae_type": "clt"}, "sae_type is 'clt', only 'sae' can be read"),
        ({"sae_type": "lorsa"}, "sae_type is 'lorsa', only 'sae' can be read"),
        ({"act_fn": "batchtopk"}, "act_fn is 'batchtopk', only relu, topk, jumprelu can be read"),
        ({"norm_activation": "token-wise"}, "norm_activation is 'token-wise', which depends on the batch or is not linear"),
        ({"use_glu_encoder": True}, "use_glu_encoder = true cannot be read"),
        ({"sparsity_include_decoder_norm": "yes"}, "sparsity_include_decoder_norm = 'yes', expected true or false"),
        ({"hook_point_in": "../x"}, "a name has no slashes"),
        ({"hook_point_in": 5}, "hook_point_in is 5, expected text"),
        ({"d_model": 9}, "d_model = 9, sae_weights.safetensors has 8"),
        ({"act_fn": "jumprelu"}, "has nothing besides its maps, expected .* of jumprelu"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = write_2(tmp_path, drawn())
    FeatureDictionary.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message) as error:
        FeatureDictionary.load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("norm", [None, 0, -1.0, "3", {"in": 3}])
def test_a_norm_that_is_none_is_named(tmp_path: Path, norm: object) -> None:
    config = {**BASE, "hook_point_in": SITE.reads[0], "dataset_average_activation_norm": norm}
    save_file({"encoder.weight": torch.zeros(D_SAE, D)}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "hyperparams.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="dataset_average_activation_norm is None, expected a number above 0"):
        FeatureDictionary.load(tmp_path)
