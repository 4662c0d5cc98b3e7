"""How few axes of a hidden layer decide what the net says: all but n coordinates are cut, and the net goes on from there."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from pipeline.toy.images import Images
from pipeline.toy.mnist_rotation.net import Net
from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.several import Subject, eye, solved, solver, subjects
from pipeline.toy.mnist_rotation.training import Regime
from pipeline.train.rotations.measures import mean_svd
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import chain, equal_inputs, rotated
from stores.manifest import seed_of

BASES = ("neurons", "random", "in turn", "for itself", "mean Jacobian")
FILLS = ("mean", "zero")  # what a coordinate is set to that is cut: its mean over training inputs, or 0
CHOICES = ("axes", "input")  # the same axes for all inputs, or of each input its own
SHOWN = ("axes", "mean")  # whose curves are drawn
FEWER_THAN = 20  # the discussion of Baker 2022
LOSS = 0.01  # of accuracy


def counts(d: int) -> list[int]:
    """How many of d coordinates are kept: each number to 24, then every fourth, and all."""
    return sorted({n for n in (*range(1, 25), *range(28, d, 4), d) if n <= d})


def bases(settings: Settings, s: Subject, k: int) -> dict[str, tuple[Tensor, Tensor]]:
    """By name, R_1 and R_2: the axes that the middle layer reads, and those that it writes."""
    d = settings.width
    turn = chain(s.fit[:2], solver(settings), n_polish=settings.small_polish)
    by_mean = mean_svd(s.fit[1])
    draws = [random_rotation(d, seed_of("few", side, k)) for side in ("in", "out")]
    return {
        "neurons": (eye(d), eye(d)),
        "random": (draws[0], draws[1]),
        "in turn": (turn[1], turn[2]),
        "for itself": solved(settings, s.fit[1], "both"),
        "mean Jacobian": (by_mean[0], by_mean[1]),
    }


def masses(s: Subject, R_1: Tensor, R_2: Tensor) -> tuple[Tensor, Tensor]:
    """The middle layer's mean square Jacobian by input axis and by output axis, fitted inputs; each sums up to 1."""
    squares = rotated(equal_inputs(s.fit[1]), R_1, R_2).double().square().mean(0)
    return squares.sum(0) / squares.sum(), squares.sum(1) / squares.sum()


@torch.no_grad()
def cut(h: Tensor, R: Tensor, mass: Tensor, n: int, fill: Tensor, choice: str) -> Tensor:
    """h (batch, d) with n of its coordinates R h kept and the others set to fill (d,).

    choice "axes": those of the largest mass; "input": of each input those that are farthest from fill.
    """
    c = h @ R.T
    score = mass.expand_as(c) if choice == "axes" else (c - fill).abs()
    kept = torch.zeros_like(c, dtype=torch.bool).scatter_(1, score.topk(n, dim=1).indices, True)
    return torch.where(kept, c, fill) @ R


@torch.no_grad()
def effect(net: Net, h: Tensor, site: int, logits: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Of hidden layer `site` (1 or 2) in the place of the net's own: accuracy, share of predictions that stay, and
    KL(of the net, of the cut one), nats, mean over inputs."""
    for i in range(site, net.n_layers):
        h = net.layer(i, h)
    p, q = logits.log_softmax(1), h.log_softmax(1)
    kl = (p.exp() * (p - q)).sum(1).mean()
    predicted = h.argmax(1)
    return (
        float((predicted == y).double().mean()),
        float((predicted == logits.argmax(1)).double().mean()),
        float(kl),
    )


def few(settings: Settings) -> dict[str, Any]:
    """By basis "site, basis", site "read" (what the middle layer reads, hidden layer 1) or "written".

    n: how many are kept, counts(); curves: accuracy, same, kl (n,), means over nets, for SHOWN. needed: for SHOWN, the fewest
    with which no more than LOSS of the accuracy is lost, whatever larger number is kept. mass: share of the middle layer's
    squared Jacobian on its 19 largest axes. at: by "site, basis, choice, fill", accuracy, same, kl of 19 coordinates. full:
    accuracy of nothing cut. Lists over nets.
    """
    images, nets = subjects(settings, settings.few_nets, Regime(settings.width, n_steps=settings.small_steps))
    d, kept = settings.width, counts(settings.width)
    most = min(FEWER_THAN - 1, d)
    curves: dict[str, list[Tensor]] = {}
    at: dict[str, dict[str, list[float]]] = {}
    mass: dict[str, list[float]] = {}
    needed: dict[str, list[int]] = {}
    full = []
    for k, s in enumerate(nets):
        hidden = s.net.hidden(images.test_x)
        before = [h.double().mean(0) for h in s.net.hidden(images.train_x)]
        full.append(float((hidden[-1].argmax(1) == images.test_y).double().mean()))
        for name, R in bases(settings, s, k).items():
            by_axis = masses(s, *R)
            for site, word in ((1, "read"), (2, "written")):
                share = by_axis[site - 1]
                mass.setdefault(f"{word}, {name}", []).append(float(share.topk(most).values.sum()))
                for choice, fill in product(CHOICES, FILLS):
                    case, drawn = f"{word}, {name}, {choice}, {fill}", (choice, fill) == SHOWN
                    mean = R[site - 1] @ before[site] if fill == "mean" else torch.zeros(d).double()
                    tried = kept if drawn else [most]
                    course = _course(s.net, hidden, images, site, R[site - 1], share, mean, choice, tried)
                    found = at.setdefault(case, {"accuracy": [], "same": [], "kl": []})
                    for key, value in zip(found, course[tried.index(most)].tolist()):
                        found[key].append(round(value, 5))
                    if drawn:
                        curves.setdefault(f"{word}, {name}", []).append(course)
                        needed.setdefault(f"{word}, {name}", []).append(_needed(course[:, 0], full[-1] - LOSS, kept))
    means = {case: torch.stack(found).mean(0).T for case, found in curves.items()}
    return {
        "n": kept,
        "kept": most,
        "full": full,
        "curves": {
            case: dict(
                zip(("accuracy", "same", "kl"), [[round(v, 5) for v in row] for row in rows.tolist()], strict=True)
            )
            for case, rows in means.items()
        },
        "at": at,
        "mass": mass,
        "needed": needed,
    }


def _course(
    net: Net,
    hidden: list[Tensor],
    images: Images,
    site: int,
    R: Tensor,
    mass: Tensor,
    fill: Tensor,
    choice: str,
    kept: list[int],
) -> Tensor:
    """effect() with each number of coordinates kept, (n_counts, 3)."""
    R32, mass32, fill32 = R.float(), mass.float(), fill.float()
    rows = []
    for n in kept:
        h = cut(hidden[site], R32, mass32, n, fill32, choice)
        rows.append(effect(net, h, site, hidden[-1], images.test_y))
    return torch.tensor(rows, dtype=torch.float64)


def _needed(accuracies: Tensor, least: float, kept: list[int]) -> int:
    """The smallest of the counts from which on no accuracy is below `least`. With all kept none is."""
    bad = torch.nonzero(accuracies[:-1] < least - 1e-9)
    return kept[int(bad[-1]) + 1] if len(bad) else kept[0]
