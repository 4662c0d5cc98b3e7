"""Adversarial steps: which boundaries they cross, beside random steps of the same length, and steps back.

Source: Black et al. 2022, discussion: some perturbations of small norm "happen to be in directions that cross lots of
polytope boundaries".
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.toy.polytopes.boundaries import flips
from pipeline.toy.polytopes.nets import NetSettings, ReluNets, trained, unseen
from stores.manifest import seed_of

_PATH_STEPS = 20  # that a perturbation's path is cut into


def attack(nets: ReluNets, x: Tensor, y: Tensor, norm: float, n_steps: int) -> Tensor:
    """The step of length `norm` that raises the cross-entropy, found by projected gradient ascent with normalised steps.

    x (n, batch, d_in), y (n, batch) → (n, batch, d_in), of L2 norm `norm`; 0 where there is no gradient. Pixels may leave
    [0, 1], for random steps do so too. Source: Madry et al. 2018.
    """
    delta = torch.zeros_like(x)
    for _ in range(n_steps):
        delta.requires_grad_()
        loss = nn.functional.cross_entropy(nets(x + delta).flatten(0, 1), y.flatten(), reduction="sum")
        (slope,) = torch.autograd.grad(loss, delta)
        # A digit that is read with all certainty has a gradient of 1e-20: it is scaled up before it is normalised.
        slope = slope / slope.abs().amax(2, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        delta = delta.detach() + 2.5 * norm / n_steps * nn.functional.normalize(slope, dim=2)
        delta = delta * (norm / delta.norm(dim=2, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
    return norm * nn.functional.normalize(delta, dim=2)


def adversarial(settings: NetSettings) -> dict[str, Any]:
    """Boundaries crossed by steps of one L2 norm from test digits that each net reads rightly, by layer.

    back: the adversarial step with the opposite sign; to a digit: towards another test digit. Of each norm and direction:
    crossed (n_nets), by_layer (layers), wrong (n_nets): share of the answers that are wrong after it, turned (n_nets):
    mean cosine between what the last hidden layer is before and after. Of each norm, outwards (n_nets): |x + step| / |x|;
    distance (n_nets): |x| of the digits whose answer the attack changes, over those whose answer stays; null where there
    are none of either.
    """
    nets = trained(settings)
    x, y = unseen(settings)
    generator = torch.Generator().manual_seed(seed_of("attacked"))
    with torch.no_grad():
        right = (nets(x).argmax(2) == y).float()
    rows = torch.multinomial(right, settings.n_attacked, replacement=True, generator=generator)
    x, y = x[rows], y[rows]
    found: dict[str, Any] = {"norms": list(settings.norms), "typical": float(x.norm(dim=2).mean()), "steps": []}
    for norm in settings.norms:
        step = attack(nets, x, y, norm, settings.attack_steps)
        others = x.roll(1, dims=1) - x
        others = torch.where(others.any(2, keepdim=True), others, torch.randn(x.shape, generator=generator))
        random = torch.randn(x.shape, generator=generator)
        directions = {
            "adversarial": step,
            "random": norm * nn.functional.normalize(random, dim=2),
            "back": -step,
            "to a digit": norm * nn.functional.normalize(others, dim=2),
        }
        row: dict[str, Any] = {name: _walked(nets, x, y, delta) for name, delta in directions.items()}
        with torch.no_grad():
            changed = nets(x + step).argmax(2) != y
        row["outwards"] = ((x + step).norm(dim=2) / x.norm(dim=2)).mean(1).tolist()
        row["distance"] = [_ratio(own.norm(dim=1), c) for own, c in zip(x, changed, strict=True)]
        found["steps"].append(row)
    return found


@torch.no_grad()
def _walked(nets: ReluNets, x: Tensor, y: Tensor, delta: Tensor) -> dict[str, Any]:
    crossed = flips(nets, x, x + delta, _PATH_STEPS).sum(2).double()
    before, after = nets.pre_activations(x), nets.pre_activations(x + delta)
    cosine = nn.functional.cosine_similarity(before[-2].relu(), after[-2].relu(), dim=2)
    return {
        "crossed": crossed.sum(2).mean(1).tolist(),
        "by_layer": crossed.mean((0, 1)).tolist(),
        "wrong": (after[-1].argmax(2) != y).double().mean(1).tolist(),
        "turned": cosine.mean(1).tolist(),
    }


def _ratio(values: Tensor, chosen: Tensor) -> float | None:
    return float(values[chosen].mean() / values[~chosen].mean()) if chosen.any() and not chosen.all() else None
