"""Dictionaries of which one side stays as it began."""

import pytest
import torch
from torch import Tensor

from pipeline.config import UserError
from pipeline.train.config import TrainConfig
from pipeline.train.contract import SITES, Subject
from pipeline.train.families.base import Family
from pipeline.train.families.relu_l1 import ReluL1
from pipeline.train.families.tied import Tied
from pipeline.train.families.topk import TopK
from pipeline.train.frozen import WEIGHTS
from pipeline.train.learner import FamilyLearner
from pipeline.train.ranks import Parallel, Ranks
from pipeline.train.tasks import tasks
from pipeline.train.threads import in_threads

HOOK = "blocks.0.hook_resid_post"


def subject(family: type[Family], site: str = "autoencoder", **settings) -> Subject:
    return Subject(family, family.Config(**{"d_sae": 64, "lr": 1e-2, **settings}), SITES[site])


def learned(of: Subject) -> FamilyLearner:
    own = of.learner()
    of.learn(own)
    return own


@pytest.mark.parametrize("frozen", WEIGHTS)
@pytest.mark.parametrize(
    ("family", "site", "settings"),
    [
        (TopK, "autoencoder", {"k": 4, "grad_clip": 0.1}),
        (TopK, "transcoder", {"k": 4, "skip": True}),
        (TopK, "crosscoder", {"k": 4}),
        (TopK, "autoencoder", {"k": 4, "whiten": "pca"}),
        (ReluL1, "autoencoder", {"l0_target": 4}),
    ],
)
def test_the_frozen_side_keeps_every_bit_and_the_other_learns(family, site: str, settings: dict, frozen: str) -> None:
    control = subject(family, site, **settings, frozen=frozen)
    start, trained = control.learner().model, learned(control).model
    for side, name in WEIGHTS.items():
        same = torch.equal(getattr(start, name), getattr(trained, name))
        assert same == (side == frozen), name


@pytest.mark.parametrize("parallel", ["data", "features"])
@pytest.mark.parametrize("frozen", WEIGHTS)
def test_two_processes_keep_the_same_bits(parallel: Parallel, frozen: str) -> None:
    control = subject(TopK, k=4, frozen=frozen, grad_clip=1.0)

    key = f"model.{WEIGHTS[frozen]}"

    def ends(ranks: Ranks) -> tuple[dict[str, Tensor], Tensor]:
        """What a process ends with, and what of the beginning is its own."""
        own = control.learner(ranks)
        control.learn(own, range(5))
        return own.state(), own.own(key, control.learner().state()[key])

    for state, begin in in_threads(2, parallel, ends):
        assert torch.equal(state[key], begin)
        assert not any(name.startswith(f"adam.{WEIGHTS[frozen]}.") for name in state)


def test_a_frozen_one_and_its_free_twin_are_in_no_stack_and_begin_alike() -> None:
    free, control = (subject(TopK, k=4, frozen=frozen).learner() for frozen in (None, "decoder"))
    assert free.shape != control.shape
    for name, tensor in free.model.named_parameters():
        assert torch.equal(tensor, control.model.get_parameter(name))


@pytest.mark.parametrize("frozen", WEIGHTS)
@pytest.mark.parametrize("family", [TopK, ReluL1])
def test_a_control_leaves_more_unexplained_than_its_twin(family: type[Family], frozen: str) -> None:
    settings = {"k": 2} if family is TopK else {"l1_coefficient": 1.0}
    free, control = (subject(family, frozen=own, **settings) for own in (None, frozen))
    errors = [float(own.learn(own.learner())[-1]["mse"]) for own in (free, control)]
    assert errors[1] > 1.1 * errors[0]


@pytest.mark.parametrize(
    ("method", "table", "message"),
    [
        ("tied", {"frozen": "decoder"}, 'train.tied at .*: frozen = "decoder": its decoder is its encoder'),
        ("matching_pursuit", {"frozen": "encoder"}, "its decoder is its encoder"),
        ("topk", {"frozen": "decoder", "resample_every_tokens": 100}, "resample_every_tokens = 100 replaces"),
        ("topk", {"frozen": "both"}, "train.topk.frozen: Input should be 'decoder' or 'encoder', got 'both'"),
    ],
)
def test_what_cannot_be_frozen_is_refused_in_one_line(method: str, table: dict, message: str) -> None:
    config = TrainConfig(n_tokens=10, methods={method: [{"d_sae": 64, **table}]})
    with pytest.raises(UserError, match=message) as error:
        tasks(config, lambda _: 8, (HOOK,))
    assert "\n" not in str(error.value)


def test_a_family_of_ones_own_that_is_tied_is_refused_too() -> None:
    class Own(Tied):
        pass

    with pytest.raises(ValueError, match="its decoder is its encoder"):
        subject(Own, frozen="decoder").learner()
