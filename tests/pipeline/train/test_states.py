"""The state of what learns lies on the device of its weights, wherever it came from."""

import warnings

import pytest
import torch

from pipeline.train.contract import SITES, Subject, planted_rows
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.learner import FamilyLearner, take_step
from pipeline.train.source import Source
from pipeline.train.stack import Stack

CONFIG = TopKConfig(d_sae=48, k=4, lr=1e-2)


def learner(seed: int, device: str) -> FamilyLearner:
    site = SITES["autoencoder"]
    source = Source.of_rows(site, {h: planted_rows(h) for h in site.reads})
    return FamilyLearner(TopK, CONFIG.model_copy(update={"seed": seed}), source, device)


def step(learners: list[FamilyLearner]) -> None:
    """Adam's, of a stack or of one, with gradients that are 0."""
    if len(learners) == 1:
        parameters, optimiser = dict(learners[0].model.named_parameters()), learners[0].optimiser
    else:
        stack = Stack(learners)
        parameters, optimiser = stack.parameters, stack.optimiser
    for name, parameter in parameters.items():
        parameter.grad = torch.zeros_like(parameter)
        for i, own in enumerate(learners if len(learners) > 1 else ()):
            dict(own.model.named_parameters())[name].grad = parameter.grad[i]
    take_step(learners[0], parameters, optimiser, learners[0].model.now(0, 10, False), stacked=len(learners) > 1)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.usefixtures("adam_on_meta")
def test_adam_has_its_moments_and_its_count_where_the_weights_are(n: int, resumed: bool) -> None:
    """Fused Adam on CUDA refuses a count that is on the CPU."""
    learners = [learner(seed, "meta") for seed in range(n)]
    if resumed:
        for own in learners:
            before = learner(own.config.seed, "cpu")
            Subject(TopK, CONFIG, SITES["autoencoder"]).learn(before, range(1))
            with warnings.catch_warnings():  # numbers of the CPU go nowhere on the meta device
                warnings.simplefilter("ignore", UserWarning)
                own.load_state(before.state())
    step(learners)
    for own in learners:
        found = {
            name: tensor.device.type for name, tensor in own.state().items() if name not in ("bfloat16", "foresight")
        }
        assert {name.split(".")[-1] for name in found} >= {"step", "exp_avg", "exp_avg_sq", "W_dec", "density"}
        assert set(found.values()) == {"meta"}
