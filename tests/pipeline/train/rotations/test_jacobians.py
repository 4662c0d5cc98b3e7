from functools import cache
from pathlib import Path
from typing import Literal

import pytest
import torch

from pipeline.config import UserError
from pipeline.models.activation_functions import ACTIVATIONS
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.mlp import MLP
from pipeline.models.protocol import LanguageModel
from pipeline.train.rotations.jacobians import Dense, of_module, sampled_columns, split
from pipeline.train.rotations.mlp_jacobians import OfMLP, Weights
from pipeline.train.rotations.orthogonal import random_rotation
from stores.manifest import read_json


@cache
def loaded(folder: Path) -> LanguageModel:
    return load_model(ModelFiles.find(str(folder)))


@pytest.fixture
def mlp(tiny_model: Path) -> MLP:
    return loaded(tiny_model).mlp(1)


def rows(n: int = 24, d: int = 32) -> torch.Tensor:
    return 2 * torch.randn(n, d, generator=torch.Generator().manual_seed(0)) + 0.5


def both(mlp: MLP, x: torch.Tensor, layer_norm: bool) -> tuple[OfMLP, Dense]:
    """In closed form, and by autograd."""
    x = x if layer_norm else mlp.read(x)
    return OfMLP(mlp, x, layer_norm), of_module(mlp if layer_norm else mlp.write, x)


def test_the_mlp_is_the_language_models_own(tiny_model: Path) -> None:
    model = loaded(tiny_model)
    tokens = torch.randint(0, 4096, (3, 20), generator=torch.Generator().manual_seed(0))
    at = ["blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"]
    captured, _ = model.forward(tokens, capture=at)
    torch.testing.assert_close(model.mlp(1)(captured[at[0]]), captured[at[1]], atol=1e-5, rtol=1e-5)


