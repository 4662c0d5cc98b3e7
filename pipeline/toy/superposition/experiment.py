"""Toy models of superposition: n sparse features squeezed into m dimensions and read back through a ReLU.

    x_i = 0 with probability 1 - p, else U[0, 1);  h = W x;  x' = ReLU(Wᵀ h + b);  loss = mean Σ_i I_i (x_i - x'_i)²

Source: Elhage et al. 2022, "Toy Models of Superposition".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.toy.superposition.geometry import STICKY, classify, dimensionality, per_feature, phase_losses
from stores.manifest import seed_of

Probability = Annotated[float, Field(gt=0, le=1)]  # that a feature is active
Together = Literal["independent", "correlated", "anticorrelated"]

# p, fixed beforehand, and the D that most features are expected to have there: in opposite pairs, in square antiprisms
SHARED = {0.3: STICKY["antipodal pair"], 0.2: STICKY["square antiprism"]}
_SHARED_SEEDS = 5
_NEAR = 0.03  # of a polytope's D


class Settings(Config):
    """n → m: features and dimensions of the sweep over p; *_seeds: instances of which the best is shown."""

    n: int = Field(default=400, ge=2)
    m: int = Field(default=30, ge=1)
    p: tuple[Probability, ...] = (1.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.03)
    n_steps: int = Field(default=1200, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    importance_p: tuple[Probability, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    importance_decay: float = Field(default=0.7, gt=0, le=1)
    importance_steps: int = Field(default=3000, ge=1)
    importance_seeds: int = Field(default=8, ge=1)
    pentagon_seeds: int = Field(default=100, ge=1)
    pentagon_steps: int = Field(default=5000, ge=1)
    grid: int = Field(default=13, ge=2)  # of the phase diagram, cells a side
    grid_seeds: int = Field(default=8, ge=1)
    grid_steps: int = Field(default=1200, ge=1)
    pair_seeds: int = Field(default=8, ge=1)
    pair_p: Probability = 0.05
    pair_steps: int = Field(default=2000, ge=1)


QUICK: dict[str, Any] = {
    "n": 60, "m": 6, "p": (1.0, 0.3, 0.1, 0.03), "n_steps": 300, "batch_size": 256, "importance_steps": 600,
    "importance_seeds": 2, "pentagon_seeds": 4, "pentagon_steps": 1000, "grid": 5, "grid_seeds": 4, "grid_steps": 600,
    "pair_seeds": 4, "pair_steps": 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What the instances have to keep. p: (n_instances, n) or (n_instances, 1), of each feature; importance: the same.

    together: features 2i and 2i + 1 are active independently, always both, or never both.
    """

    n: int
    m: int
    p: Tensor
    importance: Tensor = field(default_factory=lambda: torch.ones(1, 1))
    together: Together = "independent"

    def sample(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """(n_instances, batch_size, n)"""
        shape, p = (len(self.p), batch_size, self.n), self.p[:, None, :]
        if self.together == "independent":
            u = torch.rand(shape, generator=generator)  # u / p is uniform where u < p: one draw serves both
            return torch.where(u < p, u / p, 0.0)
        pair = torch.rand(shape[0], batch_size, self.n // 2, generator=generator).repeat_interleave(2, -1)
        if self.together == "correlated":
            active = pair < p
        else:  # of a pair that is active, one
            first = torch.rand(shape[0], batch_size, self.n // 2, generator=generator) < 0.5
            chosen = torch.stack([first, ~first], dim=-1).flatten(-2)
            active = (pair < (2 * p).clamp_max(1)) & chosen
        return active * torch.rand(shape, generator=generator)

    def loss(self, W: Tensor, b: Tensor, x: Tensor) -> Tensor:
        """(n_instances,)"""
        out = torch.relu(torch.baddbmm(b[:, None], x @ W.transpose(1, 2), W))
        return ((x - out).square() * self.importance[:, None]).sum(-1).mean(-1)


@dataclass(frozen=True)
class Trained:
    """W (n_instances, m, n), b (n_instances, n), loss (n_instances,) on fresh data; history: (step, W, batch loss)."""

    W: Tensor
    b: Tensor
    loss: Tensor
    history: list[tuple[int, Tensor, Tensor]]


def train(task: Task, n_steps: int, batch_size: int, seed: int, lr: float = 1e-2, record: int = 0) -> Trained:
    """All instances at once, in one batched model, under Adam with a cosine decay. record: how many states to keep."""
    n_instances = len(task.p)
    generator = torch.Generator().manual_seed(seed_of("superposition", seed))
    # Glorot's scale, as the source has it
    W = torch.randn(n_instances, task.m, task.n, generator=generator) * math.sqrt(2 / (task.n + task.m))
    W.requires_grad_()
    b = torch.zeros(n_instances, task.n, requires_grad=True)
    optimiser = torch.optim.Adam([W, b], lr=lr, fused=True)
    kept, history = set(np.linspace(0, n_steps - 1, record, dtype=int).tolist()), []
    for step in range(n_steps):
        optimiser.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        losses = task.loss(W, b, task.sample(batch_size, generator))
        if step in kept:
            history.append((step, W.detach().clone(), losses.detach()))
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
    with torch.no_grad():
        losses = torch.stack([task.loss(W, b, task.sample(batch_size, generator)) for _ in range(64)]).mean(0)
    return Trained(W.detach(), b.detach(), losses, history)


def _best(trained: Trained, n_seeds: int) -> Tensor:
    """Of instances (cell, seed), flat: the index of each cell's smallest loss."""
    losses = trained.loss.view(-1, n_seeds)
    return losses.argmin(1) + torch.arange(len(losses)) * n_seeds


def _numbers(x: Tensor, digits: int = 4) -> list:
    return np.round(x.double().numpy(), digits).tolist()


def sticky(settings: Settings) -> dict[str, Any]:
    """D of every feature as sparsity grows."""
    task = Task(settings.n, settings.m, torch.tensor(settings.p)[:, None])
    W = train(task, settings.n_steps, settings.batch_size, seed_of("sticky")).W
    norm, D = W.norm(dim=1), dimensionality(W)
    return {
        "n": settings.n,
        "m": settings.m,
        "p": list(settings.p),
        "per_feature": _numbers(per_feature(W)),
        "total_dimensions": _numbers(D.sum(1), 2),
        "represented": (norm > 0.5).sum(1).tolist(),
        "D": [_numbers(d[n > 0.5].sort().values) for d, n in zip(D, norm, strict=True)],
    }


def shared(settings: Settings) -> dict[str, Any]:
    """near: of each p of SHARED, the share of an instance's represented features whose D is within .03 of the expected one."""
    p = torch.tensor(list(SHARED)).repeat_interleave(_SHARED_SEEDS)[:, None]
    task = Task(settings.n, settings.m, p)
    W = train(task, settings.n_steps, settings.batch_size, seed_of("shared")).W
    expected = torch.tensor(list(SHARED.values())).repeat_interleave(_SHARED_SEEDS)[:, None]
    there = W.norm(dim=1) > 0.5
    near = ((dimensionality(W) - expected).abs() < _NEAR) & there
    share = near.sum(1) / there.sum(1).clamp_min(1)
    return {
        "p": list(SHARED),
        "D": list(SHARED.values()),
        "within": _NEAR,
        "near": _numbers(share.view(-1, _SHARED_SEEDS)),
        "represented": there.sum(1).view(-1, _SHARED_SEEDS).tolist(),
    }


def importance(settings: Settings) -> dict[str, Any]:
    """20 features of falling importance in 5 dimensions: how many are kept as sparsity grows.

    close: the same of the instances whose loss is within 5% of the best one's, [least, most]: sparse features have many
    arrangements that are nearly as good.
    """
    n, seeds = 20, settings.importance_seeds
    p = torch.tensor(settings.importance_p).repeat_interleave(seeds)[:, None]
    weight = (settings.importance_decay ** torch.arange(n)).expand(len(p), n)
    found = train(Task(n, 5, p, weight), settings.importance_steps, 1024, seed_of("importance"))
    W = found.W[_best(found, seeds)]
    kept = (found.W.norm(dim=1) > 0.5).sum(1).view(-1, seeds)
    losses = found.loss.view(-1, seeds)
    near = losses <= 1.05 * losses.amin(1, keepdim=True)
    return {
        "p": list(settings.importance_p),
        "represented": (W.norm(dim=1) > 0.5).sum(1).tolist(),
        "close": [[int(k[n].min()), int(k[n].max())] for k, n in zip(kept, near)],
        "norm": _numbers(W.norm(dim=1)),
        "gram": _numbers(W.transpose(1, 2) @ W, 3),
    }


def pentagon(settings: Settings) -> dict[str, Any]:
    """5 features in 2 dimensions over training, several instances.

    largest_jump: of each instance, the largest change of a D between two states of 200, from the first tenth of training on:
    the first steps after random weights are left out.
    """
    task = Task(5, 2, torch.full((settings.pentagon_seeds, 1), 0.05))
    found = train(task, settings.pentagon_steps, 1024, seed_of("pentagon"), record=200)
    steps = [step for step, _, _ in found.history]
    D = torch.stack([dimensionality(W) for _, W, _ in found.history])  # (record, instance, feature)
    losses = torch.stack([loss for _, _, loss in found.history])
    later = D[len(D) // 10 :]
    jumps = (later[1:] - later[:-1]).abs().amax((0, 2))
    return {
        "p": 0.05,
        "D": _numbers(dimensionality(found.W)),
        "loss": _numbers(found.loss, 6),
        "W": _numbers(found.W),
        "steps": steps,
        "D_over_training": _numbers(D[:, int(found.loss.argmin())]),  # of the best instance
        "loss_over_training": _numbers(losses[:, :10], 6),
        "largest_jump": _numbers(jumps),
    }


def phase(settings: Settings) -> dict[str, Any]:
    """Two features in one dimension: the winner by theory and by training, over sparsity and relative importance."""
    p_axis = torch.logspace(-2, 0, settings.grid)
    i_axis = torch.logspace(-1, 1, settings.grid)
    p, weight = (t.flatten() for t in torch.meshgrid(p_axis, i_axis, indexing="ij"))
    theory = phase_losses(p, weight)
    ordered = theory.sort(0).values
    clear = (ordered[1] - ordered[0]) / ordered[0] > 0.1
    seeds = settings.grid_seeds
    weights = torch.stack([torch.ones_like(weight), weight], dim=1).repeat_interleave(seeds, 0)
    task = Task(2, 1, p.repeat_interleave(seeds)[:, None], weights)
    found = train(task, settings.grid_steps, 512, seed_of("phase"), lr=2e-2)
    best = _best(found, seeds)
    won = classify(found.W[best])
    agree = won == theory.argmin(0)
    shape = (settings.grid, settings.grid)
    return {
        "p": _numbers(p_axis, 5),
        "importance": _numbers(i_axis, 5),
        "theory": theory.argmin(0).view(shape).tolist(),
        "trained": won.view(shape).tolist(),
        "clear": clear.view(shape).tolist(),
        "agreement": round(float(agree[clear].double().mean()), 4),
        "agreement_all": round(float(agree.double().mean()), 4),
        "n_clear": int(clear.sum()),
    }


def pairs(settings: Settings) -> dict[str, Any]:
    """4 features in 2 dimensions, in two pairs: the cosine within a pair when its features come together, or never do.

    The best of `tries` instances each time: which features become opposites is settled early, by where they start, and
    about two of three instances end in an arrangement that is not the best (measured: a loss of .0015 against 0).
    """
    rows, tries = {}, 12
    for together in ("independent", "correlated", "anticorrelated"):
        task = Task(4, 2, torch.full((tries * settings.pair_seeds, 1), settings.pair_p), together=together)
        found = train(task, settings.pair_steps, 256, seed_of("pairs", together))
        best = _best(found, tries)
        unit = found.W / found.W.norm(dim=1, keepdim=True).clamp_min(1e-12)
        cosine = (unit[:, :, 0::2] * unit[:, :, 1::2]).sum(1)
        rows[together] = {
            "cosine": _numbers(cosine[best].flatten()),
            "cosine_of_all": _numbers(cosine.flatten()),
            "W": _numbers(found.W[best[0]]),
        }
    return rows


def inputs(settings: Settings) -> dict[str, Any]:
    return {}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    measured = (sticky, shared, importance, pentagon, phase, pairs)
    return {part.__name__: lambda part=part: part(settings) for part in measured}
