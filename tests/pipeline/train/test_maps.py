"""Every family makes transcoders, skip transcoders and crosscoders: what is read and what is written may be different."""

from dataclasses import dataclass

import pytest
import torch

from pipeline.score.similarity import mmcs
from pipeline.train import learner as learning
from pipeline.train.contract import silence
from pipeline.train.families.base import FamilyConfig
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.learner import FamilyLearner
from stores.dictionary import FeatureDictionary
from tests.conftest import moments_of, source_of_site
from tests.pipeline.train.test_families import CASES

A, B = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"
KINDS = {"transcoder": ((A,), (B,)), "crosscoder": ((A, B), (A, B)), "writes both": ((A,), (A, B))}


@dataclass
class Planted:
    """k of G features with strengths in [1/2, 1] a row, seen at A with 16 coordinates and at B with 24, in other units."""

    rows: dict[str, torch.Tensor]
    truth: dict[str, torch.Tensor]
    strength: torch.Tensor


def planted(n: int = 2048, G: int = 32, k: int = 2, d: tuple[int, int] = (16, 24)) -> Planted:
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(n, G, generator=generator).topk(k, dim=-1).indices
    strength = torch.zeros(n, G).scatter(-1, active, 0.5 + 0.5 * torch.rand(n, k, generator=generator))
    truth = {
        h: torch.nn.functional.normalize(torch.randn(G, m, generator=generator), dim=-1) for h, m in zip((A, B), d)
    }
    rows = {A: strength @ truth[A] + 3.0, B: 40 * (strength @ truth[B]) - 7.0}
    return Planted(rows, truth, strength)


def learner(family, config: FamilyConfig, data: Planted, kind: str, dtype=torch.float32) -> FamilyLearner:
    reads, writes = ({h: data.rows[h] for h in side} for side in KINDS[kind])
    made = FamilyLearner(family, config, source_of_site(reads, writes), "cpu")
    made.dtype = dtype
    return made


def pair(data: Planted, kind: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is read and what is written."""
    reads, writes = (torch.cat([data.rows[h] for h in side], dim=-1) for side in KINDS[kind])
    return reads[rows], writes[rows]


def batches(n_steps: int, n: int = 2048, size: int = 256) -> list[torch.Tensor]:
    return [torch.randperm(n, generator=torch.Generator().manual_seed(i))[:size] for i in range(n_steps)]


def params():
    for case in CASES:
        for kind in KINDS:
            for skip in (False, True):
                family, config = case.values
                maps = kind != "crosscoder"
                if (not skip or maps) and kind != "writes both" * skip and not family.tied:
                    suffix = "skip " if skip else ""
                    yield pytest.param(
                        family, config.model_copy(update={"skip": skip}), kind, id=f"{case.id} {suffix}{kind}"
                    )


@pytest.mark.parametrize(("family", "config", "kind"), params())
def test_the_dictionary_on_raw_activations_is_the_training_forward(
    family, config: FamilyConfig, kind: str, monkeypatch
) -> None:
    """Of large dictionaries; the contract holds it for small ones (test_contract.py)."""
    monkeypatch.setattr(learning, "SMALL", 0)
    data, n_steps = planted(), 20
    made = learner(family, config, data, kind)
    records = []
    for step, rows in enumerate(batches(n_steps)):
        x, y = pair(data, kind, rows)
        records.append(made.step(x, step, n_steps, y))
    assert float(records[-1]["mse"]) < 0.85 * float(records[0]["mse"])
    x, y = pair(data, kind, torch.arange(2048))
    model, dictionary = made.model, made.to_dictionary({})
    with torch.no_grad():
        parts = model(model.scaled(x), model.scaled_targets(y), model.now(n_steps, n_steps, False))[1]
    error = model.scaled_targets(y) - model.scaled_targets(dictionary(x))
    # Which features of a row BatchTopK keeps depends on its batch; its dictionary's threshold makes that one number.
    exact = dictionary.spec.architecture == "topk" or not hasattr(model, "threshold")
    assert float(parts["mse"]) == pytest.approx(float(error.square().sum(-1).mean()), rel=1e-3 if exact else 0.2)
    assert (dictionary.site.reads, dictionary.site.writes) == KINDS[kind]
    assert tuple(dictionary.written()) == KINDS[kind][1]
    assert ("W_skip" in dict(dictionary.named_buffers())) == config.skip


@pytest.mark.parametrize(("family", "config"), [case for case in CASES if not case.values[0].tied])
def test_rows_of_a_crosscoder_have_norms_that_add_up_to_one(family, config: FamilyConfig) -> None:
    """In units of each hook point's scale: what a feature is worth does not depend on the units of a layer."""
    data = planted()
    made = learner(family, config, data, "crosscoder")
    for step, rows in enumerate(batches(5)):
        made.step(pair(data, "crosscoder", rows)[0], step, 5)
    dictionary, scales = made.to_dictionary({}), [m.scale for m in made.source.targets.moments]
    norms = [W.norm(dim=-1) * scale for W, scale in zip(dictionary.written().values(), scales, strict=True)]
    lengths = sum(norms) / made.model.common_scale
    torch.testing.assert_close(lengths, torch.ones(48), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "config"), [case for case in CASES if not case.values[0].tied])
