"""Rotations of a real MLP, as the train stage makes them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.mlp import MLP
from pipeline.models.protocol import LanguageModel
from pipeline.score.downstream import Replacement, evaluate
from pipeline.score.similarity import matched_cosine
from pipeline.train.rotations.findings import draw_by_n_fit
from pipeline.train.rotations.ica import ICAConfig, ica
from pipeline.train.rotations.jacobian_rotation import JacobianRotationConfig, JacobianRotationLearner
from pipeline.train.rotations.local_interaction_basis import (
    LocalInteractionBasisConfig,
    interaction_basis,
    local_interaction_basis,
)
from pipeline.train.rotations.measures import mean_svd, measure
from pipeline.train.rotations.mlp_jacobians import OfMLP
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import equal_inputs, rotated
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.manifest import read_json
from stores.site import Site
from tests.conftest import source_of

AT, THERE = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
SITE = Site((AT,), (THERE,))


@cache
def captured(folder: Path) -> tuple[LanguageModel, torch.Tensor, torch.Tensor, np.ndarray]:
    """The model, rows at AT and THERE (1200, 32), and their tokens (20, 61)."""
    model = load_model(ModelFiles.find(str(folder)))
    tokens = np.random.default_rng(0).integers(0, 4096, (20, 61), dtype=np.int64)
    found, _ = model.forward(torch.from_numpy(tokens), capture=[AT, THERE])
    return model, *(found[h][:, 1:].flatten(0, 1).clone() for h in (AT, THERE)), tokens


def source(folder: Path) -> Source:
    model, x, _, _ = captured(folder)
    return replace(source_of(x, AT, weights=model), site=SITE, writes=None)  # of what is written no row is needed


@cache
def learned(folder: Path, n_steps: int = 30, **settings: Any) -> JacobianRotationLearner:
    """For reading alone: it is made once."""
    _, x, _, _ = captured(folder)
    config = JacobianRotationConfig(**{"n_inputs": 100, "n_iterations": 6, "msp": 0.5, **settings})
    learner = JacobianRotationLearner(config, source(folder), "cpu")
    for step in range(n_steps):
        learner.step(x.split(100)[step % 8], step, n_steps)  # the last 400 rows are held out
    return learner


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("side", ["both", "in", "out"])
def test_the_jacobian_of_rows_held_out_is_sparser(tiny_model: Path, side: str, layer_norm: bool) -> None:
    learner = learned(tiny_model, side=side, layer_norm=layer_norm)
    model, x, _, _ = captured(tiny_model)
    mlp, held, eye = model.mlp(1), x[800:], torch.eye(32)
    J = OfMLP(mlp, held if layer_norm else mlp.read(held), layer_norm)
    R = learner.solver.R
    before, after = measure(J, eye, eye), measure(J, R["in"], R["out"])
    assert after["log"] < before["log"] - 0.05
    assert after["mass_in_1%"] > before["mass_in_1%"]
    for name, fixed in (("in", side == "out"), ("out", side == "in")):
        assert torch.equal(R[name], torch.eye(32, dtype=torch.float64)) == fixed


def test_both_bases_are_saved_and_lose_nothing(tiny_model: Path, tmp_path: Path) -> None:
    _, x, y, _ = captured(tiny_model)
    learned(tiny_model).to_dictionary({"model": "tiny"}).save(tmp_path)
    bases = FeatureDictionary.load(tmp_path)
    assert (bases.site, bases.signed, bases.provenance["model"]) == (SITE, True, "tiny")
    for d, hook_point, rows in zip(bases.bases(), (AT, THERE), (x, y), strict=True):
        assert d.hook_point == hook_point
        torch.testing.assert_close(d(rows), rows, atol=1e-4, rtol=1e-4)
    # centred where the MLP's output is: on the rows that were learned from
    torch.testing.assert_close(bases.b_dec, y[:800].mean(0), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("stop", "n_fit"), [(7, 0), (15, 0), (22, 0), (22, 150)])
def test_resuming_gives_the_same_bits(tiny_model: Path, stop: int, n_fit: int) -> None:
    _, x, _, _ = captured(tiny_model)
    batches, whole = x.split(100), learned(tiny_model, n_fit=n_fit)
    half, rest = (JacobianRotationLearner(whole.config, source(tiny_model), "cpu") for _ in range(2))
    for step in range(stop):
        half.step(batches[step % 8], step, 30)
    rest.load_state({k: v.clone() for k, v in half.state().items()})
    for step in range(stop, 30):
        rest.step(batches[step % 8], step, 30)
    assert all(torch.equal(rest.state()[k], v) for k, v in whole.state().items())


def test_the_rotated_mlp_spliced_into_the_model_changes_nothing(tiny_model: Path) -> None:
    model, x, y, tokens = captured(tiny_model)
    R = {k: v.float() for k, v in learned(tiny_model).solver.R.items()}
    mlp = model.mlp(1)
    rotated = mlp.rotated(R["in"], R["out"])
    torch.testing.assert_close(rotated.write(mlp.read(x) @ R["in"].T) @ R["out"], y, atol=1e-4, rtol=1e-4)

    def splice(resid_post: torch.Tensor, captured: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the block writes, from the stream before it, by the rotated weights."""
        before = captured[AT]
        return before + rotated.write(mlp.read(before) @ R["in"].T) @ R["out"]

    batch = torch.from_numpy(tokens)
    _, clean = model.forward(batch, logits=True)
    _, spliced = model.forward(batch, capture=[AT], edit={"blocks.1.hook_resid_post": splice}, logits=True)
    targets = batch[:, 1:].flatten()
    ce = [
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), targets) for logits in (clean, spliced)
    ]
    assert abs(float(ce[0] - ce[1])) < 1e-4
    assert not torch.equal(clean, spliced)  # it was the rotated weights that made it


