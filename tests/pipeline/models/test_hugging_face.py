"""Every architecture but GPT-2: the values of TransformerLens and of transformers, edits, early stop, resume, gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.hook_points import place
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from tests.pipeline.models.small import SMALL, check_gradients, save_small

KINDS = ["gpt_neox", "gpt_neox, sequential", "llama", "gemma2"]  # those whose blocks differ


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 4096, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_small(tmp_path_factory.mktemp("model"), name) for name in SMALL}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, LanguageModel]:
    return {name: load_model(ModelFiles.find(str(folder))) for name, folder in folders.items()}


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_those_of_transformers(
    models: dict[str, LanguageModel], folders: dict[str, Path], tokens: torch.Tensor, name: str
) -> None:
    from transformers import AutoModelForCausalLM

    theirs: Any = AutoModelForCausalLM.from_pretrained(folders[name], attn_implementation="eager")
    with torch.no_grad():
        expected = theirs(tokens).logits
    torch.testing.assert_close(models[name].forward(tokens, logits=True)[1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.interop
@pytest.mark.parametrize("name", SMALL)
def test_activations_are_those_of_transformer_lens(
    models: dict[str, LanguageModel], folders: dict[str, Path], tokens: torch.Tensor, name: str
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    theirs: Any = TransformerBridge.boot_transformers(str(folders[name]), device="cpu")
    with torch.no_grad():
        _, cache = theirs.run_with_cache(tokens)
    sizes = models[name].files.sizes
    heads = [f"blocks.{layer}.attn.hook_z.{head}" for layer in range(3) for head in range(4)]
    captured, _ = models[name].forward(tokens, capture=[*sizes.hook_points, *heads])
    for hook_point in sizes.hook_points:
        expected = cache[hook_point].flatten(2)
        assert expected.shape[-1] == sizes.d(hook_point)
        torch.testing.assert_close(captured[hook_point], expected, atol=1e-4, rtol=1e-4, msg=hook_point)
    for head in heads:
        z, _, h = head.rpartition(".")
        assert torch.equal(captured[head], captured[z].unflatten(-1, (4, -1))[:, :, int(h)])
    absent = {"hook_resid_mid": sizes.parallel, "mlp.hook_pre_linear": not sizes.gated}
    assert all((f"blocks.1.{site}" in cache) != gone for site, gone in absent.items())


@pytest.mark.parametrize("name", KINDS)
def test_stopping_early_and_fewer_layers_change_no_activation(
    models: dict[str, LanguageModel], tokens: torch.Tensor, name: str
) -> None:
    files = models[name].files
    whole, _ = models[name].forward(tokens, capture=files.sizes.hook_points, logits=True)
    short = load_model(files, n_layers=2)
    for hook_point in files.sizes.hook_points:
        alone, _ = models[name].forward(tokens, capture=[hook_point])
        assert torch.equal(alone[hook_point], whole[hook_point]), hook_point
        if files.locate(hook_point)[0] < 2:
            alone, _ = short.forward(tokens, capture=[hook_point])
            assert torch.equal(alone[hook_point], whole[hook_point]), hook_point


def test_logits_need_all_layers(models: dict[str, LanguageModel], tokens: torch.Tensor) -> None:
    short = load_model(models["llama"].files, n_layers=2)
    with pytest.raises(ValueError, match="first 2 layers are loaded, 3 are needed"):
        short.forward(tokens, logits=True)


def test_nothing_after_the_last_hook_point_is_computed(models: dict[str, Any], tokens: torch.Tensor) -> None:
    model, ran = models["llama"], []
    handles = [layer.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(model.layers)] + [
        model.layers[1].mlp.down_proj.register_forward_hook(lambda *_: ran.append("down"))
    ]
    model.forward(tokens, capture=["blocks.1.mlp.hook_post"])
    assert ran == [0]
    model.forward(tokens, capture=["blocks.1.hook_mlp_out"])
    assert ran == [0, 0, "down"]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", KINDS)
def test_an_edit_reaches_the_logits_and_resuming_gives_the_same(
    models: dict[str, LanguageModel], tokens: torch.Tensor, name: str
) -> None:
    model = models[name]
    befores = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)]
    clean, clean_logits = model.forward(tokens, capture=befores, logits=True)
    for hook_point in [*model.files.sizes.hook_points, "blocks.1.attn.hook_z.3"]:
        layer, _ = model.files.locate(hook_point)
        edit = {hook_point: lambda x, _: x.roll(1, -1)}
        _, edited = model.forward(tokens, edit=edit, logits=True)
        assert (edited - clean_logits).abs().max() > 1e-4, hook_point
        _, same = model.forward(tokens, edit={hook_point: lambda x, _: x.clone()}, logits=True)
        put_together = "normalized" in hook_point  # a norm's gain comes after the hook point
        torch.testing.assert_close(same, clean_logits, atol=1e-4 * put_together, rtol=0, msg=hook_point)
        if layer >= 0:
            _, resumed = model.forward(tokens, edit=edit, logits=True, resume=(layer, clean[befores[layer]]))
            assert torch.equal(resumed, edited), hook_point


@pytest.mark.parametrize("name", KINDS)
def test_an_edit_shows_where_it_is_and_reaches_nothing_before(
    models: dict[str, LanguageModel], tokens: torch.Tensor, name: str
) -> None:
    """order() tells what lies before. An edit sees the value, and what was captured before it."""
    model = models[name]
    every = model.files.sizes.hook_points
    clean, _ = model.forward(tokens, capture=every, logits=True)
    for hook_point in every:
        seen: dict[str, torch.Tensor] = {}

        def double(x: torch.Tensor, captured: Any, seen: dict[str, torch.Tensor] = seen) -> torch.Tensor:
            seen.update(captured, x=x)
            return 2 * x

        edited, _ = model.forward(tokens, capture=every, edit={hook_point: double}, logits=True)
        changed = [h for h in every if not torch.equal(clean[h], edited[h])]
        assert torch.equal(seen.pop("x"), clean[hook_point])
        assert torch.equal(edited[hook_point], 2 * clean[hook_point])
        assert all(place(h) >= place(hook_point) for h in changed), hook_point
        assert set(every[: every.index(hook_point)]) == set(seen), hook_point
        assert changed[-1] == every[-1], hook_point


def test_hook_points_before_the_layer_that_is_resumed_from_are_refused(
    models: dict[str, LanguageModel], tokens: torch.Tensor
) -> None:
    x = torch.zeros(2, 20, 32)
    for hook_point in ("hook_embed", "blocks.0.hook_mlp_out"):
        with pytest.raises(ValueError, match=f"not reached: {hook_point}"):
            models["llama"].forward(tokens, capture=[hook_point], resume=(1, x))


@pytest.mark.parametrize("hook_point", ["hook_embed", "blocks.1.hook_resid_mid", "blocks.0.attn.hook_z.2"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_gradients_are_those_of_finite_differences(
    models: dict[str, LanguageModel], tokens: torch.Tensor, name: str, hook_point: str
) -> None:
    check_gradients(models[name], tokens, hook_point, step=1e-3)


@pytest.mark.parametrize("name", ["gpt_neox", "mistral", "gemma2"])
def test_bfloat16_differs_by_rounding_alone(models: dict[str, LanguageModel], tokens: torch.Tensor, name: str) -> None:
    files = models[name].files
    every = files.sizes.hook_points
    exact, _ = models[name].forward(tokens, capture=every)
    rounded, _ = load_model(files, precision="bfloat16").forward(tokens, capture=every)
    for hook_point in set(every) - {"hook_embed", "blocks.0.hook_resid_pre", "blocks.0.ln1.hook_normalized"}:
        error = (rounded[hook_point].float() - exact[hook_point]).square().mean() / exact[hook_point].square().mean()
        assert 0 < error < 1e-3 or hook_point == "blocks.0.ln2.hook_normalized", hook_point
    assert rounded["blocks.1.hook_resid_post"].dtype == torch.float32
    assert rounded["blocks.1.mlp.hook_post"].dtype == torch.bfloat16


def test_a_matrix_writes_where_it_says(models: dict[str, LanguageModel], tokens: torch.Tensor) -> None:
    model = models["llama"]
    captured, _ = model.forward(tokens, capture=model.files.sizes.hook_points)
    for written, read in (("hook_attn_out", "attn.hook_z"), ("hook_mlp_out", "mlp.hook_post")):
        product = captured[f"blocks.1.{read}"] @ model.writer(f"blocks.1.{written}").T
        torch.testing.assert_close(captured[f"blocks.1.{written}"], product, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.writer("blocks.2.hook_resid_pre"), model.writer("blocks.1.hook_mlp_out"))
    gate = model.writer("blocks.1.mlp.hook_pre")
    assert not torch.equal(gate, model.writer("blocks.1.mlp.hook_pre_linear"))
    for hook_point in ("hook_embed", "blocks.0.hook_resid_pre", "blocks.0.ln1.hook_normalized", "blocks.0.attn.hook_z"):
        with pytest.raises(ValueError, match="by no"):
            model.writer(hook_point)
    with pytest.raises(ValueError, match="through a norm"):
        models["gemma2"].writer("blocks.1.hook_mlp_out")


@pytest.mark.parametrize("name", ["gpt_neox", "gpt_neox, sequential", "llama", "llama, biases", "qwen3"])
def test_the_mlp_as_tensors_is_the_models(models: dict[str, LanguageModel], tokens: torch.Tensor, name: str) -> None:
    model = models[name]
    read = f"blocks.1.{'hook_resid_pre' if model.files.sizes.parallel else 'hook_resid_mid'}"
    captured, _ = model.forward(tokens, capture=[read, "blocks.1.hook_mlp_out"])
    torch.testing.assert_close(model.mlp(1)(captured[read]), captured["blocks.1.hook_mlp_out"], atol=1e-5, rtol=1e-5)


def test_mlps_that_no_closed_form_has_are_refused(models: dict[str, LanguageModel], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="MLPs are followed by a norm"):
        models["gemma2"].mlp(0)
    tanh = load_model(ModelFiles.find(str(save_small(tmp_path, "llama", hidden_act="tanh"))))
    with pytest.raises(UserError, match="have the activation 'tanh', expected one of gelu_new, "):
        tanh.mlp(0)
