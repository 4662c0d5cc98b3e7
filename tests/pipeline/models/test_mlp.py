"""The MLP as plain tensors against the modules of Hugging Face's architectures, and of TransformerLens."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipeline.models.activation_functions import ACTIVATIONS
from pipeline.models.mlp import MLP
from pipeline.train.rotations.orthogonal import random_rotation

SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32,
    "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")


def small(architecture: str) -> PreTrainedModel:
    """One layer, float64, every parameter far from its initial value."""
    own = {"mlp_bias": True} if architecture == "llama" else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **SIZES, **own)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return model


def gated(model: PreTrainedModel) -> tuple[MLP, torch.nn.Module, torch.nn.Module]:
    """(the MLP, the model's own norm, the model's own MLP)."""
    block = model.model.layers[0]
    gemma = "gemma" in model.config.model_type
    norm = block.pre_feedforward_layernorm if gemma else block.post_attention_layernorm
    mlp, d, d_mlp = block.mlp, SIZES["hidden_size"], SIZES["intermediate_size"]
    zeros = lambda b, n: torch.zeros(n, dtype=torch.float64) if b is None else b  # noqa: E731
    found = MLP(
        mlp.up_proj.weight.T,
        zeros(mlp.up_proj.bias, d_mlp),
        mlp.down_proj.weight.T,
        zeros(mlp.down_proj.bias, d),
        norm.weight + 1 if gemma else norm.weight,
        zeros(None, d),
        model.config.rms_norm_eps,
        gate=(mlp.gate_proj.weight.T, zeros(mlp.gate_proj.bias, d_mlp)),
        activation=model.config.hidden_activation if gemma else model.config.hidden_act,
        norm="rms",
    )
    return found, norm, mlp


def rows(d: int = 16) -> torch.Tensor:
    return 2 * torch.randn(7, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5


@pytest.mark.parametrize("architecture", GATED)
def test_gated_mlps_with_an_rms_norm_are_those_of_the_architecture(architecture: str) -> None:
    mlp, norm, module = gated(small(architecture))
    x = rows()
    # the modules normalise in float32
    torch.testing.assert_close(mlp.read(x), norm(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mlp.write(norm(x)), module(norm(x)))
    assert mlp.activation == ("gelu_pytorch_tanh" if "gemma" in architecture else "silu")


def test_the_mlp_of_gpt_neox_has_the_exact_gelu_and_a_layer_norm() -> None:
    model = small("gpt_neox")
    block = model.gpt_neox.layers[0]
    read, write, norm = block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h, block.post_attention_layernorm
    weights = read.weight.T, read.bias, write.weight.T, write.bias, norm.weight, norm.bias
    mlp = MLP(*weights, norm.eps, activation=model.config.hidden_act)
    x = rows()
    torch.testing.assert_close(mlp.read(x), norm(x))
    torch.testing.assert_close(mlp(x), block.mlp(norm(x)))
    assert mlp.activation == "gelu"
    assert (replace(mlp, activation="gelu_new")(x) - mlp(x)).abs().max() > 1e-4  # the two gelus are told apart


def test_the_gate_is_named_as_transformer_lens_names_it() -> None:
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.components import GatedMLP

    mlp, _, _ = gated(small("qwen2"))
    config = HookedTransformerConfig(
        n_layers=1, d_model=16, d_mlp=24, n_ctx=4, d_head=8, act_fn="silu", gated_mlp=True, dtype=torch.float64
    )
    theirs = GatedMLP(config)
    assert mlp.gate is not None
    with torch.no_grad():
        for name, W in (("W_gate", mlp.gate[0]), ("W_in", mlp.W_in), ("W_out", mlp.W_out)):
            getattr(theirs, name).copy_(W)
        theirs.b_out.copy_(mlp.b_out)
    torch.testing.assert_close(mlp.write(rows()), theirs(rows()))


@pytest.mark.parametrize("gate", [False, True])
def test_a_rotated_mlp_is_the_same_function_in_other_coordinates(gate: bool) -> None:
    mlp, _, _ = gated(small("llama"))
    mlp = mlp if gate else replace(mlp, gate=None)
    R_in, R_out, u = random_rotation(16, 0), random_rotation(16, 1), rows()
    torch.testing.assert_close(mlp.rotated(R_in, R_out).write(u @ R_in.T), mlp.write(u) @ R_out.T)


def test_to_converts_the_gate_as_well() -> None:
    mlp, _, _ = gated(small("llama"))
    half = mlp.to("cpu", torch.float32)
    assert half.gate is not None
    assert {t.dtype for t in (half.W_in, half.b_out, half.gain, *half.gate)} == {torch.float32}
    assert (half.norm, half.activation, half.eps) == (mlp.norm, mlp.activation, mlp.eps)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_slopes_are_autograds(name: str) -> None:
    h = torch.linspace(-8, 8, 400, dtype=torch.float64, requires_grad=True)  # not 0, where relu has a kink
    activation = ACTIVATIONS[name]
    (expected,) = torch.autograd.grad(activation.value(h).sum(), h)
    assert (activation.slope(h) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_functions_are_those_that_transformers_has_under_their_name(name: str) -> None:
    from transformers.activations import ACT2FN

    h = torch.linspace(-8, 8, 400, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name].value(h), ACT2FN[name](h))