def test_the_dictionaries_spliced_in_leave_the_cross_entropy(tiny_model: Path) -> None:
    model, _, _, tokens = captured(tiny_model)
    bases = learned(tiny_model).to_dictionary({}).bases()
    for hook_point, dictionary in zip((AT, THERE), bases, strict=True):
        (found,) = evaluate(model, tokens, tuple(range(1, 61)), [Replacement.at(hook_point, dictionary)])
        assert abs(found.ce - found.ce_clean) < 1e-4


@pytest.mark.parametrize("init", ["identity", "random", "qr", "svd", "eigen"])
def test_every_start_is_made_from_the_layer(tiny_model: Path, init: str) -> None:
    learner = JacobianRotationLearner(JacobianRotationConfig(init=init), source(tiny_model), "cpu")
    model, x, _, _ = captured(tiny_model)
    R_in, R_out = learner.solver.R["in"], learner.solver.R["out"]
    mlp = model.mlp(1).to("cpu", torch.float64)
    own = mlp.W_in @ mlp.W_in.T, mlp.W_out.T @ mlp.W_out
    moments = equal_inputs(OfMLP(model.mlp(1), x)).second_moments() if init == "eigen" else own
    for R, moment in zip((R_in, R_out), moments):
        assert (R @ R.T - torch.eye(32)).abs().max() < 1e-10
        turned = R @ moment.double() @ R.T
        off = (turned - turned.diagonal().diag()).abs().max() / turned.abs().max()
        assert (off < 1e-4) == (init in ("svd", "eigen"))


def test_a_linear_layer_is_told_from_one_that_is_not(tiny_model: Path) -> None:
    """Where the slope of GELU is that at 0, the mean Jacobian is all there is, and its singular vectors do all."""
    model, x, _, _ = captured(tiny_model)
    mlp = model.mlp(1)
    small = MLP(mlp.W_in * 1e-3, mlp.b_in * 0, mlp.W_out, mlp.b_out, mlp.gain, mlp.offset)
    found = {name: mean_svd(OfMLP(of, of.read(x), False)) for name, of in (("linear", small), ("own", mlp))}
    assert found["linear"][2] > 0.999
    assert found["own"][2] < 0.9
    for name, of in (("linear", small), ("own", mlp)):
        R_in, R_out, _ = found[name]
        assert (R_in @ R_in.T - torch.eye(32)).abs().max() < 1e-10
        G = rotated(OfMLP(of, of.read(x[:50]), False), R_in, R_out)
        on_diagonal = float(G.diagonal(dim1=1, dim2=2).square().sum() / G.square().sum())
        assert (on_diagonal > 0.999) == (name == "linear")


def test_a_rotation_fitted_to_few_inputs_serves_those_alone(tiny_model: Path, tmp_path: Path) -> None:
    for n_fit in (1, 8, 400):
        learner = learned(tiny_model, n_fit=n_fit, init="random")
        learner.to_dictionary({}).save(tmp_path / f"jacobian_rotation-s0-n_fit_{n_fit}")
        draw_by_n_fit(tmp_path, AT)
        assert (tmp_path / "by_n_fit.png").exists() == (n_fit > 1)
    found = [read_json(tmp_path / f"jacobian_rotation-s0-n_fit_{n}" / "jacobian.json") for n in (1, 8, 400)]
    assert [f["n_fit"] for f in found] == [1, 8, 400]
    fitted, heldout = ([f[where]["after"]["log"] for f in found] for where in ("train", "heldout"))
    assert fitted[0] < fitted[1] < fitted[2]
    assert heldout[0] > heldout[1] > heldout[2]


