"""λ is steered so that training ends at the L0 that was asked for."""

import pytest
import torch

from pipeline.config import UserError
from pipeline.train.config import TrainConfig
from pipeline.train.families import penalty
from pipeline.train.families.penalty import Penalised
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.stack import Stack
from pipeline.train.tasks import tasks
from tests.conftest import source_of
from tests.pipeline.train.test_families import planted

NAMES = [name for name, method in METHODS.items() if method.family and issubclass(method.family, Penalised)]
BATCH = 256


def test_five_families_have_a_penalty() -> None:
    assert set(NAMES) == {"relu_l1", "tied", "gated", "p_anneal", "jumprelu"}


def trained(
    name: str, targets: list[float | None], n_steps: int, **settings
) -> tuple[list[FamilyLearner], list[float]]:
    """Learners, and L0 of what each ends as, on 8 features of 64 a row in 32 dimensions."""
    x, _ = planted(20_000, 32, 64, 8)
    method = METHODS[name]
    family, config = method.family, method.config
    assert family is not None
    given = [config.model_validate({"d_sae": 64, "l0_target": t, **settings}) for t in targets]
    learners = [FamilyLearner(family, own, source_of(x), "cpu") for own in given]
    stack = Stack(learners)
    for step in range(n_steps):
        rows = torch.randint(0, len(x), (BATCH,), generator=torch.Generator().manual_seed(step))
        stack.step(x[rows], step, n_steps)
    return learners, [float((own.to_dictionary({}).encode(x) != 0).sum(-1).float().mean()) for own in learners]


BY_NUMBER = "jumprelu"  # the others' penalty is of strengths, as relu_l1's is, which ends at its target below


@pytest.mark.parametrize(
    "name", [name if name == BY_NUMBER else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_training_ends_at_the_l0_that_was_asked_for(name: str) -> None:
    targets = [5.0, 8.0, 12.0]
    _, l0 = trained(name, targets, 1200 if name in ("relu_l1", "p_anneal") else 600)
    assert l0 == pytest.approx(targets, rel=0.06)


def test_without_a_target_the_coefficient_stays() -> None:
    (one, other), _ = trained("relu_l1", [None, 8.0], 60)
    assert float(one.model.coefficient) == pytest.approx(5 * (32 / 768) ** 0.5)
    assert float(other.model.coefficient) != float(one.model.coefficient)


def test_a_search_that_is_too_fast_ends_with_dead_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why L0 falls by no more than _FASTEST e-folds in 1/lr steps."""
    short = {"lr": 1e-2, "penalty_warmup": 0.1}
    assert trained("relu_l1", [3.0, 3.0], 150, **short)[1][0] == pytest.approx(3, rel=0.2)
    monkeypatch.setattr(penalty, "_FASTEST", 10 * penalty._FASTEST)
    assert trained("relu_l1", [3.0, 3.0], 150, **short)[1][0] < 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("target", "message"),
    [(65.0, "l0_target = 65 is more than d_sae = 64"), (0.5, "l0_target: .*greater than or equal to 1, got 0.5")],
)
def test_a_target_that_cannot_be_is_refused(name: str, target: float, message: str) -> None:
    config = TrainConfig(n_tokens=1, methods={name: [{"d_sae": 64, "l0_target": target}]})
    with pytest.raises(UserError, match=message):
        tasks(config, lambda _: 32, ("blocks.0.hook_resid_post",))


@pytest.mark.parametrize("name", NAMES)
def test_a_target_that_could_not_be_sought_is_refused(name: str) -> None:
    key = METHODS[name].config.coefficient_field  # type: ignore[attr-defined]
    for settings, message in (
        ({key: 0}, f"is sought from {key} on, which is 0"),
        ({"penalty_warmup": 1}, "less than 1"),
    ):
        config = TrainConfig(n_tokens=1, methods={name: [{"d_sae": 64, "l0_target": 8, **settings}]})
        with pytest.raises(UserError, match=message):
            tasks(config, lambda _: 32, ("blocks.0.hook_resid_post",))


def test_what_training_tells() -> None:
    config = METHODS["relu_l1"].config.model_validate({"d_sae": 90, "l0_target": 20.0})
    fine = {"l0": 20.5, "fvu": 0.2, "dead": 30.0}
    assert config.warnings(fine, 64) == []
    assert config.warnings({**fine, "l0": 16.0}, 64)[0].startswith("L0 is 16, l0_target = 20 was not reached")
    assert config.warnings({**fine, "l0": 65.0}, 64)[0].startswith("L0 65 is more than the 64 coordinates")
    assert config.warnings({**fine, "fvu": 1.2}, 64)[0].startswith("it reconstructs worse than the mean does, FVU 1.2")
    assert config.warnings({**fine, "dead": 31.0}, 64) == ["31 of 90 features are dead"]