def test_dead_features_of_a_transcoder_are_resampled(family, config: FamilyConfig) -> None:
    data = planted()
    update = {"resample_every_tokens": 1024, "dead_after_tokens": 1000, "aux_k": 0, "skip": True}
    made = learner(family, config.model_copy(update=update), data, "transcoder")
    silence(made.model, 20)
    for step, rows in enumerate(batches(4)):
        dead = made.step(*(pair(data, "transcoder", rows)[0], step, 24, pair(data, "transcoder", rows)[1]))["dead"]
    assert dead == 0
    read, target = made.model.centred(made.model.scaled(data.rows[A]), made.model.scaled_targets(data.rows[B]))
    for W, own in ((made.model.W_enc, read), (made.model.W_dec, target)):
        fresh, rows = (torch.nn.functional.normalize(t.detach(), dim=-1) for t in (W[:20], own))
        assert (fresh @ rows.T).amax(1).min() > 0.9999


def test_the_penalty_of_a_crosscoder_is_by_the_sum_of_its_norms() -> None:
    """A feature at two layers pays |W_a| + |W_b|, not the length of both together."""
    config = next(case.values[1] for case in CASES if case.id == "relu_l1")
    family = next(case.values[0] for case in CASES if case.id == "relu_l1")
    data = planted()
    made = learner(family, config, data, "crosscoder")
    model, x = made.model, pair(data, "crosscoder", torch.arange(256))[0]
    scaled = model.scaled(x)
    parts = model(scaled, scaled, model.now(0, 1, False))[1]
    z = model.pre(model.centred(scaled, scaled)[0]).relu()
    norms = model.W_dec[:, :16].norm(dim=-1) + model.W_dec[:, 16:].norm(dim=-1)
    assert parts["l1"].item() == pytest.approx((z * norms).sum(-1).mean().item(), rel=1e-5)


def trained(data: Planted, kind: str, n_steps: int = 600, **settings) -> FeatureDictionary:
    config = TopKConfig(**{"d_sae": 48, "k": 3, "lr": 5e-3, "dead_after_tokens": 20_000, **settings})
    made = learner(TopK, config, data, kind)
    for step in range(n_steps):
        rows = torch.randint(0, len(data.strength), (1024,), generator=torch.Generator().manual_seed(step))
        x, y = pair(data, kind, rows)
        made.step(x, step, n_steps, y)
    return made.to_dictionary({})


def test_a_transcoder_finds_a_planted_linear_map_of_sparse_features() -> None:
    """Features that can be told apart where they are read, orthogonal ones, and that share coordinates where they are
    written: the encoder finds the ones, the decoder the others."""
    data = planted(20_000, k=3, d=(32, 24))
    data.truth[A] = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(3)))[0]
    data.rows[A] = data.strength @ data.truth[A] + 3.0
    dictionary = trained(data, "transcoder", n_steps=350, d_sae=64)
    assert mmcs(data.truth[B], dictionary.W_dec, signed=False) > 0.98
    assert mmcs(data.truth[A], dictionary.W_enc.T, signed=False) > 0.95


@pytest.mark.slow
def test_a_skip_transcoder_finds_planted_neurons_beside_a_planted_linear_map() -> None:
    """y = M x + Σ b_i ReLU(a_i x - 1.5), x normal: without the skip matrix the features are spent on M."""
    generator = torch.Generator().manual_seed(0)
    a = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0]
    b = torch.nn.functional.normalize(torch.randn(32, 40, generator=generator), dim=-1)
    M = torch.randn(32, 40, generator=generator) / 32**0.5
    x = torch.randn(20_000, 32, generator=generator)
    strength = (x @ a.T - 1.5).relu()
    data = Planted({A: x + 3, B: 40 * (3 * strength @ b + x @ M) - 7}, {A: a, B: b}, strength)
    y, errors = data.rows[B], {}
    for skip in (True, False):
        dictionary = trained(data, "transcoder", n_steps=1000 if skip else 200, skip=skip)
        errors[skip] = float((y - dictionary(data.rows[A])).square().sum() / (y - y.mean(0)).square().sum())
        if skip:
            assert mmcs(b, dictionary.W_dec, signed=False) > 0.95
            assert mmcs(a, dictionary.W_enc.T, signed=False) > 0.95
    assert errors[True] < 0.03 < 0.3 < errors[False]


@pytest.mark.slow
def test_a_crosscoder_finds_features_of_one_layer_and_of_several() -> None:
    data = planted(20_000, G=48, k=3, d=(32, 40))
    data.truth[A][:12], data.truth[B][12:24] = 0.0, 0.0  # at B alone, at A alone, and the rest at both
    data.rows = {A: data.strength @ data.truth[A] + 3.0, B: 40 * (data.strength @ data.truth[B]) - 7.0}
    written = trained(data, "crosscoder", d_sae=64).written()
    scales = {h: moments_of(data.rows[h]).scale for h in (A, B)}
    share = {h: W.norm(dim=-1) * scales[h] for h, W in written.items()}
    for h, own in ((A, slice(12, 48)), (B, [*range(12), *range(24, 48)])):
        assert mmcs(data.truth[h][own], written[h], signed=False) > 0.95
    for h, other, only in ((B, A, slice(0, 12)), (A, B, slice(12, 24))):
        nearest = (data.truth[h][only] @ torch.nn.functional.normalize(written[h], dim=-1).T).argmax(-1)
        assert (share[other][nearest] < 0.1 * share[h][nearest]).all()
