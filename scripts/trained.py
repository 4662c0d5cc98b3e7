"""A trained dictionary of any library as the studies measure it, and how one of ours is trained for them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pipeline.score.similarity import mcs
from pipeline.train.families.base import FamilyConfig
from pipeline.train.methods import METHODS
from pipeline.train.source import Source

_POSITIVES = 20  # held-out rows that a feature must be active on to count in F1
_BLOCK = 4096


@dataclass(frozen=True)
class Trained:
    """encode: raw rows (n, d) → code (n, d_sae); decode: code → raw rows; directions (d_sae, d), of any length; signed:
    codes may be negative. seconds: of training."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    directions: Tensor
    signed: bool
    seconds: float


def families() -> list[str]:
    """Methods whose dictionaries are learned by a family."""
    return [name for name, method in METHODS.items() if issubclass(method.config, FamilyConfig)]


def sparsity_key(method: str, bisect: bool = False) -> str:
    """The setting that decides a family's L0: k, l0_target, or the penalty's coefficient, which is to be searched; bisect:
    that rather than l0_target. Raises ValueError: none."""
    fields = METHODS[method].config.model_fields
    for key in ("k", *(() if bisect else ("l0_target",)), "l1_coefficient", "l0_coefficient"):
        if key in fields:
            return key
    raise ValueError(f"{method} has none of the settings k, l0_target, l1_coefficient and l0_coefficient")


def learner_of(method: str, settings: dict[str, Any], source: Source) -> Any:
    made = METHODS[method]
    assert made.learner is not None
    return made.learner(made.config(**settings), source, "cpu")


def train_ours(method: str, settings: dict[str, Any], source: Source, batches: Sequence[Tensor]) -> Trained:
    """batches: raw rows, in the order of learning."""
    learner, started = learner_of(method, settings, source), time.perf_counter()
    for step, x in enumerate(batches):
        learner.step(x, step, len(batches))
    return of_ours(learner, time.perf_counter() - started)


def of_ours(learner: Any, seconds: float) -> Trained:
    found = learner.to_dictionary({})
    return Trained(found.encode, found.decode, found.directions, found.signed, seconds)


@torch.no_grad()
def kept(trained: Trained, x: Tensor) -> dict[str, float]:
    """L0, FVU and the share of features that are active on none of the rows x (n, d)."""
    error, active = 0.0, []
    for part in x.split(_BLOCK):
        z = trained.encode(part)
        error += float((part - trained.decode(z)).double().square().sum())
        active.append(z != 0)
    fired = torch.cat(active)
    return {
        "l0": float(fired.sum(1).double().mean()),
        "fvu": error / float((x - x.mean(0)).double().square().sum()),
        "dead": float((~fired.any(0)).double().mean()),
    }


@torch.no_grad()
def recovered(trained: Trained, F: Tensor, strengths: Tensor) -> dict[str, float]:
    """`kept`, and what of the true features F (G, d) a dictionary finds. strengths: (n, G) of held-out rows.

    Dead features are left out. matched: mean cosine of the true features, each with one direction so that the sum is
    largest (Hungarian method); of signed codes |cosine|; a true feature that is left without one counts 0. mmcs: truth →
    dictionary. f1: of telling the rows where a true feature is active (strength > 0) by those where its matched code is not
    0, mean over the features with at least 20 such rows.
    """
    x = strengths @ F
    active = torch.cat([trained.encode(part) != 0 for part in x.split(_BLOCK)])
    live = active.any(0)
    measures = kept(trained, x)
    if not live.any():
        return {**measures, "matched": 0.0, "mmcs": 0.0, "f1": 0.0}
    directions = torch.nn.functional.normalize(trained.directions[live].float(), dim=-1)
    cosine = F @ directions.T
    cosine = cosine.abs() if trained.signed else cosine
    rows, columns = linear_sum_assignment(cosine.double().numpy(), maximize=True)
    true, told = strengths[:, rows] > 0, active[:, live][:, columns]
    both = (true & told).sum(0).double()
    f1 = torch.zeros(len(F), dtype=torch.double)
    f1[rows] = 2 * both / (true.sum(0) + told.sum(0)).clamp_min(1)
    enough = (strengths > 0).sum(0) >= _POSITIVES
    return {
        **measures,
        "matched": float(cosine[rows, columns].double().sum()) / len(F),
        "mmcs": float(mcs(F, directions, signed=trained.signed).double().mean()),
        "f1": float(f1[enough].mean()),
    }
