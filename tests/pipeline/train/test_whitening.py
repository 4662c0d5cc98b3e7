import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import UserError
from pipeline.score.similarity import mmcs
from pipeline.train import contract, logs, stage
from pipeline.train.config import TrainConfig
from pipeline.train.families import base
from pipeline.train.families.base import FamilyConfig
from pipeline.train.families.relu_l1 import ReluL1Config
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.learner import FamilyLearner
from pipeline.train.ranks import ALONE, Parallel, Ranks
from pipeline.train.stack import Stack
from pipeline.train.threads import in_threads
from pipeline.train.whitening import SHRINKAGE, whitening
from stores.activations import ActivationStore
from stores.site import Site
from tests.conftest import make_store, source_of, unmix
from tests.pipeline.train import test_families, test_maps
from tests.pipeline.train.test_families import CASES, learner
from tests.pipeline.train.test_learner import some, states_of

A, B = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"
KINDS = ("pca", "zca")


def whitened():
    """Every family that whitens, the two kinds in turns."""
    free = [case for case in CASES if not case.values[0].tied]
    for i, case in enumerate(free):
        family, config = case.values
        yield pytest.param(family, config.model_copy(update={"whiten": KINDS[i % 2]}), id=f"{case.id} {KINDS[i % 2]}")


def correlated(n: int = 4096, d: int = 12) -> torch.Tensor:
    """(n, d) normal rows whose variances differ by a factor of 10⁴."""
    generator = torch.Generator().manual_seed(0)
    R = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    return torch.randn(n, d, generator=generator) * torch.logspace(0, -2, d) @ R * 5 + 3


@pytest.mark.parametrize("kind", KINDS)
def test_whitened_rows_have_the_covariance_that_shrinkage_says(kind) -> None:
    x = correlated()
    A = whitening(kind, source_of(x).reads)
    centred = x.double() - x.double().mean(0)
    covariance = centred.T @ centred / len(x)
    variance, E = torch.linalg.eigh(covariance)
    expected = variance / (variance + SHRINKAGE * variance.mean())
    expected *= len(variance) / expected.sum()
    expected = (E * expected) @ E.T if kind == "zca" else expected.diag()
    torch.testing.assert_close(A.T @ covariance @ A, expected, atol=1e-4, rtol=1e-4)
    if kind == "zca":
        torch.testing.assert_close(A, A.T)


@pytest.mark.parametrize("kind", KINDS)
def test_a_direction_without_variance_gets_no_more_than_the_bound(kind) -> None:
    x = torch.nn.functional.pad(torch.randn(4096, 11, generator=torch.Generator().manual_seed(0)), (0, 1))
    A = whitening(kind, source_of(x).reads)
    factors = torch.linalg.svdvals(A)
    assert factors[0] / factors[-1] == pytest.approx((1 + 1 / (SHRINKAGE * 11 / 12)) ** 0.5, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "config"), whitened())
def test_check_whitened_family(family, config: FamilyConfig, monkeypatch) -> None:
    planted = contract.planted_rows

    def stretched(hook_point: str) -> torch.Tensor:
        x = planted(hook_point)
        return x * torch.logspace(0, -1, x.shape[1])

    monkeypatch.setattr(contract, "planted_rows", stretched)
    contract.check_family(family, config)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("family", "config"), whitened())
def test_a_whitened_transcoder_on_raw_activations_is_the_training_forward(
    family, config: FamilyConfig, skip: bool, monkeypatch
) -> None:
    config = config.model_copy(update={"skip": skip})
    test_maps.test_the_dictionary_on_raw_activations_is_the_training_forward(family, config, "transcoder", monkeypatch)


@pytest.mark.parametrize(("family", "config"), list(whitened())[:3])
def test_in_a_stack_each_learns_what_it_learns_alone(family, config: FamilyConfig) -> None:
    x = correlated(512, 16)
    alone, together = some(family, config, x), some(family, config, x)
    stack = Stack(together)
    for step in range(4):
        rows = x[step * 128 :][:128]
        stack.step(rows, step, 20)
        for own in alone:
            own.step(rows, step, 20)
    for own, other in zip(states_of(alone), states_of(together), strict=True):
        for name, tensor in own.items():
            assert torch.equal(other[name], tensor), name


def test_in_a_stack_each_whitens_its_own_rows() -> None:
    x = [correlated(512, 16) ** p for p in (1, 2, 3)]
    config = TopKConfig(d_sae=48, k=4, lr=1e-2, whiten="pca")
    alone, together = ([learner(TopK, config, own) for own in x] for _ in range(2))
    stack = Stack(together)
    stack.step(torch.stack(x), 0, 20)
    for one, own in zip(alone, x, strict=True):
        one.step(own, 0, 20)
    for own, other in zip(states_of(alone), states_of(together), strict=True):
        for name, tensor in own.items():
            torch.testing.assert_close(other[name].float(), tensor.float(), atol=1e-4, rtol=1e-4, msg=name)


