"""Toy models of superposition: n sparse features squeezed into m dimensions and read back through a ReLU.

    x_i = 0 with probability 1 - p, else U[0, 1);  h = W x;  x' = ReLU(Wᵀ h + b);  loss = mean Σ_i I_i (x_i - x'_i)²

Source: Elhage et al. 2022, "Toy Models of Superposition".
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from stores.manifest import seed_of

Probability = Annotated[float, Field(gt=0, le=1)]  # that a feature is active
Together = Literal["independent", "correlated", "anticorrelated"]

# D of the polytopes that features arrange themselves in: m / n of a polytope of n vertices in m dimensions
STICKY = {
    "one dimension each": 1.0,
    "tetrahedron": 3 / 4,
    "triangle": 2 / 3,
    "antipodal pair": 1 / 2,
    "pentagon": 2 / 5,
    "square antiprism": 3 / 8,
}


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
    pentagon_seeds: int = Field(default=10, ge=1)
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


def dimensionality(W: Tensor) -> Tensor:
    """D_i = |W_i|² / Σ_j (Ŵ_i · W_j)², the part of a dimension that feature i has for itself; Σ_i D_i ≈ m.

    W: (n_instances, m, n) → (n_instances, n); 0 for a feature that is not represented.
    """
    norm = W.norm(dim=1)
    unit = W / norm.clamp_min(1e-12)[:, None]
    shared = (unit.transpose(1, 2) @ W).square().sum(-1)
    return norm.square() / shared.clamp_min(1e-12)


def per_feature(W: Tensor) -> Tensor:
    """D* = m / |W|_F², dimensions per feature: (n_instances,)."""
    return W.shape[1] / W.square().sum((1, 2))


def phase_losses(p: Tensor, importance: Tensor) -> Tensor:
    """Losses of the three ways to keep two features in one dimension, (3, …): the first feature alone (importance 1),
    the second alone, both as an antipodal pair without a bias.

    A feature that is left out is predicted by its mean: p/3 - p²/4 is its variance. An antipodal pair errs only when
    both are active, by the smaller: p² E[min²] = p²/6 for each.
    """
    left_out = p / 3 - p.square() / 4
    return torch.stack([importance * left_out, left_out, (1 + importance) * p.square() / 6])


def classify(W: Tensor) -> Tensor:
    """W: (n_instances, 1, 2) → 0: the first feature alone, 1: the second alone, 2: antipodal."""
    first, second = W[:, 0, 0], W[:, 0, 1]
    both = (first * second < 0) & (torch.minimum(first.abs(), second.abs()) > 0.5)
    return torch.where(both, 2, torch.where(first.abs() > second.abs(), 0, 1))


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
    """5 features in 2 dimensions over training, several instances."""
    task = Task(5, 2, torch.full((settings.pentagon_seeds, 1), 0.05))
    found = train(task, settings.pentagon_steps, 1024, seed_of("pentagon"), record=200)
    steps = [step for step, _, _ in found.history]
    D = torch.stack([dimensionality(W) for _, W, _ in found.history])  # (record, instance, feature)
    losses = torch.stack([loss for _, _, loss in found.history])
    jumps = (D[1:] - D[:-1]).abs().amax((0, 2))
    return {
        "p": 0.05,
        "D": _numbers(dimensionality(found.W)),
        "loss": _numbers(found.loss, 6),
        "W": _numbers(found.W),
        "steps": steps,
        "D_over_training": _numbers(D),
        "loss_over_training": _numbers(losses, 6),
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
    return {part.__name__: lambda part=part: part(settings) for part in (sticky, importance, pentagon, phase, pairs)}


def page(numbers: Mapping[str, Any]) -> Any:
    from pipeline.toy.page import Page

    return Page(
        "Toy models of superposition",
        "A linear map into m dimensions, a ReLU on the way back, n sparse features: when features are rarely active the "
        "model keeps more of them than it has dimensions, and arranges them in regular polytopes. "
        "Source: Elhage et al. 2022.",
        [
            _sticky_section(numbers["sticky"]),
            _pentagon_section(numbers["pentagon"]),
            _importance_section(numbers["importance"]),
            _phase_section(numbers["phase"]),
            _pairs_section(numbers["pairs"]),
        ],
    )


def _sticky_section(found: dict[str, Any]) -> Any:
    from pipeline.toy import pictures
    from pipeline.toy.page import Section, Table

    figure, axis = pictures.axes(1, 1, 9, 4)
    for name, value in STICKY.items():
        axis.axhline(value, color="#cccccc", lw=1, zorder=0)
        axis.annotate(name, (1, value), xycoords=("axes fraction", "data"), fontsize=7, va="center", color="#666666")
    for p, D in zip(found["p"], found["D"]):
        jitter = np.linspace(-0.06, 0.06, len(D)) if D else []
        axis.scatter(np.exp(np.log(1 / p) + jitter), D, s=5, color=pictures.COLOURS[0], alpha=0.5, lw=0)
    axis.plot([1 / p for p in found["p"]], found["per_feature"], color=pictures.COLOURS[1], lw=1, label="D* = m / |W|²")
    axis.set(
        xscale="log", xlabel="1 / p, one over the probability that a feature is active", ylabel="D", ylim=(0, 1.05)
    )
    axis.set_xticks([1, 2, 5, 10, 20, 30], ["1", "2", "5", "10", "20", "30"])
    axis.minorticks_off()
    axis.legend(frameon=False, loc="upper center")
    rows = [
        [f"{p:g}", star, n, float(np.median(D)) if D else None, D[0] if D else None, D[-1] if D else None, total]
        for p, star, n, D, total in zip(
            found["p"], found["per_feature"], found["represented"], found["D"], found["total_dimensions"]
        )
    ]
    return Section(
        f"Dimensions per feature, {found['n']} features in {found['m']} dimensions",
        "Each point is a feature with norm above 1/2, placed at its dimensionality D: the share of a dimension that it has "
        "for itself. Dense features of equal importance are all kept a little and "
        "none by itself. As they become rarer, features appear in opposite pairs, D = 1/2, and stay so over a range of p; "
        "then D falls through the values of other polytopes (grey lines), several of them beside one another.",
        [Table(["p", "D*", "represented", "median D", "least", "greatest", "Σ D"], rows)],
        {"sticky": (figure, "D of every represented feature against sparsity; lines: polytopes.")},
    )


def _pentagon_section(found: dict[str, Any]) -> Any:
    from pipeline.toy import pictures
    from pipeline.toy.page import Section

    best = int(np.argmin(found["loss"]))
    figure, (left, middle, right) = pictures.axes(1, 3, 10, 3.1)
    W = np.array(found["W"][best])
    for x, y in W.T:
        left.plot([0, x], [0, y], color=pictures.COLOURS[0], marker="o", ms=4, markevery=[1])
    left.set(aspect="equal", xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), title="columns of W, best instance")
    D = np.array(found["D_over_training"])[:, best]
    middle.plot(found["steps"], D, lw=1.2)
    middle.axhline(0.4, color="#cccccc", zorder=0)
    middle.set(xlabel="step", ylabel="D", ylim=(0, 1.05), title="its features over training")
    for i, losses in enumerate(np.array(found["loss_over_training"]).T):
        smooth = np.convolve(losses, np.ones(5) / 5, mode="valid")
        right.plot(found["steps"][2:-2], smooth, lw=0.8, color=pictures.COLOURS[i % 8])
    right.set(yscale="log", xlabel="step", ylabel="loss", title="loss of every instance")
    D_last = np.array(found["D"])
    good = int((abs(D_last - 0.4) < 0.01).all(1).sum())
    return Section(
        "Five features in two dimensions, over training",
        f"At p = {found['p']} the best arrangement is a pentagon, every D = 2/5; {good} of {len(D_last)} instances end in it "
        f"(D of the best: {D_last[best].min():.3f} to {D_last[best].max():.3f}). Training gets there in jumps: features keep "
        "a whole dimension or share one in pairs for a while, then the geometry changes within a few steps, and the loss "
        "drops with it.",
        figures={"pentagon": (figure, "The pentagon, and how training finds it.")},
    )


def _importance_section(found: dict[str, Any]) -> Any:
    from pipeline.toy import pictures
    from pipeline.toy.page import Section, Table

    n = len(found["p"])
    figure, axes = pictures.axes(2, n, 10, 4)
    for j, p in enumerate(found["p"]):
        axes[0][j].imshow(np.array(found["gram"][j]), cmap="RdBu", vmin=-1, vmax=1)
        axes[0][j].set(title=f"p = {p:g}", xticks=[], yticks=[])
        axes[1][j].bar(range(len(found["norm"][j])), found["norm"][j], color=pictures.COLOURS[0])
        axes[1][j].axhline(0.5, color="#999999", lw=0.8)
        axes[1][j].set(ylim=(0, 1.3), xlabel="feature")
    axes[0][0].set_ylabel("WᵀW")
    axes[1][0].set_ylabel("|W_i|")
    return Section(
        "Twenty features of falling importance in five dimensions",
        "Importance falls as 0.7^i. Dense features: the five most important have a dimension each, as in PCA. Sparse ones: "
        "more are kept, at the price of interference (colours off the diagonal).",
        [
            Table(
                ["p", "features with norm > 1/2", "of those within 5% of its loss"],
                [
                    [f"{p:g}", k, f"{least} to {most}" if least < most else str(most)]
                    for p, k, (least, most) in zip(found["p"], found["represented"], found["close"], strict=True)
                ],
            )
        ],
        {"importance": (figure, "WᵀW and the norms of the features, from dense to sparse.")},
    )


def _phase_section(found: dict[str, Any]) -> Any:
    from matplotlib.colors import ListedColormap

    from pipeline.toy import pictures
    from pipeline.toy.page import Section

    figure, (left, right) = pictures.axes(1, 2, 9, 3.8)
    colours = ListedColormap([pictures.COLOURS[5], pictures.COLOURS[4], pictures.COLOURS[2]])
    p, weight = np.array(found["p"]), np.array(found["importance"])
    for axis, key in ((left, "theory"), (right, "trained")):
        axis.pcolormesh(weight, p, np.array(found[key]), cmap=colours, vmin=0, vmax=2, shading="nearest")
        curve = weight[weight <= 1]
        axis.plot(curve, 4 * curve / (2 + 5 * curve), color="black", lw=1)
        axis.set(xscale="log", yscale="log", xlabel="importance of the second feature", title=key, ylim=(p[0], p[-1]))
    left.set_ylabel("p")
    unclear = ~np.array(found["clear"])
    rows, columns = np.nonzero(unclear)
    right.scatter(weight[columns], p[rows], marker="x", s=10, color="black", lw=0.7)
    for i, name in enumerate(("first alone", "second alone", "antipodal pair")):
        left.scatter([], [], marker="s", color=colours(i / 2), label=name)
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return Section(
        "Two features in one dimension: theory against training",
        "Three ways to use one dimension, and their losses in closed form: keep the first, loss I (p/3 - p²/4); keep the "
        "second, p/3 - p²/4; keep both as opposites, (1 + I) p²/6. Up to I = 1 the pair wins below p = 4I / (2 + 5I), the "
        f"black line. The best of several trained instances agrees in {found['agreement']:.0%} of the {found['n_clear']} cells "
        f"where the two best losses differ by more than a tenth ({found['agreement_all']:.0%} of all; crosses: too close to "
        "call).",
        figures={"phase": (figure, "What wins, by theory (left) and by training (right).")},
    )


def _pairs_section(found: dict[str, Any]) -> Any:
    from pipeline.toy import pictures
    from pipeline.toy.page import Section, Table

    figure, axes = pictures.axes(2, 3, 9, 4.6)
    rows = []
    for j, (name, row) in enumerate(found.items()):
        for i, (x, y) in enumerate(np.array(row["W"]).T):
            axes[0][j].plot([0, x], [0, y], color=pictures.COLOURS[i // 2], marker="o", ms=4, markevery=[1])
        axes[0][j].set(aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), title=name, xticks=[], yticks=[])
        cosine = np.array(row["cosine"])
        axes[1][j].hist(cosine, bins=np.linspace(-1.05, 1.05, 22), color=pictures.COLOURS[6])
        axes[1][j].set(xlabel="cosine within a pair", xlim=(-1.1, 1.1))
        every = np.array(row["cosine_of_all"])
        rows.append([name, *(float(x.mean()) for x in (abs(cosine) < 0.2, cosine < -0.8, every < -0.8))])
    axes[1][0].set_ylabel("pairs")
    return Section(
        "Features that come together, and features that exclude each other",
        "Four features in two dimensions, in two pairs (colours), the best of twelve instances each time. Features that are "
        "always active together become "
        "orthogonal, so that neither disturbs the other; features that are never active together become opposites, at no "
        "loss at all. The last column says how many of all instances' pairs get there: most stay in the arrangement that "
        "they began near.",
        [Table(["pairs are", "orthogonal (|cos| < .2)", "antipodal (cos < -.8)", "antipodal, all instances"], rows)],
        {"pairs": (figure, "One instance of each kind, and the cosine within all pairs.")},
    )