def test_the_picture_by_n_fit_of_an_objective_that_is_not_a_mean_over_inputs(tiny_model: Path, tmp_path: Path) -> None:
    """Varimax has no place among the measures: log is shown."""
    for n_fit in (8, 64):
        learner = learned(tiny_model, 3, n_fit=n_fit, objective="varimax", columns=0)
        learner.to_dictionary({}).save(tmp_path / f"jacobian_rotation-s0-n_fit_{n_fit}")
    draw_by_n_fit(tmp_path, AT)
    assert (tmp_path / "by_n_fit.png").exists()


@pytest.mark.parametrize("hook_point", ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"])
def test_a_hook_point_that_is_not_before_an_mlp_is_refused(hook_point: str) -> None:
    for config, site in ((JacobianRotationConfig(), SITE), (LocalInteractionBasisConfig(), Site.at(AT))):
        with pytest.raises(ValueError, match=r"what an MLP's layer norm reads: blocks\.L\.hook_resid_mid"):
            config.check(Site.at(hook_point), 32)
        config.check(site, 32)


def test_bases_of_another_site_than_an_mlps_two_sides_are_refused() -> None:
    for site in (Site.at(AT), Site((AT,), ("blocks.0.hook_mlp_out",))):
        with pytest.raises(ValueError, match=r'set writes = "blocks\.1\.hook_mlp_out"'):
            JacobianRotationConfig().check(site, 32)


def test_the_local_interaction_basis_turns_both_moments_diagonal(tiny_model: Path) -> None:
    model, x, _, _ = captured(tiny_model)
    J = OfMLP(model.mlp(1).to("cpu", torch.float64), x.double())
    JtJ, _ = J.second_moments()
    C, inverse = interaction_basis(torch.cov(x.T.double(), correction=0), JtJ)
    torch.testing.assert_close(C @ inverse, torch.eye(32, dtype=torch.float64))
    covariance = C @ torch.cov(x.T.double(), correction=0) @ C.T
    Lambda = covariance.diagonal()
    assert (covariance - Lambda.diag()).abs().max() < 1e-6 * Lambda.max()
    turned = inverse.T @ JtJ @ inverse
    kept = Lambda > 1e-8 * Lambda.max()
    assert kept.sum() >= 31  # the layer norm takes one direction
    torch.testing.assert_close(
        turned[kept][:, kept], torch.eye(int(kept.sum()), dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_the_local_interaction_basis_is_a_dictionary_that_loses_nothing(tiny_model: Path) -> None:
    model, x, _, _ = captured(tiny_model)
    d = local_interaction_basis(LocalInteractionBasisConfig(), source_of(x, AT, weights=model), {})
    assert float((x - d(x)).square().sum() / (x - x.mean(0)).square().sum()) < 1e-5
    directions = d.directions @ d.directions.T
    assert float((directions - torch.eye(32)).abs().max()) > 0.1  # and not a rotation


def test_ica_recovers_a_mixture_that_no_rotation_undoes() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(20_000, 8, generator=generator) * (torch.rand(20_000, 8, generator=generator) < 0.2)
    mixing = torch.randn(8, 8, generator=generator) + 2 * random_rotation(8, 0).float()
    x = codes @ mixing + 3.0
    d = ica(ICAConfig(n_rows=20_000), source_of(x), {})
    assert matched_cosine(d.directions, mixing, signed=True) > 0.99
    torch.testing.assert_close(d.encode(x).var(0), torch.ones(8), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(d(x), x, atol=1e-3, rtol=1e-3)


def test_where_the_end_is_less_sparse_the_beginning_is_kept_and_told(tiny_model: Path, tmp_path: Path) -> None:
    """Two steps at a high rate lead away from the eigenvectors, thirty at the default one do not."""
    for folder, settings in (("far", {"n_steps": 2, "lr": 1.0}), ("near", {})):
        learner, kept = learned(tiny_model, **{"msp": 0.0, **settings}), folder == "far"
        resumed = JacobianRotationLearner(learner.config, source(tiny_model), "cpu")
        resumed.load_state({k: v.clone() for k, v in learner.state().items()})
        found, again = learner.to_dictionary({}), resumed.to_dictionary({})
        assert torch.equal(found.W_dec, again.W_dec)
        start, _ = learner._start("cpu")
        assert torch.equal(found.W_enc, start.float().T) == kept
        found.save(tmp_path / folder)
        assert read_json(tmp_path / folder / "jacobian.json")["kept_start"] == kept
        assert FeatureDictionary.load(tmp_path / folder).provenance["kept_start"] == kept
