"""What families do besides what their contract says (test_contract.py)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.score.similarity import mmcs
from pipeline.train import contract
from pipeline.train import learner as learning
from pipeline.train.contract import silence
from pipeline.train.families.abs_topk import AbsTopK, AbsTopKConfig
from pipeline.train.families.base import FamilyConfig
from pipeline.train.families.batch_topk import BatchTopK, BatchTopKConfig
from pipeline.train.families.gated import Gated, GatedConfig
from pipeline.train.families.jumprelu import JumpReLU, JumpReLUConfig
from pipeline.train.families.matching_pursuit import MatchingPursuit, MatchingPursuitConfig
from pipeline.train.families.matryoshka import Matryoshka, MatryoshkaConfig
from pipeline.train.families.p_anneal import PAnneal, PAnnealConfig
from pipeline.train.families.relu_l1 import ReluL1, ReluL1Config
from pipeline.train.families.tied import Tied, TiedConfig
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.ranks import ALONE, Ranks
from pipeline.train.source import Source
from pipeline.train.threads import in_threads
from stores.moments import Moments
from tests.conftest import source_of

CASES = [
    pytest.param(TopK, TopKConfig(d_sae=48, k=4, lr=1e-2, dead_after_tokens=500), id="topk"),
    pytest.param(AbsTopK, AbsTopKConfig(d_sae=48, k=4, lr=1e-2, dead_after_tokens=500), id="abs_topk"),
    pytest.param(BatchTopK, BatchTopKConfig(d_sae=48, k=4, lr=1e-2, dead_after_tokens=500), id="batch_topk"),
    pytest.param(
        Matryoshka, MatryoshkaConfig(d_sae=48, k=4, lr=1e-2, n_prefixes=3, dead_after_tokens=500), id="matryoshka"
    ),
    pytest.param(ReluL1, ReluL1Config(d_sae=48, l1_coefficient=0.5, lr=1e-2), id="relu_l1"),
    pytest.param(MatchingPursuit, MatchingPursuitConfig(d_sae=48, k=4, lr=1e-2), id="matching_pursuit"),
    pytest.param(Tied, TiedConfig(d_sae=48, l1_coefficient=0.5, lr=1e-2), id="tied"),
    pytest.param(Gated, GatedConfig(d_sae=48, l1_coefficient=0.5, lr=1e-2), id="gated"),
    pytest.param(PAnneal, PAnnealConfig(d_sae=48, l1_coefficient=0.5, lr=1e-2), id="p_anneal"),
    pytest.param(
        JumpReLU, JumpReLUConfig(d_sae=48, l0_coefficient=0.1, lr=1e-2, threshold=0.25, bandwidth=0.25), id="jumprelu"
    ),
]


def test_every_family_of_the_table_is_checked() -> None:
    configs = {type(case.values[1]) for case in CASES}
    assert {m.config for m in METHODS.values() if issubclass(m.config, FamilyConfig)} == configs


def planted(n: int, d: int, G: int, k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, d) sums of k of G random unit directions with strengths in [1/2, 1], and the directions."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.randn(G, d, generator=generator), dim=-1)
    active = torch.rand(n, G, generator=generator).topk(k, dim=-1).indices
    strength = torch.zeros(n, G).scatter(-1, active, 0.5 + 0.5 * torch.rand(n, k, generator=generator))
    return strength @ truth + 3.0, truth


def learner(family, config: FamilyConfig, x: torch.Tensor, dtype: torch.dtype = torch.float32) -> FamilyLearner:
    made = FamilyLearner(family, config, source_of(x), "cpu")
    made.dtype = dtype
    return made


@pytest.mark.parametrize(("family", "config"), CASES[:5])  # those whose large dictionaries take another path
def test_the_contract_is_kept_with_sparse_products(family, config: FamilyConfig, monkeypatch) -> None:
    monkeypatch.setattr(learning, "SMALL", 0)
    subject = contract.Subject(family, config, contract.SITES["autoencoder"])
    for check in (contract._check_dictionary, contract._check_resumes, contract._check_dead, contract._check_pure):
        check(subject)


@pytest.mark.parametrize(("family", "config"), CASES)
def test_decoder_rows_have_unit_length(family, config: FamilyConfig) -> None:
    x, _ = planted(2048, 16, 32, 2)
    made = learner(family, config, x)
    for step in range(4):
        made.step(x[step * 128 :][:128], step, 4)
    lengths = made.to_dictionary({}).W_dec.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "config"), CASES[:5])
def test_dense_and_sparse_products_learn_the_same(family, config: FamilyConfig, monkeypatch) -> None:
    x, _ = planted(2048, 16, 32, 2)
    config = config.model_copy(update={"dead_after_tokens": 300})
    made = [learner(family, config, x)]
    monkeypatch.setattr(learning, "SMALL", 0)
    made.append(learner(family, config, x))
    assert [m.model.products.dense for m in made] == [True, False]
    for own in made:
        silence(own.model, 5)
    for step in range(8):
        batch = x[step * 128 :][:128]
        parts = [own.step(batch, step, 20) for own in made]
        for name, value in parts[0].items():
            torch.testing.assert_close(parts[1][name].float(), value.float(), rtol=1e-4, atol=1e-5, msg=name)
    for name, tensor in made[0].state().items():
        torch.testing.assert_close(made[1].state()[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_sparse_products_are_the_same_twice_with_several_threads(monkeypatch) -> None:
    """60,000 entries: from 32,768 on PyTorch's sums by index are in any order."""
    monkeypatch.setattr(learning, "SMALL", 0)
    x, _ = planted(2048, 32, 64, 3)
    before, states = torch.get_num_threads(), []
    torch.set_num_threads(4)
    for _ in range(3):
        made = learner(ReluL1, ReluL1Config(d_sae=2048, lr=1e-3, init_norm=1.0), x)
        with torch.no_grad():
            made.model.b_enc[:] = -2.0
        parts = [made.step(x, step, 4) for step in range(4)]
        assert 16 < parts[-1]["l0"] < 0.05 * 2048
        states.append({name: tensor.clone() for name, tensor in made.state().items()})
    torch.set_num_threads(before)
    for name, tensor in states[0].items():
        assert all(torch.equal(other[name], tensor) for other in states[1:]), name


