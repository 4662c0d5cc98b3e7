"""The table of ways to make a dictionary: the names a recipe's [train.NAME] tables may have."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from pipeline.config import MethodConfig
from pipeline.train import baselines
from pipeline.train.contract import check_declared
from pipeline.train.families.abs_topk import AbsTopK
from pipeline.train.families.base import Family
from pipeline.train.families.batch_topk import BatchTopK
from pipeline.train.families.gated import Gated
from pipeline.train.families.jumprelu import JumpReLU
from pipeline.train.families.matching_pursuit import MatchingPursuit
from pipeline.train.families.matryoshka import Matryoshka
from pipeline.train.families.p_anneal import PAnneal
from pipeline.train.families.relu_l1 import ReluL1
from pipeline.train.families.tied import Tied
from pipeline.train.families.topk import TopK
from pipeline.train.learner import FamilyLearner
from pipeline.train.rotations.ica import ICAConfig, ica
from pipeline.train.rotations.jacobian_rotation import JacobianRotationConfig, JacobianRotationLearner
from pipeline.train.rotations.local_interaction_basis import LocalInteractionBasisConfig, local_interaction_basis
from pipeline.train.rotations.msp import RotationConfig, RotationLearner
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary


class Learner(Protocol):
    """Something that learns from one batch after another and whose whole state is a dict of tensors.

    step: x (batch, d_in) as read, y (batch, d_out) what is to be written, None where that is x. Returns scalars for the log.
    """

    def step(self, x: Tensor, step: int, n_steps: int, y: Tensor | None = None) -> dict[str, Tensor]: ...
    def state(self) -> dict[str, Tensor]: ...
    def load_state(self, state: dict[str, Tensor]) -> None: ...
    def to_dictionary(self, provenance: dict) -> FeatureDictionary: ...


@dataclass(frozen=True)
class Method:
    """config: its settings. label: the fields that name a dictionary, with their short forms.

    learner: makes a Learner from (config, source, device), or fit: makes the dictionary at once from (config, source,
    provenance). reads_only: it learns from what is read, and the store need not hold what is written. divisible: several
    processes can each hold a part of a dictionary's features. family: what it trains, if it is one. origin: where it comes
    from, if it is not one of this package: part of what a dictionary's key is made of.
    """

    config: type[MethodConfig]
    label: dict[str, str]
    learner: Callable[[Any, Source, str], Learner] | None = None
    fit: Callable[[Any, Source, dict], FeatureDictionary] | None = None
    reads_only: bool = False
    divisible: bool = False
    family: type[Family] | None = None
    origin: dict[str, str] = field(default_factory=dict)


def of_family(family: type[Family]) -> Method:
    """The method of a family: its settings, and its learner. Raises ContractError: the family lacks a part."""
    check_declared(family)
    label = {"d_sae": "d", **family.label, "whiten": "", "frozen": "frozen_", "seed": "s"}
    return Method(
        family.Config,
        label,
        lambda config, source, device: FamilyLearner(family, config, source, device),
        divisible=family.divisible,
        family=family,
    )


METHODS: dict[str, Method] = {
    "topk": of_family(TopK),
    "abs_topk": of_family(AbsTopK),
    "batch_topk": of_family(BatchTopK),
    "matryoshka": of_family(Matryoshka),
    "matching_pursuit": of_family(MatchingPursuit),
    "relu_l1": of_family(ReluL1),
    "tied": of_family(Tied),
    "gated": of_family(Gated),
    "p_anneal": of_family(PAnneal),
    "jumprelu": of_family(JumpReLU),
    "rotation": Method(RotationConfig, {"seed": "s"}, learner=RotationLearner),
    "jacobian_rotation": Method(
        JacobianRotationConfig, {"seed": "s"}, learner=JacobianRotationLearner, reads_only=True
    ),
    "local_interaction_basis": Method(LocalInteractionBasisConfig, {}, fit=local_interaction_basis),
    "neuron_basis": Method(baselines.NeuronBasisConfig, {}, fit=baselines.neuron_basis),
    "random": Method(baselines.RandomConfig, {"seed": "s"}, fit=baselines.random),
    "covariance": Method(baselines.CovarianceConfig, {"d_sae": "d", "k": "k", "seed": "s"}, fit=baselines.covariance),
    "ica": Method(ICAConfig, {"seed": "s"}, fit=ica),
    "pca": Method(baselines.PCAConfig, {}, fit=baselines.pca),
}
