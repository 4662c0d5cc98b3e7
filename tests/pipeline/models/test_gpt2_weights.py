"""A model is whole, or `unmix extract` refuses it with one line, exit code 2 and nothing written."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.config import UserError
from pipeline.models.files import DEMO, ModelFiles
from pipeline.models.gpt2_weights import Gpt2Settings
from pipeline.models.load import load_model
from pipeline.models.tokenizer import read_tokenizer
from tests.conftest import unmix

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\n"


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file({k: v.clone() for k, v in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def index(folder: Path, names: Any) -> None:
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def lose_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def add_token(folder: Path) -> None:
    tokenizer = read_tokenizer(folder)
    tokenizer.add_special_tokens(["[PAD]"])
    tokenizer.save(str(folder / "tokenizer.json"))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing layer": (
        lambda f: change_weights(f, lambda w: [w.pop(k) for k in list(w) if ".h.1." in k]),
        "config.json says n_layer = 2, .* holds 1",
    ),
    "claimed layers": (lambda f: configure(f, n_layer=10**12), f"says n_layer = {10**12}, .* holds 2"),
    "missing weight": (
        lambda f: change_weights(f, lambda w: w.pop("transformer.ln_f.bias")),
        "lacks the weight ln_f.bias",
    ),
    "left over": (
        lambda f: change_weights(f, lambda w: w.update(score=torch.zeros(2))),
        "model.safetensors holds score, which no GPT-2 language model has",
    ),
    "twice": (
        lambda f: change_weights(f, lambda w: w.update({"ln_f.bias": torch.zeros(32)})),
        "holds transformer.ln_f.bias a second time|holds ln_f.bias a second time",
    ),
    "integers": (
        lambda f: change_weights(f, lambda w: w.update({"transformer.ln_f.bias": torch.zeros(32).to(torch.int8)})),
        "holds transformer.ln_f.bias as I8",
    ),
    "config of another shape": (
        lambda f: configure(f, n_embd=48),
        r"holds transformer.wte.weight of shape \(4096, 32\), by config.json it should be \(4096, 48\)",
    ),
    "config of another MLP": (lambda f: configure(f, n_inner=64), r"mlp.c_fc.weight of shape \(32, 128\)"),
    "untied head that is not there": (
        lambda f: configure(f, tie_word_embeddings=False),
        "lacks the weight lm_head.weight",
    ),
    "tied head that is another": (
        lambda f: change_weights(f, lambda w: w.update({"lm_head.weight": torch.ones(4096, 32)})),
        "set tie_word_embeddings to false",
    ),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is empty"),
    "truncated weights": (lambda f: cut(f / "model.safetensors"), "model.safetensors is damaged"),
    "LFS weights": (
        lambda f: (f / "model.safetensors").write_text(LFS),
        "model.safetensors is a Git LFS pointer: run `git lfs pull`",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights, expected model.safetensors"),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "has no weights, expected model.safetensors",
    ),
    "index of a missing file": (lambda f: index(f, {"a": "b.safetensors"}), "lists b.safetensors, which is not there"),
    "index that leads elsewhere": (lambda f: index(f, {"a": "../x/y.safetensors"}), "no weight_map of names of files"),
    "index of nothing": (lambda f: index(f, [1]), "no weight_map of names of files"),
    "broken config": (lambda f: cut(f / "config.json"), r"config.json is damaged \(Unterminated"),
    "config that is a list": (lambda f: (f / "config.json").write_text("[]"), "holds a JSON list, expected an object"),
    "words for numbers": (lambda f: configure(f, n_head="two"), "config.json.n_head: .*integer, got 'two'"),
    "no layers": (lambda f: configure(f, n_layer=0), "config.json.n_layer: .*greater than or equal to 1, got 0"),
    "heads that do not divide": (lambda f: configure(f, n_head=3), "n_embd = 32 is no multiple of n_head = 3"),
    "unknown activation": (lambda f: configure(f, activation_function="gel"), "unknown activation_function 'gel'"),
    "BOS of GPT-2": (lambda f: configure(f, bos_token_id=50256), "bos_token_id = 50256, no id of the model, .* 4095"),
    "no BOS": (lambda f: configure(f, bos_token_id=None), "has no bos_token_id"),
    "a word as BOS": (lambda f: configure(f, bos_token_id="<s>"), "bos_token_id = '<s>', expected a token's id"),
    "no tokenizer": (lose_tokenizer, "no tokenizer in .*, expected tokenizer.json, or vocab.json and merges.txt"),
    "broken tokenizer": (lambda f: cut(f / "tokenizer.json"), "tokenizer.json is damaged"),
    "LFS tokenizer": (lambda f: (f / "tokenizer.json").write_text(LFS), "tokenizer.json is a Git LFS pointer"),
    "ids beyond the vocabulary": (add_token, r"has id 4096 \('\[PAD\]'\), the model's vocabulary ends at 4095"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_model_that_is_not_whole_is_refused_before_anything_is_written(
    recipe: Path,
    tiny_model: Path,
    what: str,
) -> None:
    broken, message = BROKEN[what]
    folder = recipe / "model"
    shutil.copytree(tiny_model, folder)
    broken(folder)
    done = unmix("extract", "tiny.toml", "--set", f"extract.model={folder}", cwd=recipe, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    assert str(folder) in done.stderr
    assert not (recipe / "runs").exists()


def test_bos_must_be_a_token_of_the_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    path = tmp_path / "m" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    largest = max(tokenizer["model"]["vocab"].values())
    assert largest == 4095
    token = next(t for t, i in tokenizer["model"]["vocab"].items() if i == largest)
    del tokenizer["model"]["vocab"][token]
    tokenizer["model"]["merges"] = [m for m in tokenizer["model"]["merges"] if "".join(m).replace(" ", "") != token]
    path.write_text(json.dumps(tokenizer))
    configure(tmp_path / "m", bos_token_id=largest)
    with pytest.raises(UserError, match="bos_token_id = 4095, no id of the tokenizer, whose largest is 4094"):
        ModelFiles.find(str(tmp_path / "m")).check()


def test_masks_and_a_tied_head_that_older_versions_saved_are_no_damage(tiny_model: Path, tmp_path: Path) -> None:
    """And the names of the first GPT-2, which lack "transformer."."""
    shutil.copytree(tiny_model, tmp_path / "m")
    weights = {k.removeprefix("transformer."): v for k, v in load_file(tiny_model / "model.safetensors").items()}
    weights |= {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in (0, 1)}
    weights |= {"h.0.attn.masked_bias": torch.tensor(-1e4), "lm_head.weight": weights["wte.weight"].clone()}
    save_file(weights, tmp_path / "m" / "model.safetensors")
    files, tokens = ModelFiles.find(str(tmp_path / "m")), torch.arange(40)[None]
    files.check()
    expected = load_model(ModelFiles.find(str(tiny_model))).forward(tokens, logits=True)[1]
    assert torch.equal(load_model(files).forward(tokens, logits=True)[1], expected)


@pytest.mark.parametrize("weight_processing", ["none", "folded"])
def test_an_untied_head_is_honoured(tmp_path: Path, weight_processing: str) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=90, n_positions=16, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path)
    tokens = torch.arange(16)[None]
    logits = load_model(ModelFiles.find(str(tmp_path)), weight_processing).forward(tokens, logits=True)[1]
    with torch.no_grad():
        expected = model(tokens).logits.log_softmax(-1)
    torch.testing.assert_close(logits.log_softmax(-1), expected, atol=1e-5, rtol=1e-5)


def test_weights_in_several_files_are_those_of_one(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    GPT2LMHeadModel.from_pretrained(tiny_model).save_pretrained(tmp_path / "m", max_shard_size="200KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    files, tokens = ModelFiles.find(str(tmp_path / "m")), torch.arange(40)[None]
    files.check()
    expected = load_model(ModelFiles.find(str(tiny_model))).forward(tokens, logits=True)[1]
    assert torch.equal(load_model(files).forward(tokens, logits=True)[1], expected)


CHANGES = {  # other values than the tiny model's and GPT-2's
    "activation_function": "relu", "layer_norm_epsilon": 1e-3, "n_embd": 64, "n_head": 4, "n_inner": 64, "n_layer": 3,
    "n_positions": 32, "scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False,
    "tie_word_embeddings": False, "vocab_size": 5000,
}  # fmt: skip
NAMES = {  # of GPT2Config: what is no number of the forward pass, or what `reorder_and_upcast_attn` is for: another one
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "summary_type", "summary_use_proj",
    "summary_activation", "summary_proj_to_labels", "summary_first_dropout", "use_cache", "bos_token_id", "eos_token_id",
    "pad_token_id", "reorder_and_upcast_attn", "add_cross_attention",
}  # fmt: skip


def test_every_setting_of_gpt2_is_a_number_of_the_digest_or_known_not_to_be() -> None:
    own = set(GPT2Config.__annotations__) - {"model_type", "keys_to_ignore_at_inference", "attribute_map"}
    assert set(Gpt2Settings.model_fields) == set(CHANGES)
    assert own == set(CHANGES) | NAMES
    defaults = GPT2Config()
    assert all(getattr(Gpt2Settings(), name) == getattr(defaults, name) for name in CHANGES)


@pytest.mark.parametrize("setting", CHANGES)
def test_the_digest_sees_every_number_of_config_json(tiny_model: Path, tmp_path: Path, setting: str) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    configure(tmp_path / "m", **{setting: CHANGES[setting]})
    assert ModelFiles.find(str(tmp_path / "m")).digest != ModelFiles.find(str(tiny_model)).digest


def test_the_digest_sees_no_names_and_no_file_beside_those_that_are_loaded(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    changes = {"_name_or_path": "x", "transformers_version": "9", "dtype": "bfloat16", "architectures": [], "x": 1}
    configure(tmp_path / "m", **changes, n_inner=128, resid_pdrop=0.5)  # n_inner is 4 d_model by default
    (tmp_path / "m" / "training_args.bin").write_bytes(b"x")
    (tmp_path / "m" / "other.safetensors").write_bytes(b"x")
    assert ModelFiles.find(str(tmp_path / "m")).digest == ModelFiles.find(str(tiny_model)).digest


def test_truncation_and_padding_of_a_tokenizer_are_off(tmp_path: Path) -> None:
    plain = read_tokenizer(DEMO)
    text = "import os\n" * 50
    set_up = read_tokenizer(DEMO)
    set_up.enable_truncation(8)
    set_up.enable_padding(length=700)
    set_up.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path)
    assert found.encode_batch_fast([text, "x"])[1].ids == plain.encode("x").ids
    assert found.encode(text).ids == plain.encode(text).ids
    assert found.to_str() == plain.to_str()  # and so the digest


def test_vocab_and_merges_make_the_tokenizer_of_tokenizer_json(tmp_path: Path) -> None:
    plain = read_tokenizer(DEMO)
    plain.model.save(str(tmp_path))
    (tmp_path / "config.json").write_text((DEMO / "config.json").read_text())
    text = "def f(x):\n    return x\n"
    assert read_tokenizer(tmp_path).encode(text).ids == plain.encode(text).ids


@pytest.mark.parametrize("wrong", [{"unk_token": "nothing"}, {"continuing_subword_prefix": "x" * 300}])
def test_a_tokenizer_that_fails_or_panics_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    tokenizer = json.loads((DEMO / "tokenizer.json").read_text())
    tokenizer["model"] |= {"byte_fallback": False, **wrong}
    tokenizer["pre_tokenizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"tokenizer.json is damaged \(") as error:
        read_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