def test_p_annealing_keeps_the_penalty_when_p_changes() -> None:
    x, _ = planted(64, 16, 32, 3)
    made = learner(PAnneal, PAnnealConfig(d_sae=48, l1_coefficient=0.5, lr=1e-12, n_updates=3, anneal_from=0.1), x)
    p, penalties = set(), []
    for step in range(60):
        coefficient = float(made.model.coefficient)
        parts = made.step(x, step, 60)
        p.add(float(parts["p"]))
        penalties.append(coefficient * float(parts["penalty"]))
    assert len(p) == 4
    assert penalties == pytest.approx([penalties[0]] * 60, rel=1e-3)


def test_planted_features_are_found() -> None:
    x, truth = planted(40_000, 32, 64, 3)
    made = learner(TopK, TopKConfig(d_sae=96, k=3, lr=5e-3, dead_after_tokens=20_000), x)
    for step in range(400):
        rows = torch.randint(0, len(x), (1024,), generator=torch.Generator().manual_seed(step))
        made.step(x[rows], step, 400)
    found = made.to_dictionary({}).directions
    assert mmcs(truth, found, signed=False) > 0.97


@pytest.mark.parametrize("family", [TopK, AbsTopK])
def test_dead_features_come_back_by_the_auxiliary_loss(family: type[TopK]) -> None:
    x, _ = planted(8192, 16, 64, 3)
    dead = {}
    for aux_k in (0, 8):
        config = family.Config(d_sae=64, k=2, lr=5e-3, aux_k=aux_k, dead_after_tokens=1000, init_norm=1.0)
        made = learner(family, config, x)
        with torch.no_grad():
            made.model.W_enc[:32] *= 0.01
        for step in range(200):
            made.step(x[(step * 256) % 8192 :][:256], step, 200)
        code = made.to_dictionary({}).encode(x)
        dead[aux_k] = int((code[:, :32] != 0).any(0).logical_not().sum())
    assert dead[8] < dead[0]