def test_the_matrix_is_part_of_the_state() -> None:
    """Eigenvectors come with any sign: a resumed run keeps those that its weights belong to."""
    x = correlated()
    config = TopKConfig(d_sae=48, k=4, whiten="pca")
    made, resumed = learner(TopK, config, x), learner(TopK, config, x)
    with torch.no_grad():
        resumed.model.scale_in.neg_(), resumed.model.scale_out.neg_(), resumed.model.mean_in.neg_()
    resumed.load_state(made.state())
    assert torch.equal(resumed.to_dictionary({})(x), made.to_dictionary({})(x))


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_stretched_coordinates_are_found_where_they_were(kind) -> None:
    """In raw coordinates whose variances differ by a factor of 100."""
    x, truth = test_families.planted(20_000, 32, 48, 3)
    factors = torch.logspace(0, -1, 32)
    x *= factors
    config = TopKConfig(d_sae=64, k=3, lr=5e-3, whiten=kind, dead_after_tokens=20_000)
    made = learner(TopK, config, x)
    for step in range(300):
        rows = torch.randint(0, len(x), (512,), generator=torch.Generator().manual_seed(step))
        made.step(x[rows], step, 300)
    assert mmcs(truth * factors, made.to_dictionary({}).W_dec, signed=False) > 0.97


@pytest.mark.parametrize(("family", "config"), [case for case in CASES if case.values[0].tied])
def test_what_encodes_by_its_decoder_is_refused(family, config: FamilyConfig) -> None:
    with pytest.raises(ValueError, match='whiten = "pca" makes an encoder of its own'):
        config.model_copy(update={"whiten": "pca"}).check(Site.at(A), 16)


def test_several_hook_points_are_refused() -> None:
    config = ReluL1Config(d_sae=8, whiten="zca")
    config.check(Site((A,), (B,)), 16)
    for site in (Site((A, B), (A, B)), Site((A,), (A, B))):
        with pytest.raises(ValueError, match="takes one hook point read and one written"):
            config.check(site, 16)


def test_what_is_measured_on_whitened_activations_has_a_name_of_its_own(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", n_sequences=40, d={A: 8})
    (tmp_path / "own.toml").write_text(
        f'store = "{tmp_path}/s.zarr"\n[train]\nbatch_size = 64\nn_tokens = 640\n'
        '[[train.topk]]\nd_sae = 16\nk = 2\n[[train.topk]]\nd_sae = 16\nk = 2\nwhiten = "pca"\n'
    )
    unmix("train", "own.toml", cwd=tmp_path)
    plain, whitened = sorted((tmp_path / "runs/own/train" / A).glob(f"*/{logs.METRICS}"), key=lambda p: "pca" in str(p))
    for path, name in ((plain, "fvu"), (whitened, "fvu_whitened")):
        record = logs.last(path)
        assert [key for key in record if key.startswith("fvu")] == [name]
        assert record[name] == pytest.approx(record["mse"] / 8, abs=1e-5)


def test_a_warning_says_that_it_is_of_whitened_activations() -> None:
    config = TopKConfig(d_sae=48, k=4, whiten="zca")
    (told,) = config.warnings({"l0": 4.0, "fvu_whitened": 1.2, "dead": 0.0}, 16)
    assert told.startswith("it reconstructs whitened activations worse than the mean does, FVU 1.2")


@pytest.mark.parametrize("parallel", ["data", "features"])
def test_all_processes_have_the_matrix_of_the_first(parallel: Parallel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where eigenvectors come with other signs in the second one."""
    here = threading.local()
    monkeypatch.setattr(base, "whitening", lambda *arguments: here.sign * whitening(*arguments))

    def made(ranks: Ranks) -> FamilyLearner:
        here.sign = 1 - 2 * ranks.rank
        config = TopKConfig(d_sae=48, k=4, whiten="pca", init="data")
        return contract.Subject(TopK, config, contract.SITES["autoencoder"]).learner(ranks)

    expected = made(ALONE).state()
    for own in in_threads(2, parallel, made):
        for name, tensor in expected.items():
            assert torch.equal(own.state()[name], own.own(name, tensor)), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"whiten": "pca"}, f'train.topk at {A}--{B}: whiten = "pca" begins from 40 training rows, the store has 30:'),
        ({"init": "data"}, f'train.topk at {A}--{B}: init = "data" begins from 48 training rows, the store has 30:'),
        ({}, ""),
    ],
)
def test_fewer_training_rows_than_it_takes_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    store = make_store(tmp_path / "s", n_sequences=4, d={A: 8, B: 40}, chunk_sequences=1)
    assert isinstance(store, ActivationStore)
    table = {"reads": A, "writes": B, "d_sae": 48, **settings}
    config = TrainConfig(batch_size=8, n_tokens=8, methods={"topk": [table]})
    if not message:
        assert len(stage.units(config, tmp_path, store)) == 1
        return
    with pytest.raises(UserError) as refused:
        stage.units(config, tmp_path, store)
    assert str(refused.value).startswith(message)
