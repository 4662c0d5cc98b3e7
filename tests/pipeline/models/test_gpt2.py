import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.hook_points import Sizes, place
from pipeline.models.hub import model_snapshot
from pipeline.models.load import load_model
from stores.activations import ActivationStore
from tests.conftest import unmix
from tests.pipeline.models.small import check_gradients

SIZES = Sizes(n_layers=2, n_positions=64, vocab_size=4096, d_model=32, d_mlp=128, n_heads=2, d_head=16)
HEADS = [f"blocks.{layer}.attn.hook_z.{head}" for layer in (0, 1) for head in (0, 1)]
ALL = SIZES.hook_points + HEADS


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 4096, (3, 40), generator=torch.Generator().manual_seed(0))


def test_logits_are_those_of_transformers(tiny_model: Path, tokens: torch.Tensor) -> None:
    model = load_model(ModelFiles.find(str(tiny_model)))
    _, logits = model.forward(tokens, logits=True)
    with torch.no_grad():
        expected = GPT2LMHeadModel.from_pretrained(tiny_model, attn_implementation="eager")(tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_differs_by_rounding_alone(tiny_model: Path, tokens: torch.Tensor) -> None:
    files = ModelFiles.find(str(tiny_model))
    exact, _ = load_model(files).forward(tokens, capture=ALL)
    rounded, _ = load_model(files, precision="bfloat16").forward(tokens, capture=ALL)
    for hook_point in set(ALL) - {"hook_embed", "blocks.0.hook_resid_pre", "blocks.0.ln1.hook_normalized"}:
        error = (rounded[hook_point].float() - exact[hook_point]).square().mean() / exact[hook_point].square().mean()
        assert 0 < error < 3e-4, hook_point  # a rounding is 2^-9 relative, and about ten of them add up
    assert rounded["blocks.1.hook_resid_post"].dtype == torch.float32
    assert rounded["blocks.1.mlp.hook_post"].dtype == torch.bfloat16


@pytest.mark.parametrize("weight_processing", ["none", "folded"])
def test_activations_are_those_of_transformer_lens(
    tiny_model: Path, tokens: torch.Tensor, weight_processing: str
) -> None:
    import transformer_lens as lens

    model = load_model(ModelFiles.find(str(tiny_model)), weight_processing)
    reference = GPT2LMHeadModel.from_pretrained(tiny_model, dtype=torch.float32)
    config = lens.HookedTransformerConfig(
        n_layers=2, d_model=32, n_ctx=64, d_head=16, n_heads=2, d_vocab=4096, act_fn="gelu_new", normalization_type="LN"
    )
    theirs = lens.HookedTransformer(config)
    state = lens.loading_from_pretrained.convert_gpt2_weights(reference, config)
    folded = weight_processing == "folded"
    theirs.load_and_process_state_dict(
        state, fold_ln=folded, center_writing_weights=folded, center_unembed=folded, fold_value_biases=folded
    )
    with torch.no_grad():
        logits, cache = theirs.run_with_cache(tokens)
    captured, own_logits = model.forward(tokens, capture=ALL, logits=True)
    assert set(captured) == set(ALL)
    expected = {h: cache[h].flatten(2) for h in SIZES.hook_points}
    expected |= {f"{h}.{i}": cache[h][:, :, i] for h in cache if h.endswith("hook_z") for i in (0, 1)}
    assert set(expected) == set(ALL)
    for hook_point in ALL:
        torch.testing.assert_close(captured[hook_point], expected[hook_point], atol=1e-4, rtol=1e-4, msg=hook_point)
    torch.testing.assert_close(own_logits.log_softmax(-1), logits.log_softmax(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hook_point", ALL)
def test_stopping_early_changes_no_activation(tiny_model: Path, tokens: torch.Tensor, hook_point: str) -> None:
    model = load_model(ModelFiles.find(str(tiny_model)))
    whole, _ = model.forward(tokens, capture=ALL, logits=True)
    alone, _ = model.forward(tokens, capture=[hook_point])
    assert list(alone) == [hook_point]
    assert torch.equal(alone[hook_point], whole[hook_point])


def test_nothing_after_the_last_hook_point_is_computed(tiny_model: Path, tokens: torch.Tensor) -> None:
    model = load_model(ModelFiles.find(str(tiny_model)))
    ran = []
    for layer, block in enumerate(model.model.transformer.h):
        block.mlp.c_proj.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    model.forward(tokens, capture=["blocks.0.mlp.hook_post"])
    assert ran == []
    model.forward(tokens, capture=["blocks.1.hook_resid_pre"])
    assert ran == [0]


@pytest.mark.parametrize("weight_processing", ["none", "folded"])
@pytest.mark.parametrize("hook_point", ALL)
def test_an_edit_reaches_the_logits_and_resuming_gives_the_same(
    tiny_model: Path, tokens: torch.Tensor, hook_point: str, weight_processing: str
) -> None:
    model = load_model(ModelFiles.find(str(tiny_model)), weight_processing)
    layer, _ = model.files.locate(hook_point)
    before = f"blocks.{max(0, layer)}.hook_resid_pre"
    clean, clean_logits = model.forward(tokens, capture=[before], logits=True)
    edit = {hook_point: lambda x, _: x.roll(1, -1)}
    _, edited = model.forward(tokens, edit=edit, logits=True)
    assert (edited - clean_logits).abs().max() > 1e-3
    _, same = model.forward(tokens, edit={hook_point: lambda x, _: x.clone()}, logits=True)
    # what lies within a module is put together again: a norm's gain, and the values' bias of folded weights
    put_together = "normalized" in hook_point or ("hook_z" in hook_point and weight_processing == "folded")
    torch.testing.assert_close(same, clean_logits, atol=1e-4 * put_together, rtol=0)
    if layer < 0:
        return
    _, resumed = model.forward(tokens, edit=edit, logits=True, resume=(layer, clean[before]))
    assert torch.equal(resumed, edited)


@pytest.mark.parametrize("hook_point", [h for h in SIZES.hook_points if h != "hook_embed"])
def test_an_edit_reaches_what_comes_after_it_and_nothing_before(
    tiny_model: Path, tokens: torch.Tensor, hook_point: str
) -> None:
    """order() tells which is which: at most what is of larger order."""
    model = load_model(ModelFiles.find(str(tiny_model)))
    clean, _ = model.forward(tokens, capture=SIZES.hook_points, logits=True)
    edited, _ = model.forward(tokens, capture=SIZES.hook_points, edit={hook_point: lambda x, _: x + 1}, logits=True)
    changed = [h for h in SIZES.hook_points if not torch.equal(clean[h], edited[h])]
    assert all(place(h) >= place(hook_point) for h in changed)
    assert hook_point in changed
    assert changed[-1] == SIZES.hook_points[-1]


def test_all_heads_show_what_became_of_one(tiny_model: Path, tokens: torch.Tensor) -> None:
    model = load_model(ModelFiles.find(str(tiny_model)))
    z = "blocks.0.attn.hook_z"
    clean, _ = model.forward(tokens, capture=[z])
    edited, _ = model.forward(tokens, capture=[z, f"{z}.1"], edit={f"{z}.1": lambda x, _: 2 * x})
    assert torch.equal(edited[z][..., :16], clean[z][..., :16])
    assert torch.equal(edited[z][..., 16:], 2 * clean[z][..., 16:])
    assert torch.equal(edited[f"{z}.1"], 2 * clean[z][..., 16:])


@pytest.mark.parametrize(
    "hook_point", ["hook_embed", "blocks.1.hook_resid_pre", "blocks.0.attn.hook_z", "blocks.1.mlp.hook_pre"]
)
def test_gradients_are_those_of_finite_differences(tiny_model: Path, tokens: torch.Tensor, hook_point: str) -> None:
    check_gradients(load_model(ModelFiles.find(str(tiny_model))), tokens, hook_point, step=1e-2)


@pytest.mark.parametrize(
    ("hook_point", "message"),
    [
        ("blocks.2.hook_resid_pre", "layer 2 is out of range, .* has layers 0 to 1"),
        ("blocks.0.attn.hook_z.2", "head 2 is out of range, .* has heads 0 to 1"),
        ("blocks.0.mlp.hook_pre_linear", "unknown hook point"),
        ("blocks.0.mlp.hook_pots", "did you mean blocks.L.mlp.hook_post"),
        ("blocks.01.hook_resid_pre", "unknown hook point"),
        ("nonsense", "known are: hook_embed, blocks.L.hook_resid_pre, "),
    ],
)
def test_unknown_hook_points_are_told_with_the_models_list(tiny_model: Path, hook_point: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelFiles.find(str(tiny_model)).d(hook_point)


def test_models_that_cannot_be_had_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="has no config.json"):
        ModelFiles.find(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is a bert model, known are gpt2"):
        ModelFiles.find(str(tmp_path))


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder in an empty cache of the hub: 0…0 is main, and the tiny model; 1…1 has another activation."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model_snapshot.cache_clear()
    folder = tmp_path / "hub" / "models--someone--tiny"
    for commit in ("0" * 40, "1" * 40):
        (folder / "snapshots" / commit).mkdir(parents=True)
        for file in tiny_model.iterdir():
            (folder / "snapshots" / commit / file.name).symlink_to(file)
    config = json.loads((tiny_model / "config.json").read_text())
    (folder / "snapshots" / ("1" * 40) / "config.json").unlink()
    (folder / "snapshots" / ("1" * 40) / "config.json").write_text(
        json.dumps({**config, "activation_function": "relu"})
    )
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    return folder


def test_a_hub_name_is_pinned_to_the_commit_that_was_read(hub: Path, tiny_model: Path) -> None:
    files = ModelFiles.find("someone/tiny")
    assert files.revision == "0" * 40
    assert files.digest == ModelFiles.find(str(tiny_model)).digest
    assert ModelFiles.find("someone/tiny", "1" * 40).revision == "1" * 40
    assert ModelFiles.find(str(tiny_model)).revision is None
    with pytest.raises(UserError, match="no folder 'nobody/none', and the hub gave no model"):
        ModelFiles.find("nobody/none")


def test_later_stages_read_the_commit_that_extraction_read(recipe: Path, hub: Path) -> None:
    """main moves on between them; a recipe with no revision then means another store, and the old commit still this one."""
    sets = ["--set", "extract.model=someone/tiny", "--set", "extract.n_rows=700"]
    done = unmix("extract", "tiny.toml", *sets, cwd=recipe)
    assert f"someone/tiny: revision {'0' * 40}" in done.stdout
    description = ActivationStore.open(recipe / "runs" / "tiny" / "extract" / "activations.zarr").description
    assert description.model_revision == "0" * 40
    (hub / "refs" / "main").write_text("1" * 40)
    model_snapshot.cache_clear()
    assert ModelFiles.of_store(description).revision == "0" * 40
    refused = unmix("extract", "tiny.toml", *sets, cwd=recipe, check=False)
    assert refused.returncode == 2
    assert f"input model_revision: {'0' * 40} → {'1' * 40}" in refused.stderr
    pinned = unmix("extract", "tiny.toml", *sets, "--set", f"extract.revision={'0' * 40}", cwd=recipe)
    assert "nothing to do" in pinned.stdout


@pytest.mark.parametrize("setting", [{"activation_function": "relu"}, {"layer_norm_epsilon": 0.1}, {"n_head": 4}])
def test_a_model_whose_settings_changed_after_extraction_is_refused(
    recipe: Path,
    tiny_model: Path,
    setting: dict,
) -> None:
    folder = recipe / "model"
    shutil.copytree(tiny_model, folder)
    sets = ["--set", f"extract.model={folder}", "--set", "extract.n_rows=700"]
    unmix("extract", "tiny.toml", *sets, cwd=recipe)
    store = ActivationStore.open(recipe / "runs" / "tiny" / "extract" / "activations.zarr")
    assert ModelFiles.of_store(store.description).folder == folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **setting}))
    with pytest.raises(UserError, match="restore its weights and config.json, or extract again with --replace"):
        ModelFiles.of_store(store.description)
    refused = unmix("extract", "tiny.toml", *sets, cwd=recipe, check=False)
    assert refused.returncode == 2
    assert "input model_digest" in refused.stderr
    assert "Use --replace" in refused.stderr


def test_the_demo_model_has_learnt_python() -> None:
    """Cross-entropy on held-out standard-library files, nats a token; a uniform guess is 8.3."""
    from pipeline.extract.config import TextConfig
    from pipeline.extract.packing import Packer
    from pipeline.extract.text import Documents

    files = ModelFiles.find("demo")
    texts = Documents(TextConfig(source="stdlib", split="heldout"))
    tokens = torch.from_numpy(Packer(texts, files.tokenizer, files.bos, 256, 0.01).take("train", 100)).long()
    model = load_model(files)
    total = 0.0
    for batch in tokens.split(10):
        _, logits = model.forward(batch, logits=True)
        total += float(
            torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
        )
    assert total / (100 * 255) < 3.5