@pytest.mark.parametrize("n_processes", [1, 2, 3, 40])
@pytest.mark.parametrize(("family", "sizes"), [(TopK, (96, 0)), (TopK, (96, 10**6)), (AbsTopK, (400, 0))])
def test_the_auxiliary_loss_is_measured_on_the_first_rows(
    family: type[TopK], sizes: tuple[int, int], n_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """d_sae, and up to what size products are dense. It would have caught rows of the error beside other rows' code, parts
    that are not as large as other processes', and the mean of none."""
    (x, _), (d_sae, small) = planted(256, 16, 64, 3), sizes
    monkeypatch.setattr(learning, "SMALL", small)

    def of(rows: torch.Tensor, ranks: Ranks = ALONE) -> tuple[float, torch.Tensor]:
        source = replace(source_of(x), ranks=ranks)
        own = FamilyLearner(family, family.Config(d_sae=d_sae, k=4, aux_rows=32, dead_after_tokens=1000), source, "cpu")
        own.dtype = torch.float32
        own.model.tokens_since_fired[: d_sae // 2] = 2000
        own.model.W_enc.data[: d_sae // 2] *= 0.01  # what is dead makes no part of the code
        parts = own.step(rows[ranks.rank :: ranks.size], 0, 10)
        gradient = own.model.W_dec.grad
        assert gradient is not None
        return float(parts["aux"]), gradient[: d_sae // 2]

    expected, gradient = of(x[:32])
    assert expected > 0
    for found, its_gradient in in_threads(n_processes, "data", lambda ranks: of(x, ranks)):
        assert found == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(its_gradient, gradient, rtol=1e-3, atol=1e-6)
    assert of(x.flip(0))[0] != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("family", "config"), CASES)
def test_dead_features_are_resampled(family, config: FamilyConfig) -> None:
    x, _ = planted(4096, 16, 32, 2)
    update = {"resample_every_tokens": 1024, "dead_after_tokens": 1000, "aux_k": 0}
    made = learner(family, config.model_copy(update=update), x)
    n_steps, size = 24, 256
    silence(made.model, 20)
    before = {k: v.clone() for k, v in made.state().items()}
    dead = [int(made.step(x[step * size % 4096 :][:size], step, n_steps)["dead"]) for step in range(4)]
    assert dead[-1] == 0  # counted after the new ones were made
    after = made.state()
    assert (after["model.tokens_since_fired"][:20] == 0).all()
    if family.biased:
        assert (after["model.b_enc"][:20] == before["model.b_enc"][20]).all()
    assert not (after["adam.W_dec.exp_avg"][:20]).any()
    # They are rows of the last batch, less b_dec, of the right lengths.
    rows = torch.nn.functional.normalize(made.model.scaled(x[3 * size : 4 * size]) - made.model.b_dec, dim=-1).detach()
    fresh = torch.nn.functional.normalize(after["model.W_dec"][:20], dim=-1)
    assert (fresh @ rows.T).amax(1).min() > 0.9999
    if not family.tied:
        lengths = after["model.W_enc"].norm(dim=-1)
        assert lengths[:20].mean() == pytest.approx(0.2 * float(lengths[20:].mean()), rel=1e-4)
    # The same again: the draw is the step's own.
    again = learner(family, config.model_copy(update=update), x)
    again.load_state(before)
    for step in range(4):
        again.step(x[step * size % 4096 :][:size], step, n_steps)
    assert torch.equal(again.state()["model.W_dec"], after["model.W_dec"])


def test_k_anneals() -> None:
    x, _ = planted(1024, 16, 32, 2)
    made = learner(TopK, TopKConfig(d_sae=48, k=4, k_start=16, k_anneal=0.5), x)
    l0 = [float(made.step(x[:256], step, 20)["l0"]) for step in range(12)]
    assert l0[0] > 12
    assert l0[10] <= 4
    assert made.to_dictionary({}).spec.k == 4


def test_l1_shrinks_as_in_the_closed_form() -> None:
    """One feature, one direction: min (2 - z)² + λ z gives z = 2 - λ/2; with λ = 1, z = 3/2."""
    x = torch.cat([torch.full((512, 1), 2.0), torch.full((512, 1), -2.0)])
    config = ReluL1Config(d_sae=1, l1_coefficient=1.0, penalty_warmup=0.0, lr=2e-2, warmup=0, decay=0.5)
    source = Source.at(
        "x", Moments(2, np.zeros(1), np.full(1, 1.0), np.full(1, 2.0), 2.0, 3.0), None, None, None
    )  # scale 1
    made = FamilyLearner(ReluL1, config, source, "cpu")
    made.dtype = torch.float32
    with torch.no_grad():
        made.model.W_dec[:] = made.model.W_enc[:] = 1.0
    made.model.b_dec.requires_grad_(False)
    for step in range(400):
        made.step(x, step, 400)
    code = made.to_dictionary({}).encode(x)
    assert code[0].item() == pytest.approx(1.5, abs=0.02)
    assert code[-1].item() == 0
