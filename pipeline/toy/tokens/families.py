"""The families of the train stage on the eight tokens: the same classes, many seeds in one product."""

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.toy.tokens.eight import Code, data, readings
from pipeline.train.families.base import Family, FamilyConfig
from pipeline.train.families.relu_l1 import ReluL1, ReluL1Config
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.learner import FamilyLearner
from pipeline.train.source import Source
from pipeline.train.stack import Stack
from stores.moments import moments_from, row_sums

HOOK_POINT = "eight tokens"
L1 = (0.3, 1.0, 3.0)  # coefficients, on activations scaled to E|x - mean|² = 4
K = (1, 2, 3)


def source() -> Source:
    """The eight rows as training rows. No row is held out, and no language model wrote them."""
    x = data().numpy()

    def no_model() -> Any:
        raise ValueError("the eight tokens come from no model: its weights cannot be looked at")

    moments = moments_from(row_sums(x, "float32")[0])
    return Source.at(HOOK_POINT, moments, lambda n: x[:n], lambda n: x[:0], no_model, precision="float32")


def train(family: type[Family], configs: Sequence[FamilyConfig], n_steps: int) -> Code:
    """One dictionary of each config, all eight tokens in every step. configs: of one shape, see FamilyLearner.shape."""
    x, where = data(), source()
    learners = [FamilyLearner(family, config, where, "cpu") for config in configs]
    if n_steps:
        stack = Stack(learners)
        for step in range(n_steps):
            stack.step(x, step, n_steps)
    made = [learner.to_dictionary({}) for learner in learners]
    with torch.no_grad():
        z = torch.stack([own.encode(x) for own in made])
        x_hat = torch.stack([own(x) for own in made])
    return Code(z, torch.stack([own.W_dec.detach() for own in made]), x_hat)


def relu_l1(n_seeds: int, d_sae: int, n_steps: int, lr: float) -> dict[str, Any]:
    """At the coefficients L1, and untrained."""
    configs = [ReluL1Config(d_sae=d_sae, seed=s, l1_coefficient=c, lr=lr) for c in L1 for s in range(n_seeds)]
    found = train(ReluL1, configs, n_steps)
    rows = {f"ReLU-L1, λ = {c:g}": readings(_part(found, i, n_seeds)) for i, c in enumerate(L1)}
    return {"ReLU-L1, untrained": readings(train(ReluL1, configs[:n_seeds], 0)), **rows}


def topk(n_seeds: int, d_sae: int, n_steps: int, lr: float) -> dict[str, Any]:
    """At the numbers of active latents K, each also untrained: its code depends on k then too."""
    rows = {}
    for k in (k for k in K if k <= d_sae):
        configs = [TopKConfig(d_sae=d_sae, seed=s, k=k, lr=lr) for s in range(n_seeds)]
        rows[f"TopK, k = {k}, untrained"] = readings(train(TopK, configs, 0))
        rows[f"TopK, k = {k}"] = readings(train(TopK, configs, n_steps))
    return rows


def _part(code: Code, i: int, n: int) -> Code:
    own = slice(i * n, (i + 1) * n)
    return Code(code.z[own], code.rows[own], code.x_hat[own])
