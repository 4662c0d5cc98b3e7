"""A model of any architecture is whole, or refused with one line, exit code 2 and nothing written."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import UserError
from pipeline.models.architectures import ARCHITECTURES
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from tests.conftest import unmix
from tests.pipeline.models.small import SMALL, save_small
from tests.pipeline.models.test_gpt2_weights import change_weights, configure, cut

DOWN = "model.layers.2.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    shutil.copytree(llama, tmp_path / "m")
    return tmp_path / "m"


def split(folder: Path) -> None:
    """Into three files, with an index of them."""
    weights, names = load_file(folder / "model.safetensors"), {}
    for part in range(3):
        own = {k: v for i, (k, v) in enumerate(sorted(weights.items())) if i % 3 == part}
        save_file(own, folder / f"model-{part}.safetensors", {"format": "pt"})
        names |= dict.fromkeys(own, f"model-{part}.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def lose_a_part(folder: Path) -> None:
    split(folder)
    (folder / "model-1.safetensors").unlink()


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "unknown architecture": (
        lambda f: configure(f, model_type="bert"),
        "is a bert model, known are gpt2, gpt_neox, llama, mistral, qwen2, qwen3, gemma2, gemma3_text",
    ),
    "missing weight": (lambda f: change_weights(f, lambda w: w.pop(DOWN)), f"lacks the weight {DOWN}"),
    "missing layer": (
        lambda f: change_weights(f, lambda w: [w.pop(k) for k in list(w) if ".layers.1." in k]),
        "config.json says 3 layers, .* holds 2",
    ),
    "claimed layers": (lambda f: configure(f, num_hidden_layers=10**9), f"config.json says {10**9} layers, .* holds 3"),
    "left over": (
        lambda f: change_weights(f, lambda w: w.update(score=torch.zeros(2))),
        "holds score, which no llama language model has",
    ),
    "another shape": (
        lambda f: configure(f, intermediate_size=40),
        r"mlp.down_proj.weight of shape \(32, 48\), by config.json it should be \(32, 40\)",
    ),
    "integers": (
        lambda f: change_weights(f, lambda w: w.update({DOWN: torch.zeros(32, 48, dtype=torch.int8)})),
        f"holds {DOWN} as I8",
    ),
    "quantized": (lambda f: configure(f, quantization_config={"quant_method": "gptq"}), "the weights are quantized"),
    "words for numbers": (lambda f: configure(f, num_attention_heads="two"), "transformers takes no such settings: "),
    "no layers": (lambda f: configure(f, num_hidden_layers=0), "expected to be 1 or more"),
    "tied head that is another": (lambda f: configure(f, tie_word_embeddings=True), "set tie_word_embeddings to false"),
    "untied head that is not there": (
        lambda f: change_weights(f, lambda w: w.pop("lm_head.weight")),
        "lacks the weight lm_head.weight",
    ),
    "truncated": (lambda f: cut(f / "model.safetensors"), "model.safetensors is damaged"),
    "a part that is not there": (lose_a_part, "lists model-1.safetensors, which is not there"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights, expected model.safetensors"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_model_that_is_not_whole_is_refused_before_anything_is_written(
    recipe: Path,
    copy: Path,
    what: str,
) -> None:
    broken, message = BROKEN[what]
    broken(copy)
    sets = ["--set", f"extract.model={copy}", "--set", "extract.context=32"]
    done = unmix("extract", "tiny.toml", *sets, cwd=recipe, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (recipe / "runs").exists()


def test_folding_is_for_gpt2_alone(recipe: Path, copy: Path) -> None:
    sets = ["--set", f"extract.model={copy}", "--set", "extract.weight_processing=folded"]
    done = unmix("extract", "tiny.toml", *sets, cwd=recipe, check=False)
    assert done.returncode == 2
    assert re.search('"folded" is for gpt2 alone, .* is a llama model: set it to "none"', done.stderr)
    assert not (recipe / "runs").exists()


def logits(folder: Path, **options: Any) -> torch.Tensor:
    files = ModelFiles.find(str(folder))
    files.check()
    return load_model(files, **options).forward(torch.arange(20)[None], logits=True)[1]


def test_weights_in_several_files_are_those_of_one(llama: Path, copy: Path) -> None:
    split(copy)
    assert torch.equal(logits(copy), logits(llama))


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        ("gpt_neox", {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8).tril(),
                      "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)}),
    ],
)  # fmt: skip
def test_what_older_versions_saved_beside_the_weights_is_no_damage(
    tmp_path: Path, name: str, left: dict[str, torch.Tensor]
) -> None:
    expected = logits(save_small(tmp_path, name))
    change_weights(tmp_path, lambda w: w.update(left))
    assert torch.equal(logits(tmp_path), expected)


def test_weights_are_held_in_the_precision_that_products_take(tmp_path: Path) -> None:
    """bfloat16 weights are the numbers that they are; products that take bfloat16 hold them so."""
    save_small(tmp_path, "llama", torch.bfloat16)
    files = ModelFiles.find(str(tmp_path))
    saved = load_file(tmp_path / "model.safetensors")[DOWN]
    assert saved.dtype == torch.bfloat16
    exact, rounded = (load_model(files, precision=p) for p in ("float32", "bfloat16"))
    assert torch.equal(exact.writer("blocks.2.hook_mlp_out"), saved.float())
    assert torch.equal(rounded.writer("blocks.2.hook_mlp_out"), saved.float())
    held: Any = rounded
    assert held.layers[2].mlp.down_proj.weight.dtype == torch.bfloat16
    assert held.layers[2].input_layernorm.weight.dtype == torch.float32


def test_only_the_layers_that_are_needed_are_loaded(llama: Path) -> None:
    model: Any = load_model(ModelFiles.find(str(llama)), n_layers=1)
    assert model.n_layers == 1
    assert sum(".mlp.down_proj." in name for name, _ in model.model.named_parameters()) == 1


CHANGES = {
    "num_attention_heads": 2, "rms_norm_eps": 0.1, "hidden_act": "gelu", "max_position_embeddings": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5.0}, "attention_bias": True, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize("setting", CHANGES)
def test_the_digest_sees_every_number_of_config_json(llama: Path, copy: Path, setting: str) -> None:
    configure(copy, **{setting: CHANGES[setting]})
    assert ModelFiles.find(str(copy)).digest != ModelFiles.find(str(llama)).digest


def test_the_digest_sees_no_names(llama: Path, copy: Path) -> None:
    configure(copy, _name_or_path="x", transformers_version="9", dtype="bfloat16", architectures=[], bos_token_id=1)
    assert ModelFiles.find(str(copy)).digest == ModelFiles.find(str(llama)).digest


def test_every_architecture_that_is_known_is_tested() -> None:
    assert {model_type for model_type, _ in SMALL.values()} | {"gpt2"} == set(ARCHITECTURES)


def test_a_hook_point_that_an_architecture_lacks_is_told(tmp_path: Path) -> None:
    save_small(tmp_path, "gpt_neox")
    with pytest.raises(UserError, match=r"unknown hook point 'blocks.0.hook_resid_mid'"):
        ModelFiles.find(str(tmp_path)).d("blocks.0.hook_resid_mid")