def test_another_activation_function_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(ModelFiles.find(str(tiny_model)))
    model.files.config["activation_function"] = "tanh"
    with pytest.raises(UserError, match="'tanh', expected one of gelu_new"):
        model.mlp(0)
    assert read_json(tiny_model / "config.json")["activation_function"] == "gelu_new"


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_closed_form_is_autograds_jacobian(mlp: MLP, layer_norm: bool) -> None:
    found, reference = both(mlp, rows(), layer_norm)
    eye = torch.eye(32)
    assert found.shape == reference.shape == (24, 32, 32)
    J = found.product(eye, eye)
    assert (J - reference.J).abs().max() < 1e-5 * max(1.0, float(reference.J.abs().max()))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_products_parts_and_columns_are_those_of_the_dense_jacobian(mlp: MLP, layer_norm: bool) -> None:
    found, reference = both(mlp.to("cpu", torch.float64), rows().double(), layer_norm)
    left, right = random_rotation(32, 0), random_rotation(32, 1)[:, :7]
    columns = sampled_columns(24, 7, 3, 0)
    for picked in (None, columns):
        torch.testing.assert_close(found.product(left, right, picked), reference.product(left, right, picked))
    whole = reference.product(left, right)
    torch.testing.assert_close(found.product(left, right, columns), whole.gather(2, columns[:, None].expand(24, 32, 3)))
    eye, all_columns = torch.eye(32, dtype=torch.float64), sampled_columns(24, 32, 3, 0)
    for J in (found, reference):  # None is the identity, with and without a gradient on the other side
        for a in (left, left.clone().requires_grad_()):
            torch.testing.assert_close(J.product(a, None, all_columns), J.product(a, eye, all_columns))
        torch.testing.assert_close(J.product(None, right, columns), J.product(eye, right, columns))
    parts = list(split(found, 7, 5 * 7 * found.bytes_per_column))
    assert [start for start, _ in parts] == [0, 5, 10, 15, 20]
    torch.testing.assert_close(torch.cat([part.product(left, right) for _, part in parts]), whole)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_moments_and_norms_are_those_of_the_dense_jacobians(mlp: MLP, layer_norm: bool) -> None:
    found, reference = both(mlp.to("cpu", torch.float64), rows().double(), layer_norm)
    J = reference.J
    torch.testing.assert_close(found.squared_norms(), J.square().sum((1, 2)))
    for kind in (found, reference):
        torch.testing.assert_close(kind.mean(), J.mean(0))
        JtJ, JJt = kind.second_moments()
        torch.testing.assert_close(JtJ, (J.mT @ J).mean(0))
        torch.testing.assert_close(JJt, (J @ J.mT).mean(0))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_weights_kept_from_other_inputs_and_products_in_another_dtype_change_nothing(
    mlp: MLP, layer_norm: bool
) -> None:
    weights = Weights.of(mlp, layer_norm)
    OfMLP(mlp, rows(5), layer_norm, weights).squared_norms()  # its products of weights are kept
    found, kept = OfMLP(mlp, rows(), layer_norm), OfMLP(mlp, rows(), layer_norm, weights)
    assert torch.equal(found.squared_norms(), kept.squared_norms())
    left, right = random_rotation(32, 0).float(), random_rotation(32, 1).float()
    exact = found.product(left, right)
    assert torch.equal(exact, kept.product(left, right))
    for J in (kept, Dense(found.product(None, None))):
        half = J.to(torch.bfloat16)
        assert half.dtype == torch.bfloat16
        rough = half.product(left.bfloat16(), right.bfloat16()).float()
        assert 0 < float((rough - exact).norm() / exact.norm()) < 0.01


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("gated", [False, True])
def test_the_closed_forms_hold_for_every_gate_norm_and_activation(
    gated: bool, norm: Literal["layer", "rms"], activation: str
) -> None:
    """Against torch.func.jacrev in float64, of what lies on the residual stream and of what the MLP reads."""
    generator = torch.Generator().manual_seed(0)
    d, d_mlp, n = 12, 20, 9

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = draw(d, d_mlp), draw(d_mlp), draw(d_mlp, d), draw(d), 1 + 0.3 * draw(d), draw(d)
    gate = (draw(d, d_mlp), draw(d_mlp)) if gated else None
    mlp = MLP(*weights, eps=0.1, gate=gate, activation=activation, norm=norm)
    left, right = random_rotation(d, 0), random_rotation(d, 1)[:, :7]
    columns = sampled_columns(n, 7, 3, 0)

    def close(found: torch.Tensor, expected: torch.Tensor) -> None:
        assert (found - expected).abs().max() < 1e-9 * expected.abs().max()

    for layer_norm in (True, False):
        found, reference = both(mlp, draw(n, d) + 0.5, layer_norm)
        J = reference.J
        assert found.shape == J.shape
        close(found.product(None, None), J)
        close(found.product(left, right, columns), reference.product(left, right, columns))
        close(found.squared_norms(), J.square().sum((1, 2)))
        close(found.mean(), J.mean(0))
        JtJ, JJt = found.second_moments()
        close(JtJ, (J.mT @ J).mean(0))
        close(JJt, (J @ J.mT).mean(0))
        close(found.rows(2, 5).scaled(torch.full((3,), 2.0)).product(None, None), 2 * J[2:5])


def test_a_sample_of_inputs_has_the_closed_forms_moments_without_bias(mlp: MLP) -> None:
    """Formed Jacobians of inputs drawn from many: their moments scatter around the closed form over all."""
    found, reference = both(mlp.to("cpu", torch.float64), rows(1000).double(), True)
    JtJ, _ = found.second_moments()
    trace = torch.stack([part.mT @ part for part in reference.J])
    error = trace.std(0) / 1000**0.5
    picked = torch.randint(0, 1000, (1000,), generator=torch.Generator().manual_seed(1))
    assert ((trace[picked].mean(0) - JtJ).abs() < 5 * error).all()


def test_the_columns_sampled_estimate_a_sum_over_the_jacobian_without_bias(mlp: MLP) -> None:
    found, reference = both(mlp.to("cpu", torch.float64), rows(8).double(), True)
    left, right = random_rotation(32, 0), random_rotation(32, 1)
    exact = float(reference.product(left, right).pow(4).sum())
    draws, c = 400, 4
    seen = torch.tensor(
        [
            float(found.product(left, right, sampled_columns(8, 32, c, seed)).pow(4).sum()) * 32 / c
            for seed in range(draws)
        ]
    )
    assert abs(float(seen.mean()) - exact) < 4 * float(seen.std()) / draws**0.5
